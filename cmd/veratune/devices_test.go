package main

import (
	"cmp"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/train"
)

func TestDevices(t *testing.T) {
	code, stdout, stderr := veratune("devices", "--json", "--model",
		testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_K}))
	var first struct {
		Name        string
		Free, Total int64
	}
	line, _, _ := strings.Cut(stdout, "\n")
	if err := json.Unmarshal([]byte(line), &first); code != 0 || err != nil || first.Name != "cpu" || first.Total <= 0 {
		t.Errorf("exit code %d, %v, %q, %q", code, err, stdout, stderr)
	}
	if code, _, stderr := veratune("loss", "--device", "abacus7", "--model", "m.gguf", "--data", "d.json"); code !=
		exitUsage || !strings.Contains(stderr, "abacus7") {
		t.Errorf("no such device: exit code %d, %q", code, stderr)
	}
}

// TestResumeElsewhere begins a run on the device that VERATUNE_TEST_DEVICE names, or the composed one, and ends it on
// the CPU: the data come in the same order, and the losses are those of a run on one alone.
func TestResumeElsewhere(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 30)
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, whole, "--compute", "f32")...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	device := cmp.Or(os.Getenv("VERATUNE_TEST_DEVICE"), bindings.Composed)
	elsewhere := alpacaArgs(model, data, out, "--device", device, "--compute", "f32", "--keep", "100")
	if code, _, stderr := veratune(elsewhere...); code != 0 || !strings.Contains(stderr, "device "+device) {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	states, err := filepath.Glob(filepath.Join(out, "checkpoints", "step-*"))
	if err != nil || len(states) < 4 {
		t.Fatalf("checkpoints %v, %v", states, err)
	}
	slices.Sort(states)
	for _, s := range states[2:] { // as if the device had been lost then
		if err := os.RemoveAll(s); err != nil {
			t.Fatal(err)
		}
	}
	if code, _, stderr := veratune(alpacaArgs(model, data, out, "--compute", "f32", "--resume")...); code != 0 {
		t.Fatalf("resume: exit code %d, %q", code, stderr)
	}
	got, want := stepsOf(t, out), stepsOf(t, whole)
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i].Tokens != want[i].Tokens || !(math.Abs(got[i].Loss-want[i].Loss) <= 1e-3) {
			t.Errorf("step %d: %+v, want %+v", i+1, got[i], want[i])
		}
	}
}

// TestAnswersElsewhere has all commands that make answers do so on that device: they are the CPU's in float32.
func TestAnswersElsewhere(t *testing.T) {
	device := cmp.Or(os.Getenv("VERATUNE_TEST_DEVICE"), bindings.Composed)
	model, work := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), t.TempDir()
	questions, prompts := write(t, "question.jsonl", someQuestions), write(t, "prompts.jsonl", shortPrompts(t))
	answers := func(device string) string {
		out := filepath.Join(work, device)
		said := ""
		for _, args := range [][]string{
			{"generate", "--model", model, "-p", "add 3", "--max-tokens", "5"},
			{"mtbench", "run", "--model", model, "--name", "tiny", "--out", out, "--max-tokens", "4", "--questions",
				questions},
			{"mtbench", "judge", "--judge-model", model, "--judge", "itself", "--out", out, "--prompts",
				prompts, "--max-tokens", "3", "--retries", "0"},
		} {
			code, stdout, stderr := veratune(append(args, "--device", device, "--compute", "f32", "--threads", "1")...)
			if said += stdout; code != 0 {
				t.Errorf("%s, %v: exit code %d, %s", device, args, code, stderr)
			}
		}
		return said + evaluationFiles(t, out)
	}
	if got, want := answers(device), answers("cpu"); got != want {
		t.Errorf("%s\n, want\n%s", got, want)
	}
	for _, form := range []string{"--json", "--json=false"} {
		code, stdout, stderr := veratune("bench", "generate", "--model", model, "--device", device, form, "--rounds",
			"1", "--tokens", "2", "--prompt", "2", "--parallel", "2", "--rank", "3", "--threads", "1")
		if code != 0 || !strings.Contains(stdout, device) || !strings.Contains(stdout, "llama") {
			t.Errorf("exit code %d, %s, %s", code, stdout, stderr)
		}
	}
}

// TestSamplesElsewhere has a training on that device answer there, too: its samples are what generate says on the CPU
// in float32 with the adapters of then.
func TestSamplesElsewhere(t *testing.T) {
	device := cmp.Or(os.Getenv("VERATUNE_TEST_DEVICE"), bindings.Composed)
	model, out := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), filepath.Join(t.TempDir(), "run")
	const prompt = "add 3, then stop"
	code, _, stderr := veratune(alpacaArgs(model, rows(t, 20), out, "--device", device, "--compute", "f32", "--steps",
		"2", "--lr", "1", "--sample", prompt)...)
	if code != 0 || strings.Contains(stderr, "are computed on the CPU") {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	records, _ := train.ReadRecords(read(t, filepath.Join(out, train.MetricsFile)))
	var samples []string
	for _, r := range records {
		for _, s := range r.Samples {
			samples = append(samples, s.Answer)
		}
	}
	for i, adapter := range [][]string{nil, {"--adapter", filepath.Join(out, train.AdapterFile)}} {
		code, stdout, stderr := veratune(append([]string{"generate", "--model", model, "--compute", "f32", "--threads",
			"1", "--template", "alpaca", "--max-tokens", "160", "-p", prompt}, adapter...)...)
		if code != 0 || len(samples) != 2 || strings.TrimSuffix(stdout, "\n") != samples[i] ||
			samples[0] == samples[1] {
			t.Errorf("the samples are %q, generate says %q, %s", samples, stdout, stderr)
		}
	}
}

// shortPrompts are the judge's without all words of their own.
func shortPrompts(t *testing.T) string {
	t.Helper()
	var lines strings.Builder
	for _, p := range mtbench.DefaultPrompts() {
		p.PromptTemplate, p.SystemPrompt = strings.Join(placeholder.FindAllString(p.PromptTemplate, -1), " "), ""
		line, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	return lines.String()
}

var placeholder = regexp.MustCompile(`{\w+}`)

type stepMetrics struct {
	Tokens int
	Loss   float64
}

func stepsOf(t *testing.T, run string) (steps []stepMetrics) {
	t.Helper()
	for line := range strings.Lines(string(read(t, filepath.Join(run, train.MetricsFile)))) {
		var s stepMetrics
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		if s.Tokens > 0 {
			steps = append(steps, s)
		}
	}
	return steps
}
