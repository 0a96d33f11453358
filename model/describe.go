package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// Description is what a model file says of itself.
type Description struct {
	Config
	MadeOf      []string         `json:"made_of"` // what its architecture is, in words
	Targets     []Target         `json:"targets"` // what an adapter adapts, in the order of vera.Targets
	Frozen      []string         `json:"frozen"`  // the blocks' other matrices
	Numbers     int64            `json:"numbers"` // of all weights
	Bytes       int64            `json:"bytes"`   // of their data
	Types       map[string]int64 `json:"types"`   // bytes of the tensors of each type
	Fingerprint string           `json:"fingerprint"`

	Tokenizer    string `json:"tokenizer"`     // tokenizer.ggml.model
	PreTokenizer string `json:"pre_tokenizer"` // tokenizer.ggml.pre
}

// Target is a kind of linear layer.
type Target struct {
	Name   string `json:"name"`
	Layers int    `json:"layers"` // how many the model has
	In     int    `json:"in"`
	Out    int    `json:"out"`
}

// Describe reads a model's header; it need not be trainable otherwise.
func Describe(path string) (Description, error) {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return Description{}, err
	}
	defer g.Close()
	d := Description{Types: map[string]int64{}, Targets: []Target{}, Frozen: []string{}, Fingerprint: fingerprint(g)}
	if d.Config, err = readConfig(g); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	d.Tokenizer, _ = g.String("tokenizer.ggml.model")
	d.PreTokenizer, _ = g.String("tokenizer.ggml.pre")
	var biases []string
	_, untied := g.Tensor("output.weight")
	d.TiedHead = !untied
	for _, t := range g.Tensors() {
		n := int64(1)
		for _, size := range t.Shape {
			n *= size
		}
		d.Numbers += n
		d.Bytes += t.Size
		d.Types[t.Type.String()] += t.Size
		if t.Name == "token_embd.weight" && len(t.Shape) == 2 {
			d.Vocab = int(t.Shape[1])
		}
		d.RopeFactor = d.RopeFactor || strings.HasPrefix(t.Name, "rope_f")
		if bias, ok := d.addLayer(t); ok && !slices.Contains(biases, bias) {
			biases = append(biases, bias)
		}
	}
	order := func(a, b string) int { return slices.Index(vera.Targets, a) - slices.Index(vera.Targets, b) }
	slices.SortFunc(d.Targets, func(a, b Target) int { return order(a.Name, b.Name) })
	slices.SortFunc(biases, order)
	d.MadeOf = d.madeOf(biases)
	if err := d.countTokens(g); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// addLayer counts a tensor of a block where it is a matrix. Of a linear layer's bias, it gives the layer's kind.
func (d *Description) addLayer(t bindings.TensorInfo) (biased string, known bool) {
	name, known := strings.CutPrefix(t.Name, "blk.")
	if !known || d.inFurtherBlock(t.Name) {
		return "", false
	}
	_, name, _ = strings.Cut(name, ".")
	if kind, ok := strings.CutSuffix(name, ".bias"); ok {
		return kind, slices.Contains(vera.Targets, kind)
	}
	kind := strings.TrimSuffix(name, ".weight")
	i := slices.IndexFunc(d.Targets, func(t Target) bool { return t.Name == kind })
	switch {
	case len(t.Shape) < 2 || slices.Contains(d.Frozen, kind):
	case !slices.Contains(vera.Targets, kind):
		d.Frozen = append(d.Frozen, kind)
	case i < 0:
		d.Targets = append(d.Targets, Target{kind, 1, int(t.Shape[0]), int(t.Shape[1])})
	default:
		d.Targets[i].Layers++
	}
	return "", false
}

// madeOf says in words what the table of architectures and the file's metadata do.
func (c Config) madeOf(biases []string) (list []string) {
	add := func(applies bool, format string, args ...any) {
		if applies {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	norms := "RMS norms"
	if c.arch.layerNorm {
		norms = "layer norms"
	}
	add(true, "%s %s attention and feed-forward", norms, map[places]string{before: "before", after: "after",
		both: "before and after"}[c.arch.norms])
	add(c.arch.qkNorms == head, "RMS norms of q and k, a head at a time")
	add(c.arch.qkNorms == row, "RMS norms of q and k, all heads at once")
	add(c.arch.vNorm, "RMS norm of v, a head at a time, without weights")
	add(c.arch.learnedPositions, "learned positions, %d of them", c.Context)
	add(!c.arch.learnedPositions, "%s", c.rotates())
	windows := 0
	for _, local := range c.local {
		if local {
			windows++
		}
	}
	ownBase := ""
	if c.localRope != c.Rope {
		ownBase = ", and rotate by base " + decimal(c.localRope.FreqBase)
	}
	have := map[mixer]int{}
	for _, m := range c.mixers {
		have[m]++
	}
	add(have[shortConvolution] > 0, "%d of %d blocks have a gated convolution of %d tokens in the place of attention",
		have[shortConvolution], c.Blocks, c.Taps)
	add(have[deltaNet] > 0, "%d of %d blocks have a gated delta net in the place of attention: %d value heads of %d "+
		"numbers, %d key heads of %d, behind a convolution of %d tokens", have[deltaNet], c.Blocks,
		c.Delta.Values, c.Delta.DimV, c.Delta.Keys, c.Delta.DimK, c.Taps)
	add(c.arch.gatedAttention, "a gate for each head of attention")
	add(c.Further == 1, "one more block, for speculative decoding, is left as it is")
	add(c.Further > 1, "%d more blocks, for speculative decoding, are left as they are", c.Further)
	add(windows > 0, "%d of %d blocks see the last %d tokens%s", windows, c.Blocks, c.Window, ownBase)
	add(c.LocalHeadDim != c.HeadDim, "their heads have %d numbers", c.LocalHeadDim)
	add(c.kvSharing > 0, "the last %d blocks take keys and values of an earlier one", c.kvSharing)
	add(c.Embedding > 0, "each block adds an embedding of its own of each token, %d numbers with a gate", c.Embedding)
	act := map[bindings.Activation]string{bindings.SiLU: "SiLU", bindings.GELU: "GELU",
		bindings.Clamped: "SiLU, between limits"}[c.arch.act]
	add(c.arch.ungated, "feed-forward with %s", act)
	add(!c.arch.ungated, "feed-forward with gated %s", act)
	add(c.arch.sinks, "a sink for each head of attention")
	add(len(biases) > 0, "biases of %s", strings.Join(biases, ", "))
	add(c.arch.hasScales || c.arch.unscaledScores, "scores × %.4g", c.scale.scores)
	add(c.scale.scoreCap > 0, "scores capped at %g", c.scale.scoreCap)
	add(c.scale.logitCap > 0, "logits capped at %g", c.scale.logitCap)
	for _, s := range []struct {
		what  string
		scale float32
	}{{"embedding", c.scale.embedding}, {"what attention and feed-forward add", c.scale.added},
		{"logits", c.scale.logits}} {
		add(s.scale != 1, "%s × %.4g", s.what, s.scale)
	}
	add(c.TiedHead, "the head is the embedding")
	return list
}

// rotates says how q and k are rotated.
func (c Config) rotates() string {
	s := map[bindings.Pairing]string{bindings.Neighbours: "neighbours", bindings.Halves: "halves"}[c.arch.pairs]
	s = "rotation of " + s + ", base " + decimal(c.Rope.FreqBase)
	if c.Rope.Dims < c.HeadDim {
		s += fmt.Sprintf(", of %d numbers of a head", c.Rope.Dims)
	}
	switch {
	case c.Rope.ExtFactor != 0:
		s += ", stretched by YaRN × " + decimal(1/c.Rope.FreqScale)
	case c.Rope.FreqScale != 1:
		s += ", stretched × " + decimal(1/c.Rope.FreqScale)
	case c.RopeFactor:
		s += ", with the file's factors"
	}
	if c.arch.nopeGlobal && c.local != nil {
		s += ", in blocks with windows"
	}
	if c.temperature.scale != 0 {
		s += fmt.Sprintf("; scores × 1 + %.4g ln(1 + ⌊position / %d⌋)", c.temperature.scale, c.temperature.length)
	}
	if c.arch.nopeEvery > 0 {
		s += fmt.Sprintf(", one block in %d excepted", c.arch.nopeEvery)
	}
	return s
}

func decimal(v float32) string { return strconv.FormatFloat(float64(v), 'f', -1, 32) }

// IsAdapter tells whether a GGUF file is an adapter and not a model.
func IsAdapter(path string) (bool, error) {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return false, err
	}
	defer g.Close()
	kind, _ := g.String("general.type")
	return kind == "adapter", nil
}
