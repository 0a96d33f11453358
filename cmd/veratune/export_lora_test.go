package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestExportLoRA writes LoRAs of a trained adapter, exact and cut, and checks that llama.cpp takes them and that the figures printed are those of the files.
func TestExportLoRA(t *testing.T) {
	model, data, run := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, run)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	adapter, out := filepath.Join(run, train.AdapterFile), filepath.Join(t.TempDir(), "lora.gguf")
	args := []string{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out", out, "--overwrite", "--threads", "1"}

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
	if r.Rank != 3 || r.Bytes != info.Size() || len(r.Layers) != 14 || len(r.Losses) < 2 || !(r.Losses[1].Loss < r.Losses[0].Loss) {
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
		if code, _, stderr := veratune(append(args, bad.more...)...); code != bad.code || !strings.Contains(stderr, bad.word) {
			t.Errorf("%v: exit code %d, %q", bad.more, code, stderr)
		}
	}
	if string(read(t, out)) != string(before) {
		t.Error("a failed export has changed the file")
	}
}
