package main

import (
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// TestFromPEFTLoRA trains on from a LoRA of PEFT whose layers have ranks and alphas of their own, twice, and hands the
// result to llama.cpp.
func TestFromPEFTLoRA(t *testing.T) {
	path, data, dir := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), t.TempDir()
	m := exact(t, path)
	begun := randomAdapter(t, m.Base(), 0.1, func(c *vera.Config) {
		lora(c)
		c.Rank, c.RSLoRA, c.Ranks, c.Alphas = 8, true, map[string]int{"blk.0.attn_k": 3, "blk.1.ffn_up": 5},
			map[string]float32{"blk.1.ffn_down": 5}
	})
	peft, first, second, out := filepath.Join(dir, "peft"), filepath.Join(dir, "first"), filepath.Join(dir, "second"),
		filepath.Join(dir, "lora.gguf")
	if code, _, stderr := veratune("export", "--model", path, "--adapter", begun, "--to", "peft", "--out",
		peft); code != 0 {
		t.Fatal(stderr)
	}
	for _, step := range [][2]string{{peft, first}, {filepath.Join(first, train.AdapterFile), second}} {
		args := []string{"alpaca", "--method", "lora", "--model", path, "--data", data, "--from", step[0], "--out",
			step[1], "--template", "alpaca", "--steps", "2", "--threads", "1"}
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatal(stderr)
		}
	}
	adapter := filepath.Join(second, train.AdapterFile)
	want, got := attached(t, m, begun), attached(t, m, adapter)
	if !reflect.DeepEqual(got.Ranks, want.Ranks) || !reflect.DeepEqual(got.Alphas, want.Alphas) || !got.RSLoRA ||
		slices.Equal(got.Params, want.Params) {
		t.Errorf("%+v, want that of %+v, trained", got.Config, want.Config)
	}
	if code, _, stderr := veratune("export", "--model", path, "--adapter", adapter, "--to", "lora", "--type", "f32",
		"--out", out); code != 0 {
		t.Fatal(stderr)
	}
	l, err := bindings.OpenLlama(path, bindings.LlamaOptions{Context: 32, Batch: 32, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetLoRA(out, 1); err != nil {
		t.Error(err)
	}
	for _, path := range []string{peft, adapter, out} {
		if code, stdout, stderr := veratune("inspect", path); code != 0 {
			t.Error(stderr)
		} else {
			t.Log(stdout)
		}
	}
}
