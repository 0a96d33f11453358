package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// What a training says that made the model worse, and which adapters it leaves.
func TestTrainingThatMakesWorse(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40)
	others := write(t, "others.json",
		`[{"instruction": "say", "output": "QZQZ#!"}, {"instruction": "say more", "output": "!!##QQZZ"}]`)
	for name, c := range map[string]struct {
		args        []string
		says, never string
		best        bool
	}{
		"worse": {[]string{"--lr", "20", "--eval-data", others},
			"warning: the model is worse than before training: held-out loss", "best so far", false},
		"patience": {[]string{"--lr", "20", "--eval-data", others, "--eval-every", "1", "--patience", "2"},
			"is that of step 0: the model before training", "best so far", false},
		"better":           {[]string{"--lr", "1e-2"}, "best so far", "warning", true},
		"no held-out data": {[]string{"--lr", "1e-2", "--held-out", "0"}, "adapter: ", "warning", false},
	} {
		out := filepath.Join(t.TempDir(), "run")
		code, stdout, stderr := veratune(alpacaArgs(model, data, out, append(c.args, "--steps", "8", "--clip",
			"0")...)...)
		if code != 0 || !strings.Contains(stdout+stderr, c.says) || strings.Contains(stdout+stderr, c.never) {
			t.Errorf("%s: exit code %d, %s%s", name, code, stdout, stderr)
		}
		if _, err := os.Stat(filepath.Join(out, train.BestFile)); (err == nil) != c.best {
			t.Errorf("%s: %s: %v", name, train.BestFile, err)
		}
	}
}

func TestWorse(t *testing.T) {
	at := func(step int, loss float64) *train.Evaluation { return &train.Evaluation{Step: step, Loss: loss} }
	before := at(0, 1.5)
	for want, r := range map[string]train.Result{
		"held-out loss 1.5000 → 1.6000; runs/a/best.gguf has the lowest, 1.4000 after step 50": {Before: before,
			After: at(90, 1.6), Best: at(50, 1.4), BestAdapter: "runs/a/best.gguf"},
		"held-out loss 1.5000 → 24.8947; there is no best.gguf": {Before: before,
			After: at(90, 24.8947), Best: before},
		"loss 1.5000 → 3.0000; try a --lr below 0.1": {First: 1.5, Loss: 3},
		"": {First: 1.5, Loss: 1.9},
	} {
		f := newTraining()
		f.o.Train.LR = 0.1
		if got := f.worse(r); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
	if got := newTraining().worse(train.Result{First: 1, Loss: 9, Before: before, After: at(9, 1.5),
		Best: before}); got != "" {
		t.Errorf("no worse on the held-out data: %s", got)
	}
}
