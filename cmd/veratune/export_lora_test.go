package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// TestExportLoRA writes LoRAs of a trained adapter, exact and cut, and checks that llama.cpp takes them and that the
// figures printed are those of the files.
func TestExportLoRA(t *testing.T) {
	model, data, run := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, run)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	adapter, out := filepath.Join(run, train.AdapterFile), filepath.Join(t.TempDir(), "lora.gguf")
	args := []string{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out", out, "--overwrite",
		"--threads", "1"}

	l, err := bindings.OpenLlama(model, bindings.LlamaOptions{Context: 32, Batch: 32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		more  []string
		words []string
	}{
		{nil, []string{"rank 8", "28 in f16"}},
		{[]string{"--type", "f32", "--rank", "8"}, []string{"rank 8", "28 in f32"}},
		{[]string{"--rank", "3"}, []string{"rank 3", "retained energy"}},
		{[]string{"--type", "q8_0"}, []string{"14 in f16, 14 in q8_0"}}, // rows of 8 are no whole blocks of 32
	} {
		code, stdout, stderr := veratune(append(args, test.more...)...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %q", test.more, code, stderr)
		}
		for _, word := range test.words {
			if !strings.Contains(stdout, word) {
				t.Errorf("%v: %q does not say %q", test.more, stdout, word)
			}
		}
		if err := l.SetLoRA(out, 1); err != nil {
			t.Errorf("%v: %v", test.more, err)
		}
	}

	code, stdout, stderr := veratune(append(args, "--rank", "3", "--json", "--data", data, "--template", "alpaca")...)
	if code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	var r loraResult
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rank != 3 || r.Bytes != info.Size() || len(r.Layers) != 14 || len(r.Losses) < 2 ||
		!(r.Losses[1].Loss < r.Losses[0].Loss) {
		t.Errorf("%+v for a file of %d bytes", r, info.Size())
	}
	for _, l := range r.Layers {
		if !(l.Retained > 0.3 && l.Retained < 1) {
			t.Errorf("%s retains %g", l.Name, l.Retained)
		}
	}

	before := read(t, out)
	for _, bad := range []struct {
		more []string
		code int
		word string
	}{
		{[]string{"--type", "q4_0"}, exitUsage, "f32, f16 or q8_0"},
		{[]string{"--rank", "-1"}, exitUsage, "rank -1"},
		{[]string{"--rank", "9"}, exitFailed, "rank 8"},
		{[]string{"--out", filepath.Join(run, "absent", "x.gguf")}, exitFailed, "absent"},
	} {
		if code, _, stderr := veratune(append(args, bad.more...)...); code != bad.code ||
			!strings.Contains(stderr, bad.word) {
			t.Errorf("%v: exit code %d, %q", bad.more, code, stderr)
		}
	}
	if string(read(t, out)) != string(before) {
		t.Error("a failed export has changed the file")
	}
}

// TestExportLoRAInterrupted cuts an adapter: what it says of the layers that are done is one line each, and SIGINT at
// the first ends it and leaves what was there.
func TestExportLoRAInterrupted(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 4, Width: 512, Hidden: 768, Heads: 8, KVHeads: 4})
	c := vera.Default()
	c.Rank = 384
	a, err := vera.New(c, opened(t, model).Base())
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Params {
		a.Params[i] = 0.01 * float32(i%7-3)
	}
	adapter, folder := filepath.Join(t.TempDir(), "adapter.gguf"), t.TempDir()
	if err := a.Save(adapter); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(folder, "lora.gguf")
	if err := os.WriteFile(out, []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, _ := process("export", "--model", model, "--adapter", adapter, "--to", "lora", "--rank", "16", "--out", out,
		"--overwrite", "--threads", "2")
	cmd.Stderr = nil
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	if line, err := lines.ReadString('\n'); err != nil || !strings.HasPrefix(line, "layers of the LoRA 1/28") {
		t.Errorf("%q, %v", line, err)
	}
	cmd.Process.Signal(syscall.SIGINT)
	rest, _ := io.ReadAll(lines)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("%v, want exit code %d: %s", err, exitInterrupted, rest)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 || string(read(t, out)) != "older" {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
}
