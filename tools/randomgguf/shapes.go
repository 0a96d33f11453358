package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// shape is all that tells one model from another, before its weights.
type shape struct {
	name           string
	architecture   string // general.architecture
	blocks         int
	width          int
	hidden         int // feed-forward length
	heads, kvHeads int
	headDim        int
	vocab          int
	context        int
	ropeBase       float64
	normEps        float32

	tied     bool           // the head is the embedding
	fused    bool           // q k v are one matrix, and so are gate and up
	qkNorms  bool           // norms of q and k, a head at a time
	after    bool           // norms of what attention and feed-forward add, beside those of what they take
	gemma4   *gemma4        // what Gemma 4 has besides; nil in others
	qwen35   *qwen35        // what Qwen 3.5 has besides; nil in others
	stretch  stretch        // of rotation
	metadata map[string]any // what else the file says, keyed without the architecture
}

// shapes are those of published models, as llama.cpp converts their files. Numbers are from the models' config.json.
var shapes = map[string]shape{
	"7b": {name: "llama2-7b", architecture: "llama", blocks: 32, width: 4096, hidden: 11008, heads: 32, kvHeads: 32,
		headDim: 128, vocab: 32000, context: 4096, ropeBase: 10000,
		normEps: 1e-5}, // Touvron et al., arXiv 2307.09288
	"13b": {name: "llama2-13b", architecture: "llama", blocks: 40, width: 5120, hidden: 13824, heads: 40, kvHeads: 40,
		headDim: 128, vocab: 32000, context: 4096, ropeBase: 10000,
		normEps: 1e-5},
	"llama3.1-8b": {name: "llama3.1-8b", architecture: "llama", blocks: 32, width: 4096, hidden: 14336, heads: 32,
		kvHeads: 8, headDim: 128, vocab: 128256, context: 131072, ropeBase: 500000,
		normEps: 1e-5, stretch: stretch{factor: 8, low: 1, high: 4, context: 8192}},
	"qwen3-8b": {name: "qwen3-8b", architecture: "qwen3", blocks: 36, width: 4096, hidden: 12288, heads: 32, kvHeads: 8,
		headDim: 128, vocab: 151936, context: 40960, ropeBase: 1e6,
		normEps: 1e-6, qkNorms: true},
	"gemma3-12b": {name: "gemma3-12b", architecture: "gemma3", blocks: 48, width: 3840, hidden: 15360, heads: 16,
		kvHeads: 8, headDim: 256, vocab: 262208, context: 131072, ropeBase: 1e6,
		normEps: 1e-6, tied: true, qkNorms: true, after: true,
		metadata: map[string]any{"attention.sliding_window": uint32(1024), "rope.scaling.type": "linear",
			"rope.scaling.factor": float32(8)}},
	"gemma4-e4b": {name: "gemma4-e4b", architecture: "gemma4", blocks: 42, width: 2560, hidden: 10240, heads: 8,
		kvHeads: 2, headDim: 512, vocab: 262144, context: 131072, ropeBase: 1e6,
		normEps: 1e-6, tied: true, qkNorms: true, after: true, gemma4: &gemma4{localHeadDim: 256, sharing: 18,
			embedding: 256, every: 6, rotated: 4},
		metadata: map[string]any{"attention.sliding_window": uint32(512), "rope.freq_base_swa": float32(10000),
			"final_logit_softcapping": float32(30)}},
	"qwen3.5-4b": {name: "qwen3.5-4b", architecture: "qwen35", blocks: 32, width: 2560, hidden: 9216, heads: 16,
		kvHeads: 4, headDim: 256, vocab: 248320, context: 262144, ropeBase: 1e7,
		normEps: 1e-6, tied: true, qkNorms: true, qwen35: &qwen35{keys: 16, values: 32, dim: 128, taps: 4, every: 4},
		metadata: map[string]any{"rope.dimension_count": uint32(64)}},
	"phi4": {name: "phi4", architecture: "phi3", blocks: 40, width: 5120, hidden: 17920, heads: 40, kvHeads: 10,
		headDim: 128, vocab: 100352, context: 16384, ropeBase: 250000,
		normEps: 1e-5, fused: true, metadata: map[string]any{"attention.sliding_window": uint32(0)}},
}

func shapeNames() []string {
	return slices.SortedFunc(maps.Keys(shapes), func(a, b string) int {
		return cmp.Or(shapes[a].numbers()-shapes[b].numbers(), cmp.Compare(a, b))
	})
}

// gemma4 is what Gemma 4 has beyond Gemma 3.
type gemma4 struct {
	localHeadDim int // of blocks that see a window
	// how many of the last blocks have no keys and values of their own, where more blocks than every are before them
	sharing   int
	embedding int // length of each block's embedding
	every     int // so many blocks, one sees all tokens
	rotated   int // one number in so many of a head rotates there
}

// qwen35 is what Qwen 3.5 has beyond Qwen 3: delta nets in the place of attention but in every so manieth block, whose
// attention has a gate.
type qwen35 struct {
	keys, values, dim int // heads, and numbers of each
	taps              int // tokens of the convolution
	every             int
}

// delta tells whether a block has a delta net.
func (s shape) delta(block int) bool { return s.qwen35 != nil && (block+1)%s.qwen35.every != 0 }

// local tells whether a block sees a window.
func (s shape) local(block int) bool { return s.gemma4 != nil && (block+1)%s.gemma4.every != 0 }

// sharing is how many of the last blocks take keys and values of earlier ones: of few blocks, those behind the first
// that sees all tokens.
func (s shape) sharing() int {
	if s.gemma4 == nil {
		return 0
	}
	return max(0, min(s.gemma4.sharing, s.blocks-s.gemma4.every))
}

// own is the metadata of it.
func (s shape) own() map[string]any {
	if q := s.qwen35; q != nil {
		return map[string]any{
			"ssm.conv_kernel": uint32(q.taps), "ssm.state_size": uint32(q.dim), "ssm.group_count": uint32(q.keys),
			"ssm.time_step_rank": uint32(q.values),
			"ssm.inner_size":     uint32(q.values * q.dim), "full_attention_interval": uint32(q.every),
		}
	}
	g, local := s.gemma4, make([]bool, s.blocks)
	if g == nil {
		return nil
	}
	for i := range local {
		local[i] = s.local(i)
	}
	return map[string]any{
		"attention.key_length_swa": uint32(g.localHeadDim), "attention.value_length_swa": uint32(g.localHeadDim),
		"rope.dimension_count_swa":   uint32(g.localHeadDim),
		"attention.shared_kv_layers": uint32(s.sharing()), "attention.sliding_window_pattern": local,
		"embedding_length_per_layer_input": uint32(g.embedding),
	}
}

// still are the factors of rotation by which all but the first pairs of a head stand still.
func (s shape) still() []float32 {
	list := slices.Repeat([]float32{1e30}, s.headDim/2)
	for i := range len(list) / s.gemma4.rotated {
		list[i] = 1
	}
	return list
}

// stretch is Llama 3.1's way to read longer texts: rotations that turn fewer than low times in a text of the context
// are slowed down by factor, those that turn more than high times stay, and between them it is in proportion. None
// where the factor is 0.
type stretch struct {
	factor, low, high float64
	context           int
}

// factors are by what each of the rotations is slowed down: rope_freqs.weight.
func (s stretch) factors(base float64, headDim int) []float32 {
	list := make([]float32, headDim/2)
	for i := range list {
		turns := float64(s.context) * math.Pow(base, -2*float64(i)/float64(headDim)) / (2 * math.Pi)
		kept := min(1, max(0, (turns-s.low)/(s.high-s.low)))
		list[i] = float32(1 / ((1-kept)/s.factor + kept))
	}
	return list
}

// role is what a tensor is for, which says how its weights are drawn.
type role int

const (
	plain      role = iota
	projection      // adds to the residual stream
	output          // gives the logits
	norm            // ones
	decay           // of a delta net's memory, a token: e^−0.01 to e^−0.1 or so
	taps            // of a convolution: the mean
	rotation        // factors of rotation
)

// tensor is a tensor's name, without ".weight" where it has that, and its shape in ggml's order: out is 0 for a vector.
type tensor struct {
	name    string
	role    role
	in, out int
}

// tensors are all of the model's, by llama.cpp's names.
func (s shape) tensors() []tensor {
	var list []tensor
	prefix := ""
	add := func(name string, role role, in, out int) { list = append(list, tensor{prefix + name, role, in, out}) }
	if s.tied {
		add("token_embd", output, s.width, s.vocab)
	} else {
		add("token_embd", plain, s.width, s.vocab)
	}
	add("output_norm", norm, s.width, 0)
	if !s.tied {
		add("output", output, s.width, s.vocab)
	}
	if g := s.gemma4; g != nil {
		add("per_layer_token_embd", plain, g.embedding*s.blocks, s.vocab)
		add("per_layer_model_proj", plain, s.width, g.embedding*s.blocks)
		add("per_layer_proj_norm", norm, g.embedding, 0)
	}
	if s.stretch.factor > 0 || s.gemma4 != nil {
		add("rope_freqs", rotation, s.headDim/2, 0)
	}
	for i := range s.blocks {
		dim, takes := s.headDim, i >= s.blocks-s.sharing()
		if s.local(i) {
			dim = s.gemma4.localHeadDim
		}
		q, kv := s.heads*dim, s.kvHeads*dim
		prefix = fmt.Sprintf("blk.%d.", i)
		add("attn_norm", norm, s.width, 0)
		if s.delta(i) {
			s.addDelta(add)
			s.addFeedForward(add)
			continue
		}
		if s.fused {
			add("attn_qkv", plain, s.width, q+2*kv)
		} else {
			gates := 0
			if s.qwen35 != nil {
				gates = q
			}
			add("attn_q", plain, s.width, q+gates)
			if !takes {
				add("attn_k", plain, s.width, kv)
				add("attn_v", plain, s.width, kv)
			}
		}
		if s.qkNorms {
			add("attn_q_norm", norm, dim, 0)
			if !takes {
				add("attn_k_norm", norm, dim, 0)
			}
		}
		if g := s.gemma4; g != nil {
			add("inp_gate", plain, s.width, g.embedding)
			add("proj", projection, g.embedding, s.width)
			add("post_norm", norm, s.width, 0)
			add("layer_output_scale", norm, 1, 0)
		}
		add("attn_output", projection, q, s.width)
		if s.after {
			add("post_attention_norm", norm, s.width, 0)
		}
		s.addFeedForward(add)
	}
	return list
}

func (s shape) addFeedForward(add func(name string, role role, in, out int)) {
	if s.qwen35 != nil {
		add("post_attention_norm", norm, s.width, 0)
	} else {
		add("ffn_norm", norm, s.width, 0)
	}
	if s.fused {
		add("ffn_up", plain, s.width, 2*s.hidden)
	} else {
		add("ffn_gate", plain, s.width, s.hidden)
		add("ffn_up", plain, s.width, s.hidden)
	}
	add("ffn_down", projection, s.hidden, s.width)
	if s.after {
		add("post_ffw_norm", norm, s.width, 0)
	}
}

func (s shape) addDelta(add func(name string, role role, in, out int)) {
	q := s.qwen35
	keys, read := 2*q.keys*q.dim, q.values*q.dim
	add("ssm_a", decay, q.values, 0)
	add("ssm_conv1d", taps, q.taps, keys+read)
	add("ssm_dt.bias", norm, q.values, 0)
	add("ssm_alpha", plain, s.width, q.values)
	add("ssm_beta", plain, s.width, q.values)
	add("attn_qkv", plain, s.width, keys+read)
	add("attn_gate", plain, s.width, read)
	add("ssm_norm", norm, q.dim, 0)
	add("ssm_out", projection, read, s.width)
}

// numbers counts the model's weights.
func (s shape) numbers() (n int) {
	for _, t := range s.tensors() {
		n += t.in * max(1, t.out)
	}
	return n
}
