package vera

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext/prng"
)

// Layer is an adapted layer: ΔW = diag(LambdaB) · Pair.B · diag(LambdaD) · Pair.A. LambdaB is in the row order of the
// GGUF file.
type Layer struct {
	Linear
	Pair    *Pair     // of the adapter, or the layer's own
	LambdaB []float32 // Out values; 1 in a LoRA
	LambdaD []float32 // rank values; alpha/rank in a LoRA
}

// Rank is the layer's own.
func (l *Layer) Rank() int { return len(l.LambdaD) }

// Adapter is an adapter of one base model.
type Adapter struct {
	Config
	Base   Base
	MaxIn  int     // largest In of the adapted layers
	MaxOut int     // largest Out of the adapted layers
	Layers []Layer // by block, then as in Targets
	// all trained values, layer by layer: VeRA's LambdaB, then LambdaD; LoRA's Pair.A, then Pair.B
	Params []float32
	Pair   *Pair             // that all layers share; nil where each has its own
	Facts  map[string]string // what is known of the training, kept in files under "veratune." and the key
}

// New makes an adapter that changes nothing yet: VeRA's b is 0 and its d is d_initial; LoRA's B is 0. It fails where
// the configuration is not valid for the base.
func New(c Config, base Base) (*Adapter, error) {
	a, err := layout(c, base, math.MaxInt)
	if err != nil {
		return nil, err
	}
	if a.Method == MethodLoRA {
		a.drawLoRA()
		return a, nil
	}
	for _, l := range a.Layers {
		if a.Only == "d" {
			fill(l.LambdaB, 1)
		} else {
			fill(l.LambdaD, c.DInitial)
		}
	}
	a.drawPairs()
	return a, nil
}

// layout makes an adapter whose trained values are all 0, with no pair of VeRA yet. It fails where a file of room
// values is by far too small for the vectors or matrices; what is missing of those that nearly fit is named when they
// are read.
func layout(c Config, base Base, room int) (*Adapter, error) {
	if err := c.fits(base); err != nil {
		return nil, err
	}
	held := c
	held.Only = "" // a file holds both vectors
	if n := TrainableCount(held, base); (n-1<<16)/2 > room {
		return nil, fmt.Errorf("at rank %d the adapted layers of this model have %d values, the file has no more "+
			"than %d", c.Rank, n, room)
	}
	a := &Adapter{Config: c.canonical(base), Base: base, Params: make([]float32, TrainableCount(c, base)),
		Facts: map[string]string{}}
	rest := a.Params
	values := func(n int, trained bool) []float32 {
		if !trained {
			return make([]float32, n)
		}
		part := rest[:n:n]
		rest = rest[n:]
		return part
	}
	for _, l := range c.selected(base) {
		layer, rank := Layer{Linear: l}, c.rank(l)
		if c.Method == MethodLoRA {
			layer.Pair = &Pair{Rank: rank, MaxIn: l.In, MaxOut: l.Out, A: values(rank*l.In, true),
				B: values(l.Out*rank, true), fileOrder: true}
		}
		layer.LambdaB, layer.LambdaD = values(l.Out, a.trains("b")), values(rank, a.trains("d"))
		if c.Method == MethodLoRA {
			fill(layer.LambdaB, 1)
			fill(layer.LambdaD, c.scale(l))
		}
		a.Layers = append(a.Layers, layer)
		a.MaxIn, a.MaxOut = max(a.MaxIn, l.In), max(a.MaxOut, l.Out)
	}
	return a, nil
}

// trains tells whether one of VeRA's vectors is trained.
func (a *Adapter) trains(vector string) bool {
	return a.Method == MethodVeRA && (a.Only == "" || a.Only == vector)
}

// Offset is where a layer's vector or matrix begins in Params, or -1 if it is not trained.
func (a *Adapter) Offset(values []float32) int {
	offset := 0
	for p := range a.Trained {
		if &p.Values[0] == &values[0] {
			return offset
		}
		offset += len(p.Values)
	}
	return -1
}

// Part is what is trained of a layer: its "b" or "d", or its "lora_a" or "lora_b".
type Part struct {
	Linear
	Part   string
	Values []float32 // in Params
}

// Trained yields the parts that are trained, in the order of Params.
func (a *Adapter) Trained(yield func(Part) bool) {
	for _, l := range a.Layers {
		parts := []Part{{l.Linear, "b", l.LambdaB}, {l.Linear, "d", l.LambdaD}}
		if a.Method == MethodLoRA {
			parts = []Part{{l.Linear, "lora_a", l.Pair.A}, {l.Linear, "lora_b", l.Pair.B}}
		}
		for _, p := range parts {
			if (a.Method == MethodLoRA || a.trains(p.Part)) && !yield(p) {
				return
			}
		}
	}
}

// drawLoRA draws every A uniformly in ±1/√in, as PEFT does (Kaiming uniform with a slope of √5), from one MT19937
// generator; B stays 0.
func (a *Adapter) drawLoRA() {
	mt := prng.NewMT19937()
	mt.Seed(uint64(a.Seed))
	for _, l := range a.Layers {
		drawUniform(mt, l.Pair.A, float32(1/math.Sqrt(float64(l.In))))
	}
}

// drawPairs draws the shared pair, or one for each layer, from the seed and the layer's place in the model.
func (a *Adapter) drawPairs() {
	if !a.UniquePairs {
		a.share(a.Base.Pairs.draw(a.Init, a.Seed, a.Rank, a.MaxIn, a.MaxOut))
		return
	}
	for i, l := range a.Layers {
		place := uint32(l.Block*seatsInBlock + seats[l.Target])
		a.Layers[i].Pair = NewPair(a.Init, a.Seed+place, a.Rank, l.In, l.Out)
	}
}

// share makes a pair that of all layers.
func (a *Adapter) share(p *Pair) {
	a.Pair = p
	for i := range a.Layers {
		a.Layers[i].Pair = p
	}
}

// pairDigest identifies the random matrices: the shared pair's SHA-256, or that of the layers' in order.
func (a *Adapter) pairDigest() string {
	if a.Pair != nil {
		return a.Pair.SHA256()
	}
	return digestOf(a.Layers)
}

// Digest identifies the adapter's numbers, the random and the trained ones: a SHA-256 in hexadecimal.
func (a *Adapter) Digest() string {
	digest := sha256.Sum256(appendFloats([]byte(a.pairDigest()), a.Params))
	return hex.EncodeToString(digest[:])
}

// Layer finds an adapted layer; it is nil where that layer isn't adapted.
func (a *Adapter) Layer(block int, target string) *Layer {
	for i := range a.Layers {
		if l := &a.Layers[i]; l.Block == block && l.Target == target {
			return l
		}
	}
	return nil
}

// Rows gives the Out rows of B, of rank values each, that a layer sees, in the row order of the GGUF file.
func (a *Adapter) Rows(l *Layer) []float32 {
	order, _ := a.orders(l)
	return GGUFRows(l.Pair.B[:l.Out*l.Rank()], l.Out, order)
}

// Columns gives the rank rows of A, of In values each, that a layer sees, in the order of the GGUF file's columns.
func (a *Adapter) Columns(l *Layer) []float32 {
	_, order := a.orders(l)
	return order.columns(l.Pair.A, l.Pair.MaxIn, l.In)
}

// orders are those in which a layer sees its pair.
func (a *Adapter) orders(l *Layer) (rows, columns Order) {
	if l.Pair.fileOrder {
		return rows, columns
	}
	return a.Base.Orders(l.Target)
}

// tensors yields every vector of VeRA's layers, or both matrices of a LoRA's, with the name of its tensor in the file
// that Save writes.
func (a *Adapter) tensors(yield func(name string, values []float32) bool) {
	for _, l := range a.Layers {
		ends, parts := [2]string{".weight.vera_b", ".weight.vera_d"}, [2][]float32{l.LambdaB, l.LambdaD}
		if a.Method == MethodLoRA {
			ends, parts = [2]string{endLoRAA, endLoRAB}, [2][]float32{l.Pair.A, l.Pair.B}
		}
		if !yield(l.Name()+ends[0], parts[0]) || !yield(l.Name()+ends[1], parts[1]) {
			return
		}
	}
}

// checkFinite names the first of the adapter's numbers that is NaN or infinite.
func (a *Adapter) checkFinite() error {
	for name, values := range a.tensors {
		if err := checkFinite(name, values); err != nil {
			return err
		}
	}
	return nil
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

func fill(values []float32, v float32) {
	for i := range values {
		values[i] = v
	}
}
