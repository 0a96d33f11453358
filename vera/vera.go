// Package vera is the adapter: which linear layers of a base model are adapted, the frozen random pair that they share,
// their trained vectors, and the files these are kept in.
//
// For a frozen layer W (out × in), VeRA (Kopiczko, Blankevoort and Asano, arXiv 2310.11454) computes
//
//	y = W x + b ⊙ (B (d ⊙ (A x)))
//
// with A (rank × in) and B (out × rank) random, never trained and shared by all layers, and b (out) and d (rank)
// trained for each layer.
//
// LoRA (Hu et al., arXiv 2106.09685), the paper's comparison, is held in the same form: each layer has an A and a B of
// its own, which are trained, b is 1 and d is alpha/rank. Rank and alpha may differ from layer to layer.
//
// It must know nothing of graphs, data or training, and must not open a base model: a Base says all that it needs of
// one.
package vera

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// Targets are the kinds of linear layers that can be adapted, by their GGUF names, in the order used everywhere.
// attn_qkv holds the rows of q, k and v in one; ffn_up has those of gate as well in some models, and there is no gate
// in others.
var Targets = []string{"attn_q", "attn_k", "attn_v", "attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "attn_output",
	"ssm_out", "shortconv.in_proj", "shortconv.out_proj", "ffn_gate", "ffn_up", "ffn_down"}

// seats are the places of a block's layers that give the seeds of unique pairs. They must stay as they are: a file
// keeps the seed, not the pairs. No block has both attn_q and attn_qkv, or two of attention, a short convolution and a
// delta net, whose fifth layer has a place behind those of all blocks.
var seats = map[string]int{
	"attn_q": 0, "attn_qkv": 0, "attn_k": 1, "attn_v": 2, "attn_output": 3, "shortconv.in_proj": 0,
	"shortconv.out_proj": 3,
	"attn_gate":          1, "ssm_alpha": 2, "ssm_beta": seatsInBlock << 12, "ssm_out": 3, "ffn_gate": 4, "ffn_up": 5,
	"ffn_down": 6,
}

const seatsInBlock = 7

// Linear is one linear layer of a base model, whose weight is the tensor blk.<Block>.<Target>.weight of In columns and
// Out rows.
type Linear struct {
	Block  int
	Target string
	In     int
	Out    int
}

// Name is the layer's GGUF name without the ending ".weight": "blk.0.attn_q".
func (l Linear) Name() string { return fmt.Sprintf("blk.%d.%s", l.Block, l.Target) }

// Base is what an adapter must know of its base model.
type Base struct {
	Architecture string   // general.architecture: "llama"
	Linears      []Linear // every layer that can be adapted
	Blocks       int
	HeadDim      int                 // of attention
	Delta        bindings.DeltaHeads // of delta nets, where the model has them
	Name         string              // for people, in messages
	Fingerprint  string              // the same for the same weights only; empty where it isn't known
	Pairs        *Pairs              // that adapters of the model share; nil: each draws its own
	// General is what the file says of itself under "general.": strings and lists of strings, keyed without that.
	// Exports say with it what they were made from.
	General map[string]any
}

// Targets are the kinds of layers that the model has.
func (b Base) Targets() []string {
	return slices.DeleteFunc(slices.Clone(Targets), func(target string) bool { return !b.has(target) })
}

// has tells whether the model has layers of that kind, or that single layer.
func (b Base) has(target string) bool {
	return slices.ContainsFunc(b.Linears, func(l Linear) bool { return l.Target == target || l.Name() == target })
}

// Method names how the weights' change is parametrised.
type Method string

// Methods of finetuning.
const (
	MethodVeRA Method = "vera"
	MethodLoRA Method = "lora"
)

// Methods lists them.
var Methods = []Method{MethodVeRA, MethodLoRA}

// Config says what an adapter is before training; the JSON keys are the words of the command line.
type Config struct {
	Method Method `json:"method"`
	Rank   int    `json:"rank"` // the largest, where those of a LoRA differ
	// Targets are entries of the package's Targets, or names of single layers as Linear.Name gives them; none means all
	// that the model has.
	Targets []string `json:"targets"`
	// Layers are the blocks that are adapted, counted from 0; none means all.
	Layers  []int   `json:"layers,omitempty"`
	Seed    uint32  `json:"seed"`    // of the random matrices
	Dropout float32 `json:"dropout"` // probability that training zeroes an input of the adapter

	// VeRA only.
	DInitial float32 `json:"d_initial,omitempty"` // every number of d before training
	Init     Init    `json:"init,omitempty"`      // distribution of the shared pair
	// "b" or "d": that vector alone is trained. Without b, b is 1, and d begins at 0
	Only        string `json:"only,omitempty"`
	UniquePairs bool   `json:"unique_pairs,omitempty"` // each layer has a pair of its own

	// LoRA only.
	Alpha  float32            `json:"alpha,omitempty"`  // ΔW = alpha/rank · B A
	RSLoRA bool               `json:"rslora,omitempty"` // alpha/√rank instead (Kalajdzievski, arXiv 2312.03732)
	Ranks  map[string]int     `json:"ranks,omitempty"`  // of layers, by Linear.Name, whose rank is not Rank
	Alphas map[string]float32 `json:"alphas,omitempty"` // of layers whose alpha is not Alpha
}

// Default is the recipe of the paper's Table 9: rank 1024 on all linear layers but the output head.
func Default() Config {
	return Config{Method: MethodVeRA, Rank: 1024, DInitial: 0.1, Init: KaimingUniform}
}

// LoRADefault is LoRA's row of the same table: rank 64, with the alpha of QLoRA (Dettmers et al., arXiv 2305.14314).
func LoRADefault() Config {
	return Config{Method: MethodLoRA, Rank: 64, Alpha: 16}
}

// maxRank keeps a broken file from asking for more memory than any machine has; the paper's largest rank is 1024.
const maxRank = 1 << 16

// Validate returns an error that says what is allowed for the first wrong value, as far as that can be told without the
// base model.
func (c Config) Validate() error {
	switch {
	case c.Rank < 1 || c.Rank > maxRank:
		return fmt.Errorf("rank %d: must be from 1 to %d", c.Rank, maxRank)
	case !slices.Contains(Methods, c.Method):
		return fmt.Errorf("method %q: must be one of %s", c.Method, join(Methods))
	case c.Method == MethodLoRA && !(c.Alpha > 0 && finite(c.Alpha)):
		return fmt.Errorf("alpha %v: must be a number above 0", c.Alpha)
	case c.Method != MethodLoRA && (c.RSLoRA || len(c.Ranks)+len(c.Alphas) > 0):
		return errors.New("rslora, ranks and alphas: are for a LoRA; VeRA has one rank and no alpha")
	case c.Method == MethodLoRA && (c.Only != "" || c.UniquePairs):
		return errors.New("only and unique-pairs: are for VeRA; every layer of a LoRA has matrices of its own, which " +
			"are trained")
	case c.Only != "" && c.Only != "b" && c.Only != "d":
		return fmt.Errorf("only %q: must be b or d", c.Only)
	case c.Method == MethodVeRA && (!finite(c.DInitial) || c.DInitial == 0):
		return fmt.Errorf("d-initial %v: must be a finite number other than 0; with b = 0 and d = 0 no gradient "+
			"would ever flow", c.DInitial)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("dropout %v: must be at least 0 and less than 1", c.Dropout)
	case c.Method == MethodVeRA && !slices.Contains(inits, c.Init):
		return fmt.Errorf("init %q: must be one of %s", c.Init, join(inits))
	}
	for i, target := range c.Targets {
		if !slices.Contains(Targets, target) && !strings.HasPrefix(target, "blk.") {
			return noTarget(target, Targets)
		}
		if slices.Contains(c.Targets[:i], target) {
			return fmt.Errorf("targets: %q must be given once", target)
		}
	}
	for i, layer := range c.Layers {
		if layer < 0 {
			return fmt.Errorf("layer %d: must be from 0 on", layer)
		}
		if slices.Contains(c.Layers[:i], layer) {
			return fmt.Errorf("layer %d: must be given once", layer)
		}
	}
	return nil
}

func noTarget(target string, have []string) error {
	return fmt.Errorf("targets: %q must be one of %s, or one layer of the model such as blk.0.%s", target,
		join(have), have[0])
}

// fits returns an error where the config is not valid, or not for the base model.
func (c Config) fits(b Base) error {
	if err := c.Validate(); err != nil {
		return err
	}
	for _, target := range c.Targets {
		if !b.has(target) {
			return noTarget(target, b.Targets())
		}
	}
	for _, layer := range c.Layers {
		if layer >= b.Blocks {
			return fmt.Errorf("layer %d: must be from 0 to %d for a model of %d blocks", layer, b.Blocks-1, b.Blocks)
		}
	}
	if len(c.selected(b)) == 0 {
		return errors.New("targets and layers together select no layer of the model")
	}
	return c.validateLayers(b)
}

// selected gives the adapted layers in order: by block, then as in Targets.
func (c Config) selected(b Base) []Linear {
	var list []Linear
	for _, l := range ordered(b.Linears) {
		inLayers := len(c.Layers) == 0 || slices.Contains(c.Layers, l.Block)
		if inLayers && (len(c.Targets) == 0 || slices.Contains(c.Targets, l.Target) ||
			slices.Contains(c.Targets, l.Name())) {
			list = append(list, l)
		}
	}
	return list
}

// canonical puts targets and layers in order, and ranks and alphas into their shortest form, so that adapters of equal
// meaning become equal files.
func (c Config) canonical(b Base) Config {
	if len(c.Targets) == 0 {
		c.Targets = b.Targets()
	}
	names := slices.Clone(Targets)
	for _, l := range ordered(b.Linears) {
		names = append(names, l.Name())
	}
	c.Targets = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(c.Targets, name) })
	c.Layers = slices.Sorted(slices.Values(c.Layers))
	return c.shortened(b)
}

// TrainableCount is the number of trained values: out + rank for every adapted layer of VeRA, rank · (in + out) of a
// LoRA.
func TrainableCount(c Config, base Base) int {
	n := 0
	for _, l := range c.selected(base) {
		switch {
		case c.Method == MethodLoRA:
			n += c.rank(l) * (l.In + l.Out)
		case c.Only == "b":
			n += l.Out
		case c.Only == "d":
			n += c.Rank
		default:
			n += l.Out + c.Rank
		}
	}
	return n
}

func ordered(linears []Linear) []Linear {
	return slices.SortedFunc(slices.Values(linears), func(x, y Linear) int {
		if x.Block != y.Block {
			return x.Block - y.Block
		}
		return slices.Index(Targets, x.Target) - slices.Index(Targets, y.Target)
	})
}

func join[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}

func finite(v float32) bool { return !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0) }
