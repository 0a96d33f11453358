package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// sweepArgs is a sweep of four short trainings on a tiny model.
func sweepArgs(model, data, out string, more ...string) []string {
	args := []string{"sweep", "-m", model, "--data", data, "--out", out, "--fraction", "0.9", "--threads", "1",
		"--template", "alpaca", "--batch", "2", "--accumulation", "2",
		"--save-every", "1", "--strict", "--rank", "8,4", "--lr", "1e-6,2e-2"}
	return append(args, more...)
}

func readSweep(t *testing.T, out string) (s train.Sweeping) {
	t.Helper()
	if err := json.Unmarshal(read(t, filepath.Join(out, train.SweepFile)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSweep(t *testing.T) {
	model, data, parent := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 60), t.TempDir()
	whole := filepath.Join(parent, "whole")
	code, stdout, stderr := veratune(sweepArgs(model, data, whole)...)
	if code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	s := readSweep(t, whole)
	if len(s.Trials) != 4 || !slices.Equal(s.Rungs, []float64{0.5, 1}) || s.Best == nil ||
		s.Best.Options["lr"] != "2e-2" || !(s.Best.Rungs[1].Loss < s.Best.Before.Loss) {
		t.Fatalf("%+v", s)
	}
	for _, trial := range s.Trials {
		if reached := map[string]int{"2e-2": 2, "1e-6": 1}[trial.Options["lr"]]; len(trial.Rungs) != reached {
			t.Errorf("%s: trained to the end of %d parts, want %d", trial.Name(), len(trial.Rungs), reached)
		}
	}
	for _, want := range []string{"rank  lr    before  50%", s.Best.Run, "–", "best: " + s.Best.Name(),
		train.SweepBest} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table does not say %q:\n%s", want, stdout)
		}
	}
	if n := strings.Count(stderr, "trained numbers"); n != 1 {
		t.Errorf("the model is described %d times: %s", n, stderr)
	}

	// The best setting trains on all rows.
	full := filepath.Join(parent, "full")
	if code, _, stderr := veratune("alpaca", "--config", filepath.Join(whole, train.SweepBest), "--out",
		full); code != 0 {
		t.Fatalf("best.yaml: exit code %d, %q", code, stderr)
	}
	best, err := train.ReadRun(full)
	if err != nil {
		t.Fatal(err)
	}
	if best.Settings["train.lr"].(json.Number) != "0.02" ||
		best.Settings["setup.vera.rank"].(json.Number).String() != s.Best.Options["rank"] ||
		best.Steps <= s.Best.Rungs[1].Step {
		t.Errorf("%+v", best)
	}

	// Interrupted by a signal and resumed, it is the same in the end.
	out := filepath.Join(parent, "interrupted")
	cmd, output := process(sweepArgs(model, data, out)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(filepath.Join(out, "runs", "2", train.MetricsFile)); err == nil && info.Size() > 0 ||
			time.Now().After(deadline) {
			break
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Fatalf("%v, want exit code %d: %s", err, exitInterrupted, output)
	}
	for _, wrong := range [][]string{sweepArgs(model, data, out, "--resume", "--batch", "1"),
		sweepArgs(model, data, out, "--resume", "--dropout", "0.1,0.2"), sweepArgs(model, data, out)} {
		if code, _, stderr := veratune(wrong...); code != exitFailed || !strings.Contains(stderr, "resume") {
			t.Errorf("%v: exit code %d, %q", wrong, code, stderr)
		}
	}
	if code, _, stderr := veratune(sweepArgs(model, data, out, "--resume")...); code != 0 {
		t.Fatalf("resume: exit code %d, %q", code, stderr)
	}
	for _, name := range []string{train.SweepFile, train.SweepBest} {
		if got := bytes.ReplaceAll(read(t, filepath.Join(out, name)), []byte(out), []byte(whole)); !bytes.Equal(got,
			read(t, filepath.Join(whole, name))) {
			t.Errorf("%s differs from that of the sweep that was left alone: %s", name, got)
		}
	}
}

// A run's config file is one for sweeps, too, and a list in it is one value of an option that takes lists.
func TestSweepByFile(t *testing.T) {
	model, data, parent := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40), t.TempDir()
	code, config, stderr := veratune("alpaca", "--model", model, "--data", data, "--threads", "1", "--targets",
		"attn_q,attn_v", "--rank", "4", "--steps", "2", "--print-config")
	if code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	out := filepath.Join(parent, "sweep")
	args := []string{"sweep", "--config", write(t, "base.yaml", config), "--fraction", "1", "--dropout", "0.1..0.4",
		"--draws", "2", "--max-time", "1ns", "--out", out}
	if code, stdout, stderr := veratune(args...); code != 0 || !strings.Contains(stdout, "max-time: halted") {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if code, _, stderr := veratune(append(args, "--max-time", "0", "--resume")...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	s := readSweep(t, out)
	if len(s.Trials) != 2 || s.Trials[0].Options["dropout"] == s.Trials[1].Options["dropout"] ||
		len(s.Trials[0].Options) != 1 || s.Best.Rungs[0].Step != 2 {
		t.Errorf("%+v", s)
	}
	if best := string(read(t, filepath.Join(out, train.SweepBest))); !strings.Contains(best,
		"targets: [attn_q, attn_v]") || !strings.Contains(best, "dropout: "+s.Best.Options["dropout"]+"\n") ||
		strings.Contains(best, "steps") {
		t.Errorf("best.yaml: %s", best)
	}
}

func TestSweepBadInput(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	for says, args := range map[string][]string{
		"nothing to compare":                 {"--lr", "1e-3"},
		"LOW..HIGH":                          {"--lr", "1e-2..1e-3"},
		"values or a range":                  {"--lr", "1e-4..1e-3,1e-2"},
		"lr -1":                              {"--lr", "1e-3,-1"},
		`--rank "fast": want a whole number`: {"--rank", "4,fast"},
		"fraction 2":                         {"--lr", "1e-3,1e-2", "--fraction", "2"},
		"draws 0":                            {"--lr", "1e-3..1e-2", "--draws", "0"},
		"needs held-out":                     {"--lr", "1e-3,1e-2", "--held-out", "0"},
		"alpha: is not for method":           {"--method", "vera,lora", "--alpha", "8"},
		"--resume and --force":               {"--lr", "1e-3,1e-2", "--resume", "--force"},
		`unexpected argument "1e-2"`:         {"--lr", "1e-3", "1e-2"},
		"no option --print-config":           {"--print-config"},
	} {
		out := filepath.Join(t.TempDir(), "sweep")
		code, _, stderr := veratune(append([]string{"sweep", "--model", model, "--data", data, "--out", out},
			args...)...)
		if _, err := os.Stat(out); code != exitUsage || !strings.Contains(stderr, says) || err == nil {
			t.Errorf("%v: exit code %d, %q does not say %q, or %s was made", args, code, stderr, says, out)
		}
	}
	if code, _, stderr := veratune("sweep", "--lr", "1e-3,1e-2"); code != exitUsage ||
		!strings.Contains(stderr, "model: is missing") {
		t.Errorf("without a model: exit code %d, %q", code, stderr)
	}
}

// parsed gives the options of a sweep by its command line.
func parsed(t *testing.T, args ...string) []*alternatives {
	t.Helper()
	s := &sweep{}
	app := &cli.App{Flags: s.flags(), Action: func(*cli.Context) error { return nil }}
	if err := app.Run(append([]string{"veratune"}, args...)); err != nil {
		t.Fatal(err)
	}
	return s.options
}

func TestCombine(t *testing.T) {
	for want, args := range map[string][]string{
		"[[{rank [256]} {lr [1e-3]}] [{rank [256]} {lr [1e-2]}] [{rank [64]} {lr [1e-3]}] [{rank [64]} {lr [1e-2]}]]": {
			"--lr", "1e-3, 1e-2", "--rank", "256,64",
		},
		"[[{targets [attn_q,attn_v]}] [{targets [ffn_up]}]]": {
			"--targets", "attn_q,attn_v", "--targets", "ffn_up",
		},
		"[[{data [a,b.json]}] [{data [c.json]}]]": {
			"--data", "a,b.json", "--data", "c.json",
		},
		"[[{lr [1e-3]}] [{lr [1e-2]}]]": {
			"--lr", "1e-3", "--lr", "1e-2,1e-3", "-m", "x",
		},
		"[[]]": {
			"--lr", "1e-3",
		},
	} {
		if got := fmt.Sprint(combine(parsed(t, args...), 8, 0)); got != want {
			t.Errorf("%v: %s, want %s", args, got, want)
		}
	}

	// Each of the parts of a range that are equal on a logarithmic scale has one draw, with each of the values.
	const draws = 6
	options := parsed(t, "--lr", "1e-4..1e-1", "--rank", "4..4000", "--method", "vera,lora")
	trials := combine(options, draws, 5)
	parts := map[string]map[int]bool{"lr": {}, "rank": {}}
	for _, trial := range trials {
		if len(trial) != 3 {
			t.Fatalf("%v", trial)
		}
		for _, c := range trial[1:] {
			v, err := strconv.ParseFloat(c.value(), 64)
			low := map[string]float64{"lr": 1e-4, "rank": 4}[c.name]
			if err != nil || c.name == "rank" && v != math.Trunc(v) {
				t.Errorf("%v", c)
			}
			parts[c.name][int(draws*math.Log(v/low)/math.Log(1000))] = true
		}
	}
	if len(trials) != 2*draws || len(parts["lr"]) != draws || len(parts["rank"]) != draws {
		t.Errorf("%d trials in parts %v", len(trials), parts)
	}
	if fmt.Sprint(trials) != fmt.Sprint(combine(options, draws, 5)) ||
		fmt.Sprint(trials) == fmt.Sprint(combine(options, draws, 6)) {
		t.Error("the draws are not those of the seed")
	}
	if few := combine(parsed(t, "--rank", "1..2"), 8, 0); len(few) != 2 {
		t.Errorf("%d trials of two ranks", len(few))
	}
}

// What a sweep says of trainings that tell little.
func TestSweepSaysHowMuchItTells(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40)
	others := write(t, "others.json",
		`[{"instruction": "say", "output": "QZQZ#!"}, {"instruction": "say more", "output": "!!##QQZZ"}]`)
	for name, c := range map[string]struct {
		args        []string
		says, never string
		best        bool
	}{
		"one step": {[]string{"--lr", "1e-3,2e-2", "--steps", "1"}, "after step 1 of 1, too early",
			"no best", true},
		"a tie": {[]string{"--lr", "1e-2,0.01", "--steps", "6"},
			"no best: lr 1e-2 and lr 0.01 have the same held-out loss", "too early", false},
		"all are worse": {[]string{"--lr", "0.1,0.2", "--steps", "6", "--eval-data", others},
			"no better than the model was before training", "no best:", true},
		"enough": {[]string{"--lr", "1e-6,2e-2", "--steps", "8"}, "best: lr 2e-2", "warning", true},
	} {
		out := filepath.Join(t.TempDir(), "sweep")
		args := append([]string{"sweep", "-m", model, "--data", data, "--out", out, "--fraction", "1", "--threads", "1",
			"--template", "alpaca", "--rank", "4", "--batch", "2", "--accumulation", "2"}, c.args...)
		code, stdout, stderr := veratune(args...)
		if code != 0 || !strings.Contains(stdout+stderr, c.says) || strings.Contains(stdout+stderr, c.never) {
			t.Errorf("%s: exit code %d, %s%s", name, code, stdout, stderr)
		}
		if _, err := os.Stat(filepath.Join(out, train.SweepBest)); (err == nil) != c.best {
			t.Errorf("%s: %s: %v", name, train.SweepBest, err)
		}
	}
}
