package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Halted after any step and resumed without the limit, a run ends in the same weights as one that was not. What was
// measured at the halt stays in the metrics, and counts for the best adapter.
func TestHaltAndResume(t *testing.T) {
	whole := wholeRun(t)
	want := weights(t, whole)
	measured := map[int]float64{}
	for _, p := range readPoints(t, whole) {
		if p.EvalLoss != nil {
			measured[p.Step] = *p.EvalLoss
		}
	}
	for step := 1; step < steps; step++ {
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		r.MaxSteps = step
		result, err := r.Train(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if result.Steps != step || result.EndedBy != "max-steps" || result.After.Step != step {
			t.Errorf("halted after %d: %+v", step, result)
		}
		adapter, _ := os.ReadFile(result.Adapter)
		if !strings.Contains(string(adapter), fmt.Sprintf("\nsteps = %d\n", step)) ||
			!strings.Contains(string(adapter), fmt.Sprintf("\neval_loss = %v\n", result.After.Loss)) {
			t.Errorf("halted after %d: the adapter says %s", step, adapter)
		}
		ended := resume(t, folder)
		if ended.EndedBy != "" {
			t.Errorf("ended by %s", ended.EndedBy)
		}
		checkEqual(t, weights(t, folder), want)
		lowest, got := *result.Before, maps.Clone(measured)
		got[step] = result.After.Loss
		for _, p := range readPoints(t, folder) {
			if p.EvalLoss == nil {
				continue
			}
			if got[p.Step] != *p.EvalLoss {
				t.Errorf("halted after %d: the loss %v after step %d, want %v", step, *p.EvalLoss, p.Step, got[p.Step])
			}
			if delete(got, p.Step); *p.EvalLoss < lowest.Loss {
				lowest = Evaluation{p.Step, *p.EvalLoss}
			}
		}
		if len(got) > 0 || *ended.Best != lowest {
			t.Errorf("halted after %d: not measured again: %v; best %v, want %v", step, got, *ended.Best, lowest)
		}
		if best, _ := os.ReadFile(ended.BestAdapter); !strings.Contains(string(best),
			fmt.Sprintf("\nsteps = %d\n", lowest.Step)) {
			t.Errorf("halted after %d: best.gguf is %s", step, best)
		}
	}
}

// A time that is over in no time lets each process make one step.
func TestMaxTime(t *testing.T) {
	want := weights(t, wholeRun(t))
	folder := filepath.Join(t.TempDir(), "run")
	for made := 1; made < steps; made++ {
		r, _ := newRun(folder)
		r.Resume, r.MaxTime = made > 1, 1
		result, err := r.Train(context.Background())
		if err != nil || result.Steps != made || result.EndedBy != "max-time" {
			t.Fatalf("process %d: %+v, %v", made, result, err)
		}
	}
	resume(t, folder)
	checkEqual(t, weights(t, folder), want)
}

// Halts change nothing of when patience ends a run, though they measure in between.
func TestPatienceOverHalts(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	r, _ := impatient(whole)
	want, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for every := 1; every < 8; every++ {
		folder := filepath.Join(t.TempDir(), "run")
		var got Result
		for most := every; got.EndedBy != "patience"; most += every {
			r, _ := impatient(folder)
			r.Resume, r.MaxSteps = most > every, most
			if got, err = r.Train(context.Background()); err != nil || most > 60 {
				t.Fatalf("halted every %d steps: %+v, %v", every, got, err)
			}
		}
		if got.Steps != want.Steps || got.Best.Loss > want.Best.Loss {
			t.Errorf("halted every %d steps: ended after %d, best %v; want %d, %v", every, got.Steps, *got.Best,
				want.Steps, *want.Best)
		}
	}
}

func TestInterruptedHaltIsHaltedOnResuming(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	r.MaxSteps = 6
	ctx, cancel := context.WithCancel(context.Background())
	engine.hook = func(n int) error {
		if n == 6 {
			cancel()
		}
		return nil
	}
	if _, err := r.Train(ctx); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	r, engine = newRun(folder)
	r.Resume, r.MaxSteps = true, 6
	if result, err := r.Train(context.Background()); err != nil || result.Steps != 6 || result.After.Step != 6 ||
		engine.calls > 0 {
		t.Errorf("%+v, %v, %d steps computed", result, err, engine.calls)
	}
}

// impatient is a run of 60 steps whose held-out loss falls and rises again.
func impatient(folder string) (*Run, *leastSquares) {
	r, engine := newRun(folder)
	r.HeldOut = halfway{r.HeldOut.(fakeSource)}
	r.Config.Epochs, r.Config.EvalEvery, r.Config.Patience = 10, Interval{Epochs: 0.5}, 3
	return r, engine
}

func TestPatience(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, _ := impatient(folder)
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// Of the 6 steps of an epoch, every third is followed by an evaluation.
	if result.EndedBy != "patience" || result.Steps != result.Best.Step+3*3 || result.Steps >= 60 ||
		result.After.Step != result.Steps {
		t.Errorf("%+v, best %+v", result, result.Best)
	}
	losses := map[int]float64{}
	for _, p := range readPoints(t, folder) {
		if p.EvalLoss != nil {
			losses[p.Step] = *p.EvalLoss
		}
	}
	for step, loss := range losses {
		if step > 0 && loss < result.Best.Loss || step%3 != 0 {
			t.Errorf("loss %v after step %d, best %+v", loss, step, result.Best)
		}
	}

	// Interrupted after each step, it ends at the same one, in the same bytes.
	other := filepath.Join(t.TempDir(), "run")
	for resumed := false; ; resumed = true {
		r, engine := impatient(other)
		r.Resume = resumed
		ctx, cancel := context.WithCancel(context.Background())
		engine.hook = func(int) error { cancel(); return nil }
		again, err := r.Train(ctx)
		cancel()
		if err == nil {
			if again.Steps != result.Steps || again.EndedBy != "patience" {
				t.Errorf("%+v, want %+v", again, result)
			}
			break
		}
		if !errors.Is(err, ErrInterrupted) {
			t.Fatal(err)
		}
	}
	for _, name := range []string{AdapterFile, BestFile, ChartFile} {
		got, _ := os.ReadFile(filepath.Join(other, name))
		if want, _ := os.ReadFile(filepath.Join(folder, name)); !bytes.Equal(got, want) || len(want) == 0 {
			t.Errorf("%s differs", name)
		}
	}

	// More patience on resuming goes on.
	r, _ = impatient(folder)
	r.Resume, r.Config.Patience = true, 4
	if more, err := r.Train(context.Background()); err != nil || more.Steps <= result.Steps {
		t.Errorf("%+v, %v", more, err)
	}
}

func TestLimitsAreChecked(t *testing.T) {
	for want, spoil := range map[string]func(*Run){
		"max-steps -1":              func(r *Run) { r.MaxSteps = -1 },
		"max-time -1ns":             func(r *Run) { r.MaxTime = -1 },
		"patience: needs held-out":  func(r *Run) { r.HeldOut, r.Config.Patience = nil, 1 },
		"patience: needs evaluatio": func(r *Run) { r.Config.EvalEvery, r.Config.Patience = Interval{}, 1 },
	} {
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		spoil(r)
		if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), want) ||
			exists(folder) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A run that was halted and goes on is not finished, although it has an adapter.
func TestReportOfAHaltedRun(t *testing.T) {
	halted, _ := reported(t, 0, func(r *Run) { r.MaxSteps = 5 })
	if !halted.Finished || halted.Steps != 5 || halted.Last.Step != 5 {
		t.Errorf("%+v", halted)
	}
	lines, err := os.ReadFile(filepath.Join(halted.Folder, MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	lines = slices.Concat(lines, []byte(`{"step":6,"loss":1}`+"\n"))
	if err := os.WriteFile(filepath.Join(halted.Folder, MetricsFile), lines, 0o666); err != nil {
		t.Fatal(err)
	}
	if on, err := ReadRun(halted.Folder); err != nil || on.Finished {
		t.Errorf("%+v, %v", on, err)
	}
}
