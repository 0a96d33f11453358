package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

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
	if err := CheckFolder(r.Folder, r.Resume, r.Force); err != nil {
		return nil, err
	}
	l := &loop{
		Run:      r,
		settings: settings,
		plan:     newPlan(r.Config, r.Training.Batches()),
		unsaved:  true,
		trainer: trainer{
			engine: r.Engine, params: r.Params, grad: make([]float32, len(r.Params)),
			optimizer: NewAdamW(len(r.Params), r.Config), clip: r.Config.Clip,
		},
	}
	l.at.Seed = r.Config.Seed
	l.progress = newProgress(r.Progress, l.plan.total)
	if r.MaxSteps > 0 {
		l.progress.last = min(r.MaxSteps, l.plan.total)
	}
	begin := l.start
	if r.Resume {
		begin = l.resume
	}
	if err := begin(); err != nil {
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
	case r.MaxSteps < 0 || r.MaxTime < 0:
		return fmt.Errorf("max-steps %d, max-time %v: want 0, for no limit, or more", r.MaxSteps, r.MaxTime)
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

// resume goes on from the newest checkpoint that is whole; a run that was stopped before its first begins again.
func (l *loop) resume() (err error) {
	if l.folder, err = openFolder(l.Folder); err != nil {
		return err
	}
	if err := l.settings.checkSame(l.folder.join(ConfigFile)); err != nil {
		return err
	}
	s, err := l.folder.restore(l.fits, l.progress.Note)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if s != nil {
		l.at, l.unsaved = s.position, false
		copy(l.params, s.params)
		l.optimizer.M, l.optimizer.V, l.optimizer.Updates = s.m, s.v, s.Step
		if err := l.engine.Update(); err != nil {
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
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	points, _ := readMetrics(data)
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
