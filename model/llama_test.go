package model

import (
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

func openLlama(t *testing.T, path string, o bindings.LlamaOptions) *bindings.Llama {
	t.Helper()
	l, err := bindings.OpenLlama(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// fresh gives llama.cpp's logits of a text alone.
func fresh(t *testing.T, l *bindings.Llama, tokens []int32, rows int) []float32 {
	t.Helper()
	l.Clear()
	logits, err := l.Decode(tokens, rows)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func ownLogits(t *testing.T, m *Model, tokens []int32) []float32 {
	t.Helper()
	logits, err := m.Logits(tokens, len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func saveLoRA(t *testing.T, a *vera.Adapter, rank int, kind string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lora.gguf")
	if _, err := a.SaveLoRA(t.Context(), path, vera.LoRAOptions{Rank: rank, Type: kind, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLlamaTiny has llama.cpp run tiny models with and without a LoRA export. With float32 weights both engines compute
// in float32, except that llama.cpp rounds queries, keys and values to float16: 2⁻¹¹ in each, and logits of up to 4
// differ by up to 0.011.
func TestLlamaTiny(t *testing.T) {
	for name, shape := range map[string]testutil.TinyOptions{
		"plain": {}, "one key head": {KVHeads: 1}, "a key head each": {KVHeads: 4}, "rope factors": {RopeFactors: true},
		"own head": {OwnHead: true},
	} {
		path := testutil.TinyLlama(t, shape)
		m := open(t, path, options())
		l := openLlama(t, path, bindings.LlamaOptions{Context: 64, Batch: 16, Threads: 1})
		tokens := randomBatch(1, m.Vocab, 40).tokens
		plain := fresh(t, l, tokens, 40)
		if e := maxDiff(plain, ownLogits(t, m, tokens)); !(e <= 2e-2) {
			t.Errorf("%s: base off by %.2g", name, e)
		}
		change := func(*vera.Config) {}
		if name == "a key head each" {
			change = func(c *vera.Config) { *c = vera.LoRADefault(); c.Rank = 5; ranksAndAlphas(c) }
		}
		a := adapted(t, m, change)
		want := ownLogits(t, m, tokens)
		if e := maxDiff(plain, want); e < 0.1 {
			t.Fatalf("the adapter changes logits by %g only", e)
		}
		for _, kind := range []string{"f32", "f16"} {
			lora := saveLoRA(t, a, 0, kind)
			if err := l.SetLoRA(lora, 1); err != nil {
				t.Fatal(err)
			}
			if e := maxDiff(fresh(t, l, tokens, 40), want); !(e <= 2e-2) {
				t.Errorf("%s: %s LoRA off by %.2g", name, kind, e)
			}
			if err := l.SetLoRA(lora, 0); err != nil {
				t.Fatal(err)
			}
			sameBits(t, "LoRA at scale 0", fresh(t, l, tokens, 40), plain)
		}
		if err := l.SetLoRA("", 1); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "LoRA taken off", fresh(t, l, tokens, 40), plain)
	}
}

// Logits of a text in parts are those of the whole, whatever the batch, and the rows asked for are the last ones.
func TestLlamaDecode(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	tokens := randomBatch(2, 300, 30).tokens
	whole := fresh(t, openLlama(t, path, bindings.LlamaOptions{Context: 64, Batch: 64, Threads: 1}), tokens, 30)
	l := openLlama(t, path, bindings.LlamaOptions{Context: 30, Batch: 7, Threads: 2})
	vocab := l.Vocab()
	near := func(what string, got, want []float32) {
		t.Helper()
		if e := maxDiff(got, want); len(got) != len(want) || !(e <= 3e-3) {
			t.Errorf("%s: %d numbers for %d, off by %.2g", what, len(got), len(want), e)
		}
	}
	near("small batches", fresh(t, l, tokens, 30), whole)
	near("9 rows", fresh(t, l, tokens, 9), whole[21*vocab:])
	near("no row", fresh(t, l, tokens[:11], 0), nil)
	rest, err := l.Decode(tokens[11:], 19)
	if err != nil {
		t.Fatal(err)
	}
	near("the rest", rest, whole[11*vocab:])

	for _, test := range []struct {
		tokens []int32
		rows   int
		word   string
	}{
		{tokens[:1], 1, "room for 30"}, {nil, 0, "0 tokens"}, {tokens[:2], 3, "3 rows"}, {tokens[:2], -1, "-1 rows"},
	} {
		if _, err := l.Decode(test.tokens, test.rows); err == nil || !strings.Contains(err.Error(), test.word) {
			t.Errorf("error %v, want %q", err, test.word)
		}
	}
	l.Clear()
	for _, token := range []int32{-1, int32(vocab), math.MaxInt32} {
		if _, err := l.Decode([]int32{token}, 1); err == nil || !strings.Contains(err.Error(), "vocabulary") {
			t.Errorf("token %d: %v", token, err)
		}
	}
	l.Close()
	l.Close()
	l.Clear()
	if _, err := l.Decode(tokens, 1); err == nil {
		t.Error("a closed model decodes")
	}
	if err := l.SetLoRA("", 1); err == nil {
		t.Error("a closed model takes a LoRA")
	}
}

func TestLlamaErrors(t *testing.T) {
	good := bindings.LlamaOptions{Context: 64, Batch: 64, Threads: 1}
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	for _, o := range []bindings.LlamaOptions{
		{}, {Batch: 1, Threads: 1}, {Context: 1 << 30, Batch: 1, Threads: 1}, {Context: 64, Threads: 1},
		{Context: 64, Batch: 1 << 20, Threads: 1},
		{Context: 64, Batch: 64}, {Context: 64, Batch: 64, Threads: 1000},
	} {
		if _, err := bindings.OpenLlama(path, o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	missing := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Remove("blk.1.ffn_up.weight")
	}})
	for _, bad := range []string{missing, filepath.Join(t.TempDir(), "absent.gguf"), t.TempDir()} {
		if _, err := bindings.OpenLlama(bad, good); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: error %v", bad, err)
		}
	}

	m, l := open(t, path, options()), openLlama(t, path, good)
	tokens := randomBatch(3, m.Vocab, 9).tokens
	plain := fresh(t, l, tokens, 9)
	native := filepath.Join(t.TempDir(), "native.gguf")
	if err := adapted(t, m, nil).Save(native); err != nil {
		t.Fatal(err)
	}
	other := tiny(t, testutil.TinyOptions{Width: 32})
	for name, test := range map[string]struct{ path, word string }{
		"another model's": {saveLoRA(t, adapted(t, other, nil), 0, "f32"), "incorrect shape"},
		"a native file":   {native, "adapter.lora.alpha"},
		"a model":         {path, "adapter.type"},
		"no file":         {filepath.Join(t.TempDir(), "absent.gguf"), "absent.gguf"},
		"three dimensions": {loraOf(t, map[string]any{"adapter.lora.alpha": float32(1)}, "blk.0.attn_q.weight.lora_a",
			[]int64{64, 1, 2}),
			"must be a matrix"},
		"half a pair": {loraOf(t, map[string]any{"adapter.lora.alpha": float32(1)}, "blk.0.attn_q.weight.lora_a",
			[]int64{64, 4}), "missing one"},
		"no weight's": {loraOf(t, map[string]any{"adapter.lora.alpha": float32(1)}, "x.lora_a", []int64{64, 4}),
			"no factor"},
		"alpha of a string": {loraOf(t, map[string]any{"adapter.lora.alpha": "8"}, "x.weight.lora_a", []int64{64, 4}),
			"adapter.lora.alpha"},
		"type of a number": {loraOf(t, map[string]any{"adapter.lora.alpha": float32(1), "adapter.type": uint32(1)},
			"x.weight.lora_a", []int64{64, 4}),
			"adapter.type"},
	} {
		if err := l.SetLoRA(test.path, 1); err == nil || !strings.Contains(err.Error(), test.word) {
			t.Errorf("%s: error %v, want %q", name, err, test.word)
		}
		sameBits(t, name, fresh(t, l, tokens, 9), plain)
	}
}

// loraOf writes a LoRA file of one tensor of ones.
func loraOf(t *testing.T, change map[string]any, name string, shape []int64) string {
	t.Helper()
	w := bindings.NewGGUFWriter()
	defer w.Close()
	values := map[string]any{"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
	for key, value := range change {
		values[key] = value
	}
	for key, value := range values {
		if err := w.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	n := int64(1)
	for _, s := range shape {
		n *= s
	}
	data, err := bindings.Quantize(bindings.F32, slices.Repeat([]float32{1}, int(n)), shape[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddTensor(name, bindings.F32, shape, data); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lora.gguf")
	if err := w.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}
