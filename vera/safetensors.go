package vera

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/bindings"
)

// Names of PEFT's tensors.
const (
	peftPrefix = "base_model.model."
	peftB      = ".vera_lambda_b"
	peftD      = ".vera_lambda_d"
	peftPairA  = "base_model.vera_A"
	peftPairB  = "base_model.vera_B"
	peftLoRAA  = ".lora_A.weight"
	peftLoRAB  = ".lora_B.weight"
)

// leastBytes is the size of a value in the smallest of safetensorTypes.
const leastBytes = 2

var safetensorTypes = map[safetensors.DType]bindings.Type{safetensors.F32: bindings.F32, safetensors.F16: bindings.F16,
	safetensors.BF16: bindings.BF16}

// readHeader gives the names of the tensors, and what SavePEFT adds for the way back, nil where the file has none.
func readHeader(file []byte) (names []string, stored *native, err error) {
	_, header, err := safetensors.ReadMetadata(file)
	if err != nil {
		return nil, nil, fmt.Errorf("not a whole safetensors file: %w", err)
	}
	names = slices.Collect(maps.Keys(header.Tensors()))
	text, ok := header.Metadata()[nativeKey]
	if !ok {
		return names, nil, nil
	}
	stored = &native{}
	if err := json.Unmarshal([]byte(text), stored); err != nil {
		return nil, nil, fmt.Errorf("metadata %q: %w", nativeKey, err)
	}
	return names, stored, nil
}

// readPEFTWeights fills the vectors and the pair from a safetensors file. Projections in the file are the pair,
// whatever the seed; they must be there where needPair, and the seed gives them otherwise.
func (a *Adapter) readPEFTWeights(file []byte, h hfModel, needPair bool) error {
	tensors, err := safetensors.Deserialize(file)
	if err != nil {
		return fmt.Errorf("not a whole safetensors file: %w", err)
	}
	known := map[string]bool{}
	read := func(name string, out []float32, shape ...int) error {
		known[name] = true
		return readSafetensor(tensors, name, out, shape...)
	}
	for _, l := range a.Layers {
		name := peftPrefix + h.path(l.Linear)
		if err := read(name+peftB, l.LambdaB, l.Out); err != nil {
			return err
		}
		if err := read(name+peftD, l.LambdaD, a.Rank); err != nil {
			return err
		}
		rows, _ := a.Base.Orders(l.Target)
		copy(l.LambdaB, GGUFRows(l.LambdaB, l.Out, rows))
	}
	_, hasA := tensors.Tensor(peftPairA)
	_, hasB := tensors.Tensor(peftPairB)
	if needPair || hasA || hasB {
		if n := a.Rank * (a.MaxIn + a.MaxOut); n > len(file)/leastBytes {
			return fmt.Errorf("%s and %s of rank %d have %d values, the file has no more than %d; must be whole "+
				"where save_projection is true", peftPairA, peftPairB, a.Rank, n, len(file)/leastBytes)
		}
		p := &Pair{Rank: a.Rank, MaxIn: a.MaxIn, MaxOut: a.MaxOut, A: make([]float32, a.Rank*a.MaxIn),
			B: make([]float32, a.MaxOut*a.Rank)}
		if err := read(peftPairA, p.A, a.Rank, a.MaxIn); err != nil {
			return err
		}
		if err := read(peftPairB, p.B, a.MaxOut, a.Rank); err != nil {
			return err
		}
		a.share(p)
	}
	for _, name := range tensors.Names() {
		if !known[name] {
			return fmt.Errorf("tensor %s belongs to no layer that the configuration selects", name)
		}
	}
	// A pair that is the seed's in every bit need not be kept in files.
	if p := a.Pair; p != nil {
		if a.drawPairs(); a.Pair.SHA256() != p.SHA256() {
			a.share(p)
		}
		return nil
	}
	a.drawPairs()
	return nil
}

// readSafetensor reads a tensor of that shape (row-major, the row length last) whose values are all finite.
func readSafetensor(tensors safetensors.SafeTensors, name string, out []float32, shape ...int) error {
	t, ok := tensors.Tensor(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	kind, ok := safetensorTypes[t.DType()]
	if !ok {
		return fmt.Errorf("tensor %s is %v; must be F32, F16 or BF16", name, t.DType())
	}
	if !slices.EqualFunc(t.Shape(), shape, func(got uint64, want int) bool { return got == uint64(want) }) {
		return fmt.Errorf("tensor %s has shape %v; must be %v for this rank and model", name, t.Shape(), shape)
	}
	if err := bindings.Dequantize(kind, t.Data(), out); err != nil {
		return fmt.Errorf("tensor %s: %w", name, err)
	}
	return checkFinite(name, out)
}
