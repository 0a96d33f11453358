package model

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// architecture says what a general.architecture is made of. Where nothing stands here, a block is that of Llama 2: a
// norm (RMS), q k v, rotation of neighbours, causal attention and its output, and a norm, gate and up, gated SiLU and
// down, each half added to the residual stream. block.go has each of these choices as a step beside its gradient. A
// file with anything else that would change the result is refused by name: a tensor when the weights are loaded, a key
// by checkComputed.
//
// Two layers may be one matrix in the file: attn_qkv for q k v, and ffn_up for gate and up. They are then one layer
// here as well.
type architecture struct {
	layerNorm bool             // layer norms with biases in place of RMS norms
	norms     places           // where they stand
	qkNorms   scope            // of norms (RMS) of q and k, before rotation
	pairs     bindings.Pairing // which numbers of a head are rotated together
	positions bool             // learned embeddings of positions are added to those of tokens, and nothing is rotated
	straight  int              // every so many blocks, one does not rotate; 0: all do
	straights bool             // where some blocks have windows, the others do not rotate
	biases    []string         // linear layers that have a bias
	mayHave   []string         // linear layers that have one where the file holds it
	act       bindings.Activation
	plain     bool   // the feed-forward has no gate
	mixer     mixer  // what some blocks have in the place of attention
	gated     bool   // attention's result is multiplied by σ of a gate, of each head behind its query
	outNorm   string // name of the norm before the head; "": output_norm
	ffnNorm   string // name of the norm of what the feed-forward takes; "": ffn_norm
	experts   bool   // it is a mixture of experts, which are frozen (experts.go)
	biased    bool   // these and their router have biases
	sinks     bool   // a head's tokens see one score more, which belongs to no token
	smooth    bool   // YaRN's ramp begins and ends between pairs of numbers
	vNorm     bool   // of v, a head at a time, without weights

	// each block adds an embedding of its own of the tokens, where the file has them (embeddings.go), and scales its
	// result
	embeddings bool
	sharing    bool // the last blocks may take the keys and values of an earlier one
	keysOnly   bool // blocks without attn_v have their keys, before norm and rotation, for values
	localHeads bool // heads of blocks with windows may have another size

	// every so many blocks, one sees all tokens, and the others a window of the last ones; 1: all have windows; 0: none
	windows int
	window  int // tokens of a window where the file says nothing; 0: all
	// base of the rotation in blocks with windows where the file says nothing, sameBase that of the others; it is not
	// scaled. 0: they rotate as the others
	localBase float64
	// soft caps of scores and of logits where the file says nothing; a negative one stands for none, 0 for one that a
	// file must not have
	caps [2]float64
	// the file has factors of the embedding, of what attention and feed-forward add, of scores and of logits
	scales    bool
	rootWidth bool // the embedding is multiplied by √width
	unscaled  bool // scores are the products of q and k as they are
	warming   bool // the file may have scores grow with the position of the query
	// the model of this many blocks divides scores by √(width/heads), the others by √(head dimension)
	byWidth int
}

// sameBase is of OLMo 3, whose blocks with windows alone are not scaled.
const sameBase = -1

// places are where the norms of attention and feed-forward stand.
type places int

const (
	before places = iota // of what they take
	after                // of what they add
	both
)

// mixer is what lets a block's tokens see those before them.
type mixer int

const (
	attention        mixer = iota
	shortConvolution       // shortconv.go
	deltaNet               // delta.go
)

// scope is what one norm of q, or of k, is taken over.
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

// architectures are those that can be trained, by their general.architecture.
var architectures = map[string]*architecture{
	"exaone4": {mayHave: many, norms: after, qkNorms: head, pairs: bindings.Halves, windows: 4, straights: true},
	"gemma2": {mayHave: many, norms: both, pairs: bindings.Halves, act: bindings.GELU, windows: 2, window: 4096,
		caps: [2]float64{50, 30}, rootWidth: true, byWidth: 46},
	"gemma3": {mayHave: many, norms: both, qkNorms: head, pairs: bindings.Halves, act: bindings.GELU, windows: 6,
		localBase: 10000, caps: [2]float64{0, -1}, rootWidth: true, byWidth: 62},
	"gemma4": {mayHave: many, norms: both, qkNorms: head, vNorm: true, pairs: bindings.Halves, act: bindings.GELU,
		windows: 6, localBase: 10000, localHeads: true, caps: [2]float64{0, -1},
		rootWidth: true, unscaled: true, embeddings: true, sharing: true, keysOnly: true},
	"gpt-oss": {mayHave: many, pairs: bindings.Halves, act: bindings.Clamped, experts: true, biased: true,
		sinks: true, smooth: true, ffnNorm: "post_attention_norm", windows: 2},
	"gpt2":     {layerNorm: true, positions: true, biases: many, act: bindings.GELU, plain: true},
	"granite":  {mayHave: many, scales: true},
	"lfm2":     {pairs: bindings.Halves, qkNorms: head, mixer: shortConvolution, outNorm: "token_embd_norm"},
	"llama":    {mayHave: many, windows: 1},                // also SmolLM2, TinyLlama, Mistral
	"mistral3": {mayHave: many, windows: 1, warming: true}, // Ministral 3, Mistral Small 3
	"olmo2":    {mayHave: many, norms: after, qkNorms: row, pairs: bindings.Halves, windows: 4, localBase: sameBase},
	"phi3":     {pairs: bindings.Halves, windows: 1},  // also Phi-3.5 and Phi-4. llama.cpp leaves the windows out
	"qwen2":    {pairs: bindings.Halves, biases: qkv}, // also Qwen 2.5
	"qwen3":    {mayHave: many, qkNorms: head, pairs: bindings.Halves},
	"qwen35": {mayHave: many, qkNorms: head, pairs: bindings.Halves, ffnNorm: "post_attention_norm",
		mixer: deltaNet, gated: true},
	"qwen3moe":   {mayHave: many, qkNorms: head, pairs: bindings.Halves, experts: true}, // Qwen3-30B-A3B
	"seed_oss":   {mayHave: many, pairs: bindings.Halves, ffnNorm: "post_attention_norm"},
	"smollm3":    {mayHave: many, straight: 4},
	"starcoder2": {layerNorm: true, pairs: bindings.Halves, mayHave: many, act: bindings.GELU, plain: true, windows: 1},
}

// findArchitecture refuses those that are not in the table.
func findArchitecture(name string) (*architecture, error) {
	if a := architectures[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("architecture %q: only models of these can be used: %s", name,
		strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
}

// scales are factors of what a model computes, and the soft caps: c·tanh(x/c) for x; 0 where there is none.
type scales struct {
	embedding float32 // of the embedding's rows
	added     float32 // of what attention and feed-forward add to the residual stream
	scores    float32 // of the products of queries and keys
	logits    float32

	scoreCap, logitCap float32
}

// scales reads them. The logits are divided by what their key says. A 0 stands for nothing, as in llama.cpp.
func (r *metadata) scales(c Config) scales {
	read := func(key string, otherwise float64) float64 {
		v := r.number(key, 0)
		if v == 0 || !c.made.scales {
			return otherwise
		}
		return v
	}
	perHead := float64(c.HeadDim)
	if c.Blocks == c.made.byWidth {
		perHead = float64(c.Width / c.Heads)
	}
	if c.made.unscaled {
		perHead = 1
	}
	embedding := 1.0
	if c.made.rootWidth {
		embedding = math.Sqrt(float64(c.Width))
	}
	return scales{
		embedding: float32(read("embedding_scale", embedding)),
		added:     float32(read("residual_scale", 1)),
		scores:    float32(read("attention.scale", 1/math.Sqrt(perHead))),
		logits:    float32(1 / read("logit_scale", 1)),
		scoreCap:  float32(max(0, r.number("attn_logit_softcapping", c.made.caps[0]))),
		logitCap:  float32(max(0, r.number("final_logit_softcapping", c.made.caps[1]))),
	}
}

// temperature is by how much the scores of a query grow with its position: 1 + scale · ln(1 + ⌊position / length⌋).
type temperature struct {
	scale  float32 // 0: not at all
	length int
}

// at is what the scores of a query at that position are multiplied by.
func (t temperature) at(position int32) float32 {
	return float32(1 + float64(t.scale)*math.Log(float64(1+int(position)/t.length)))
}

// temperature reads it. Its length is that of texts in the original training where the file has no other.
func (r *metadata) temperature(c Config) (t temperature) {
	if !c.made.warming {
		return t
	}
	t.scale, t.length = float32(r.number("attention.temperature_scale", 0)), r.optional("attention.temperature_length",
		c.Rope.OrigContext)
	if t.scale != 0 && t.length < 1 && r.err == nil {
		r.err = fmt.Errorf("%s is %d: a positive number is needed", r.key("attention.temperature_length"), t.length)
	}
	return t
}

// windows tells for each block whether it sees a window of the last tokens alone, and of how many; 0 where all blocks
// see all.
func (r *metadata) windows(c Config) (window int, local []bool) {
	made := c.made
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

// flags reads a list that has one of each block; nil where there is none.
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

// allBut flags all blocks but every so manieth.
func allBut(every int, c Config) []bool {
	list := make([]bool, c.Blocks)
	for i := range list {
		list[i] = every <= 1 || (i+1)%every != 0
	}
	return list
}

// mix reads what blocks have in the place of attention.
func (r *metadata) mix(c *Config) {
	c.mixers = make([]mixer, c.Blocks)
	switch c.made.mixer {
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

// recurrent tells whether blocks keep a state of a text, which cannot go back to what it was some tokens before.
func (c *Config) recurrent() bool {
	return slices.ContainsFunc(c.mixers, func(m mixer) bool { return m != attention })
}

// further tells whether a tensor is of a block that is not computed.
func (c *Config) further(name string) bool {
	var block int
	_, err := fmt.Sscanf(name, "blk.%d.", &block)
	return err == nil && block >= c.Blocks && block < c.Blocks+c.Further
}

// localRope is the rotation of blocks with windows, which has no scaling where it has a base of its own.
func (r *metadata) localRope(c Config) bindings.Rope {
	rope := c.Rope
	base := c.made.localBase
	switch base {
	case 0:
		return rope
	case sameBase:
		base = float64(rope.FreqBase)
	}
	rope.FreqBase = float32(r.number("rope.freq_base_swa", base))
	rope.FreqScale, rope.ExtFactor, rope.AttnFactor = 1, 0, 1
	if c.made.localHeads {
		rope.Dims = r.optional("rope.dimension_count_swa", c.LocalHeadDim)
	}
	return rope
}

// neutral are keys that change what a model computes, without a tensor that would tell, and the values with which they
// don't; none of them is computed here.
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

// activationNames are those of hidden_activation.
var activationNames = map[bindings.Activation][]string{bindings.SiLU: {"silu", "swiglu"},
	bindings.GELU: {"gelu_new", "gelu_pytorch_tanh"}, bindings.Clamped: {"silu", "swiglu"}}

// checkComputed refuses a file that asks for what its architecture does not have here. A key may say what is computed
// anyway.
func (r *metadata) checkComputed(c Config) {
	values := maps.Clone(neutral)
	maps.Copy(values, map[string][]float64{
		"attention.key_length_swa":   {0, float64(c.LocalHeadDim)},
		"attention.value_length_swa": {0, float64(c.LocalHeadDim)},
		"attention.shared_kv_layers": {0, float64(c.sharing)},
		"attention.scale":            {0, float64(c.scale.scores)},
		"embedding_scale":            {0, float64(c.scale.embedding)},
		"logit_scale":                {0, 1 / float64(c.scale.logits)},
		"residual_scale":             {0, float64(c.scale.added)},
		"rope.dimension_count_swa":   {0, float64(c.localRope.Dims)},
		"rope.freq_base_swa":         {0, float64(c.localRope.FreqBase)},
	})
	if c.made.warming {
		delete(values, "attention.temperature_length")
		delete(values, "attention.temperature_scale")
	}
	if c.made.mixer == deltaNet {
		delete(values, "attention.recurrent_layers")
		delete(values, "full_attention_interval")
	}
	for i, key := range []string{"attn_logit_softcapping", "final_logit_softcapping"} {
		if c.made.caps[i] == 0 {
			values[key] = []float64{0}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		for _, v := range r.numbers(key) {
			if !slices.ContainsFunc(values[key], func(w float64) bool { return math.Abs(v-w) <= 1e-6*math.Abs(w) }) {
				r.fail(key, float32(v))
			}
		}
	}
	if normed, ok := r.g.Value(r.key("expert_weights_norm")).(bool); ok && !normed && c.made.experts {
		r.fail("expert_weights_norm", normed)
	}
	if name, ok := r.g.String(r.key("hidden_activation")); ok && !slices.Contains(activationNames[c.made.act], name) {
		r.fail("hidden_activation", name)
	}
	if rotated, ok := r.g.Value(r.key("rope.scaling.finetuned")).(bool); ok && !rotated && c.made.scales {
		r.fail("rope.scaling.finetuned", rotated)
	}
}

// fail refuses the value of a key, unless something failed before.
func (r *metadata) fail(key string, value any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s is %v: it changes what the model computes, and is not computed here for models of "+
			"architecture %s", r.key(key), value, r.architecture)
	}
}
