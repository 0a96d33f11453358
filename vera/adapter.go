package vera

import "fmt"

// Layer is an adapted layer and its trained vectors, in the row order of the GGUF file.
type Layer struct {
	Linear
	B []float32 // Out values, a slice of Adapter.Params
	D []float32 // rank values, a slice of Adapter.Params
}

// Adapter is a VeRA adapter of one base model.
type Adapter struct {
	Config
	Base   Base
	MaxIn  int       // largest In of the adapted layers
	MaxOut int       // largest Out of the adapted layers
	Layers []Layer   // by block, then as in Targets
	Params []float32 // all trained values: B, then D, of each layer in order
	Pair   *Pair
	Facts  map[string]string // what is known of the training, kept in files under "veratune." and the key
}

// New makes an adapter that changes nothing yet: b is 0 and d is d_initial. It fails where the configuration is not valid for the base.
func New(c Config, base Base) (*Adapter, error) {
	a, err := layout(c, base)
	if err != nil {
		return nil, err
	}
	for _, l := range a.Layers {
		for i := range l.D {
			l.D[i] = c.DInitial
		}
	}
	a.Pair = a.seededPair()
	return a, nil
}

// layout makes an adapter whose vectors are all 0, with no pair yet.
func layout(c Config, base Base) (*Adapter, error) {
	if err := c.Validate(base); err != nil {
		return nil, err
	}
	a := &Adapter{Config: c.canonical(base), Base: base, Params: make([]float32, TrainableCount(c, base)), Facts: map[string]string{}}
	rest := a.Params
	take := func(n int) []float32 {
		values := rest[:n:n]
		rest = rest[n:]
		return values
	}
	for _, l := range c.selected(base) {
		a.Layers = append(a.Layers, Layer{Linear: l, B: take(l.Out), D: take(c.Rank)})
		a.MaxIn, a.MaxOut = max(a.MaxIn, l.In), max(a.MaxOut, l.Out)
	}
	return a, nil
}

func (a *Adapter) seededPair() *Pair { return NewPair(a.Init, a.Seed, a.Rank, a.MaxIn, a.MaxOut) }

// Layer finds an adapted layer; it is nil where that layer isn't adapted.
func (a *Adapter) Layer(block int, target string) *Layer {
	for i := range a.Layers {
		if l := &a.Layers[i]; l.Block == block && l.Target == target {
			return l
		}
	}
	return nil
}

// vectors yields every trained vector with the name of its tensor in a native file.
func (a *Adapter) vectors(yield func(name string, values []float32) bool) {
	for _, l := range a.Layers {
		if !yield(l.Name()+".weight.vera_b", l.B) || !yield(l.Name()+".weight.vera_d", l.D) {
			return
		}
	}
}

// checkFinite names the first of the values that is NaN or infinite.
func checkFinite(name string, values []float32) error {
	for i, v := range values {
		if !finite(v) {
			return fmt.Errorf("%s: value %d is %v, and no adapter can hold that", name, i, v)
		}
	}
	return nil
}
