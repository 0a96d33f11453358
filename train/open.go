package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/veratune/veratune/internal/durable"
)

// open checks the whole request, makes or opens the run directory, and restores the state to begin with.
func (r *Run) open() (*loop, error) {
	if err := r.validate(); err != nil {
		return nil, err
	}
	settings := r.settings()
	if _, err := json.Marshal(settings); err != nil {
		return nil, fmt.Errorf("settings of the run: %w", err)
	}
	var group Group = soloGroup{}
	if r.Group != nil {
		group = r.Group
	}
	if group.Rank() == 0 {
		if err := CheckFolder(r.Folder, r.Resume, r.Force, r.Inputs...); err != nil {
			return nil, err
		}
	}
	l := &loop{
		Run:      r,
		settings: settings,
		batching: newBatching(r.Config, r.Training.Batches()),
		unsaved:  true,
		trainer:  newTrainer(r.Engine, r.Params, r.Config, r.Parts, group),
	}
	l.position.Seed = r.Config.Seed
	l.progress = newProgress(r.Progress, l.batching.total)
	if r.MaxSteps > 0 {
		l.progress.last = min(r.MaxSteps, l.batching.total)
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
	// After this the folder holds a run, which only resume goes on with.
	if err := l.settings.write(l.folder.join(ConfigFile)); err != nil {
		return err
	}
	if err := l.keepOptions(); err != nil {
		return err
	}
	l.metrics, err = openMetrics(l.folder.join(MetricsFile), nil)
	return err
}

// keepOptions writes config.yaml if it is missing: a process may have been killed before it was written.
func (l *loop) keepOptions() error {
	path := l.folder.join(OptionsFile)
	if l.Options == nil || exists(path) {
		return nil
	}
	if err := durable.WriteFile(path, l.Options, 0o666); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return nil
}

// follow leaves the run folder to another process of the group.
func (l *loop) follow() error {
	l.folder = &folder{path: l.Folder}
	return nil
}

// resume goes on from the newest whole checkpoint; a run that was stopped before its first begins again.
func (l *loop) resume() (err error) {
	if l.folder, err = openFolder(l.Folder); err != nil {
		return err
	}
	if err := l.settings.checkSame(l.folder.join(ConfigFile)); err != nil {
		return l.longer(err)
	}
	if err := l.keepOptions(); err != nil {
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
	l.progress.Note("going on after step %d of %d", l.position.Step, l.batching.total)
	if err := l.openMetrics(); err != nil {
		return err
	}
	l.recall()
	return nil
}

// Longer is the error of a run that is resumed with more steps or epochs. The learning rate has fallen by the end of
// the run, so that more steps are another training, which begins with this adapter.
type Longer struct {
	error
	Adapter string // that it would begin with
	Steps   int    // that are asked for beyond that
}

// longer adds to the error of another number of steps how to train on.
func (l *loop) longer(err error) error {
	if !errors.As(err, new(otherLength)) {
		return err
	}
	steps, _ := l.folder.checkpoints()
	if len(steps) == 0 {
		return fmt.Errorf("%w, or train into another folder", err)
	}
	more := l.batching.total - steps[0]
	if more <= 0 {
		return fmt.Errorf("%w; --max-steps ends it earlier", err)
	}
	adapter := filepath.Join(l.folder.checkpoint(steps[0]), AdapterFile)
	newest, sumErr := fileSHA256(adapter)
	if final, err := fileSHA256(l.folder.join(AdapterFile)); err == nil && sumErr == nil && final == newest {
		adapter = l.folder.join(AdapterFile)
	}
	return Longer{fmt.Errorf("%w, or train on, after step %d, with what it has learnt", err, steps[0]), adapter, more}
}

// openMetrics continues the metrics of a resumed run with the lines up to its position.
func (l *loop) openMetrics() error {
	path := l.folder.join(MetricsFile)
	found, err := readIfThere(path)
	var kept []byte
	if err == nil {
		kept, err = readIfThere(filepath.Join(l.folder.checkpoint(l.position.Step), MetricsFile))
	}
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	lines, report := mend(found, kept, l.position)
	if report != "" {
		l.progress.Note("%s: %s", path, report)
	}
	l.metrics, err = openMetrics(path, lines)
	return err
}

// adopt goes on from a state.
func (l *loop) adopt(s *state) error {
	l.position, l.saved, l.unsaved = s.position, s.Step, false
	l.position.upgrade()
	return l.optimizer.adopt(s)
}

// fits fails where a state can't be one of this training.
func (l *loop) fits(s *state) error {
	epoch, first, _ := l.batching.batchesOf(s.Step)
	switch {
	case len(s.params) != len(l.params):
		return fmt.Errorf("it has %d parameters and not %d", len(s.params), len(l.params))
	case s.Step < 0 || s.Step > l.batching.total || s.Seed != l.Config.Seed || s.Epoch != epoch || s.Batch != first:
		return errors.New("it is of another training")
	}
	return nil
}

// recall takes the losses of the steps before into the smoothed loss, and from a run of an older version what its state
// lacks.
func (l *loop) recall() {
	records, _ := ReadRecords(l.metrics.fresh)
	for _, r := range records {
		if r.Loss == nil {
			continue
		}
		l.progress.loss.add(*r.Loss)
		if r.Step == 1 {
			l.position.First = *r.Loss
			l.tellWarmup(r.LR)
		}
	}
}

// tellWarmup says of a run whose first step had a learning rate of 0, as those of older versions, what becomes of its
// warm-up.
func (l *loop) tellWarmup(first float64) {
	if warmup := l.Config.WarmupSteps(l.batching.total); first == 0 && l.position.Step < warmup {
		l.progress.Note("the run was begun by an older version, whose warm-up gave its first step a learning rate of "+
			"0: the rest of its %d steps of warm-up have (step+1)/%[1]d of --lr, one step ahead of what they would "+
			"have had", warmup)
	}
}

func (l *loop) close() {
	if l.metrics != nil {
		l.metrics.file.Close()
	}
	if l.folder != nil {
		l.folder.close()
	}
}
