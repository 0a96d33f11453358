package train

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/veratune/veratune/internal/durable"
)

// open checks the whole request, then makes or opens the run directory and puts the training where it begins.
func (r *Run) open() (*loop, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	settings := r.settings()
	if _, err := json.Marshal(settings); err != nil {
		return nil, fmt.Errorf("settings of the run: %w", err)
	}
	var group Group = alone{}
	if r.Group != nil {
		group = r.Group
	}
	if group.Rank() == 0 {
		if err := CheckFolder(r.Folder, r.Resume, r.Force); err != nil {
			return nil, err
		}
	}
	l := &loop{
		Run:      r,
		settings: settings,
		plan:     newPlan(r.Config, r.Training.Batches()),
		unsaved:  true,
		trainer:  newTrainer(r.Engine, r.Params, r.Config, r.Parts, group),
	}
	l.at.Seed = r.Config.Seed
	l.progress = newProgress(r.Progress, l.plan.total)
	if r.MaxSteps > 0 {
		l.progress.last = min(r.MaxSteps, l.plan.total)
	}
	begin := l.start
	switch {
	case !l.writes():
		begin = l.follow
	case r.Resume:
		begin = l.resume
	}
	err := begin()
	if err == nil {
		err = l.meet()
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (r *Run) validate() error {
	if err := r.Config.Validate(); err != nil {
		return err
	}
	switch {
	case len(r.Params) == 0:
		return errors.New("there is no parameter to train")
	case r.Training.Batches() < 1:
		return errors.New("there is no training data")
	case r.HeldOut != nil && r.HeldOut.Batches() < 1:
		return errors.New("there is no held-out data to evaluate on")
	case r.Config.Patience > 0 && r.HeldOut == nil:
		return errors.New("patience: needs held-out data")
	case r.Samples != nil && r.HeldOut == nil:
		return errors.New("samples: are made when the held-out loss is measured; they need held-out data")
	case r.MaxSteps < 0 || r.MaxTime < 0:
		return fmt.Errorf("max-steps %d, max-time %v: want 0, for no limit, or more", r.MaxSteps, r.MaxTime)
	}
	size := 0
	for _, p := range r.Parts {
		size += p.Size
	}
	if size > len(r.Params) {
		return fmt.Errorf("the parts have %d numbers, and there are %d to train", size, len(r.Params))
	}
	return nil
}

// start begins a new run.
func (l *loop) start() (err error) {
	if l.folder, l.oldRun, err = createFolder(l.Folder); err != nil {
		return err
	}
	if l.oldRun != "" {
		l.progress.Note("the run that was in %s is now in %s", l.Folder, l.oldRun)
	}
	if l.Options != nil {
		if err := durable.WriteFile(l.folder.join(OptionsFile), l.Options, 0o666); err != nil {
			return fmt.Errorf("run folder: %w", err)
		}
	}
	// After this the folder holds a run, which only resume goes on with.
	if err := l.settings.write(l.folder.join(ConfigFile)); err != nil {
		return err
	}
	l.metrics, err = openMetrics(l.folder.join(MetricsFile))
	return err
}

// follow leaves the run folder to another process of the group.
func (l *loop) follow() error {
	l.folder = &folder{path: l.Folder}
	return nil
}

// resume goes on from the newest checkpoint that is whole; a run that was stopped before its first begins again.
func (l *loop) resume() (err error) {
	if l.folder, err = openFolder(l.Folder); err != nil {
		return err
	}
	if err := l.settings.checkSame(l.folder.join(ConfigFile)); err != nil {
		return err
	}
	s, err := l.folder.restore(len(l.params), l.fits, l.progress.Note)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if s != nil {
		if err := l.adopt(s); err != nil {
			return err
		}
	}
	l.progress.Note("going on after step %d of %d", l.at.Step, l.plan.total)
	path := l.folder.join(MetricsFile)
	if err := cutMetrics(path, l.at); err != nil {
		return err
	}
	if l.metrics, err = openMetrics(path); err != nil {
		return err
	}
	return l.recall(path)
}

// adopt goes on from a state.
func (l *loop) adopt(s *state) error {
	l.at, l.saved, l.unsaved = s.position, s.Step, false
	return l.optimizer.adopt(s)
}

// fits fails where a state can't be one of this training.
func (l *loop) fits(s *state) error {
	epoch, first, _ := l.plan.at(s.Step)
	switch {
	case len(s.params) != len(l.params):
		return fmt.Errorf("it has %d parameters and not %d", len(s.params), len(l.params))
	case s.Step < 0 || s.Step > l.plan.total || s.Seed != l.Config.Seed || s.Epoch != epoch || s.Batch != first:
		return errors.New("it is of another training")
	}
	return nil
}

// recall takes the losses of the steps before into the smoothed loss.
func (l *loop) recall(path string) error {
	data, err := durable.ReadFile(path, MaxMetrics)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	points, _ := ReadRecords(data)
	for _, p := range points {
		if p.Loss != nil {
			l.progress.loss.add(*p.Loss)
		}
	}
	return nil
}

func (l *loop) close() {
	if l.metrics != nil {
		l.metrics.file.Close()
	}
	if l.folder != nil {
		l.folder.close()
	}
}
