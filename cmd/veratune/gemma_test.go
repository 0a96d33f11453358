package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

const gemmaRows = "data/alpaca_libre_ok_v1-3.json"

// lossOf is the mean loss that the command loss prints.
func lossOf(t *testing.T, args ...string) float64 {
	t.Helper()
	code, stdout, stderr := veratune(append([]string{"loss"}, args...)...)
	found := regexp.MustCompile(`loss ([0-9.]+)`).FindStringSubmatch(stdout)
	if code != 0 || found == nil {
		t.Fatalf("exit code %d, %q: %s", code, stdout, stderr)
	}
	loss, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return loss
}

// someRows writes rows of the shared instruction data.
func someRows(t *testing.T, from, to int) string {
	t.Helper()
	var rows []json.RawMessage
	if err := json.Unmarshal(read(t, testutil.Shared(t, gemmaRows)[0]), &rows); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(rows[from:to])
	path := filepath.Join(t.TempDir(), "rows.json")
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestPEFTLossOfGemma compares the loss of the base model with that of transformers, which loads the same file and gets
// our tokens, within 1e-3.
func TestPEFTLossOfGemma(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	interpreter, path, rows := testutil.Python(t), testutil.Gemma(t), someRows(t, 0, 64)
	loss := lossOf(t, "--model", path, "--data", rows, "--compute", "f32")
	code, stdout, stderr := veratune("data", "show", "--json", "--model", path, "--rows", "64", rows)
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte(stdout), 0o600); code != 0 || err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	output, err := exec.Command(interpreter, "../../tools/peft_bench.py", "--model", path, "--tokens", tokens, "--rows",
		"64", "--loss", fmt.Sprint(loss)).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	t.Log(strings.TrimSpace(string(output)))
}

// TestGemmaLearns trains the real model for a few steps: the loss on other rows falls.
func TestGemmaLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	path, rows, others := testutil.Gemma(t), someRows(t, 64, 192), someRows(t, 0, 32)
	out := filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune("alpaca", "--model", path, "--data", rows, "--rank", "256", "--lr", "2e-2",
		"--held-out", "0", "--out", out); code != 0 {
		t.Fatal(stderr)
	}
	before := lossOf(t, "--model", path, "--data", others)
	after := lossOf(t, "--model", path, "--data", others, "--adapter", filepath.Join(out, "adapter.gguf"))
	if !(after < before-0.02) {
		t.Errorf("held-out loss %.4f before, %.4f after", before, after)
	}
	t.Logf("held-out loss %.4f before, %.4f after", before, after)
}
