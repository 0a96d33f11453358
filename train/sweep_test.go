package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
)

// diverges has the step, from 0, in which a learning rate's training gives NaN.
var diverges = map[string]int{"1e30": 1, "0.2": 4}

// newSweep tries learning rates of the run of 12 steps; hook is called before each step with its number in the process.
func newSweep(folder string, hook func(call int) error, rates ...string) *Sweep {
	s := &Sweep{Folder: folder, Setup: map[string][]string{"rank": {"4"}}, Progress: io.Discard}
	for _, lr := range rates {
		s.Trials = append(s.Trials, map[string]string{"lr": lr})
	}
	s.Train = func(ctx context.Context, i int, folder string, part float64, left time.Duration) (Result, error) {
		r, engine := newRun(folder)
		lr := s.Trials[i]["lr"]
		r.Config.LR, _ = strconv.ParseFloat(lr, 64)
		r.Config.EvalEvery, r.Config.WeightDecay = Interval{}, 0
		r.MaxSteps, r.MaxTime = int(math.Ceil(part*float64(r.Steps()))), left
		r.Resume = Begun(folder)
		engine.hook = func(call int) error {
			if step, ok := diverges[lr]; ok && slices.Contains(engine.seeds, dropoutSeed(r.Config.Seed, step)) {
				engine.nan = call
			}
			if hook == nil {
				return nil
			}
			return hook(call)
		}
		return r.Train(ctx)
	}
	return s
}

func sweep(t *testing.T, s *Sweep) *Sweeping {
	t.Helper()
	now, err := s.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestRungs(t *testing.T) {
	for n, want := range map[int]string{1: "[1]", 2: "[1]", 3: "[0.5 1]", 4: "[0.5 1]", 5: "[0.25 0.5 1]",
		8: "[0.25 0.5 1]", 9: "[0.125 0.25 0.5 1]"} {
		if got := fmt.Sprint(rungs(n, false)); got != want {
			t.Errorf("%d trials: %s, want %s", n, got, want)
		}
	}
	if got := fmt.Sprint(rungs(9, true)); got != "[1]" {
		t.Errorf("whole: %s", got)
	}
}

// swept are six trials, of which one diverges at once and one among the three that are left after step 3.
var swept = []string{"0.001", "0.3", "1e30", "0.1", "0.03", "0.2"}

// Six trials are trained to step 3, three of them to step 6, two of these to step 12, and what reaches the end is what
// it would have been alone.
func TestSweepHalves(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "sweep")
	now := sweep(t, newSweep(folder, nil, swept...))
	var reached []int
	for _, trial := range now.Trials {
		steps := 0
		for i, e := range trial.Rungs {
			if steps = e.Step; steps != []int{3, 6, 12}[i] {
				t.Errorf("%s: rung %d ended after step %d", trial.Name(), i, steps)
			}
		}
		reached = append(reached, steps)
	}
	if want := []int{3, 12, 0, 12, 3, 3}; !slices.Equal(reached, want) || !now.Trials[2].Diverged ||
		!now.Trials[5].Diverged {
		t.Errorf("trials were trained to steps %v, want %v", reached, want)
	}
	ranked := now.Ranked()
	if len(ranked) != 6 || now.Best != ranked[0] || now.Best.Rungs[2].Loss > ranked[1].Rungs[2].Loss ||
		ranked[1].Rungs[2].Loss > now.Best.Before.Loss {
		t.Errorf("best %+v, ranked %v", now.Best, ranked)
	}

	alone := sweep(t, newSweep(filepath.Join(t.TempDir(), "alone"), nil, now.Best.Options["lr"]))
	for _, name := range []string{AdapterFile, BestFile} {
		got, _ := os.ReadFile(filepath.Join(now.Best.Run, name))
		want, _ := os.ReadFile(filepath.Join(alone.Best.Run, name))
		if got, want = facts.ReplaceAll(got, nil), facts.ReplaceAll(want, nil); !bytes.Equal(got, want) ||
			len(want) == 0 {
			t.Errorf("%s differs from that of the training alone", name)
		}
	}
	for _, name := range []string{SweepFile, SweepPlot} {
		if !exists(filepath.Join(folder, name)) {
			t.Errorf("%s was not written", name)
		}
	}
}

// sweptFiles are what a sweep leaves that must not depend on interruptions, by name. A training that diverged leaves
// what it had saved last.
func sweptFiles(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{checkpointFolder, "3", "6"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		data, err := os.ReadFile(path)
		name := filepath.ToSlash(strings.TrimPrefix(path, folder))
		files[name] = testutil.WithoutFolder(clockReadings.ReplaceAllString(string(data), ""), folder)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Interrupted, or dead, in each of its steps and resumed, or halted by the clock in each, a sweep leaves the same
// files.
func TestSweepResumes(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "sweep")
	sweep(t, newSweep(whole, nil, swept...))
	for name, breakOff := range map[string]func(s *Sweep) error{
		"interrupted": func(s *Sweep) error {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			*s = *newSweep(s.Folder, func(int) error { cancel(); return nil }, swept...)
			s.Resume = exists(filepath.Join(s.Folder, SweepFile))
			_, err := s.Run(ctx)
			return err
		},
		"dead": func(s *Sweep) error {
			// A training that dies goes on from its newest checkpoint, of every third step.
			*s = *newSweep(s.Folder, func(call int) error {
				if call == 4 {
					return errKilled
				}
				return nil
			}, swept...)
			s.Resume = exists(filepath.Join(s.Folder, SweepFile))
			_, err := s.Run(context.Background())
			return err
		},
		"halted": func(s *Sweep) error {
			s.Resume = exists(filepath.Join(s.Folder, SweepFile))
			train := s.Train
			defer func() { s.Train = train }()
			// The clock is the trial's alone: of a sweep without a limit, one step a process.
			s.Train = func(ctx context.Context, i int, folder string, part float64, left time.Duration) (
				Result, error) {
				return train(ctx, i, folder, part, 1)
			}
			now, err := s.Run(context.Background())
			if err == nil && now.Halted {
				err = ErrInterrupted
			}
			return err
		},
	} {
		folder := filepath.Join(t.TempDir(), "sweep")
		s := newSweep(folder, nil, swept...)
		times := 0
		for err := breakOff(s); err != nil; err = breakOff(s) {
			if !errors.Is(err, ErrInterrupted) && !errors.Is(err, errKilled) {
				t.Fatalf("%s: %v", name, err)
			}
			if times++; times > 100 {
				t.Fatalf("%s: it never ends", name)
			}
		}
		if times < 2 {
			t.Errorf("%s: only %d times", name, times)
		}
		got, want := sweptFiles(t, folder), sweptFiles(t, whole)
		if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
			t.Errorf("%s: files %v, want %v", name, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
		}
		if name == "halted" { // each halt measures once more, so that only what was learnt is the same
			for _, files := range []map[string]string{got, want} {
				maps.DeleteFunc(files, func(name, _ string) bool {
					return !strings.HasSuffix(name, AdapterFile) && name != "/"+SweepFile
				})
				for name := range files {
					files[name] = facts.ReplaceAllString(files[name], "")
				}
			}
		}
		checkEqual(t, got, want)
	}
}

func TestSweepIsResumedOnlyAsItWas(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "sweep")
	if _, err := newSweep(folder, func(int) error {
		return errKilled
	}, "0.1", "0.3").Run(context.Background()); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	for want, s := range map[string]*Sweep{
		"2 trials and not 3":       newSweep(folder, nil, "0.1", "0.3", "0.5"),
		`rank was ["4"] and is ["`: newSweep(folder, nil, "0.1", "0.3"),
		"already holds a run":      newSweep(folder, nil, "0.1", "0.3"),
		"holds no sweep to resume": newSweep(t.TempDir(), nil, "0.1", "0.3"),
		"there is nothing to try":  newSweep(t.TempDir(), nil),
		"it tried other options":   newSweep(folder, nil, "0.1", "0.4"),
		"after the parts [1]":      newSweep(folder, nil, "0.1", "0.3", "0.4"),
		"give one of them":         newSweep(folder, nil, "0.1", "0.3"),
	} {
		s.Resume = want != "already holds a run"
		if strings.HasPrefix(want, "rank") {
			s.Setup = map[string][]string{"rank": {"8"}}
		}
		s.Force = want == "give one of them"
		if _, err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	s := newSweep(folder, nil, "0.1", "0.3")
	s.Force = true
	if now := sweep(t, s); now.Best == nil || !exists(filepath.Join(folder+".old-1", SweepFile)) {
		t.Errorf("%+v", now)
	}
}

func TestSweepOfDivergence(t *testing.T) {
	if _, err := newSweep(filepath.Join(t.TempDir(), "sweep"), nil, "1e30",
		"1e30").Run(context.Background()); !errors.Is(err, ErrDiverged) {
		t.Errorf("got %v", err)
	}
}

// Equal losses have no best; one that is the lowest alone has no ties.
func TestSweepTies(t *testing.T) {
	for want, rates := range map[string][]string{
		"lr 0.3":             {"0.001", "0.3"},
		"lr 0.1 and lr 1e-1": {"0.1", "0.001", "1e-1"},
	} {
		folder := filepath.Join(t.TempDir(), "sweep")
		newSweep := func() *Sweep { return newSweep(folder, nil, rates...) }
		for _, resumed := range []bool{false, true} {
			s := newSweep()
			s.Resume = resumed
			now := sweep(t, s)
			var names []string
			for _, t := range now.Tied {
				names = append(names, t.Name())
			}
			if now.Best != nil {
				names = append(names, now.Best.Name())
			}
			if got := strings.Join(names, " and "); got != want {
				t.Errorf("%v, resumed %v: %s, want %s", rates, resumed, got, want)
			}
		}
	}
}
