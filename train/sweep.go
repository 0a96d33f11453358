package train

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Each rung has halvingFactor times the steps of the one before, and as many times fewer trials, at least finalists.
const (
	halvingFactor = 2
	finalists     = 2
)

// Sweep compares trainings by successive halving (Jamieson and Talwalkar, arXiv 1502.07943): all are trained for a part
// of their steps, then those with the lower held-out loss for twice that, until the last two reach the end. A training
// continues from its checkpoint, and its learning rate is that of all its steps: the result is what it would have been
// alone.
type Sweep struct {
	Folder string
	Trials []map[string]string // the options by which the trainings differ
	Whole  bool                // trains all of them to the end
	Setup  any                 // what they have in common: a sweep is resumed only where it is equal

	// Train trains trial i in its run folder up to a part of its steps, from where it was, and no longer than left,
	// which is 0 for no limit.
	Train func(ctx context.Context, i int, folder string, part float64, left time.Duration) (Result, error)

	MaxTime  time.Duration // after which it is halted, to be resumed; 0 is no limit
	Resume   bool
	Force    bool
	Inputs   []string  // files that are read; Force never renames a folder that they are in
	Progress io.Writer // gets a line for each training; must not be nil
}

// Sweeping is how far a sweep has come, and the content of its file.
type Sweeping struct {
	Setup  any         `json:"setup"`
	Rungs  []float64   `json:"rungs"` // parts of the steps after which trials are compared
	Trials []*Standing `json:"trials"`
	Best   *Standing   `json:"best"`           // nil before the end, and where there is no single one
	Tied   []*Standing `json:"tied,omitempty"` // at the end, those of the lowest loss, where several have it
	Halted bool        `json:"-"`              // by MaxTime
}

// Standing is how far a trial has come.
type Standing struct {
	Trial    int               `json:"-"` // its place in Sweep.Trials
	Options  map[string]string `json:"options"`
	Run      string            `json:"run"`    // its folder
	Before   *Evaluation       `json:"before"` // of the held-out data
	Rungs    []Evaluation      `json:"rungs"`  // at the end of each that it reached
	Diverged bool              `json:"diverged,omitempty"`
}

// Name lists a trial's options.
func (s *Standing) Name() string {
	words := make([]string, 0, len(s.Options))
	for name, value := range s.Options {
		words = append(words, name+" "+value)
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// rungs are the parts of the steps to which n trials are trained before half of them are dropped.
func rungs(n int, whole bool) []float64 {
	parts := []float64{1}
	for ; n > finalists && !whole; n = survivors(n) {
		parts = append(parts, parts[len(parts)-1]/halvingFactor)
	}
	slices.Reverse(parts)
	return parts
}

func survivors(n int) int { return (n + halvingFactor - 1) / halvingFactor }

// Run makes the sweep, or goes on with it, until its end, MaxTime, or the cancellation of ctx, which is an error that
// is ErrInterrupted.
func (s *Sweep) Run(ctx context.Context) (*Sweeping, error) {
	if len(s.Trials) == 0 {
		return nil, errors.New("sweep: there is nothing to try")
	}
	if err := CheckSweep(s.Folder, s.Resume, s.Force, s.Inputs...); err != nil {
		return nil, err
	}
	f, now, err := s.open()
	if f != nil {
		defer f.close()
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	racing := now.Trials
	for rung, part := range now.Rungs {
		for i, t := range racing {
			if len(t.Rungs) > rung || t.Diverged {
				continue
			}
			left := s.MaxTime - time.Since(began)
			if now.Halted = s.MaxTime > 0 && left <= 0; now.Halted {
				return now, nil
			}
			if err := f.check(); err != nil {
				return now, err
			}
			fmt.Fprintf(s.Progress, "%s (%d of %d, to %.3g%% of the steps)\n", t.Name(), i+1, len(racing), 100*part)
			if now.Halted, err = s.advance(ctx, t, part, max(0, left)); err != nil || now.Halted {
				return now, err
			}
			if err := s.save(now, f); err != nil {
				return now, err
			}
		}
		kept := max(finalists, survivors(len(racing)))
		if racing = ranked(racing, rung); len(racing) == 0 {
			return now, fmt.Errorf("sweep: %w, whatever was tried; begin anew with lower --lr, or a --clip such as 1",
				ErrDiverged)
		}
		if part < 1 {
			racing = racing[:min(kept, len(racing))]
		}
	}
	now.decide(racing, len(now.Rungs)-1)
	return now, s.save(now, f)
}

// advance trains a trial to the end of a rung.
func (s *Sweep) advance(ctx context.Context, t *Standing, part float64, left time.Duration) (halted bool, err error) {
	result, err := s.Train(ctx, t.Trial, t.Run, part, left)
	switch {
	case errors.Is(err, ErrDiverged):
		t.Diverged = true
		fmt.Fprintf(s.Progress, "left out: %v\n", err)
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%s: %w", t.Name(), err)
	case result.EndedBy == maxTime:
		return true, nil
	case result.After == nil:
		return false, errors.New("sweep: there is no held-out data to compare on")
	}
	t.Before, t.Rungs = result.Before, append(t.Rungs, *result.After)
	return false, nil
}

// decide names the best of the ranked trials at the end of a rung; none where several have the lowest loss.
func (now *Sweeping) decide(ranked []*Standing, rung int) {
	lowest := ranked[0].Rungs[rung].Loss
	worse := slices.IndexFunc(ranked, func(t *Standing) bool { return t.Rungs[rung].Loss > lowest })
	if worse < 0 {
		worse = len(ranked)
	}
	if now.Best, now.Tied = ranked[0], ranked[:worse]; len(now.Tied) == 1 {
		now.Tied = nil
	} else {
		now.Best = nil
	}
}

// ranked are the trials that reached the end of a rung, by their loss there. Later losses do not count, so that a
// resumed sweep decides as before.
func ranked(list []*Standing, rung int) []*Standing {
	list = slices.DeleteFunc(slices.Clone(list), func(t *Standing) bool { return len(t.Rungs) <= rung })
	slices.SortStableFunc(list, func(a, b *Standing) int { return cmp.Compare(a.Rungs[rung].Loss, b.Rungs[rung].Loss) })
	return list
}

// Ranked are all trials: by the number of rungs that they reached, then by loss.
func (now *Sweeping) Ranked() []*Standing {
	return slices.SortedStableFunc(slices.Values(now.Trials), func(a, b *Standing) int {
		reached := len(a.Rungs)
		if reached != len(b.Rungs) || reached == 0 {
			return cmp.Compare(len(b.Rungs), reached)
		}
		return cmp.Compare(a.Rungs[reached-1].Loss, b.Rungs[reached-1].Loss)
	})
}
