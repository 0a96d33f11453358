package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// shape is all that tells one Llama from another, before its weights.
type shape struct {
	name           string
	blocks         int
	width          int
	hidden         int // feed-forward length
	heads, kvHeads int
	vocab          int
	context        int
	ropeBase       float32
	normEps        float32
}

// shapes are those of Llama 2 (Touvron et al., arXiv 2307.09288), as llama.cpp converts its published files.
var shapes = map[string]shape{
	"7b":  {"llama2-7b", 32, 4096, 11008, 32, 32, 32000, 4096, 10000, 1e-5},
	"13b": {"llama2-13b", 40, 5120, 13824, 40, 40, 32000, 4096, 10000, 1e-5},
}

func shapeNames() []string {
	return slices.SortedFunc(maps.Keys(shapes), func(a, b string) int { return shapes[a].blocks - shapes[b].blocks })
}

// Standard deviations of the weights, GPT-2's: what the blocks add to the residual stream is scaled down so that its size does not grow with their number.
const deviation = 0.02

func (s shape) projectionDeviation() float64 { return deviation / math.Sqrt(2*float64(s.blocks)) }

// headDeviation gives logits a standard deviation σ of a quarter, so that the loss of any text is close to ln(vocab) + σ²/2.
func (s shape) headDeviation() float64 { return 0.25 / math.Sqrt(float64(s.width)) }

// headType is that of the output head in the files that llama.cpp quantises.
func headType(t bindings.Type) bindings.Type {
	if t.BlockSize() == 1 || t == bindings.Q8_0 {
		return t
	}
	return bindings.Q6_K
}

// write writes the model, its matrices in type t, streaming from the pools of random weights.
func (s shape) write(path string, t bindings.Type, seed uint64) error {
	w := bindings.NewGGUFWriter()
	defer w.Close()
	metadata, err := s.metadata()
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		if err := w.Set(key, metadata[key]); err != nil {
			return err
		}
	}
	if err := s.addTensors(w, t, rand.New(rand.NewPCG(seed, 1))); err != nil {
		return err
	}
	if err := w.WriteFile(path); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (s shape) metadata() (map[string]any, error) {
	m := map[string]any{
		"general.architecture":                   "llama",
		"general.type":                           "model",
		"general.name":                           s.name + " with random weights",
		"general.quantization_version":           uint32(2), // GGML_QNT_VERSION
		"llama.block_count":                      uint32(s.blocks),
		"llama.context_length":                   uint32(s.context),
		"llama.embedding_length":                 uint32(s.width),
		"llama.feed_forward_length":              uint32(s.hidden),
		"llama.attention.head_count":             uint32(s.heads),
		"llama.attention.head_count_kv":          uint32(s.kvHeads),
		"llama.attention.layer_norm_rms_epsilon": s.normEps,
		"llama.rope.dimension_count":             uint32(s.width / s.heads),
		"llama.rope.freq_base":                   s.ropeBase,
		"llama.vocab_size":                       uint32(s.vocab),
	}
	t, err := tokenizer(s.vocab)
	maps.Copy(m, t)
	return m, err
}

// addTensors adds all tensors by llama.cpp's names, shapes in ggml's order.
func (s shape) addTensors(w *bindings.GGUFWriter, t bindings.Type, random *rand.Rand) error {
	plain, err := newPool(random, t, deviation, s.width*max(s.vocab, s.hidden))
	if err != nil {
		return err
	}
	projection, err := newPool(random, t, s.projectionDeviation(), s.width*max(s.width, s.hidden))
	if err != nil {
		return err
	}
	head, err := newPool(random, headType(t), s.headDeviation(), s.width*s.vocab)
	if err != nil {
		return err
	}
	ones := make([]float32, s.width)
	for i := range ones {
		ones[i] = 1
	}
	norm, err := bindings.Quantize(bindings.F32, ones, int64(s.width))
	if err != nil {
		return err
	}
	matrix := func(name string, p *pool, in, out int) {
		if err == nil {
			err = w.AddTensor(name, p.kind, []int64{int64(in), int64(out)}, p.matrix(random, in, out))
		}
	}
	vector := func(name string) {
		if err == nil {
			err = w.AddTensor(name, bindings.F32, []int64{int64(s.width)}, norm)
		}
	}
	matrix("token_embd.weight", plain, s.width, s.vocab)
	vector("output_norm.weight")
	matrix("output.weight", head, s.width, s.vocab)
	kv := s.width / s.heads * s.kvHeads
	for i := range s.blocks {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s.weight", i, part) }
		vector(name("attn_norm"))
		matrix(name("attn_q"), plain, s.width, s.width)
		matrix(name("attn_k"), plain, s.width, kv)
		matrix(name("attn_v"), plain, s.width, kv)
		matrix(name("attn_output"), projection, s.width, s.width)
		vector(name("ffn_norm"))
		matrix(name("ffn_gate"), plain, s.width, s.hidden)
		matrix(name("ffn_up"), plain, s.width, s.hidden)
		matrix(name("ffn_down"), projection, s.hidden, s.width)
	}
	return err
}
