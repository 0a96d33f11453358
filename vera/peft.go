package vera

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// hfModules are the paths of the Targets within a block of Hugging Face's Llama.
var hfModules = map[string]string{
	"attn_q":      "self_attn.q_proj",
	"attn_k":      "self_attn.k_proj",
	"attn_v":      "self_attn.v_proj",
	"attn_output": "self_attn.o_proj",
	"ffn_gate":    "mlp.gate_proj",
	"ffn_up":      "mlp.up_proj",
	"ffn_down":    "mlp.down_proj",
}

// hfName is the module's path in Hugging Face's model: "model.layers.0.self_attn.q_proj".
func (l Linear) hfName() string {
	return fmt.Sprintf("model.layers.%d.%s", l.Block, hfModules[l.Target])
}

// peftConfig is what PEFT's adapter_config.json says of a VeRA adapter.
type peftConfig struct {
	Type           string            `json:"peft_type"`
	Version        string            `json:"peft_version"`
	BaseModel      string            `json:"base_model_name_or_path"`
	Rank           int               `json:"r"`
	Targets        targetModules     `json:"target_modules"`
	Layers         oneOrMany[int]    `json:"layers_to_transform"`
	LayersPattern  oneOrMany[string] `json:"layers_pattern"`
	Key            json.Number       `json:"projection_prng_key"`
	DInitial       float32           `json:"d_initial"`
	Dropout        float32           `json:"vera_dropout"`
	SaveProjection bool              `json:"save_projection"`
	Bias           string            `json:"bias"`
	ModulesToSave  []string          `json:"modules_to_save"`
	// fan_in_fan_out is not read: PEFT itself takes it as false for every linear layer of a Llama.
}

// targetModules is a list of module names or, given as one string, a regular expression.
type targetModules struct {
	names   []string
	pattern string
}

// UnmarshalJSON reads a list of strings, a string, or null.
func (t *targetModules) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &t.pattern) == nil {
		return nil
	}
	return json.Unmarshal(data, &t.names)
}

// oneOrMany is a list in which PEFT may leave out the brackets around a single value.
type oneOrMany[T any] []T

// UnmarshalJSON reads a list, a single value, or null.
func (l *oneOrMany[T]) UnmarshalJSON(data []byte) error {
	var list []T
	if json.Unmarshal(data, &list) == nil {
		*l = list
		return nil
	}
	var one T
	if err := json.Unmarshal(data, &one); err != nil {
		return err
	}
	*l = []T{one}
	return nil
}

// Facts of an adapter that PEFT trained.
const (
	factPEFTBase    = "peft_base_model"
	factPEFTVersion = "peft_version"
)

// loadPEFT reads the folder of a VeRA adapter that PEFT or SavePEFT saved.
func loadPEFT(dir string, base Base, anyBase bool) (*Adapter, error) {
	if base.Architecture != "llama" {
		return nil, fmt.Errorf("adapter %s: PEFT's adapters can be read for models of architecture llama, and this one is %q", dir, base.Architecture)
	}
	configPath, weightsPath := filepath.Join(dir, peftConfigFile), filepath.Join(dir, peftWeightsFile)
	p, err := readPEFTConfig(configPath)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	weights, err := os.ReadFile(weightsPath)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	own, err := readNativeKey(weights)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", weightsPath, err)
	}
	a, err := p.adapter(own, base, anyBase, len(weights)/leastBytes)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", configPath, err)
	}
	if err := a.readPEFTWeights(weights, p.SaveProjection); err != nil {
		return nil, fmt.Errorf("adapter %s: %w", weightsPath, err)
	}
	return a, nil
}

// adapter makes an adapter of the configuration, whose numbers are still to be read from a file of no more than room. own is nil where PEFT wrote the folder.
func (p *peftConfig) adapter(own *native, base Base, anyBase bool, room int) (*Adapter, error) {
	c, err := p.config(base)
	if err != nil {
		return nil, err
	}
	if own == nil {
		a, err := layout(c, base, room)
		if err != nil {
			return nil, err
		}
		for fact, value := range map[string]string{factPEFTBase: p.BaseModel, factPEFTVersion: p.Version} {
			if value != "" {
				a.Facts[fact] = value
			}
		}
		return a, nil
	}
	facts := own.Facts
	if facts == nil {
		facts = map[string]string{}
	}
	if err := checkBase(base.Architecture, own.BaseName, own.Fingerprint, base, anyBase, facts); err != nil {
		return nil, err
	}
	// The configuration may have been changed by hand; then it decides. A pair that is not PEFT's own is in the file.
	if sameMeaning(c, own.Config, base) && (own.Config.Init == KaimingUniform || p.SaveProjection) {
		c = own.Config
	}
	a, err := layout(c, base, room)
	if err != nil {
		return nil, err
	}
	a.Facts = facts
	return a, nil
}

// sameMeaning tells whether two configurations give the same adapter, apart from the distribution of its pair.
func sameMeaning(x, y Config, base Base) bool {
	return x.Rank == y.Rank && x.Seed == y.Seed && x.DInitial == y.DInitial && x.Dropout == y.Dropout && slices.Equal(x.selected(base), y.selected(base))
}

func readPEFTConfig(path string) (*peftConfig, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	// PEFT's own defaults hold for what a file leaves out.
	p := &peftConfig{Rank: 256, Key: "0", DInitial: 0.1, SaveProjection: true, Bias: "none"}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// config turns PEFT's configuration into ours. It fails for what cannot be kept: other kinds of adapters and trained modules besides.
func (p *peftConfig) config(base Base) (Config, error) {
	c := Config{Method: MethodVeRA, Rank: p.Rank, DInitial: p.DInitial, Dropout: p.Dropout, Init: KaimingUniform}
	switch {
	case p.Type != "VERA":
		return c, fmt.Errorf("peft_type is %q; only \"VERA\" can be read", p.Type)
	case p.Bias != "none":
		return c, fmt.Errorf("bias is %q; only \"none\" can be read, since trained biases have no place in an adapter of this kind", p.Bias)
	case len(p.ModulesToSave) > 0:
		return c, fmt.Errorf("modules_to_save holds %q; adapters with whole trained modules cannot be read", p.ModulesToSave)
	}
	var err error
	if c.Seed, err = seedOfKey(p.Key.String()); err != nil {
		return c, err
	}
	match, err := p.matcher()
	if err != nil {
		return c, err
	}
	if head, err := match("lm_head"); err != nil {
		return c, err
	} else if head {
		return c, errors.New("target_modules select lm_head; the output head cannot be adapted here")
	}
	var adapted []Linear
	for _, l := range ordered(base.Linears) {
		selected, err := match(l.hfName())
		if err != nil {
			return c, err
		}
		if selected {
			adapted = append(adapted, l)
		}
	}
	if len(adapted) == 0 {
		return c, fmt.Errorf("target_modules, layers_to_transform and layers_pattern together select no linear layer of %q", base.Name)
	}
	c.Targets, c.Layers = selection(adapted, base)
	return c, nil
}

// seedOfKey is the seed that PyTorch's generator takes from an integer: the low 32 bits of a value of 64.
func seedOfKey(key string) (uint32, error) {
	if u, err := strconv.ParseUint(key, 10, 64); err == nil {
		return uint32(u), nil
	}
	i, err := strconv.ParseInt(key, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("projection_prng_key is %s; must be an integer of 64 bits", key)
	}
	return uint32(i), nil
}

// selection gives the targets and layers that select exactly the adapted layers, naming single layers only where no product of the two does.
func selection(adapted []Linear, base Base) (targets []string, layers []int) {
	var c Config
	for _, l := range adapted {
		if !slices.Contains(c.Targets, l.Target) {
			c.Targets = append(c.Targets, l.Target)
		}
		if !slices.Contains(c.Layers, l.Block) {
			c.Layers = append(c.Layers, l.Block)
		}
	}
	if len(c.selected(base)) != len(adapted) {
		c.Targets = nil
		for _, l := range adapted {
			c.Targets = append(c.Targets, l.Name())
		}
		return c.Targets, nil
	}
	if len(c.Layers) == base.Blocks {
		c.Layers = nil
	}
	return c.Targets, c.Layers
}

// matcher tells which module paths PEFT adapts. A pattern must match a whole path; a name must be the path or its end after a dot. The layer
// options hold only for names that are not a whole path.
func (p *peftConfig) matcher() (func(path string) (bool, error), error) {
	if strings.EqualFold(p.Targets.pattern, "all-linear") {
		return func(path string) (bool, error) { return path != "lm_head", nil }, nil
	}
	if p.Targets.pattern != "" {
		pattern, err := compile("target_modules", `\A(?:`+p.Targets.pattern+`)\z`)
		if err != nil {
			return nil, err
		}
		return func(path string) (bool, error) {
			selected, err := pattern.MatchString(path)
			if err != nil {
				return false, fmt.Errorf("target_modules: %w", err)
			}
			return selected, nil
		}, nil
	}
	if len(p.Targets.names) == 0 {
		return nil, errors.New("target_modules is empty; must be a list of module names, a regular expression, or \"all-linear\"")
	}
	block, err := p.blockPatterns()
	if err != nil {
		return nil, err
	}
	return func(path string) (bool, error) {
		if slices.Contains(p.Targets.names, path) {
			return true, nil
		}
		if !slices.ContainsFunc(p.Targets.names, func(name string) bool { return strings.HasSuffix(path, "."+name) }) {
			return false, nil
		}
		if len(p.Layers) == 0 {
			return true, nil
		}
		for _, pattern := range block {
			m, err := pattern.FindStringMatch(path)
			if err != nil {
				return false, fmt.Errorf("layers_pattern: %w", err)
			}
			if m != nil {
				n, err := strconv.Atoi(m.GroupByNumber(1).String())
				if err != nil {
					return false, fmt.Errorf("layers_pattern: the first group of %s must be the block's number, and is not in %s", pattern, path)
				}
				return slices.Contains(p.Layers, n), nil
			}
		}
		return false, nil
	}, nil
}

// blockPatterns find the number of the block in a module's path; the first that matches decides.
func (p *peftConfig) blockPatterns() ([]*regexp2.Regexp, error) {
	names := []string(p.LayersPattern)
	if len(names) == 0 || len(names) == 1 && names[0] == "" {
		names = []string{"[^.]*"}
	}
	var patterns []*regexp2.Regexp
	for _, name := range names {
		pattern, err := compile("layers_pattern", `\A.*\.`+name+`\.(\d+)\.`)
		if err != nil {
			return nil, err
		}
		patterns = append(patterns, pattern)
	}
	return patterns, nil
}

// compile makes a backtracking matcher, for patterns in Python's syntax with look-around, that gives up on a pattern that would never end.
func compile(option, pattern string) (*regexp2.Regexp, error) {
	re, err := regexp2.Compile(pattern, regexp2.RE2)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	re.MatchTimeout = time.Second
	return re, nil
}
