package train

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTrainingFindsTheOptimum(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a", "run")
	r, engine := newRun(folder)
	engine.dropout = false
	r.Config.Epochs, r.Config.LR, r.Config.WeightDecay, r.Config.SaveEvery = 60, 0.2, 0, 0
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	// The labels are rounded to thousandths, whose squared error is 1e-7 on average.
	if result.After.Loss > 1e-6 || result.Before.Loss < 1e-1 || result.Best.Loss > result.After.Loss ||
		result.Steps != 360 {
		t.Errorf("before %v, after %v, best %v, %d steps", result.Before, result.After, result.Best, result.Steps)
	}
	for j, p := range r.Params {
		if math.Abs(float64(p)-optimum(j)) > 1e-3 {
			t.Errorf("parameter %d is %v, want %v", j, p, optimum(j))
		}
	}
}

func TestWhatARunLeaves(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, engine := newRun(folder)
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(folder)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{AdapterFile, BestFile, checkpointFolder, ConfigFile, ChartFile, MetricsFile}; !slices.Equal(
		names, want) {
		t.Errorf("the folder holds %v, want %v", names, want)
	}
	if kept, _ := openedAt(folder).checkpoints(); !slices.Equal(kept, []int{12, 9}) {
		t.Errorf("checkpoints of steps %v, want 12 and 9", kept)
	}
	var losses, evaluations, samples, norms []int
	for _, p := range readPoints(t, folder) {
		switch {
		case p.Loss != nil:
			losses = append(losses, p.Step)
		case p.EvalLoss != nil:
			evaluations = append(evaluations, p.Step)
		case p.Norms != nil:
			norms = append(norms, p.Step)
		}
		if p.Samples != nil {
			samples = append(samples, p.Step)
		}
	}
	if !slices.Equal(losses, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}) ||
		!slices.Equal(evaluations, []int{0, 4, 8, 12}) {
		t.Errorf("losses of steps %v, evaluations after %v", losses, evaluations)
	}
	if !slices.Equal(samples, evaluations) || !slices.Equal(norms, []int{1, 4, 8, 12}) {
		t.Errorf("samples after %v, norms after %v", samples, norms)
	}
	adapter, _ := os.ReadFile(result.Adapter)
	for _, fact := range []string{"template = alpaca", "steps = 12", "epochs = 2",
		fmt.Sprintf("eval_loss = %v", result.After.Loss), "data_sha256 = {32 3 1}"} {
		if !strings.Contains(string(adapter), fact+"\n") {
			t.Errorf("the adapter does not say %q: %s", fact, adapter)
		}
	}
	best, _ := os.ReadFile(result.BestAdapter)
	if !strings.Contains(string(best), fmt.Sprintf("steps = %d\n", result.Best.Step)) {
		t.Errorf("the best adapter is not that of step %d: %s", result.Best.Step, best)
	}
	if len(engine.seeds) != 12 || len(slices.Compact(slices.Sorted(slices.Values(engine.seeds)))) != 12 {
		t.Errorf("%d steps, want 12 with a seed of their own each", len(engine.seeds))
	}
}

func TestRunWithoutHeldOutData(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, _ := newRun(folder)
	r.HeldOut, r.Samples = nil, nil
	r.Config.SaveEvery = 0
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if result.Before != nil || result.After != nil || result.BestAdapter != "" ||
		exists(filepath.Join(folder, BestFile)) {
		t.Errorf("an evaluation without held-out data: %+v", result)
	}
	if kept, _ := openedAt(folder).checkpoints(); !slices.Equal(kept, []int{12}) {
		t.Errorf("checkpoints of steps %v, want the last only", kept)
	}
}

// spoiled is a run that a learning rate of 100 leads astray after ten good steps, and its engine.
func spoiled(folder string, from int) (*Run, *leastSquares) {
	r, engine := newRun(folder)
	r.Config.Epochs, r.Config.EvalEvery, r.Config.SaveEvery = 10, Interval{Steps: 25}, 2
	engine.hook = func(int) error {
		if steps := len(engine.seeds); engine.seeds[steps-1] == dropoutSeed(r.Config.Seed, from) {
			for i := range engine.params {
				engine.params[i] += 1000
			}
			return engine.Update()
		}
		return nil
	}
	return r, engine
}

// A loss that stays high halts the run. The last good checkpoint and best adapter are kept, resuming says the same at
// once, and with NoHalt goes on to the end.
func TestHighLossHalts(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	r, _ := spoiled(whole, 29)
	r.NoHalt = true
	want, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(t.TempDir(), "run")
	r, _ = spoiled(folder, 29) // the loss is high from step 30 on
	if _, err := r.Train(interruptedInTraining(35, r)); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	for range 2 {
		r, engine := spoiled(folder, 29)
		r.Resume = true
		_, err = r.Train(context.Background())
		if !errors.Is(err, ErrDiverged) {
			t.Fatal(err)
		}
		for _, says := range []string{"after step 39 of 60", "times that before training, for 10 steps",
			"the last good checkpoint is " + openedAt(folder).checkpoint(28), "the best adapter, of step 25",
			"--resume --no-halt", "lower --lr"} {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say %q", err, says)
			}
		}
		if engine.calls != 0 && engine.calls != 4 {
			t.Errorf("%d steps computed", engine.calls)
		}
		if adapter, _ := os.ReadFile(filepath.Join(folder, AdapterFile)); !strings.Contains(string(adapter),
			"\nsteps = 28\n") {
			t.Errorf("the adapter is %s", adapter)
		}
		if kept, _ := openedAt(folder).checkpoints(); !slices.Equal(kept, []int{39, 38, 28}) {
			t.Errorf("checkpoints %v", kept)
		}
	}
	r, _ = spoiled(folder, 29)
	r.Resume, r.NoHalt = true, true
	got, err := r.Train(context.Background())
	if err != nil || *got.After != *want.After || *got.Best != *want.Best || got.First != want.First {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// interruptedInTraining is the context of a run whose engine has a hook of its own.
func interruptedInTraining(step int, r *Run) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	engine := r.Engine.(*leastSquares)
	hook := engine.hook
	engine.hook = func(n int) error {
		if n == step {
			cancel()
		}
		return hook(n)
	}
	return ctx
}

// A loss that is high for less long, or that the held-out data have before training, halts nothing.
func TestHighLossesThatPass(t *testing.T) {
	for name, change := range map[string]func(*Run, *leastSquares){
		"at the end": func(r *Run, _ *leastSquares) {
			r.Config.LR, r.Config.WeightDecay, r.Config.Epochs = 1e3, 0, 1
		},
		"first is low": func(r *Run, e *leastSquares) { r.Config.LR, r.Config.Epochs = 1e-6, 5; e.lowFirst = true },
	} {
		r, engine := newRun(filepath.Join(t.TempDir(), "run"))
		change(r, engine)
		if _, err := r.Train(context.Background()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A loss that is higher than before training is never the best, whenever it is measured.
func TestUntrainedLossCounts(t *testing.T) {
	for name, limit := range map[string]int{"to the end": 0, "halted": 3} {
		var out bytes.Buffer
		folder := filepath.Join(t.TempDir(), "run")
		r, _ := newRun(folder)
		r.Config.LR, r.Config.WeightDecay, r.Progress, r.MaxSteps = 1e3, 0, &out, limit
		r.NoHalt = true
		result, err := r.Train(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if result.Best != result.Before || result.After.Loss < result.Before.Loss || result.BestAdapter != "" ||
			exists(filepath.Join(folder, BestFile)) || strings.Contains(out.String(), "best so far") {
			t.Errorf("%s: %+v, best %v, before %v: %s", name, result, result.Best, result.Before, out.String())
		}
	}
}

// A state of an older version, which did not count the untrained loss, is taken as one that did.
func TestOldStates(t *testing.T) {
	before, worse, better := &Evaluation{0, 2}, &Evaluation{4, 3}, &Evaluation{8, 1}
	for _, c := range []struct{ at, want position }{
		{position{Before: before}, position{Before: before, Best: before}},
		{position{Before: before, Best: worse}, position{Before: before, Best: before, Lowest: worse}},
		{position{Before: before, Best: better}, position{Before: before, Best: better, Lowest: better}},
		{position{Before: before, Best: better, Lowest: worse}, position{Before: before, Best: better, Lowest: worse}},
		{position{}, position{}},
	} {
		got := c.at
		if got.upgrade(); got != c.want {
			t.Errorf("%+v becomes %+v, want %+v", c.at, got, c.want)
		}
	}
}

// The best adapter is that of the lowest held-out loss though training goes on and gets worse.
func TestBestAdapterIsKept(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "run")
	r, _ := newRun(folder)
	r.HeldOut = halfway{r.HeldOut.(fakeSource)}
	r.Config.Epochs, r.Config.EvalEvery = 10, Interval{Steps: 1}
	result, err := r.Train(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	lowest := slices.MinFunc(slices.DeleteFunc(readPoints(t, folder), func(p Record) bool {
		return p.EvalLoss == nil || p.Step == 0
	}),
		func(a, b Record) int {
			if *a.EvalLoss < *b.EvalLoss {
				return -1
			}
			return 1
		})
	if result.Best.Step != lowest.Step || result.Best.Step == result.Steps {
		t.Errorf("best is step %d, the lowest held-out loss has step %d", result.Best.Step, lowest.Step)
	}
	best, _ := os.ReadFile(result.BestAdapter)
	if !strings.Contains(string(best), fmt.Sprintf("\nsteps = %d\n", lowest.Step)) {
		t.Errorf("best.gguf is not of step %d: %s", lowest.Step, best)
	}
}

// halfway has its optimum at half of what the others' is, so that its loss falls and rises again on the way there.
type halfway struct{ fakeSource }

func (s halfway) Batch(epoch, i int) (tokens, targets []int32, lengths []int, err error) {
	tokens, targets, lengths, err = s.fakeSource.Batch(epoch, i)
	for k, target := range targets {
		if target >= 0 {
			targets[k] = label(unlabel(target) / 2)
		}
	}
	return tokens, targets, lengths, err
}

func TestDivergenceNamesStepAndLastGoodCheckpoint(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*leastSquares)
		want  []string
	}{
		"loss": {func(e *leastSquares) {
			e.nan = 8
		}, []string{"step after step 7 of 12", "the loss is NaN", "step-6"}},
		"gradient": {func(e *leastSquares) {
			e.nanGrad = 7
		}, []string{"step after step 6 of 12", "gradient is NaN", "step-3"}},
		"held-out": {func(e *leastSquares) {
			e.badEval = true
		}, []string{"evaluation after step 0", "the held-out loss is +Inf", "there is no earlier checkpoint"}},
	} {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		c.spoil(engine)
		_, err := r.Train(context.Background())
		if !errors.Is(err, ErrDiverged) {
			t.Fatalf("%s: got %v", name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %q", name, err, want)
			}
		}
		if exists(filepath.Join(folder, AdapterFile)) {
			t.Errorf("%s: a final adapter was written", name)
		}
	}
}

func TestRequestIsCheckedBeforeAnythingIsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Run)
		want  string
	}{
		"config":      {func(r *Run) { r.Config.LR = -1 }, "lr"},
		"no data":     {func(r *Run) { r.Training = fakeSource{batch: 1} }, "no training data"},
		"no held out": {func(r *Run) { r.HeldOut = fakeSource{batch: 1} }, "no held-out data"},
		"samples":     {func(r *Run) { r.HeldOut = nil }, "samples"},
		"parts":       {func(r *Run) { r.Parts[0].Size = 4 }, "the parts have 8 numbers, and there are 6"},
		"no params":   {func(r *Run) { r.Params = nil }, "no parameter"},
		"setup":       {func(r *Run) { r.Setup = math.NaN() }, "settings"},
		"no run":      {func(r *Run) { r.Resume = true }, "holds no run to resume"},
	} {
		folder := filepath.Join(t.TempDir(), "run")
		r, engine := newRun(folder)
		c.spoil(r)
		if _, err := r.Train(context.Background()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
		if exists(folder) || engine.calls > 0 {
			t.Errorf("%s: something was written or computed", name)
		}
	}
}

func TestPlainProgress(t *testing.T) {
	var out bytes.Buffer
	r, _ := newRun(filepath.Join(t.TempDir(), "run"))
	r.Progress = &out
	r.Config.Epochs = 50 // 300 steps
	r.Config.EvalEvery, r.Config.SaveEvery = Interval{Steps: 100}, 100
	if _, err := r.Train(context.Background()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var stepLines, evaluations int
	for _, line := range lines {
		if strings.Contains(line, "held-out loss") {
			evaluations++
		} else if strings.Contains(line, "tokens/s") && strings.Contains(line, "GiB") && strings.Contains(line, "lr ") {
			stepLines++
		}
	}
	const some = 21 // of the 300 steps
	if stepLines != some || evaluations != 4 || len(lines) != stepLines+evaluations {
		t.Errorf("%d lines of steps and %d of evaluations in %d:\n%s", stepLines, evaluations, len(lines), out.String())
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("control characters where there is no terminal")
	}
}

func TestPeakMemory(t *testing.T) {
	if m := peakMemory(); m < 1<<20 || m > 1<<40 {
		t.Errorf("%d bytes", m)
	}
}
