package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
)

// TestCompute begins runs in an arithmetic that is given or chosen; a run that is resumed keeps its own.
func TestCompute(t *testing.T) {
	best, err := model.DeviceCompute(model.CPU)
	if err != nil {
		t.Fatal(err)
	}
	data, dir, tiny := rows(t, 12), t.TempDir(), testutil.TinyLlama(t, testutil.TinyOptions{})
	learn := func(out string, more ...string) []string {
		return append([]string{"alpaca", "--model", tiny, "--data", data, "--template", "alpaca", "--steps", "3",
			"--rank", "4", "--threads", "1", "--out", filepath.Join(dir, out)}, more...)
	}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, `compute "fast": auto, int, bf16 or f32`, learn("run", "--compute", "fast")},
		{0, "compute: auto", learn("run", "--print-config")},
		{0, "compute bf16: ", learn("run", "--compute", "bf16", "--max-steps", "1")},
		{1, "compute", learn("run", "--compute", "f32", "--resume")},
		{0, "compute bf16: ", learn("run", "--compute", "auto", "--max-steps", "1", "--resume")},
		{0, "compute bf16: ", learn("run", "--resume")},
		{0, "compute " + string(best) + ": ", learn("best", "--max-steps", "1")},
		{0, "compute int: ", learn("int", "--compute", "int", "--max-steps", "1")},
		{0, "compute int: ", learn("int", "--resume")},
	} {
		if code, stdout, stderr := veratune(c.args...); code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%q: exit code %d, want %d and %q\n%s%s", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}
