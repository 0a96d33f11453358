package main

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestTrain: alpaca answers to train, too, wherever commands are named.
func TestTrain(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 8)
	var adapters [][]byte
	for _, name := range []string{"alpaca", "train"} {
		out := filepath.Join(t.TempDir(), "run")
		args := alpacaArgs(model, data, out, "--steps", "2")
		args[0] = name
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("%s: exit code %d, %s", name, code, stderr)
		}
		adapters = append(adapters, read(t, filepath.Join(out, train.AdapterFile)))
	}
	if !bytes.Equal(adapters[0], adapters[1]) {
		t.Error("train makes another adapter than alpaca")
	}
	_, alpaca, _ := veratune("alpaca", "--help")
	if code, help, _ := veratune("help", "train"); code != 0 || help != alpaca {
		t.Errorf("help on train: exit code %d, %s", code, help)
	}
	cmd, names := process("--generate-bash-completion")
	if err := cmd.Run(); err != nil || !slices.Contains(strings.Fields(names.String()), "train") {
		t.Errorf("completed are %q, %v", names, err)
	}
	if _, script, _ := veratune("completion", "fish"); !strings.Contains(script, "alpaca train") {
		t.Errorf("fish doesn't know train: %.2000s", script)
	}
	for _, page := range []string{"cli.md", "veratune.1"} {
		if !strings.Contains(string(read(t, filepath.Join("..", "..", "docs", page))), "veratune train [OPTIONS]") {
			t.Errorf("%s doesn't name it", page)
		}
	}
}
