package model

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// Config holds the shape and constants of a model, as its GGUF metadata give them.
type Config struct {
	Name         string `json:"name"`         // general.name
	Architecture string `json:"architecture"` // general.architecture

	arch        *architecture
	scale       scales
	temperature temperature
	local       []bool        // blocks with a window; nil where none has one
	localRope   bindings.Rope // their rotation
	hidden      []int         // feed-forward length of each block; nil with experts
	mixers      []mixer       // of each block
	kvHeads     []int         // of each block
	kvSharing   int           // how many of the last blocks take keys and values of an earlier one

	Blocks int `json:"blocks"`
	Width  int `json:"width"` // embedding length
	// feed-forward length, the largest of all blocks; with experts, of one of them
	Hidden      int `json:"hidden"`
	Experts     int `json:"experts"`      // of a block; 0 where the feed-forward is dense
	ExpertsUsed int `json:"experts_used"` // by each token
	Heads       int `json:"heads"`        // query heads
	// key and value heads, the most of all blocks; they divide Heads
	KVHeads      int `json:"kv_heads"`
	HeadDim      int `json:"head_dim"`
	LocalHeadDim int `json:"local_head_dim"` // of blocks with a window
	// length of each block's own embedding of a token; 0 without
	Embedding int                 `json:"embedding"`
	Vocab     int                 `json:"vocab"`  // rows of the embedding
	Tokens    int                 `json:"tokens"` // of the tokenizer, at most Vocab: embeddings are padded
	Taps      int                 `json:"taps"`   // tokens that a convolution sees; 0 without
	Delta     bindings.DeltaHeads `json:"delta"`  // of delta nets; zeros without
	// blocks for speculative decoding at the end of the file, which are not computed
	Further    int           `json:"further"`
	Context    int           `json:"context"` // context length of the original training
	Window     int           `json:"window"`  // tokens of a window; 0: all blocks see all
	NormEps    float32       `json:"norm_eps"`
	Rope       bindings.Rope `json:"rope"`
	TiedHead   bool          `json:"tied_head"`   // the output head is the token embedding
	RopeFactor bool          `json:"rope_factor"` // the file has rope_freqs.weight (Llama 3.1)
}

// readConfig reads and checks the metadata of a GGUF file. An error names the key and what it must be.
func readConfig(g *bindings.GGUF) (Config, error) {
	var c Config
	var ok bool
	if c.Architecture, ok = g.String("general.architecture"); !ok {
		return c, fmt.Errorf("no general.architecture in its metadata: this is not a model")
	}
	var err error
	if c.arch, err = findArchitecture(c.Architecture); err != nil {
		return c, err
	}
	if kind, ok := g.String("general.type"); ok && kind != "model" {
		return c, fmt.Errorf("general.type is %q: give this file where an adapter is asked for, and a model here", kind)
	}
	c.Name, _ = g.String("general.name")
	r := metadata{g: g, architecture: c.Architecture}
	c.Further = r.optional("nextn_predict_layers", 0)
	c.Blocks = r.count("block_count", 1+c.Further, 1<<12) - c.Further
	c.Width = r.count("embedding_length", 1, 1<<20)
	r.feedForward(&c)
	c.Heads = r.count("attention.head_count", 1, 1<<12)
	least := 1
	if c.arch.mixer == shortConvolution { // blocks without keys have one
		least = 0
	}
	c.kvHeads = r.perBlock("attention.head_count_kv", c, c.Heads, least, c.Heads)
	c.KVHeads = slices.Max(c.kvHeads)
	r.mix(&c)
	c.Context = r.optional("context_length", 2048)
	epsilon := "attention.layer_norm_rms_epsilon"
	if c.arch.layerNorm {
		epsilon = "attention.layer_norm_epsilon"
	}
	c.NormEps = float32(r.float(epsilon, 0))
	if r.err != nil {
		return c, r.err
	}
	c.HeadDim = r.optional("attention.key_length", c.Width/c.Heads)
	c.LocalHeadDim = c.HeadDim
	if c.arch.localHeads {
		c.LocalHeadDim = r.optional("attention.key_length_swa", c.HeadDim)
	}
	if c.arch.sharesKV {
		c.kvSharing = r.optional("attention.shared_kv_layers", 0)
	}
	if c.arch.blockEmbeddings {
		c.Embedding = r.optional("embedding_length_per_layer_input", 0)
	}
	c.Rope = r.rope(c)
	c.Window, c.local = r.windows(c)
	c.localRope = r.localRope(c)
	c.scale = r.scales(c)
	c.temperature = r.temperature(c)
	r.checkComputed(c)
	switch {
	case r.err != nil:
		return c, r.err
	case c.NormEps <= 0 || c.NormEps > 0.1:
		return c, fmt.Errorf("%s is %g: a small positive number is needed", r.key(epsilon), c.NormEps)
	case slices.ContainsFunc(c.kvHeads, func(n int) bool { return n > 0 && c.Heads%n != 0 }):
		return c, fmt.Errorf("%d query heads are not a multiple of %d key heads", c.Heads, c.KVHeads)
	case c.HeadDim < 2 || r.optional("attention.value_length", c.HeadDim) != c.HeadDim:
		return c, fmt.Errorf("head dimension %d for keys and %d for values: they must be equal and at least 2",
			c.HeadDim, r.optional("attention.value_length", c.HeadDim))
	case c.Rope.Dims < 2 || c.Rope.Dims%2 != 0 || c.Rope.Dims > c.HeadDim:
		return c, fmt.Errorf("%s is %d: an even number up to the head dimension %d is needed",
			r.key("rope.dimension_count"), c.Rope.Dims, c.HeadDim)
	case c.LocalHeadDim < 2 || c.localRope.Dims < 2 || c.localRope.Dims%2 != 0 || c.localRope.Dims > c.LocalHeadDim:
		return c, fmt.Errorf("%s is %d: an even number up to the head dimension %d is needed",
			r.key("rope.dimension_count_swa"), c.localRope.Dims, c.LocalHeadDim)
	case r.g.Value(r.key("attention.causal")) == false:
		return c, fmt.Errorf("%s is false: tokens see those behind them, which is not computed here",
			r.key("attention.causal"))
	case !c.arch.experts && r.optional("expert_count", 0) != 0:
		return c, fmt.Errorf("a mixture of %d experts: models of architecture %s can only be used where they are dense",
			r.optional("expert_count", 0), c.Architecture)
	}
	return c, c.checkSharing()
}

// checkSharing refuses blocks for which there are no keys and values to take.
func (c *Config) checkSharing() error {
	if c.kvSharing >= c.Blocks {
		return fmt.Errorf("%d blocks take keys and values of an earlier one, and the model has %d",
			c.kvSharing, c.Blocks)
	}
	for i := range c.Blocks {
		switch from := c.kvFrom(i); {
		case i < c.Blocks-c.kvSharing:
		case from < 0:
			return fmt.Errorf("block %d takes keys and values of an earlier block of its kind, and there is none", i)
		case c.kvHeads[i] != c.kvHeads[from]:
			return fmt.Errorf("block %d with %d key heads takes keys and values of block %d, which has %d", i,
				c.kvHeads[i], from, c.kvHeads[from])
		}
	}
	return nil
}

// windowed tells whether a block has a window.
func (c *Config) windowed(block int) bool { return c.local != nil && c.local[block] }

// kvFrom is the block whose keys and values a block takes: the last of its kind, with or without a window, that makes
// its own. It is -1 for a block that makes its own.
func (c *Config) kvFrom(block int) int {
	from := c.Blocks - c.kvSharing - 1
	if block <= from {
		return -1
	}
	for from >= 0 && c.windowed(from) != c.windowed(block) {
		from--
	}
	return from
}

// countTokens counts the rows of the embedding that are tokens of a text: not those beyond the tokenizer's last, nor
// those that converters fill its list up with.
func (c *Config) countTokens(g *bindings.GGUF) error {
	const unused = 5 // llama.cpp's type of tokens that no text has
	tokens, _ := g.Texts("tokenizer.ggml.tokens")
	types, _ := g.Value("tokenizer.ggml.token_type").([]int32)
	c.Tokens = len(tokens)
	switch {
	case c.Tokens > c.Vocab:
		return fmt.Errorf("tokenizer.ggml.tokens has %d tokens, and token_embd.weight %d rows: the tokenizer is not "+
			"that of this model; convert it anew", c.Tokens, c.Vocab)
	case c.Tokens == 0:
		c.Tokens = c.Vocab
	}
	for n := min(c.Tokens, len(types)); n > 0 && n == c.Tokens && types[n-1] == unused; n-- {
		c.Tokens--
	}
	return nil
}

// metadata reads the keys of an architecture and keeps the first error.
type metadata struct {
	g            *bindings.GGUF
	architecture string
	err          error
}

// key is the full name of a key: "llama.block_count".
func (r *metadata) key(name string) string { return r.architecture + "." + name }

// optional reads a whole number. Some converters repeat it for every block.
func (r *metadata) optional(key string, otherwise int) int {
	key = r.key(key)
	if r.g.Value(key) == nil {
		return otherwise
	}
	v, ok := r.g.Uint(key)
	if list, _ := r.g.Uints(key); len(list) > 0 {
		v, ok = list[0], true
		if slices.Max(list) != slices.Min(list) && r.err == nil {
			r.err = fmt.Errorf("%s is %v: blocks that differ in it are not computed here", key, list)
		}
	}
	if !ok || v > math.MaxInt32 {
		if r.err == nil {
			r.err = fmt.Errorf("%s is %v: a whole number is needed", key, r.g.Value(key))
		}
		return otherwise
	}
	return int(v)
}

// perBlock reads a whole number for each block: a list, or one number for all.
func (r *metadata) perBlock(key string, c Config, otherwise, least, most int) []int {
	all := make([]int, max(1, c.Blocks))
	list, _ := r.g.Uints(r.key(key))
	if n := len(list); n > 0 && n < c.Blocks && r.err == nil {
		r.err = fmt.Errorf("%s has %d values, the model %d blocks", r.key(key), n, c.Blocks)
	}
	for i := range all {
		if len(list) == 0 || r.err != nil {
			all[i] = r.optional(key, otherwise)
		} else {
			all[i] = int(min(list[i], math.MaxInt32))
		}
		if r.err == nil && (all[i] < least || all[i] > most) {
			r.err = fmt.Errorf("%s is %d: a number from %d to %d is needed", r.key(key), all[i], least, most)
		}
	}
	return all
}

func (r *metadata) count(key string, low, high int) int {
	v := r.optional(key, 0)
	if r.err == nil && (v < low || v > high) {
		r.err = fmt.Errorf("%s is %d: a number from %d to %d is needed", r.key(key), v, low, high)
	}
	return v
}

func (r *metadata) float(key string, otherwise float64) float64 {
	key = r.key(key)
	if r.g.Value(key) == nil {
		return otherwise
	}
	v, ok := r.g.Float(key)
	if (!ok || math.IsNaN(v) || math.IsInf(v, 0)) && r.err == nil {
		r.err = fmt.Errorf("%s is %v: a number is needed", key, r.g.Value(key))
	}
	return v
}

// floats reads a number, or a list with one a block; true counts as 1.
func (r *metadata) floats(key string) (list []float64) {
	key = r.key(key)
	value := r.g.Value(key)
	if value == nil {
		return nil
	}
	each := reflect.ValueOf(value)
	if each.Kind() != reflect.Slice {
		each = reflect.ValueOf([]any{value})
	}
	for i := range each.Len() {
		switch v := reflect.ValueOf(each.Index(i).Interface()); {
		case v.CanInt():
			list = append(list, float64(v.Int()))
		case v.CanUint():
			list = append(list, float64(v.Uint()))
		case v.CanFloat():
			list = append(list, v.Float())
		case v.Kind() == reflect.Bool && v.Bool():
			list = append(list, 1)
		case v.Kind() == reflect.Bool:
			list = append(list, 0)
		case r.err == nil:
			r.err = fmt.Errorf("%s is %v: a number is needed", key, value)
		}
	}
	return list
}

// yarnSize is the factor that YaRN puts on q and k: the file's, or with mscale = 1
//
//	(1 + 0.1 mscale ln factor) / (1 + 0.1 mscale_all_dim ln factor)
func (r *metadata) yarnSize(factor float64) float64 {
	logarithm := math.Log(max(1, factor))
	return r.float("rope.scaling.yarn_attn_factor",
		(1+0.1*logarithm)/(1+0.1*r.float("rope.scaling.yarn_log_multiplier", 0)*logarithm))
}

// rope reads the rope.* keys as llama.cpp does. The constants of YaRN's ramp are its paper's (Peng et al., arXiv
// 2309.00071).
func (r *metadata) rope(c Config) bindings.Rope {
	rope := bindings.Rope{
		Dims:        r.optional("rope.dimension_count", c.HeadDim),
		OrigContext: r.optional("rope.scaling.original_context_length", c.Context),
		FreqBase:    float32(r.float("rope.freq_base", 10000)),
		FreqScale:   1,
		AttnFactor:  float32(r.float("rope.scaling.attn_factor", 1)),
		BetaFast:    32,
		BetaSlow:    1,
	}
	factor := r.float("rope.scaling.factor", r.float("rope.scale_linear", 0))
	kind, stated := r.g.String(r.key("rope.scaling.type"))
	switch {
	case factor < 0 || rope.FreqBase <= 0:
		r.err = fmt.Errorf("%s %g, %s %g: positive numbers are needed", r.key("rope.scaling.factor"), factor,
			r.key("rope.freq_base"), rope.FreqBase)
	case stated && kind == "none" || factor == 0:
	case !stated || kind == "linear":
		rope.FreqScale = float32(1 / factor)
	case kind == "yarn":
		rope.FreqScale, rope.ExtFactor = float32(1/factor), float32(r.float("rope.scaling.yarn_ext_factor", 1))
		rope.BetaFast, rope.BetaSlow = float32(r.float("rope.scaling.yarn_beta_fast", 32)),
			float32(r.float("rope.scaling.yarn_beta_slow", 1))
		if rope.ExtFactor != 0 {
			rope.AttnFactor *= float32(r.yarnSize(factor) / (1 + 0.1*math.Log(factor))) // ggml multiplies by the latter
		}
	default:
		r.err = fmt.Errorf("%s %q: only none, linear and yarn can be used", r.key("rope.scaling.type"), kind)
	}
	return rope
}

// smoothYaRN is YaRN whose ramp begins and ends exactly where pairs rotate BetaFast and BetaSlow times over the
// original context; ggml's ramp does so at whole pairs. The result is a rotation without YaRN, and a divisor for each
// pair's angle.
func smoothYaRN(r bindings.Rope) (bindings.Rope, []float32) {
	dims, base := float64(r.Dims), float64(r.FreqBase)
	turning := func(times float32) float64 {
		return dims * math.Log(float64(r.OrigContext)/(float64(times)*2*math.Pi)) / (2 * math.Log(base))
	}
	low, high := max(0, turning(r.BetaFast)), min(dims-1, turning(r.BetaSlow))
	scale, factors := float64(r.FreqScale), make([]float32, r.Dims/2)
	for i := range factors {
		stretched := float64(r.ExtFactor) * (1 - min(1, max(0, (float64(i)-low)/max(0.001, high-low))))
		factors[i] = float32(1 / (scale*(1-stretched) + stretched))
	}
	r.AttnFactor *= float32(1 - 0.1*math.Log(scale))
	r.FreqScale, r.ExtFactor = 1, 0
	return r, factors
}
