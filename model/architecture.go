package model

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// architecture says how a general.architecture differs from Llama 2, whose block is: an RMS norm, q k v, rotation of
// neighbours, causal attention and its output; then a norm, gate and up, gated SiLU and down. Each half adds to the
// residual stream. block.go has every choice as a step, with its gradient below.
//
// A file that asks for anything else is refused by name: a tensor when the weights are loaded, a key by checkComputed.
//
// Two layers may be one matrix in the file, attn_qkv for q k v or ffn_up for gate and up. They are one layer here as
// well.
type architecture struct {
	layerNorm        bool             // layer norms with biases, not RMS norms
	norms            places           // where the norms stand
	qkNorms          scope            // what RMS norms of q and k, before rotation, are taken over
	pairs            bindings.Pairing // which numbers of a head are rotated together
	learnedPositions bool             // positions have embeddings, and nothing is rotated
	nopeEvery        int              // every n-th block does not rotate; 0: all rotate
	nopeGlobal       bool             // where some blocks have windows, the others do not rotate
	biases           []string         // linear layers that have a bias
	mayHave          []string         // linear layers that have one if it is in the file
	act              bindings.Activation
	ungated          bool   // the feed-forward has no gate
	mixer            mixer  // what some blocks have instead of attention
	gatedAttention   bool   // attention's result is multiplied by σ of a gate, which stands behind each head's query
	outNorm          string // name of the norm before the head; "": output_norm
	ffnNorm          string // name of the feed-forward's norm; "": ffn_norm
	experts          bool   // the feed-forward is a mixture of frozen experts (experts.go)
	expertBiases     bool   // experts and their router have biases
	sinks            bool   // each head has one score more, which belongs to no token
	smoothRamp       bool   // YaRN's ramp may begin and end between two pairs
	vNorm            bool   // v is normed, a head at a time, without weights

	// each block may add an embedding of its own of the tokens (embeddings.go), and scale its result
	blockEmbeddings bool
	sharesKV        bool // the last blocks may take keys and values of an earlier one
	keysAsValues    bool // a block without attn_v takes its keys, before norm and rotation, as values
	localHeads      bool // heads of blocks with windows may have another size

	// One block in so many sees all tokens; the others see a window of the last ones. 1: all have windows; 0: none.
	windows int
	window  int // tokens of a window, unless the file says it; 0: all
	// Base of the rotation in blocks with windows, unless the file says it; their rotation is not scaled. sameBase:
	// that of the other blocks. 0: they rotate like the others.
	localBase float64
	// Soft caps of scores and of logits, unless the file says them. Negative: none; 0: the file must not have one.
	caps           [2]float64
	hasScales      bool // the file scales the embedding, what is added to the residual stream, scores and logits
	rootWidth      bool // the embedding is multiplied by √width
	unscaledScores bool // scores are q · k, not divided by √head dimension
	hasTemperature bool // scores may grow with the position of the query
	// A model of this many blocks divides scores by √(width/heads), others by √(head dimension).
	scaleByWidth int
}

// sameBase is for OLMo 3: its blocks with windows rotate by the same base, but unscaled.
const sameBase = -1

// places are where the norms of attention and feed-forward stand.
type places int

const (
	before places = iota // of the sublayer's input
	after                // of its result
	both
)

// mixer is the step in which tokens of a block see earlier ones.
type mixer int

const (
	attention        mixer = iota
	shortConvolution       // shortconv.go
	deltaNet               // delta.go
)

// scope is what one norm of q or k is taken over.
type scope int

const (
	none scope = iota
	head
	row
)

var (
	qkv  = []string{"attn_q", "attn_k", "attn_v"}
	many = []string{"attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
)

// architectures are those that can be trained, by general.architecture.
var architectures = map[string]*architecture{
	"exaone4": {mayHave: many, norms: after, qkNorms: head, pairs: bindings.Halves, windows: 4, nopeGlobal: true},
	"gemma2": {mayHave: many, norms: both, pairs: bindings.Halves, act: bindings.GELU, windows: 2, window: 4096,
		caps: [2]float64{50, 30}, rootWidth: true, scaleByWidth: 46},
	"gemma3": {mayHave: many, norms: both, qkNorms: head, pairs: bindings.Halves, act: bindings.GELU, windows: 6,
		localBase: 10000, caps: [2]float64{0, -1}, rootWidth: true, scaleByWidth: 62},
	"gemma4": {mayHave: many, norms: both, qkNorms: head, vNorm: true, pairs: bindings.Halves, act: bindings.GELU,
		windows: 6, localBase: 10000, localHeads: true, caps: [2]float64{0, -1},
		rootWidth: true, unscaledScores: true, blockEmbeddings: true, sharesKV: true, keysAsValues: true},
	"gpt-oss": {mayHave: many, pairs: bindings.Halves, act: bindings.Clamped, experts: true, expertBiases: true,
		sinks: true, smoothRamp: true, ffnNorm: "post_attention_norm", windows: 2},
	"gpt2":     {layerNorm: true, learnedPositions: true, biases: many, act: bindings.GELU, ungated: true},
	"granite":  {mayHave: many, hasScales: true},
	"lfm2":     {pairs: bindings.Halves, qkNorms: head, mixer: shortConvolution, outNorm: "token_embd_norm"},
	"llama":    {mayHave: many, windows: 1},                       // also SmolLM2, TinyLlama, Mistral
	"mistral3": {mayHave: many, windows: 1, hasTemperature: true}, // Ministral 3, Mistral Small 3
	"olmo2":    {mayHave: many, norms: after, qkNorms: row, pairs: bindings.Halves, windows: 4, localBase: sameBase},
	"phi3":     {pairs: bindings.Halves, windows: 1},  // also Phi-3.5 and Phi-4. llama.cpp leaves the windows out
	"qwen2":    {pairs: bindings.Halves, biases: qkv}, // also Qwen 2.5
	"qwen3":    {mayHave: many, qkNorms: head, pairs: bindings.Halves},
	"qwen35": {mayHave: many, qkNorms: head, pairs: bindings.Halves, ffnNorm: "post_attention_norm",
		mixer: deltaNet, gatedAttention: true},
	"qwen3moe": {mayHave: many, qkNorms: head, pairs: bindings.Halves, experts: true}, // Qwen3-30B-A3B
	"seed_oss": {mayHave: many, pairs: bindings.Halves, ffnNorm: "post_attention_norm"},
	"smollm3":  {mayHave: many, nopeEvery: 4},
	"starcoder2": {layerNorm: true, pairs: bindings.Halves, mayHave: many, act: bindings.GELU, ungated: true,
		windows: 1},
}

// findArchitecture gives the table's entry, or an error that lists what there is.
func findArchitecture(name string) (*architecture, error) {
	if a := architectures[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("architecture %q: only models of these can be used: %s", name,
		strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
}

// scales are factors in a model's computation, and its soft caps: c·tanh(x/c) for x; 0 for none.
type scales struct {
	embedding float32 // of the embedding's rows
	added     float32 // of the results of attention and feed-forward
	scores    float32 // of q · k
	logits    float32

	scoreCap, logitCap float32
}

// scales reads the factors. The file gives the logits' as a divisor. 0 means that there is none, as in llama.cpp.
func (r *metadata) scales(c Config) scales {
	read := func(key string, otherwise float64) float64 {
		v := r.float(key, 0)
		if v == 0 || !c.arch.hasScales {
			return otherwise
		}
		return v
	}
	perHead := float64(c.HeadDim)
	if c.Blocks == c.arch.scaleByWidth {
		perHead = float64(c.Width / c.Heads)
	}
	if c.arch.unscaledScores {
		perHead = 1
	}
	embedding := 1.0
	if c.arch.rootWidth {
		embedding = math.Sqrt(float64(c.Width))
	}
	return scales{
		embedding: float32(read("embedding_scale", embedding)),
		added:     float32(read("residual_scale", 1)),
		scores:    float32(read("attention.scale", 1/math.Sqrt(perHead))),
		logits:    float32(1 / read("logit_scale", 1)),
		scoreCap:  float32(max(0, r.float("attn_logit_softcapping", c.arch.caps[0]))),
		logitCap:  float32(max(0, r.float("final_logit_softcapping", c.arch.caps[1]))),
	}
}

// temperature makes the scores of a query grow with its position: by 1 + scale · ln(1 + ⌊position / length⌋).
type temperature struct {
	scale  float32 // 0: not at all
	length int
}

// factor is the multiplier of a query's scores at a position.
func (t temperature) factor(position int32) float32 {
	return float32(1 + float64(t.scale)*math.Log(float64(1+int(position)/t.length)))
}

// temperature reads the temperature. Its length is the original context length where the file has no other.
func (r *metadata) temperature(c Config) (t temperature) {
	if !c.arch.hasTemperature {
		return t
	}
	t.scale, t.length = float32(r.float("attention.temperature_scale", 0)), r.optional("attention.temperature_length",
		c.Rope.OrigContext)
	if t.scale != 0 && t.length < 1 && r.err == nil {
		r.err = fmt.Errorf("%s is %d: a positive number is needed", r.key("attention.temperature_length"), t.length)
	}
	return t
}

// windows gives the size of a window, and which blocks have one; 0 and nil where none has.
func (r *metadata) windows(c Config) (window int, local []bool) {
	made := c.arch
	switch window = r.optional("attention.sliding_window", made.window); {
	case made.windows == 0 && window > 0 && window < c.Context:
		r.fail("attention.sliding_window", window)
		return 0, nil
	case made.windows == 0 || window == 0:
		return 0, nil
	}
	const pattern = "attention.sliding_window_pattern"
	if local = r.flags(pattern, c); local != nil {
		return window, local
	}
	return window, allBut(r.optional(pattern, made.windows), c)
}

// flags reads a list with one flag a block; nil where there is none.
func (r *metadata) flags(key string, c Config) []bool {
	list, ok := r.g.Value(r.key(key)).([]bool)
	switch {
	case !ok:
		return nil
	case len(list) < c.Blocks:
		r.err = fmt.Errorf("%s has %d values, the model %d blocks", r.key(key), len(list), c.Blocks)
		return make([]bool, c.Blocks)
	}
	return list[:c.Blocks]
}

// allBut flags all blocks but every n-th.
func allBut(every int, c Config) []bool {
	list := make([]bool, c.Blocks)
	for i := range list {
		list[i] = every <= 1 || (i+1)%every != 0
	}
	return list
}

// mix reads what blocks have instead of attention.
func (r *metadata) mix(c *Config) {
	c.mixers = make([]mixer, c.Blocks)
	switch c.arch.mixer {
	case shortConvolution:
		c.Taps = r.count("shortconv.l_cache", 2, bindings.MostTaps)
		for i, n := range c.kvHeads[:c.Blocks] {
			if n == 0 {
				c.mixers[i] = shortConvolution
			}
		}
	case deltaNet:
		c.Taps = r.count("ssm.conv_kernel", 2, bindings.MostTaps)
		c.Delta = bindings.DeltaHeads{Keys: r.count("ssm.group_count", 1, 1<<12),
			Values: r.count("ssm.time_step_rank", 1, 1<<12), DimK: r.count("ssm.state_size", 1, 1<<12), Eps: deltaEps}
		inner := r.count("ssm.inner_size", 1, 1<<20)
		if r.err != nil {
			return
		}
		if c.Delta.Values%c.Delta.Keys != 0 || inner%c.Delta.Values != 0 {
			r.err = fmt.Errorf("a delta net of %d numbers with %d value heads and %d key heads: multiples are needed",
				inner, c.Delta.Values, c.Delta.Keys)
			return
		}
		c.Delta.DimV = inner / c.Delta.Values
		recurrent := r.flags("attention.recurrent_layers", *c)
		if recurrent == nil {
			recurrent = allBut(r.optional("full_attention_interval", 4), *c)
		}
		for i, yes := range recurrent {
			if yes {
				c.mixers[i] = deltaNet
			}
		}
	}
}

// recurrent tells whether some block keeps a state of the text, which cannot be rewound.
func (c *Config) recurrent() bool {
	return slices.ContainsFunc(c.mixers, func(m mixer) bool { return m != attention })
}

// inFurtherBlock tells whether a tensor is of a block for speculative decoding, which is not computed.
func (c *Config) inFurtherBlock(name string) bool {
	var block int
	_, err := fmt.Sscanf(name, "blk.%d.", &block)
	return err == nil && block >= c.Blocks && block < c.Blocks+c.Further
}

// localRope is the rotation of blocks with windows. One with a base of its own is not scaled.
func (r *metadata) localRope(c Config) bindings.Rope {
	rope := c.Rope
	base := c.arch.localBase
	switch base {
	case 0:
		return rope
	case sameBase:
		base = float64(rope.FreqBase)
	}
	rope.FreqBase = float32(r.float("rope.freq_base_swa", base))
	rope.FreqScale, rope.ExtFactor, rope.AttnFactor = 1, 0, 1
	if c.arch.localHeads {
		rope.Dims = r.optional("rope.dimension_count_swa", c.LocalHeadDim)
	}
	return rope
}

// neutral lists keys that change what a model computes though no tensor shows it, each with the values that change
// nothing. Nothing else is computed here.
var neutral = map[string][]float64{
	"activation.situ_beta":              {0},
	"activation.situ_linear_beta":       {0},
	"activation_sparsity_scale":         {0},
	"attention.clamp_kqv":               {0},
	"attention.max_alibi_bias":          {0},
	"attention.output_scale":            {0, 1},
	"attention.recurrent_layers":        {0},
	"attention.rope_pattern":            {1},
	"attention.temperature_length":      {0},
	"attention.temperature_scale":       {0},
	"attention.value_scale":             {0, 1},
	"expert_gating_func":                {0, softMaxGate, softMaxChosenGate},
	"expert_group_count":                {0, 1},
	"expert_group_scale":                {0, 1},
	"expert_group_used_count":           {0, 1},
	"expert_shared_count":               {0},
	"expert_shared_feed_forward_length": {0},
	"expert_weights_scale":              {0, 1},
	"full_attention_interval":           {0, 1},
	"interleave_moe_layer_step":         {0, 1},
	"leading_dense_block_count":         {0},
	"moe_every_n_layers":                {0, 1},
	"norm_before_residual":              {0},
	"num_loops":                         {0, 1},
	"rope.scaling.alpha":                {0, 1},
	"router_logit_softcapping":          {0},
	"swiglu_clamp_exp":                  {0},
	"swiglu_clamp_shexp":                {0},
	"swin_norm":                         {0},
	"use_parallel_residual":             {0},
}

// activationNames are the values of hidden_activation that name each activation.
var activationNames = map[bindings.Activation][]string{bindings.SiLU: {"silu", "swiglu"},
	bindings.GELU: {"gelu_new", "gelu_pytorch_tanh"}, bindings.Clamped: {"silu", "swiglu"}}

// checkComputed refuses a file that asks for something that its architecture does not have here. A key may also state
// what is computed anyway.
func (r *metadata) checkComputed(c Config) {
	values := maps.Clone(neutral)
	maps.Copy(values, map[string][]float64{
		"attention.key_length_swa":   {0, float64(c.LocalHeadDim)},
		"attention.value_length_swa": {0, float64(c.LocalHeadDim)},
		"attention.shared_kv_layers": {0, float64(c.kvSharing)},
		"attention.scale":            {0, float64(c.scale.scores)},
		"embedding_scale":            {0, float64(c.scale.embedding)},
		"logit_scale":                {0, 1 / float64(c.scale.logits)},
		"residual_scale":             {0, float64(c.scale.added)},
		"rope.dimension_count_swa":   {0, float64(c.localRope.Dims)},
		"rope.freq_base_swa":         {0, float64(c.localRope.FreqBase)},
	})
	if c.arch.hasTemperature {
		delete(values, "attention.temperature_length")
		delete(values, "attention.temperature_scale")
	}
	if c.arch.mixer == deltaNet {
		delete(values, "attention.recurrent_layers")
		delete(values, "full_attention_interval")
	}
	for i, key := range []string{"attn_logit_softcapping", "final_logit_softcapping"} {
		if c.arch.caps[i] == 0 {
			values[key] = []float64{0}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, v := range r.floats(key) {
			if !slices.ContainsFunc(values[key], func(w float64) bool { return math.Abs(v-w) <= 1e-6*math.Abs(w) }) {
				r.fail(key, float32(v))
			}
		}
	}
	if normed, ok := r.g.Value(r.key("expert_weights_norm")).(bool); ok && !normed && c.arch.experts {
		r.fail("expert_weights_norm", normed)
	}
	if name, ok := r.g.String(r.key("hidden_activation")); ok && !slices.Contains(activationNames[c.arch.act], name) {
		r.fail("hidden_activation", name)
	}
	if rotated, ok := r.g.Value(r.key("rope.scaling.finetuned")).(bool); ok && !rotated && c.arch.hasScales {
		r.fail("rope.scaling.finetuned", rotated)
	}
}

// fail refuses the value of a key; the first failure counts.
func (r *metadata) fail(key string, value any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s is %v: it changes what the model computes, and is not computed here for models of "+
			"architecture %s", r.key(key), value, r.architecture)
	}
}
