package vera

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/veratune/veratune/internal/durable"
)

// peftConfig is what PEFT's adapter_config.json says of an adapter.
type peftConfig struct {
	Type           string            `json:"peft_type"`
	Version        string            `json:"peft_version"`
	BaseModel      string            `json:"base_model_name_or_path"`
	Rank           int               `json:"r"`
	Targets        targetModules     `json:"target_modules"`
	Exclude        targetModules     `json:"exclude_modules"`
	Layers         oneOrMany[int]    `json:"layers_to_transform"`
	LayersPattern  oneOrMany[string] `json:"layers_pattern"`
	Key            json.Number       `json:"projection_prng_key"`
	DInitial       float32           `json:"d_initial"`
	Dropout        float32           `json:"vera_dropout"`
	SaveProjection bool              `json:"save_projection"`
	Bias           string            `json:"bias"`
	ModulesToSave  []string          `json:"modules_to_save"`

	// LoRA only.
	Alpha       float32          `json:"lora_alpha"`
	LoRADropout float32          `json:"lora_dropout"`
	RSLoRA      bool             `json:"use_rslora"`
	Ranks       pattern[int]     `json:"rank_pattern"`
	Alphas      pattern[float32] `json:"alpha_pattern"`

	all map[string]json.RawMessage // everything in the file
	// fan_in_fan_out is not read: PEFT itself takes it as what the layer of the model is.
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

// loadPEFT reads the folder of a VeRA or LoRA adapter that PEFT or SavePEFT saved.
func loadPEFT(dir string, base Base, anyBase bool) (*Adapter, error) {
	h, err := base.hf()
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", dir, err)
	}
	configPath, weightsPath := filepath.Join(dir, peftConfigFile), filepath.Join(dir, peftWeightsFile)
	p, err := readPEFTConfig(configPath)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	weights, err := readPEFTFile(dir)
	if err != nil {
		return nil, fmt.Errorf("adapter: %w", err)
	}
	names, stored, err := readHeader(weights)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", weightsPath, err)
	}
	h = h.found(names)
	a, err := p.adapter(stored, base, h, anyBase, len(weights)/leastBytes)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", configPath, err)
	}
	if a.Method == MethodLoRA {
		err = a.readPEFTLoRA(weights, h)
	} else {
		err = a.readPEFTWeights(weights, h, p.SaveProjection)
	}
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", weightsPath, err)
	}
	return a, nil
}

// adapter makes an adapter of the configuration, whose numbers are still to be read from a file of no more than room.
// own is nil where PEFT wrote the folder.
func (p *peftConfig) adapter(stored *native, base Base, h hfModel, anyBase bool, room int) (*Adapter, error) {
	c, err := p.config(base, h)
	if err != nil {
		return nil, err
	}
	if stored == nil {
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
	facts := withoutFolders(stored.Facts)
	if facts == nil {
		facts = map[string]string{}
	}
	if err := checkBase(base.Architecture, stored.BaseName, stored.Fingerprint, base, anyBase, facts); err != nil {
		return nil, err
	}
	// The configuration may have been changed by hand; then it decides. A pair that is not PEFT's own is in the file.
	if sameMeaning(c, stored.Config, base) && (c.Method == MethodLoRA || stored.Config.Init == KaimingUniform ||
		p.SaveProjection) {
		c = stored.Config
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
	layers := x.selected(base)
	if x.Method != y.Method || x.Dropout != y.Dropout || !slices.Equal(layers, y.selected(base)) {
		return false
	}
	if x.Method == MethodLoRA {
		differ := func(l Linear) bool { return x.rank(l) != y.rank(l) || x.alpha(l) != y.alpha(l) }
		return x.RSLoRA == y.RSLoRA && !slices.ContainsFunc(layers, differ)
	}
	return x.Rank == y.Rank && x.Seed == y.Seed && x.DInitial == y.DInitial
}

func readPEFTConfig(path string) (*peftConfig, error) {
	data, err := durable.ReadFile(path, maxPEFTConfig)
	if err != nil {
		return nil, err
	}
	// PEFT's own defaults hold for what a file leaves out.
	p := &peftConfig{Key: "0", DInitial: 0.1, SaveProjection: true, Bias: "none", Alpha: 8}
	err = json.Unmarshal(data, &p.all)
	if err == nil {
		_ = json.Unmarshal(p.all["peft_type"], &p.Type)
		p.Rank = map[string]int{peftVeRA: 256, peftLoRA: 8}[p.Type]
		err = json.Unmarshal(data, p)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// What PEFT calls the methods.
const (
	peftVeRA = "VERA"
	peftLoRA = "LORA"
)

// Sizes beyond which a file is not read. A configuration that names every layer of a large model has some hundred
// kilobytes; the LoRA of rank 256 of a model of 70 billion parameters has 7 GB.
const (
	maxPEFTConfig  = 4 << 20
	maxPEFTWeights = 32 << 30
)

// readPEFTFile reads a folder's tensors.
func readPEFTFile(dir string) ([]byte, error) {
	path := filepath.Join(dir, peftWeightsFile)
	err := checkSafetensors(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, pickled := os.Stat(filepath.Join(dir, peftPickleFile)); pickled == nil {
			return nil, fmt.Errorf("%s holds %s, a program of Python's rather than data; load it with PEFT and save "+
				"it again, which writes %s", dir, peftPickleFile, peftWeightsFile)
		}
	}
	if err != nil {
		return nil, err
	}
	return durable.ReadFile(path, maxPEFTWeights)
}

// checkSafetensors looks at the beginning of a file, before memory is taken for all of it: the size of the header, and
// the brace that opens it.
func checkSafetensors(path string) error {
	file, info, err := durable.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if info.Size() > maxPEFTWeights { // ReadFile refuses it
		return nil
	}
	var begin [9]byte
	_, err = io.ReadFull(file, begin[:])
	if size := binary.LittleEndian.Uint64(begin[:]); err != nil || begin[8] != '{' || size > uint64(info.Size())-8 {
		return fmt.Errorf("%s: not a whole safetensors file", path)
	}
	return nil
}

// config turns PEFT's configuration into ours. It fails for what cannot be kept: other kinds of adapters and trained
// modules besides.
func (p *peftConfig) config(base Base, h hfModel) (Config, error) {
	if p.Type == peftLoRA {
		return p.loraConfig(base, h)
	}
	c := Config{Method: MethodVeRA, Rank: p.Rank, DInitial: p.DInitial, Dropout: p.Dropout, Init: KaimingUniform}
	switch {
	case p.Type != peftVeRA:
		return c, fmt.Errorf("peft_type is %q; only %q and %q can be read", p.Type, peftVeRA, peftLoRA)
	case p.Bias != "none":
		return c, fmt.Errorf("bias is %q; only \"none\" can be read, since trained biases have no place in an "+
			"adapter of this kind", p.Bias)
	case len(p.ModulesToSave) > 0:
		return c, fmt.Errorf("modules_to_save holds %q; adapters with whole trained modules cannot be read",
			p.ModulesToSave)
	}
	var err error
	if c.Seed, err = seedOfKey(p.Key.String()); err != nil {
		return c, err
	}
	adapted, err := p.adapted(base, h)
	if err != nil {
		return c, err
	}
	c.Targets, c.Layers = selection(adapted, base)
	return c, nil
}

// adapted lists the layers that the configuration selects. It fails where it selects the head or the embedding.
func (p *peftConfig) adapted(base Base, h hfModel) (adapted []Linear, err error) {
	match, err := p.matcher()
	if err != nil {
		return nil, err
	}
	for path, what := range map[string]string{"lm_head": "the output head", h.embedding: "the embedding"} {
		if p.allLinear() { // PEFT leaves both out
			break
		}
		if selected, err := match(path); err != nil {
			return nil, err
		} else if selected {
			return nil, fmt.Errorf("target_modules select %s; %s cannot be adapted here", path, what)
		}
	}
	for _, l := range ordered(base.Linears) {
		selected, err := match(h.path(l))
		if err != nil {
			return nil, err
		}
		if selected {
			adapted = append(adapted, l)
		}
	}
	if len(adapted) == 0 {
		return nil, fmt.Errorf("target_modules, exclude_modules, layers_to_transform and layers_pattern together "+
			"select no linear layer of %q", base.Name)
	}
	return adapted, nil
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

// selection gives the targets and layers that select exactly the adapted layers, naming single layers only where no
// product of the two does.
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

// IsPEFT tells whether a folder holds an adapter in PEFT's form.
func IsPEFT(path string) bool {
	_, err := os.Lstat(filepath.Join(path, peftConfigFile))
	return err == nil
}
