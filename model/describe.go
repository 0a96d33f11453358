package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// Description is what a model file says of itself.
type Description struct {
	Config
	Numbers     int64            `json:"numbers"` // of all weights
	Bytes       int64            `json:"bytes"`   // of their data
	Types       map[string]int64 `json:"types"`   // bytes of the tensors of each type
	Fingerprint string           `json:"fingerprint"`
}

// Describe reads a model's header; it need not be trainable otherwise.
func Describe(path string) (Description, error) {
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		return Description{}, err
	}
	defer g.Close()
	d := Description{Types: map[string]int64{}, Fingerprint: fingerprint(g)}
	if d.Config, err = readConfig(g); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
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
	}
	if err := d.countTokens(g); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

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
