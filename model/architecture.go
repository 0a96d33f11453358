package model

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// architecture says what a general.architecture is made of. A block is that of Llama 2: a norm (RMS), q k v, rotation, causal attention and its output, and a norm,
// gate and up, gated SiLU and down, each half added to the residual stream. What else an architecture has, or has otherwise, stands here; block.go has it as a step
// beside its gradient. A file with anything else that would change the result is refused by name: a tensor when the weights are loaded, a key by neutral.
type architecture struct {
	pairs     bindings.Pairing // which numbers of a head are rotated together
	headNorms bool             // a norm (RMS) of every head's q and k, before rotation
	straight  int              // every so many blocks, one does not rotate; 0: all do
	scales    bool             // of the embedding, of what attention and feed-forward add, of scores and of logits
	biases    []string         // linear layers that have a bias
	mayHave   []string         // linear layers that have one where the file holds it
}

// architectures are those that can be trained, by their general.architecture.
var architectures = map[string]*architecture{
	"granite": {mayHave: []string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}, scales: true},
	"llama":   {mayHave: []string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}}, // also SmolLM2, TinyLlama, Mistral
	"qwen2":   {pairs: bindings.Halves, biases: []string{"attn_q", "attn_k", "attn_v"}},                           // also Qwen 2.5
	"qwen3":   {pairs: bindings.Halves, headNorms: true},
	"smollm3": {straight: 4},
}

// findArchitecture refuses those that are not in the table.
func findArchitecture(name string) (*architecture, error) {
	if a := architectures[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("architecture %q: only models of these can be used: %s", name, strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
}

// scales are factors of an architecture that has them; 1 where the file says nothing.
type scales struct {
	embedding float32 // of the embedding's rows
	added     float32 // of what attention and feed-forward add to the residual stream
	scores    float32 // of the products of queries and keys
	logits    float32
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
	return scales{
		embedding: float32(read("embedding_scale", 1)),
		added:     float32(read("residual_scale", 1)),
		scores:    float32(read("attention.scale", 1/math.Sqrt(float64(c.HeadDim)))),
		logits:    float32(1 / read("logit_scale", 1)),
	}
}

// neutral are the keys that would change what a model computes, and the value with which they don't. 0 stands for nothing, too.
var neutral = map[string]float64{
	"attn_logit_softcapping": 0, "final_logit_softcapping": 0, "attention.clamp_kqv": 0, "attention.max_alibi_bias": 0,
}

// neutralScales are those of architectures without scales.
var neutralScales = map[string]float64{"attention.scale": 0, "embedding_scale": 1, "residual_scale": 1, "logit_scale": 1}

// checkNeutral refuses a file that asks for what its architecture does not have here.
func (r *metadata) checkNeutral(made *architecture) {
	check := func(keys map[string]float64) {
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if v := r.number(key, 0); r.err == nil && v != 0 && v != keys[key] {
				r.err = fmt.Errorf("%s is %g: it changes what the model computes, and is not computed here for models of architecture %s", r.key(key), v, r.architecture)
			}
		}
	}
	check(neutral)
	if !made.scales {
		check(neutralScales)
	}
	if rotated, ok := r.g.Value(r.key("rope.scaling.finetuned")).(bool); ok && !rotated && made.scales && r.err == nil {
		r.err = fmt.Errorf("%s is false: the model is one without rotation, which is not computed here for models of architecture %s", r.key("rope.scaling.finetuned"), r.architecture)
	}
}
