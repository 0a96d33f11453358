package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

func TestCompare(t *testing.T) {
	model, data, parent := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 30), t.TempDir()
	small, large, begun := filepath.Join(parent, "small"), filepath.Join(parent, "large"),
		filepath.Join(parent, "begun")
	for out, more := range map[string][]string{small: nil, large: {"--rank", "16", "--lr", "0.02"},
		begun: {"--rank", "4"}} {
		if code, _, stderr := veratune(alpacaArgs(model, data, out, more...)...); code != 0 {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
	}
	if err := os.Remove(filepath.Join(begun, train.AdapterFile)); err != nil {
		t.Fatal(err)
	}
	plot := filepath.Join(parent, "runs.svg")
	code, stdout, stderr := veratune("compare", "--plot", plot, small, large, begun)
	if code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	for _, line := range []string{"rank  8  16  4", "lr  0.004  0.02  0.004", "unfinished", "training loss", "tokens/s",
		"vera, "} {
		if !strings.Contains(strings.Join(strings.Fields(stdout), " "), strings.Join(strings.Fields(line), " ")) {
			t.Errorf("no %q in\n%s", line, stdout)
		}
	}
	if strings.Contains(stdout, "warmup_ratio") {
		t.Errorf("settings that are equal are shown:\n%s", stdout)
	}
	if _, err := os.Stat(plot); err != nil {
		t.Error(err)
	}
	t.Logf("\n%s", stdout)
	var reports []train.Report
	_, stdout, _ = veratune("compare", "--json", small, large)
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || len(reports) != 2 || !reports[1].Finished ||
		reports[1].Steps != reports[0].Steps {
		t.Errorf("%+v, %v", reports, err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{small}, exitUsage, "two run folders"},
		{[]string{small, large, "--plot"}, exitUsage, "--plot: needs a value"},
		{[]string{"--plot", "x.gif", small, large}, exitUsage, ".svg or .png"},
		{[]string{small, t.TempDir()}, exitFailed, "is no run"},
		{[]string{"--plot", filepath.Join(parent, "none", "x.svg"), small, large}, exitFailed, "none"},
	} {
		if code, _, stderr := veratune(append([]string{"compare"}, c.args...)...); code != c.code ||
			!strings.Contains(stderr, c.says) {
			t.Errorf("%v: exit code %d, %q", c.args, code, stderr)
		}
	}
}
