package vera

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// hfModel says how Hugging Face's form of an architecture names the linear layers, and what a GGUF file has otherwise.
type hfModel struct {
	blocks    string            // path of the list of blocks
	embedding string            // path of the embedding
	modules   map[string]string // paths of the targets within a block
	// of the GGUF file; nil where its converter moves nothing
	orders func(b Base, target string) (rows, columns Order)
	// transposed weights are kept as in × out (transformers' Conv1D). Adapters are the same as of other layers, and
	// PEFT notes it in their configuration.
	transposed bool
}

// Paths of the targets within a block.
var (
	gatedModules = map[string]string{
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
		"attn_output": "self_attn.o_proj",
		"ffn_gate":    "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
	}
	plainModules = map[string]string{
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
		"attn_output": "self_attn.o_proj",
		"ffn_up":      "mlp.c_fc", "ffn_down": "mlp.c_proj",
	}
	fusedModules = map[string]string{"attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj",
		"ffn_up": "mlp.gate_up_proj", "ffn_down": "mlp.down_proj"}
	lfm2Modules = map[string]string{
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
		"attn_output":       "self_attn.out_proj",
		"shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj",
		"ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3", "ffn_down": "feed_forward.w2",
	}
	deltaModules = map[string]string{
		"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
		"attn_output": "self_attn.o_proj",
		"attn_qkv":    "linear_attn.in_proj_qkv", "attn_gate": "linear_attn.in_proj_z",
		"ssm_alpha": "linear_attn.in_proj_a", "ssm_beta": "linear_attn.in_proj_b", "ssm_out": "linear_attn.out_proj",
		"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
	}
	gpt2Modules = map[string]string{"attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc",
		"ffn_down": "mlp.c_proj"}
)

// hfModels are the architectures whose modules are known, by their general.architecture.
var hfModels = map[string]hfModel{
	"exaone4":    common(gatedModules),
	"gemma2":     common(gatedModules),
	"gemma3":     common(gatedModules),
	"gemma4":     common(gatedModules),
	"gpt-oss":    common(gatedModules),
	"gpt2":       {blocks: "transformer.h", embedding: "transformer.wte", modules: gpt2Modules, transposed: true},
	"granite":    reordered(gatedModules, halves),
	"lfm2":       common(lfm2Modules),
	"llama":      reordered(gatedModules, halves), // also Mistral
	"mistral3":   reordered(gatedModules, halves),
	"olmo2":      common(gatedModules),
	"phi3":       common(fusedModules),
	"qwen2":      common(gatedModules),
	"qwen3":      common(gatedModules),
	"qwen35":     reordered(deltaModules, valueHeads),
	"qwen3moe":   common(gatedModules),
	"seed_oss":   common(gatedModules),
	"smollm3":    reordered(gatedModules, halves),
	"starcoder2": common(plainModules),
}

func common(modules map[string]string) hfModel {
	return hfModel{blocks: "model.layers", embedding: "model.embed_tokens", modules: modules}
}

func reordered(modules map[string]string, orders func(b Base, target string) (rows, columns Order)) hfModel {
	h := common(modules)
	h.orders = orders
	return h
}

// withImages are the paths of the blocks where the model of that architecture is part of one that also takes images,
// such as Gemma 3's: transformers' names, and older ones.
var withImages = []string{"model.language_model.layers", "language_model.model.layers"}

// hf finds the names of the model's modules, and refuses a model where they are not known.
func (b Base) hf() (hfModel, error) {
	h, ok := hfModels[b.Architecture]
	if !ok {
		return h, fmt.Errorf("PEFT's names are known for models of architecture %s, and this one is %q",
			strings.Join(slices.Sorted(maps.Keys(hfModels)), ", "), b.Architecture)
	}
	return h, nil
}

// Module is the path of a layer in Hugging Face's form of the model: "model.layers.0.self_attn.q_proj". It is for
// architectures whose modules are known.
func (b Base) Module(l Linear) string { return hfModels[b.Architecture].path(l) }

func (h hfModel) path(l Linear) string {
	return fmt.Sprintf("%s.%d.%s", h.blocks, l.Block, h.modules[l.Target])
}

// found has the blocks where a file's tensors have them.
func (h hfModel) found(tensors []string) hfModel {
	for _, blocks := range withImages {
		if slices.ContainsFunc(tensors, func(name string) bool {
			return strings.HasPrefix(strings.TrimPrefix(name, peftPrefix), blocks+".")
		}) {
			h.blocks = blocks
		}
	}
	return h
}

// end is the shortest end of a target's path by which PEFT finds no other layers than those of the kinds given:
// "q_proj", or "attn.c_proj" beside "mlp.c_proj".
func (h hfModel) end(target string, kinds ...string) string {
	path := h.modules[target]
	last := path[strings.LastIndexByte(path, '.')+1:]
	for other, module := range h.modules {
		if other != target && !slices.Contains(kinds, other) && strings.HasSuffix(module, "."+last) {
			return path
		}
	}
	return last
}
