package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// Sample answers are what generate says with the adapter of that moment, and making them doesn't change the training,
// whichever way it multiplies.
func TestSamples(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40)
	for name, trained := range map[string][]string{
		"merged":      {"--compute", "f32", "--plan", "merged"},
		"factored":    {"--compute", "f32", "--plan", "factored"},
		"on a device": {"--device", bindings.Composed},
	} {
		if testing.Short() && name != "merged" {
			continue
		}
		with, without := filepath.Join(t.TempDir(), "with"), filepath.Join(t.TempDir(), "without")
		args := func(out string, more ...string) []string {
			return append(alpacaArgs(model, data, out, "--eval-every", "3"), slices.Concat(trained, more)...)
		}
		for _, args := range [][]string{args(without), args(with, "--sample", "add 3, then stop", "--sample", "<b>")} {
			if code, _, stderr := veratune(args...); code != 0 {
				t.Fatalf("exit code %d, %s", code, stderr)
			}
		}
		adapter := filepath.Join(with, train.AdapterFile)
		if !bytes.Equal(read(t, adapter), read(t, filepath.Join(without, train.AdapterFile))) {
			t.Errorf("%s: the adapter is another with samples", name)
		}
		records, _ := train.ReadRecords(read(t, filepath.Join(with, train.MetricsFile)))
		records = slices.DeleteFunc(records, func(r train.Record) bool { return r.EvalLoss == nil })
		first, last := records[0].Samples, records[len(records)-1].Samples
		if len(records) < 3 || len(first) != 2 || first[0].Answer == last[0].Answer ||
			last[0].Prompt != "add 3, then stop" || last[1].Prompt != "<b>" {
			t.Fatalf("%s: %d evaluations, first %q, last %q", name, len(records), first, last)
		}
		for _, s := range last {
			code, stdout, stderr := veratune("generate", "--model", model, "--adapter", adapter, "--compute", "f32",
				"--threads", "1", "--max-tokens", "160", "-p", s.Prompt)
			if code != 0 || strings.TrimSuffix(stdout, "\n") != s.Answer {
				t.Errorf("%s: the sample is %q, generate says %q, %s", name, s.Answer, stdout, stderr)
			}
		}
	}
}

func TestSampleNeedsHeldOutData(t *testing.T) {
	code, _, stderr := veratune("alpaca", "--model", "none.gguf", "--held-out", "0", "--sample", "hello")
	if code != exitUsage || !strings.Contains(stderr, "sample: needs held-out or eval-data") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
