package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestWarmStart begins where another run ended, of each method and from PEFT's form: the loss before training is the
// loss that it ended with.
func TestWarmStart(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40)
	for name, more := range map[string][]string{
		"vera": nil,
		"lora": {"--method", "lora"},
		"peft": nil,
	} {
		parent := t.TempDir()
		first, second := filepath.Join(parent, "first"), filepath.Join(parent, "second")
		if code, _, stderr := veratune(alpacaArgs(model, data, first, more...)...); code != 0 {
			t.Fatalf("%s: exit code %d, %q", name, code, stderr)
		}
		from := filepath.Join(first, train.AdapterFile)
		if name == "peft" {
			from = filepath.Join(parent, "peft")
			if code, _, stderr := veratune("export", "--model", model, "--adapter",
				filepath.Join(first, train.AdapterFile), "--to", "peft", "--out", from); code != 0 {
				t.Fatalf("export: exit code %d, %q", code, stderr)
			}
		}
		warm := append([]string{"alpaca", "--model", model, "--data", data, "--from", from, "--template", "alpaca",
			"--threads", "1", "--steps", "6", "--eval-every", "0.5epoch", "--out", second}, more...)
		warm = slices.Clip(warm)
		for _, args := range [][]string{append(warm, "--max-steps", "3"), append(warm, "--resume")} {
			if code, stdout, stderr := veratune(args...); code != 0 ||
				strings.Contains(stdout, "max-steps: halted after step 3") == (args[len(args)-1] == "--resume") {
				t.Fatalf("%s: exit code %d, %q, %q", name, code, stdout, stderr)
			}
		}
		reports := make([]*train.Report, 2)
		for i, run := range []string{first, second} {
			var err error
			if reports[i], err = train.ReadRun(run); err != nil {
				t.Fatal(err)
			}
		}
		if was, is := reports[0], reports[1]; is.Before.Loss != was.Last.Loss || is.Last.Loss == is.Before.Loss ||
			is.Trained != was.Trained || is.Steps != 6 {
			t.Errorf("%s: %v at the end of the first run; %+v, %+v", name, was.Last, is.Before, is)
		}
		var settings struct{ Setup struct{ From string } }
		if err := json.Unmarshal(read(t, filepath.Join(second, train.ConfigFile)), &settings); err != nil ||
			len(settings.Setup.From) != 64 {
			t.Errorf("%s: the run was begun with %q, %v", name, settings.Setup.From, err)
		}
		code, printed, stderr := veratune("alpaca", "--config", filepath.Join(second, train.OptionsFile),
			"--print-config")
		if code != 0 || !strings.Contains(printed, "from: ") || strings.Contains(printed, "rank") {
			t.Errorf("%s: exit code %d, %q, %s", name, code, stderr, printed)
		}
		if name != "vera" {
			continue
		}
		earlier, _ := filepath.Glob(filepath.Join(first, "checkpoints", "step-*", train.AdapterFile))
		for _, other := range earlier[:len(earlier)-1] {
			if code, _, stderr := veratune(append(warm, "--resume", "--from", other)...); code != exitFailed ||
				!strings.Contains(stderr, "the adapter to begin with is another") {
				t.Errorf("resumed from another adapter: exit code %d, %q", code, stderr)
			}
		}
	}
}
