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
	biases    []string         // linear layers that have a bias
	mayHave   []string         // linear layers that have one where the file holds it
}

// architectures are those that can be trained, by their general.architecture.
var architectures = map[string]*architecture{
	"llama": {mayHave: []string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}}, // also SmolLM2, TinyLlama, Mistral
	"qwen2": {pairs: bindings.Halves, biases: []string{"attn_q", "attn_k", "attn_v"}},                           // also Qwen 2.5
	"qwen3": {pairs: bindings.Halves, headNorms: true},
}

// findArchitecture refuses those that are not in the table.
func findArchitecture(name string) (*architecture, error) {
	if a := architectures[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("architecture %q: only models of these can be used: %s", name, strings.Join(slices.Sorted(maps.Keys(architectures)), ", "))
}

// neutral are the keys that would change what a model computes, and the value with which they don't.
var neutral = map[string]float64{
	"attention.scale": 0, "embedding_scale": 1, "residual_scale": 1, "logit_scale": 1, // of Granite
	"attn_logit_softcapping": 0, "final_logit_softcapping": 0, "attention.clamp_kqv": 0, "attention.max_alibi_bias": 0,
}

// checkNeutral refuses a file that asks for what its architecture does not have here.
func (r *metadata) checkNeutral() {
	for _, key := range slices.Sorted(maps.Keys(neutral)) {
		if v := r.number(key, neutral[key]); r.err == nil && v != 0 && math.Abs(v-neutral[key]) > 1e-6 {
			r.err = fmt.Errorf("%s is %g: it changes what the model computes, and is not computed here for models of architecture %s", r.key(key), v, r.architecture)
		}
	}
}
