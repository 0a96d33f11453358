package main

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// Standard deviations of the weights, GPT-2's: what the blocks add to the residual stream is scaled down so that its
// size does not grow with their number.
const deviation = 0.02

func (s shape) projectionDeviation() float64 { return deviation / math.Sqrt(2*float64(s.blocks)) }

// headDeviation gives logits a standard deviation σ of a quarter, so that the loss of any text is close to ln(vocab) +
// σ²/2.
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
	metadata, err := s.allMetadata()
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

func (s shape) allMetadata() (map[string]any, error) {
	m := map[string]any{
		"general.architecture":         s.architecture,
		"general.type":                 "model",
		"general.name":                 s.name + " with random weights",
		"general.quantization_version": uint32(2), // GGML_QNT_VERSION
	}
	own := map[string]any{
		"block_count":                      uint32(s.blocks),
		"context_length":                   uint32(s.context),
		"embedding_length":                 uint32(s.width),
		"feed_forward_length":              uint32(s.hidden),
		"attention.head_count":             uint32(s.heads),
		"attention.head_count_kv":          uint32(s.kvHeads),
		"attention.key_length":             uint32(s.headDim),
		"attention.value_length":           uint32(s.headDim),
		"attention.layer_norm_rms_epsilon": s.normEps,
		"rope.dimension_count":             uint32(s.headDim),
		"rope.freq_base":                   float32(s.ropeBase),
		"vocab_size":                       uint32(s.vocab),
	}
	maps.Copy(own, s.metadata)
	maps.Copy(own, s.own())
	for key, value := range own {
		m[s.architecture+"."+key] = value
	}
	t, err := tokenizer(s.vocab)
	maps.Copy(m, t)
	return m, err
}

// addTensors adds all tensors.
func (s shape) addTensors(w *bindings.GGUFWriter, t bindings.Type, random *rand.Rand) error {
	tensors := s.tensors()
	pools := map[role]*pool{}
	for _, kind := range []struct {
		role      role
		t         bindings.Type
		deviation float64
	}{{plain, t, deviation}, {projection, t, s.projectionDeviation()}, {output, headType(t), s.headDeviation()}} {
		largest := 0
		for _, x := range tensors {
			if x.role == kind.role {
				largest = max(largest, x.in*x.out)
			}
		}
		p, err := newPool(random, kind.t, kind.deviation, largest)
		if err != nil {
			return err
		}
		pools[kind.role] = p
	}
	for _, x := range tensors {
		name := x.name
		if !strings.HasSuffix(name, ".ssm_a") && !strings.HasSuffix(name, ".bias") {
			name += ".weight"
		}
		var err error
		switch x.role {
		case norm:
			err = addFloats(w, name, slices.Repeat([]float32{1}, x.in), x.in)
		case decay:
			rates := make([]float32, x.in)
			for i := range rates {
				rates[i] = -0.01 * float32(1+10*i/x.in)
			}
			err = addFloats(w, name, rates, x.in)
		case taps:
			err = addFloats(w, name, slices.Repeat([]float32{1 / float32(x.in)}, x.in*x.out), x.in, x.out)
		case rotation:
			factors := s.stretch.factors(s.ropeBase, s.headDim)
			if s.gemma4 != nil {
				factors = s.still()
			}
			err = addFloats(w, name, factors, x.in)
		default:
			p := pools[x.role]
			err = w.AddTensor(name, p.kind, []int64{int64(x.in), int64(x.out)}, p.matrix(random, x.in, x.out))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func addFloats(w *bindings.GGUFWriter, name string, values []float32, shape ...int) error {
	data, err := bindings.Quantize(bindings.F32, values, int64(shape[0]))
	if err != nil {
		return err
	}
	sizes := make([]int64, len(shape))
	for i, n := range shape {
		sizes[i] = int64(n)
	}
	return w.AddTensor(name, bindings.F32, sizes, data)
}
