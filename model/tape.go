package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// tape is the memory in which results outlive the graph that computed them.
type tape struct {
	backend *bindings.Backend
	buffer  *bindings.Buffer
}

// kept names a result on the tape. The zero value names none.
type kept struct {
	kind   bindings.Type
	shape  [4]int64
	offset int64
	bytes  int64
}

// reserve empties the tape and makes room for n bytes in parts results.
func (t *tape) reserve(n int64, parts int) error {
	n += int64(parts) * t.backend.Alignment()
	if t.buffer != nil && t.buffer.Size() >= n {
		t.buffer.Reset()
		return nil
	}
	t.close()
	buffer, err := t.backend.NewBuffer(n)
	if err != nil {
		return fmt.Errorf("activations: %w", err)
	}
	t.buffer = buffer
	return nil
}

func (t *tape) close() {
	if t != nil && t.buffer != nil {
		t.buffer.Close()
		t.buffer = nil
	}
}

// keep gives x, a result of a graph that has not run yet, its memory on the tape.
func (t *tape) keep(g *graph, x *bindings.Tensor) (kept, error) {
	if x == nil {
		return kept{}, g.Err()
	}
	g.nodes.Expand(x)
	offset, err := t.buffer.Place(x)
	return kept{x.Type(), x.Shape(), offset, x.Bytes()}, err
}

// keepAt gives x the memory of a kept result of the same size, which it overwrites.
func (t *tape) keepAt(g *graph, x *bindings.Tensor, k kept) error {
	if x == nil {
		return g.Err()
	}
	g.nodes.Expand(x)
	return t.buffer.PlaceAt(x, k.offset)
}

// leaf is a kept result as a tensor of another graph; nil for none.
func (t *tape) leaf(g *graph, k kept) *bindings.Tensor {
	if k.bytes == 0 {
		return nil
	}
	x := g.NewTensor(k.kind, k.shape[:]...)
	if x == nil {
		return nil
	}
	if err := t.buffer.PlaceAt(x, k.offset); err != nil {
		g.Fail(err)
		return nil
	}
	return x
}

// zero sets a kept result to zero.
func (m *Model) zero(k kept) error {
	g := m.newGraph(0)
	defer g.Close()
	x := m.tape.leaf(g, k)
	if x == nil {
		return g.Err()
	}
	return x.Zero()
}
