package model

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// TestSplitModel holds a model in parts to the same one in a single file: its fingerprint, losses and gradients,
// answers, and what is written of it.
func TestSplitModel(t *testing.T) {
	for name, o := range map[string]testutil.TinyOptions{"tied": {Type: bindings.Q4_0},
		"own head": {OwnHead: true, Type: bindings.Q8_0}} {
		t.Run(name, func(t *testing.T) {
			path := testutil.TinyLlama(t, o)
			paths := testutil.Split(t, path, 7, true)
			whole, parts := open(t, path, options()), open(t, paths[2], options())
			if parts.Base().Fingerprint != whole.Base().Fingerprint || parts.TiedHead != whole.TiedHead {
				t.Errorf("fingerprint %s, tied %v, want %s, %v", parts.Base().Fingerprint, parts.TiedHead,
					whole.Base().Fingerprint, whole.TiedHead)
			}
			wholeSays, err := Describe(path)
			if err != nil {
				t.Fatal(err)
			}
			if says, err := Describe(paths[1]); err != nil || fmt.Sprint(says) != fmt.Sprint(wholeSays) {
				t.Errorf("described as %v, %v, want %v", says, err, wholeSays)
			}
			a := adapted(t, whole, nil)
			if err := parts.Attach(a); err != nil {
				t.Fatal(err)
			}
			b := randomBatch(3, whole.Vocab, 9, 14)
			wantLoss, wantGrad := b.gradient(t, whole, 1)
			if loss, grad := b.gradient(t, parts, 1); loss != wantLoss || !slices.Equal(grad, wantGrad) {
				t.Errorf("loss %g, want %g, or another gradient", loss, wantLoss)
			}
			prompts := [][]int32{b.tokens[:5], b.tokens[5:12]}
			if got, want := answers(t, parts, prompts), answers(t, whole, prompts); !slices.EqualFunc(got, want,
				slices.Equal) {
				t.Errorf("answers %v, want %v", got, want)
			}
			if _, err := parts.Tokenizer(""); err != nil {
				t.Fatal(err)
			}
			got, want := merged(t, parts, a), merged(t, whole, a)
			if x, y := content(t, got), content(t, want); !bytes.Equal(x, y) {
				t.Errorf("merged into %d bytes, want %d, or other ones", len(x), len(y))
			}
			for _, p := range paths { // none of them is written over, whatever is asked for
				o := vera.MergeOptions{Type: vera.TypeKeep, Threads: 1, Overwrite: true}
				_, err := a.SaveMerged(t.Context(), p, parts.File(), o)
				wantError(t, err, p, "read")
			}
			l := openLlama(t, paths[1], bindings.LlamaOptions{Context: 64, Batch: 64, Threads: 1})
			theirs, err := l.Decode(b.tokens, len(b.tokens))
			if err != nil {
				t.Fatal(err)
			}
			if err := parts.Attach(nil); err != nil {
				t.Fatal(err)
			}
			if e := relativeL2(theirs, ownLogits(t, parts, b.tokens)); !(e < 0.05) {
				t.Errorf("llama.cpp's logits of the parts differ by %g", e)
			}
		})
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// padded gives a model ten rows of embedding more than its tokenizer has tokens, or as many unused tokens at the end of
// its list, with the greatest logits of all.
func padded(unused bool) testutil.TinyOptions {
	return testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		const n, width = 10, 64
		embedding := f.Tensor("token_embd.weight")
		head := testutil.TinyTensor{Name: "output.weight", Shape: []int64{width, 300 + n},
			Values: slices.Clone(embedding.Values)}
		for i := range n * width {
			head.Values = append(head.Values, 50*embedding.Values[i])
		}
		embedding.Shape, embedding.Values = head.Shape, append(embedding.Values, embedding.Values[:n*width]...)
		f.Tensors = append(f.Tensors, head)
		if unused {
			tokens, types := slices.Clone(f.Metadata["tokenizer.ggml.tokens"].([]string)),
				slices.Clone(f.Metadata["tokenizer.ggml.token_type"].([]int32))
			for i := range n {
				tokens, types = append(tokens, fmt.Sprintf("[PAD%d]", 300+i)), append(types, 5)
			}
			f.Metadata["tokenizer.ggml.tokens"], f.Metadata["tokenizer.ggml.token_type"] = tokens, types
		}
	}}
}

// TestPaddedVocabulary has rows of the embedding that no token has. Losses count them, as they are part of what the
// model computes; no answer has them.
func TestPaddedVocabulary(t *testing.T) {
	for name, unused := range map[string]bool{"rows beyond the tokens": false, "unused tokens": true} {
		t.Run(name, func(t *testing.T) {
			m := tiny(t, padded(unused))
			if m.Vocab != 310 || m.Tokens != 300 {
				t.Fatalf("%d tokens of %d", m.Tokens, m.Vocab)
			}
			prompt := randomBatch(4, 300, 6).tokens
			logits := ownLogits(t, m, prompt)
			last := logits[len(logits)-m.Vocab:]
			if best := slices.Index(last, slices.Max(last)); best < 300 {
				t.Fatalf("the greatest logit is that of token %d", best)
			}
			s := m.mustServe(t, 1, 64)
			defer s.Close()
			for seed := range uint64(4) {
				r := trial{prompt: append(slices.Clone(prompt), 305), Sampling: DefaultSampling()}
				r.MaxTokens, r.Seed, r.RepetitionPenalty, r.Temperature = 20, seed, 1.1, float64(2*seed)
				tokens, err := r.run(s)
				if err != nil {
					t.Fatal(err)
				}
				if len(tokens) != 20 || slices.Max(tokens) >= 300 {
					t.Errorf("temperature %g: answer %v", r.Temperature, tokens)
				}
			}
			if _, err := m.Tokenizer(""); err != nil {
				t.Fatal(err)
			}
			adapted(t, m, nil)
			b := randomBatch(3, 300, 9, 14)
			b.gradient(t, m, 1)
		})
	}
}

// TestEqualNumbers opens a model whose metadata repeat a number for every block, with what newer converters say
// besides.
func TestEqualNumbers(t *testing.T) {
	plain := tiny(t, testutil.TinyOptions{})
	for name, changes := range map[string]map[string]any{
		"lists": {
			"llama.attention.head_count": []uint32{4, 4}, "llama.attention.head_count_kv": []int32{2, 2},
			"llama.feed_forward_length": []int64{96, 96},
		},
		"newer keys": {
			"general.sampling.top_k": uint32(20), "general.sampling.temp": float32(0.7),
			"general.sampling.sequence": "top_k;temp", "general.tags": []string{"text"},
			"general.base_model.count": uint32(1), "general.base_model.0.name": "Base", "general.file_type": uint32(0),
			"general.quantization_version": uint32(2),
			"llama.attention.causal":       true, "llama.rope.scaling.type": "none",
			"llama.rope.dimension_sections": []int32{8, 0, 0, 0}, "llama.pooling_type": uint32(3),
			"llama.expert_count": uint32(0), "llama.expert_used_count": uint32(0),
			"llama.attn_logit_softcapping": float32(0), "llama.logit_scale": float32(1),
			"tokenizer.ggml.suppress_tokens": []int32{5}, "tokenizer.ggml.add_sep_token": false,
			"tokenizer.ggml.eom_token_id": uint32(2),
			"split.no":                    uint16(0), "split.count": uint16(0), "split.tensors.count": int32(20),
			"imatrix.chunk_count": uint32(1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := tiny(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
				for key, value := range changes {
					f.Metadata[key] = value
				}
			}})
			tokens := randomBatch(4, 300, 20).tokens
			if !slices.Equal(ownLogits(t, m, tokens), ownLogits(t, plain, tokens)) {
				t.Error("other logits")
			}
			if _, err := m.Tokenizer(""); err != nil {
				t.Fatal(err)
			}
		})
	}
}
