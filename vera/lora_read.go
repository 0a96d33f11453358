package vera

import (
	"errors"
	"fmt"
	"slices"

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
)

// writeLoRA writes the matrices as they are trained.
func (a *Adapter) writeLoRA(w *bindings.GGUFWriter) error {
	if err := setAll(w, append(a.loraHeader(a.Alpha), entry{keyLoRASeed, a.Seed}, entry{keyLoRADropout, a.Dropout})); err != nil {
		return err
	}
	for _, l := range a.Layers {
		err := errors.Join(
			addFloats(w, l.Name()+endLoRAA, l.Pair.A, int64(l.In), int64(a.Rank)),
			addFloats(w, l.Name()+endLoRAB, l.Pair.B, int64(a.Rank), int64(l.Out)))
		if err != nil {
			return err
		}
	}
	return nil
}

// loraHeader is the metadata of a LoRA, and where it comes from.
func (a *Adapter) loraHeader(alpha float32) []entry {
	entries := []entry{{"general.type", "adapter"}, {"general.architecture", a.Base.Architecture}, {"adapter.type", "lora"}, {keyAlpha, alpha}}
	return append(entries, a.origins()...)
}

// readLoRA reads a LoRA of llama.cpp, whoever wrote it, of the linear layers of blocks, with one rank for all. A file that does not say which model it was trained
// on is taken where its shapes fit.
func readLoRA(g *bindings.GGUF, base Base, anyBase bool) (*Adapter, error) {
	m := metadata{g: g}
	c := LoRADefault()
	architecture, facts := m.text("general.architecture"), m.facts()
	c.Alpha = get[float32](&m, keyAlpha, "a float32")
	c.Seed, _ = g.Value(keyLoRASeed).(uint32)
	c.Dropout, _ = g.Value(keyLoRADropout).(float32)
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
	adapted := slices.DeleteFunc(ordered(base.Linears), func(l Linear) bool {
		_, ok := g.Tensor(l.Name() + endLoRAA)
		return !ok
	})
	if len(adapted) == 0 {
		return nil, errors.New("no linear layer of the model's blocks is adapted")
	}
	first, _ := g.Tensor(adapted[0].Name() + endLoRAA)
	c.Rank = 1 // a GGUF file doesn't keep trailing sizes of 1
	if len(first.Shape) > 1 {
		c.Rank = int(first.Shape[1])
	}
	c.Targets, c.Layers = selection(adapted, base)
	a, err := layout(c, base, valuesIn(g))
	if err != nil {
		return nil, err
	}
	a.Facts = facts
	known := map[string]bool{}
	for _, l := range a.Layers {
		if err := errors.Join(readMatrix(g, l.Name()+endLoRAA, l.Pair.A, int64(l.In), int64(a.Rank)), readMatrix(g, l.Name()+endLoRAB, l.Pair.B, int64(a.Rank), int64(l.Out))); err != nil {
			return nil, err
		}
		known[l.Name()+endLoRAA], known[l.Name()+endLoRAB] = true, true
	}
	for _, t := range g.Tensors() {
		if !known[t.Name] {
			return nil, fmt.Errorf("tensor %s belongs to no linear layer of the model's blocks; a LoRA of other weights cannot be used here", t.Name)
		}
	}
	return a, nil
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
