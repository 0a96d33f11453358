package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"

	"github.com/veratune/veratune/internal/durable"
)

// What the folder of a sweep holds besides its runs, runs/1 and so on.
const (
	SweepFile = "sweep.json" // a Sweeping
	SweepPlot = "sweep.svg"  // the losses of all runs
	SweepBest = "best.yaml"  // the options of the best run
	sweepRuns = "runs"
)

// CheckSweep is CheckFolder for the folder of a sweep.
func CheckSweep(path string, resume, force bool, inputs ...string) error {
	switch {
	case !resume && !isRun(path) && exists(filepath.Join(path, sweepRuns)):
		return fmt.Errorf("sweep folder %s: holds %s, a name that sweeps use, and is no sweep's, so that what is "+
			"there is not gone on with; choose another --out", path, sweepRuns)
	case !resume || force:
		return CheckFolder(path, resume, force, inputs...)
	case !exists(filepath.Join(path, SweepFile)):
		return fmt.Errorf("sweep folder %s: holds no sweep to resume", path)
	}
	return checkWritable(path)
}

// open makes the folder of a new sweep, or reads how far the one in it has come.
func (s *Sweep) open() (f *folder, now *Sweeping, err error) {
	now = &Sweeping{Setup: s.Setup, Rungs: rungs(len(s.Trials), s.Whole)}
	for i, options := range s.Trials {
		now.Trials = append(now.Trials,
			&Standing{Trial: i, Options: options, Run: filepath.Join(s.Folder, sweepRuns, fmt.Sprint(i+1))})
	}
	if s.Resume {
		if f, err = openFolder(s.Folder); err != nil {
			return nil, nil, err
		}
		return f, now, now.recall(f)
	}
	f, moved, err := createFolder(s.Folder)
	if err != nil {
		return nil, nil, err
	}
	if moved != "" {
		fmt.Fprintf(s.Progress, "the sweep that was in %s is now in %s\n", s.Folder, moved)
	}
	return f, now, s.save(now, f)
}

// recall takes over what the folder's sweep has measured. It fails where that is another sweep than this one.
func (now *Sweeping) recall(f *folder) error {
	data, err := durable.ReadFile(f.join(SweepFile), MaxConfig)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	var was Sweeping
	if err := json.Unmarshal(data, &was); err != nil {
		return fmt.Errorf("resume: %s: %w", f.join(SweepFile), err)
	}
	setup, err := json.Marshal(now.Setup)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	before, err := json.Marshal(was.Setup)
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	list, err := differences(before, setup)
	if err != nil {
		return fmt.Errorf("resume: %s: %w", f.join(SweepFile), err)
	}
	var others []string
	if len(list) > 0 {
		others = append(others, words(list))
	}
	if len(was.Trials) != len(now.Trials) {
		others = append(others, fmt.Sprintf("it had %d trials and not %d", len(was.Trials), len(now.Trials)))
	} else if !slices.EqualFunc(now.Trials, was.Trials, func(a, b *Standing) bool {
		return b != nil && reflect.DeepEqual(a.Options, b.Options)
	}) {
		others = append(others, "it tried other options")
	}
	if !slices.Equal(now.Rungs, was.Rungs) {
		others = append(others, fmt.Sprintf("it compared after the parts %v of the steps and not %v", was.Rungs,
			now.Rungs))
	}
	if len(others) > 0 {
		return fmt.Errorf("resume: the sweep was started otherwise: %s; resume it with what it was started with, or "+
			"sweep into another folder", strings.Join(others, "; "))
	}
	for i, t := range was.Trials {
		now.Trials[i].Before, now.Trials[i].Rungs, now.Trials[i].Diverged = t.Before, t.Rungs, t.Diverged
	}
	return nil
}

// save brings the file and the plot up to date. A sweep is worth more than its picture, so that a failure there is told
// and no more.
func (s *Sweep) save(now *Sweeping, f *folder) error {
	if err := f.check(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(now, "", "  ")
	if err == nil {
		err = durable.WriteFile(f.join(SweepFile), append(data, '\n'), 0o666)
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	if err := now.plot(f.join(SweepPlot)); err != nil {
		fmt.Fprintf(s.Progress, "warning: plot: %v\n", err)
	}
	return nil
}

// plot draws the held-out losses of all runs, and nothing before the first of them.
func (now *Sweeping) plot(path string) (err error) {
	picture, drawn := newChart(), false
	for i, t := range now.Trials {
		if t.Before == nil {
			continue
		}
		var losses Losses
		for _, e := range append([]Evaluation{*t.Before}, t.Rungs...) {
			losses.Add(Record{Step: e.Step, EvalLoss: &e.Loss})
		}
		err = errors.Join(err, draw(picture, t.Name(), losses.HeldOut, plotutil.DarkColors[i%len(plotutil.DarkColors)],
			vg.Points(1.3), true))
		drawn = true
	}
	if err != nil || !drawn {
		return err
	}
	data, err := encode(picture, "svg")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o666)
}
