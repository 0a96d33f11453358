package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// The command that a run names which is resumed for longer trains on, exactly as it stands.
func TestGoingOn(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	t.Chdir(t.TempDir())
	data := write(t, "it's data.json", string(read(t, rows(t, 20))))
	config := write(t, "run.yaml",
		"rank: 4\ntargets: [attn_q, ffn_up]\nlayers: 1-1\nlr: 2e-2\nsample: [\"007\", \"a b\"]\n")
	for method, more := range map[string][]string{"vera": {"--d-initial", "0.2"}, "lora": {"--alpha", "8"}} {
		args := append([]string{"alpaca", "-m", model, "--data", data + ":0.5", "--data", data, "--method", method,
			"--config", config, "--batch", "2", "--threads", "1", "--template", "alpaca", "--out", method, "--strict",
			"--epochs", "0.5"}, more...)
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("exit code %d, %s", code, stderr)
		}
		code, _, stderr := veratune(append(args, "--resume", "--epochs", "1.5")...)
		_, command, found := strings.Cut(strings.TrimSpace(stderr), "with what it has learnt: veratune ")
		if code != exitFailed || !found || strings.Count(stderr, "veratune: ") != 1 {
			t.Fatalf("exit code %d, %s", code, stderr)
		}
		words, err := exec.Command("sh", "-c", `printf '%s\n' `+command).Output()
		if err != nil {
			t.Fatal(err)
		}
		args = strings.Split(strings.TrimSpace(string(words)), "\n")
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("%q: exit code %d, %s", args, code, stderr)
		}
		first, err := train.ReadRun(method)
		if err != nil {
			t.Fatal(err)
		}
		second, err := train.ReadRun(method + "-2")
		if err != nil {
			t.Fatal(err)
		}
		if second.Steps != 2*first.Steps || fmt.Sprint(*second.Before) != fmt.Sprintf("{0 %v}", first.Last.Loss) {
			t.Errorf("%d steps, %v before; the first had %d steps, %v after", second.Steps, *second.Before, first.Steps,
				*first.Last)
		}
		for _, key := range []string{"train.lr", "setup.vera.rank", "setup.vera.layers", "setup.vera.targets",
			"setup.data.batch", "setup.data.strict", "data.training"} {
			if second.Text(key) != first.Text(key) {
				t.Errorf("%s: %s, was %s", key, second.Text(key), first.Text(key))
			}
		}
	}
}

func TestBlocks(t *testing.T) {
	for text, want := range map[string]string{"3": "[3]", "0-2,5": "[0 1 2 5]", "0-2, 5": "[0 1 2 5]", "4-4": "[4]",
		"7,1": "[7 1]", "": "[]"} {
		var b blocks
		err := b.Set(text)
		var again blocks
		if err != nil || fmt.Sprint(b.indices()) != want || again.Set(b.String()) != nil ||
			fmt.Sprint(again.indices()) != want {
			t.Errorf("%q: %v, %v, and %v again", text, b.indices(), err, again.indices())
		}
	}
	for _, text := range []string{",", "-1", "1-", "3-1", "a", "1.5", "0-9-12", "0..9", "99999999999", "0-70000"} {
		if err := new(blocks).Set(text); err == nil || !strings.Contains(err.Error(), "want blocks") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Spans of blocks and parts of epochs are taken on the command line, in files, by sweeps and by the plan.
func TestSpansAndParts(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40)
	out := filepath.Join(t.TempDir(), "run")
	common := []string{"--model", model, "--data", data, "--rank", "4", "--threads", "1", "--template", "alpaca",
		"--batch", "2", "--accumulation", "2"}
	run := func(args ...string) {
		t.Helper()
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("%v: exit code %d, %s", args, code, stderr)
		}
	}
	settings := func(folder string) string {
		t.Helper()
		r, err := train.ReadRun(folder)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("layers %s, epochs %s, %d steps", r.Text("setup.vera.layers"),
			r.Text("train.epochs"), r.Steps)
	}
	run(append([]string{"alpaca", "--layers", "0-1", "--epochs", "0.5", "--out", out}, common...)...)
	const want = "layers 0 1, epochs 0.5, 5 steps"
	if got := settings(out); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if config := string(read(t, filepath.Join(out, train.OptionsFile))); !strings.Contains(config, "layers: [0-1]\n") ||
		!strings.Contains(config, "epochs: 0.5\n") {
		t.Errorf("%s", config)
	}
	again := filepath.Join(t.TempDir(), "run")
	run("alpaca", "--config", filepath.Join(out, train.OptionsFile), "--out", again)
	if got := settings(again); got != want {
		t.Errorf("by its own file: %s, want %s", got, want)
	}
	run("plan", "--config", write(t, "plan.yaml",
		"model: "+model+"\ndata: "+data+"\nlayers: 0-1\nepochs: 1.5\nthreads: 1\ntemplate: alpaca\n"))
	swept := filepath.Join(t.TempDir(), "sweep")
	run(append([]string{"sweep", "--layers", "0-1", "--layers", "1", "--epochs", "0.5,1.5", "--fraction", "1",
		"--halving=false", "--out", swept}, common...)...)
	var got []string
	for _, trial := range readSweep(t, swept).Trials {
		got = append(got, settings(trial.Run))
	}
	wanted := []string{"layers 0 1, epochs 0.5, 5 steps", "layers 0 1, epochs 1.5, 15 steps",
		"layers 1, epochs 0.5, 5 steps", "layers 1, epochs 1.5, 15 steps"}
	if a, b := fmt.Sprint(got), fmt.Sprint(wanted); a != b {
		t.Errorf("%s, want %s", a, b)
	}
	run("alpaca", "--config", filepath.Join(swept, train.SweepBest), "--out", filepath.Join(t.TempDir(), "full"))
	for says, more := range map[string][]string{"epochs 0: want a number above 0": {"--epochs", "0"},
		"want blocks counted from 0": {"--layers", "1-0"}, "layer 2: must be from 0 to 1": {"--layers", "0-2"},
		"must be given once": {"--layers", "0-1,1"}} {
		code, _, stderr := veratune(append(append([]string{"alpaca", "--out", filepath.Join(t.TempDir(), "bad")},
			common...), more...)...)
		if code != exitUsage || !strings.Contains(stderr, says) {
			t.Errorf("%v: exit code %d, %s", more, code, stderr)
		}
	}
}
