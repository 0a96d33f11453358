package vera

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/nlpodyssey/safetensors"
)

// loraConfig turns the configuration of PEFT's LoRA into ours, with a rank and an alpha for each layer.
func (p *peftConfig) loraConfig(base Base, h hfModel) (Config, error) {
	c := Config{Method: MethodLoRA, Alpha: p.Alpha, Dropout: p.LoRADropout, RSLoRA: p.RSLoRA, Ranks: map[string]int{},
		Alphas: map[string]float32{}}
	if err := p.checkLoRA(); err != nil {
		return c, err
	}
	adapted, err := p.adapted(base, h)
	if err != nil {
		return c, err
	}
	c.Targets, c.Layers = selection(adapted, base)
	rank, err := p.Ranks.lookup("rank_pattern", p.Rank)
	if err != nil {
		return c, err
	}
	alpha, err := p.Alphas.lookup("alpha_pattern", p.Alpha)
	if err != nil {
		return c, err
	}
	for _, l := range adapted {
		if c.Ranks[l.Name()], err = rank(h.path(l)); err != nil {
			return c, err
		}
		if c.Alphas[l.Name()], err = alpha(h.path(l)); err != nil {
			return c, err
		}
		c.Rank = max(c.Rank, c.Ranks[l.Name()])
	}
	return c, nil
}

// plainLoRA are the options that say what is read here, or nothing of what the adapter computes.
var plainLoRA = []string{
	"alpha_pattern", "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
	"exclude_modules", "fan_in_fan_out", "inference_mode",
	"init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
	"lora_ga_config", "megatron_core", "peft_type", "peft_version",
	"qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_rslora",
	"velora_config",
}

// otherLoRA says what options do that a LoRA here has no place for.
var otherLoRA = map[string]string{
	"alora_invocation_tokens": "its change begins at certain tokens",
	"arrow_config":            "it routes between several adapters",
	"bias":                    "trained biases have no place in an adapter of this kind",
	"kasa_config":             "it changes the base weights",
	"layer_replication":       "it makes a larger model of the base",
	"lora_bias":               "trained biases have no place in an adapter of this kind",
	"megatron_config":         "its layers are Megatron's",
	"modules_to_save":         "whole trained modules have no place in an adapter of this kind",
	"monteclora_config":       "its change is drawn at random",
	"target_parameters":       "it adapts parameters that are no linear layers",
	"trainable_token_indices": "trained embeddings have no place in an adapter of this kind",
	"use_bdlora":              "its matrices are block-diagonal",
	"use_dora": "DoRA also trains the magnitude of each weight, which a LoRA cannot hold; merge " +
		"it with PEFT",
	"use_qalora": "it pools the inputs before lora_A",
}

// rebasing are the initialisations that take the first A and B out of the base weights, so that the adapter is none of
// the base model as it is.
var rebasing = regexp.MustCompile(`^(pissa.*|olora|corda|loftq|lora_ga)$`)

// checkLoRA names the first option that changes what the adapter computes and is not read here.
func (p *peftConfig) checkLoRA() error {
	for _, key := range slices.Sorted(maps.Keys(p.all)) {
		value := string(p.all[key])
		if slices.Contains(plainLoRA, key) || unset(p.all[key]) {
			continue
		}
		if why, known := otherLoRA[key]; known {
			return fmt.Errorf("%s is %s: %s", key, value, why)
		}
		return fmt.Errorf("%s is %s: an option that is not known here, and may change what the adapter computes",
			key, value)
	}
	if init := strings.Trim(string(p.all["init_lora_weights"]), `"`); rebasing.MatchString(init) {
		return fmt.Errorf("init_lora_weights is %q: it changes the base weights; save the adapter with PEFT's "+
			"save_pretrained and path_initial_model_for_weight_conversion, which makes a plain LoRA of it", init)
	}
	if p.Targets.pattern != "" && (len(p.Layers) > 0 || len(p.LayersPattern) > 0) {
		return fmt.Errorf("target_modules is the pattern %q, and PEFT takes layers_to_transform and layers_pattern "+
			"only with a list of names", p.Targets.pattern)
	}
	return nil
}

// unset tells whether an option is at what means nothing.
func unset(option json.RawMessage) bool {
	var value any
	if err := json.Unmarshal(option, &value); err != nil {
		return false
	}
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == "" || v == "none"
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// loraTensor takes apart what PEFT calls a matrix: the module's path, and A or B. Files of a state_dict also name the
// adapter.
var loraTensor = regexp.MustCompile(`^(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.[^.]+)?\.weight$`)

// loraTensors finds the names of the matrices of each module, and fails where a tensor is none of a linear layer's.
func (a *Adapter) loraTensors(names []string, h hfModel) (map[string]string, error) {
	layers := map[string]bool{}
	for _, l := range a.Base.Linears {
		layers[h.path(l)] = true
	}
	found := map[string]string{}
	var others []string
	for _, name := range names {
		m := loraTensor.FindStringSubmatch(name)
		if m == nil || !layers[m[1]] {
			others = append(others, name)
			continue
		}
		matrix := m[1] + ".lora_" + m[2] + ".weight"
		if twin, twice := found[matrix]; twice {
			return nil, fmt.Errorf("tensors %s and %s are the same matrix of one layer; save a single adapter",
				twin, name)
		}
		found[matrix] = name
	}
	if len(others) > 0 {
		return nil, foreign(others)
	}
	return found, nil
}

// readPEFTLoRA fills the matrices from a safetensors file.
func (a *Adapter) readPEFTLoRA(file []byte, h hfModel) error {
	tensors, err := safetensors.Deserialize(file)
	if err != nil {
		return fmt.Errorf("not a whole safetensors file: %w", err)
	}
	names, err := a.loraTensors(tensors.Names(), h)
	if err != nil {
		return err
	}
	read := func(matrix string, out []float32, shape ...int) error {
		name, ok := names[matrix]
		if !ok {
			return fmt.Errorf("tensor %s%s is missing, and the configuration selects its layer", peftPrefix, matrix)
		}
		delete(names, matrix)
		return readSafetensor(tensors, name, out, shape...)
	}
	for i := range a.Layers {
		l := &a.Layers[i]
		if err := read(h.path(l.Linear)+peftLoRAA, l.Pair.A, l.Rank(), l.In); err != nil {
			return err
		}
		if err := read(h.path(l.Linear)+peftLoRAB, l.Pair.B, l.Out, l.Rank()); err != nil {
			return err
		}
		rows, columns := a.Base.Orders(l.Target)
		copy(l.Pair.A, columns.columns(l.Pair.A, l.In, l.In))
		copy(l.Pair.B, GGUFRows(l.Pair.B, l.Out, rows))
	}
	for _, matrix := range slices.Sorted(maps.Keys(names)) {
		return fmt.Errorf("tensor %s is of a layer that the configuration does not select", names[matrix])
	}
	return nil
}
