package model

import (
	"path/filepath"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// merged writes a model with its adapter merged, in the types it has, and gives the file's path.
func merged(t *testing.T, m *Model, a *vera.Adapter) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "merged.gguf")
	if _, err := a.SaveMerged(t.Context(), path, m.File(), vera.MergeOptions{Type: vera.TypeKeep, Threads: 2}); err !=
		nil {
		t.Fatal(err)
	}
	return path
}

// TestMergedLogits opens merged files: with weights in float32 the logits are those of the base with the adapter but
// for the order of sums, in 16 bits but for one rounding of each weight (2⁻¹² and 2⁻⁹ of it, over two blocks of
// normally distributed logits).
func TestMergedLogits(t *testing.T) {
	for kind, tolerance := range map[bindings.Type]float64{bindings.F32: 1e-5, bindings.F16: 2e-3,
		bindings.BF16: 2e-2} {
		m := tiny(t, testutil.TinyOptions{Type: kind})
		tokens := randomBatch(1, m.Vocab, 40).tokens
		logits := func(m *Model) []float32 {
			l, err := m.Logits(tokens, len(tokens))
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		plain := logits(m)
		a := adapted(t, m, nil)
		want := logits(m)
		if e := relativeL2(plain, want); e < 0.1 {
			t.Fatalf("the adapter changes logits by %g only", e)
		}
		w := open(t, merged(t, m, a), options())
		if e := relativeL2(logits(w), want); !(e <= tolerance) {
			t.Errorf("%v: the logits of the merged file are off by %.2g", kind, e)
		}
		if w.Base().Fingerprint == m.Base().Fingerprint {
			t.Error("the merged file has the fingerprint of its base: its adapter would be applied once more")
		}
	}
}

// TestMergedInLlama has llama.cpp run merged files: its logits may differ from ours by no more than they do on the
// base.
func TestMergedInLlama(t *testing.T) {
	for _, kind := range []bindings.Type{bindings.F32, bindings.Q4_0, bindings.Q4_1, bindings.Q8_0, bindings.Q4_K,
		bindings.Q6_K} {
		m := tiny(t, testutil.TinyOptions{Type: kind})
		off := func(m *Model, path string) float64 {
			l, err := bindings.OpenLlama(path, bindings.LlamaOptions{Context: 64, Batch: 64, Threads: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			tokens := randomBatch(2, m.Vocab, 40).tokens
			theirs, err := l.Decode(tokens, len(tokens))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := m.Logits(tokens, len(tokens))
			if err != nil {
				t.Fatal(err)
			}
			return relativeL2(theirs, ours)
		}
		base := off(m, m.File().Path())
		path := merged(t, m, adapted(t, m, nil))
		after := off(open(t, path, options()), path)
		t.Logf("%v: llama.cpp is off by %.2g on the base, %.2g on the merged file", kind, base, after)
		if !(after <= 2*base) {
			t.Errorf("%v: llama.cpp is off by %.2g on the base, %.2g on the merged file", kind, base, after)
		}
	}
}
