package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestExportMerged trains, merges in several types, and checks the losses that are printed and that the file is a model
// like any other.
func TestExportMerged(t *testing.T) {
	model, data, run := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40),
		filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, run)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	before := read(t, model)
	dir := t.TempDir()
	out := filepath.Join(dir, "merged.gguf")
	export := func(more ...string) (int, string, string) {
		return veratune(append([]string{"export", "--to", "merged", "--threads", "1", "--model", model, "--adapter",
			filepath.Join(run, train.AdapterFile)}, more...)...)
	}
	for _, more := range [][]string{{}, {"--type", "q8_0"}, {"--type", "f32"}, {"--type", "auto", "--budget", "20kB"}} {
		code, stdout, stderr := export(append(more, "-o", out, "--overwrite", "--data", data)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %q", more, code, stderr)
		}
		var base, adapted, merged float64
		losses := strings.Join(strings.Fields(stdout[strings.Index(stdout, "loss, base"):]), " ")
		if n, err := fmt.Sscanf(losses, "loss, base %f loss, adapter %f loss, merged %f", &base, &adapted,
			&merged); n != 3 {
			t.Fatalf("%v: %v in %q", more, err, stdout)
		}
		if !(adapted < base && merged < base) {
			t.Errorf("%v: loss %g, with the adapter %g, merged %g", more, base, adapted, merged)
		}
		if len(more) == 2 && more[1] == "f32" && adapted != merged {
			t.Errorf("in f32 the loss is %g, with the adapter %g", merged, adapted)
		}
		if strings.Contains(stdout, " → ") != (len(more) > 0) {
			t.Errorf("%v: the tensors that change their type are not listed, or others are: %q", more, stdout)
		}
		for _, args := range [][]string{{"inspect", out}, {"generate", "--model", out, "--threads", "1", "--max-tokens",
			"3", "-p", "add 3"}} {
			if code, _, stderr := veratune(args...); code != 0 {
				t.Errorf("%v: exit code %d, %q", args, code, stderr)
			}
		}
	}
	code, stdout, stderr := export("-o", out, "--overwrite", "--json")
	var printed mergedResult
	if err := json.Unmarshal([]byte(stdout), &printed); code != 0 || err != nil || len(printed.Tensors) != 14 ||
		printed.Tensors[0].Type != "q4_0" {
		t.Errorf("exit code %d, %v: %q, %q", code, err, stdout, stderr)
	}
	for word, try := range map[string]struct {
		args []string
		code int
	}{
		"read by this command": {[]string{"-o", model}, exitFailed},
		"q4_9":                 {[]string{"-o", out, "--type", "q4_9"}, exitUsage},
		"needs a budget":       {[]string{"-o", out, "--type", "auto"}, exitUsage},
		`"lots"`:               {[]string{"-o", out, "--type", "auto", "--budget", "lots"}, exitUsage},
		"only for the type":    {[]string{"-o", out, "--budget", "1MB"}, exitUsage},
		"importance matrix":    {[]string{"-o", out, "--overwrite", "--type", "iq1_s"}, exitFailed},
		"multiple of its bl":   {[]string{"-o", out, "--overwrite", "--type", "q4_K"}, exitFailed},
	} {
		if code, _, stderr := export(try.args...); code != try.code || !strings.Contains(stderr, word) {
			t.Errorf("%v: exit code %d, %q does not say %q", try.args, code, stderr, word)
		}
	}
	if !bytes.Equal(read(t, model), before) {
		t.Error("the base model was changed")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the merged file lie %v, %v", entries, err)
	}
}
