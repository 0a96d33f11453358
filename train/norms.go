package train

import (
	"math"
	"strconv"
)

// Part is a section of Run.Params: one trained vector of a layer. Parts lie one after the other.
type Part struct {
	Layer string // "blk.0.attn_q"
	Name  string // "b"
	Size  int    // numbers
}

// Norms are L2 norms of the parts, by name and in the order of the layers: of the gradient of a step, before clipping,
// and of the values after it.
type Norms struct {
	Layers []string          `json:"layers"`
	Grad   map[string][]Norm `json:"grad"`
	Value  map[string][]Norm `json:"value"`
}

// complete tells whether there is a norm of each kind for every layer.
func (n *Norms) complete() bool {
	for _, of := range []map[string][]Norm{n.Grad, n.Value} {
		for _, list := range of {
			if len(list) != len(n.Layers) {
				return false
			}
		}
	}
	return true
}

// Norm is written with three digits, which keep a line of hundreds of them short; as null where the training has
// diverged.
type Norm float64

func (n Norm) MarshalJSON() ([]byte, error) {
	if !finite(float64(n)) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(n), 'g', 3, 64), nil
}

// newNorms sorts the norms of the parts by their names.
func newNorms(parts []Part, grad, value []float64) *Norms {
	n := &Norms{Grad: map[string][]Norm{}, Value: map[string][]Norm{}}
	for i, p := range parts {
		if i == 0 || p.Layer != parts[i-1].Layer {
			n.Layers = append(n.Layers, p.Layer)
		}
		n.Grad[p.Name], n.Value[p.Name] = append(n.Grad[p.Name], Norm(grad[i])), append(n.Value[p.Name], Norm(value[i]))
	}
	return n
}

// partNorms gives the L2 norm of each part of values, summed in float64.
func partNorms(values []float32, parts []Part) []float64 {
	norms := make([]float64, len(parts))
	for i, p := range parts {
		norms[i] = l2Norm(values[:p.Size])
		values = values[p.Size:]
	}
	return norms
}

// l2Norm is the L2 norm, summed in float64.
func l2Norm(values []float32) float64 {
	var squares float64
	for _, v := range values {
		squares += float64(v) * float64(v)
	}
	return math.Sqrt(squares)
}
