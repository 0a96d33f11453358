package vera

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// Keys and tensors of llama.cpp's LoRA format.
const (
	keyAlpha = "adapter.lora.alpha"
	endLoRAA = ".weight.lora_a" // [in, rank] in ggml's order
	endLoRAB = ".weight.lora_b" // [rank, out]

	// Besides, in files of ours.
	keyLoRASeed    = "adapter.lora.seed"
	keyLoRADropout = "adapter.lora.dropout"

	// typeScaledLoRA is the adapter.type of a LoRA whose scales are not one alpha/rank. llama.cpp would compute it
	// wrongly, and refuses the type; SaveLoRA writes it for llama.cpp.
	typeScaledLoRA = "scaled_lora"
	keyLoRAAlphas  = "adapter.lora.alphas" // of each layer, in order
	keyLoRARS      = "adapter.lora.rslora" // the scales are alpha/√rank
)

// writeLoRA writes the matrices as they are trained.
func (a *Adapter) writeLoRA(w *bindings.GGUFWriter) error {
	kind := "lora"
	if a.RSLoRA || len(a.Alphas) > 0 {
		kind = typeScaledLoRA
	}
	entries := append(a.loraHeader(kind, a.Alpha), entry{keyLoRASeed, a.Seed}, entry{keyLoRADropout, a.Dropout})
	if kind == typeScaledLoRA {
		alphas := make([]float32, len(a.Layers))
		for i, l := range a.Layers {
			alphas[i] = a.alpha(l.Linear)
		}
		entries = append(entries, entry{keyLoRAAlphas, alphas}, entry{keyLoRARS, a.RSLoRA})
	}
	if err := setAll(w, append(entries, a.origins(keyChatTemplate)...)); err != nil {
		return err
	}
	for _, l := range a.Layers {
		err := errors.Join(
			addFloats(w, l.Name()+endLoRAA, l.Pair.A, int64(l.In), int64(l.Rank())),
			addFloats(w, l.Name()+endLoRAB, l.Pair.B, int64(l.Rank()), int64(l.Out)))
		if err != nil {
			return err
		}
	}
	return nil
}

// loraHeader is the metadata of a LoRA, and what it was made from.
func (a *Adapter) loraHeader(kind string, alpha float32) []entry {
	entries := []entry{{"general.type", "adapter"}, {"general.architecture", a.Base.Architecture},
		{"adapter.type", kind}, {keyAlpha, alpha}}
	return append(entries, a.card()...)
}

// readLoRA reads a LoRA of llama.cpp, whoever wrote it, of the linear layers of blocks. A file that does not say which
// model it was trained on is taken where its shapes fit.
func readLoRA(g *bindings.GGUF, base Base, anyBase bool) (*Adapter, error) {
	m := metadata{g: g}
	c := LoRADefault()
	architecture, facts := m.text("general.architecture"), m.facts()
	c.Alpha = get[float32](&m, keyAlpha, "a float32")
	c.Seed, _ = g.Value(keyLoRASeed).(uint32)
	c.Dropout, _ = g.Value(keyLoRADropout).(float32)
	c.RSLoRA, _ = g.Value(keyLoRARS).(bool)
	if m.err != nil {
		return nil, m.err
	}
	fingerprint := m.optional(keyFingerprint)
	if fingerprint == "" {
		fingerprint = base.Fingerprint
	}
	if err := checkBase(architecture, m.optional(keyBaseName), fingerprint, base, anyBase, facts); err != nil {
		return nil, err
	}
	adapted, err := loraLayers(g, base)
	if err != nil {
		return nil, err
	}
	c.Targets, c.Layers = selection(adapted, base)
	c.Rank, c.Ranks, c.Alphas = 1, map[string]int{}, map[string]float32{}
	for _, l := range adapted {
		c.Ranks[l.Name()] = rankIn(g, l)
		c.Rank = max(c.Rank, c.Ranks[l.Name()])
		if c.Alpha == 0 { // llama.cpp then multiplies by 1
			c.Alphas[l.Name()] = float32(c.Ranks[l.Name()])
		}
	}
	if c.Alpha == 0 {
		c.Alpha = float32(c.Rank)
	}
	if err := readAlphas(&m, adapted, c.Alphas); err != nil {
		return nil, err
	}
	a, err := layout(c, base, valuesIn(g))
	if err != nil {
		return nil, err
	}
	a.Facts = facts
	for _, l := range a.Layers {
		if err := errors.Join(readMatrix(g, l.Name()+endLoRAA, l.Pair.A, int64(l.In), int64(l.Rank())),
			readMatrix(g, l.Name()+endLoRAB, l.Pair.B, int64(l.Rank()), int64(l.Out))); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// loraLayers finds the layers that a file adapts, and fails where it holds anything else.
func loraLayers(g *bindings.GGUF, base Base) ([]Linear, error) {
	known := map[string]bool{}
	adapted := slices.DeleteFunc(ordered(base.Linears), func(l Linear) bool {
		_, hasA := g.Tensor(l.Name() + endLoRAA)
		_, hasB := g.Tensor(l.Name() + endLoRAB)
		known[l.Name()+endLoRAA], known[l.Name()+endLoRAB] = true, true
		return !hasA && !hasB
	})
	var others []string
	for _, t := range g.Tensors() {
		if !known[t.Name] {
			others = append(others, t.Name)
		}
	}
	if len(others) > 0 {
		return nil, foreign(others)
	}
	if len(adapted) == 0 {
		return nil, errors.New("no linear layer of the model's blocks is adapted")
	}
	return adapted, nil
}

// foreign names the tensors of a LoRA that are not of linear layers: a few, and how many more.
func foreign(names []string) error {
	const most = 4
	slices.Sort(names)
	list, more := strings.Join(names[:min(most, len(names))], ", "), ""
	if n := len(names) - most; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	if len(names) == 1 {
		return fmt.Errorf("tensor %s belongs to no linear layer of the model's blocks; a LoRA of other weights "+
			"cannot be used here", list)
	}
	return fmt.Errorf("tensors %s%s belong to no linear layer of the model's blocks; a LoRA of other weights cannot "+
		"be used here", list, more)
}

// rankIn is the rank of a layer in a file. A GGUF file doesn't keep trailing sizes of 1.
func rankIn(g *bindings.GGUF, l Linear) int {
	if t, ok := g.Tensor(l.Name() + endLoRAA); ok && len(t.Shape) > 1 {
		return int(t.Shape[1])
	}
	return 1
}

// readAlphas reads the layers' own, where a file of ours has them.
func readAlphas(m *metadata, adapted []Linear, alphas map[string]float32) error {
	if m.g.Value(keyLoRAAlphas) == nil {
		return nil
	}
	list := get[[]float32](m, keyLoRAAlphas, "a list of float32")
	if m.err == nil && len(list) != len(adapted) {
		return fmt.Errorf("%s has %d values, and must have one for each of the %d adapted layers", keyLoRAAlphas,
			len(list), len(adapted))
	}
	for i, alpha := range list {
		alphas[adapted[i].Name()] = alpha
	}
	return m.err
}

// readMatrix reads a tensor of that shape (ggml's order) and of any type, whose values are all finite.
func readMatrix(g *bindings.GGUF, name string, out []float32, shape ...int64) error {
	t, ok := g.Tensor(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	// A GGUF file doesn't keep trailing sizes of 1.
	for len(shape) > 1 && shape[len(shape)-1] == 1 {
		shape = shape[:len(shape)-1]
	}
	if !slices.Equal(t.Shape, shape) {
		return fmt.Errorf("tensor %s is %v %v, and must be %v for this rank and model", name, t.Type, t.Shape, shape)
	}
	if err := bindings.Dequantize(t.Type, g.Data(t), out); err != nil {
		return fmt.Errorf("tensor %s: %w", name, err)
	}
	return checkFinite(name, out)
}
