package model

import (
	"errors"
	"fmt"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// linear is one matrix of a block and, where it is adapted, VeRA's vectors and their gradients on the backend.
type linear struct {
	block   int
	target  string
	in, out int
	w       *bindings.Tensor // [in, out]

	b, d   *bindings.Tensor // [out], [rank]; nil where the layer is not adapted
	gb, gd *bindings.Tensor // sums of their gradients
	rows   *bindings.Tensor // B [rank, out]
	cols   *bindings.Tensor // Bᵀ [out, rank]
}

// attached is an adapter on the backend: the shared pair, both ways round, and the trained numbers.
type attached struct {
	*vera.Adapter
	context       *bindings.Context
	memory        *bindings.Buffer
	a             *bindings.Tensor // A [max_in, rank]
	aT            *bindings.Tensor // Aᵀ [rank, max_in]
	params, grads *bindings.Tensor // all b and d in the adapter's order
	lowest        int              // the lowest adapted block; gradients need not go below it
}

// Attach makes an adapter part of the model; nil takes it off again. The adapter must be of this model.
func (m *Model) Attach(a *vera.Adapter) error {
	m.detach()
	if a == nil {
		return nil
	}
	if err := m.attach(a); err != nil {
		m.detach()
		return fmt.Errorf("attach the adapter: %w", err)
	}
	return nil
}

func (m *Model) detach() {
	for _, b := range m.blocks {
		b.adapted = false
	}
	for _, l := range m.linears() {
		l.b, l.d, l.gb, l.gd, l.rows, l.cols = nil, nil, nil, nil, nil, nil
	}
	if m.adapter != nil {
		m.adapter.memory.Close()
		m.adapter.context.Close()
		m.adapter = nil
	}
}

func (m *Model) attach(adapter *vera.Adapter) error {
	rank, maxIn, maxOut := int64(adapter.Rank), int64(adapter.MaxIn), int64(adapter.MaxOut)
	a := &attached{Adapter: adapter, lowest: m.Blocks}
	m.adapter = a
	a.context = bindings.NewContext(8+6*len(adapter.Layers), 0)
	c := a.context
	pairType := bindings.F32
	if m.options.Compute == ComputeBF16 {
		pairType = bindings.BF16
	}
	a.a, a.aT = c.NewTensor(pairType, maxIn, rank), c.NewTensor(pairType, rank, maxIn)
	plain := side{rows: c.NewTensor(pairType, rank, maxOut), cols: c.NewTensor(pairType, maxOut, rank), values: adapter.Pair.B}
	a.params, a.grads = c.NewTensor(bindings.F32, int64(len(adapter.Params))), c.NewTensor(bindings.F32, int64(len(adapter.Params)))
	var err error
	// q and k see the rows of B in the file's order; k's are the first of q's, since the order is a head's own.
	var rotated side
	if n := m.rotatedRows(adapter); n > 0 {
		rotated = side{rows: c.NewTensor(pairType, rank, n), cols: c.NewTensor(pairType, n, rank), values: adapter.Pair.PermutedB(int(n)/m.HeadDim, m.HeadDim)}
	}
	if a.memory, err = m.backend.Allocate(c); err != nil {
		return err
	}
	for _, t := range []struct {
		values         []float32
		width          int64
		straight, turn *bindings.Tensor
	}{{adapter.Pair.A, maxIn, a.a, a.aT}, {plain.values, rank, plain.rows, plain.cols}, {rotated.values, rank, rotated.rows, rotated.cols}} {
		if t.values == nil {
			continue
		}
		if err := m.store(t.straight, t.values); err != nil {
			return err
		}
		if err := m.store(t.turn, transposed(t.values, int(t.width))); err != nil {
			return err
		}
	}
	at := int64(0)
	part := func(of *bindings.Tensor, start, n int64) *bindings.Tensor {
		return c.View(of, [4]int64{n, 1, 1, 1}, [4]int64{start})
	}
	for _, l := range m.linears() {
		layer := adapter.Layer(l.block, l.target)
		if layer == nil {
			continue
		}
		if layer.In != l.in || layer.Out != l.out {
			return fmt.Errorf("%s is %d × %d in the adapter, %d × %d in the model", layer.Name(), layer.Out, layer.In, l.out, l.in)
		}
		m.blocks[l.block].adapted = true
		a.lowest = min(a.lowest, l.block)
		of := plain
		if l.target == "attn_q" || l.target == "attn_k" {
			of = rotated
		}
		out := int64(l.out)
		l.rows = c.View(of.rows, [4]int64{rank, out, 1, 1}, [4]int64{})
		l.cols = c.View(of.cols, [4]int64{out, rank, 1, 1}, [4]int64{})
		l.b, l.gb = part(a.params, at, out), part(a.grads, at, out)
		l.d, l.gd = part(a.params, at+out, rank), part(a.grads, at+out, rank)
		at += out + rank
	}
	if err := c.Err(); err != nil {
		return err
	}
	if at != int64(len(adapter.Params)) {
		return fmt.Errorf("the adapter has %d numbers, its layers take %d", len(adapter.Params), at)
	}
	return m.Update()
}

// side is B or a permutation of its rows, both ways round.
type side struct {
	rows, cols *bindings.Tensor
	values     []float32
}

// rotatedRows is how many rows of B attn_q and attn_k see.
func (m *Model) rotatedRows(adapter *vera.Adapter) int64 {
	n := 0
	for _, l := range adapter.Layers {
		if l.Target == "attn_q" || l.Target == "attn_k" {
			n = max(n, l.Out)
		}
	}
	return int64(n)
}

// store copies values into a tensor of float32 or bfloat16.
func (m *Model) store(t *bindings.Tensor, values []float32) error {
	if t.Type() == bindings.F32 {
		return bindings.Set(t, values)
	}
	g := m.newGraph(pack{}, 0, 4)
	defer g.Close()
	x := input(g, values, t.Ne(0), t.Ne(1))
	g.nodes.Expand(g.Cpy(x, t))
	return g.run()
}

// transposed turns rows of that width into columns.
func transposed(values []float32, width int) []float32 {
	out, height := make([]float32, len(values)), len(values)/width
	for i := range height {
		for j := range width {
			out[j*height+i] = values[i*width+j]
		}
	}
	return out
}

// Update reads the attached adapter's numbers again, after an optimiser step.
func (m *Model) Update() error {
	if m.adapter == nil {
		return errors.New("update: no adapter is attached")
	}
	return bindings.Set(m.adapter.params, m.adapter.Params)
}

// shared is what layers with a common input x keep for the backward pass: u = A x, [rank, tokens], and each layer's v = B (d ⊙ u), [out, tokens].
type shared struct {
	u *bindings.Tensor
	v [3]*bindings.Tensor
}

// linears computes y = W x + b ⊙ (B (d ⊙ (A x))) for all layers of a group, which share x [in, tokens]. A x is computed once.
func (g *graph) linears(x *bindings.Tensor, group int, layers []*linear) (y [3]*bindings.Tensor, s shared) {
	for i, l := range layers {
		y[i] = g.MulMat(g.weight(l.w), x)
		if l.b == nil {
			continue
		}
		if s.u == nil {
			in := x
			if mask := g.mask(l, group); mask != nil {
				in = g.Mul(x, mask)
			}
			s.u = g.MulMat(g.View(g.m.adapter.a, [4]int64{int64(l.in), int64(g.m.adapter.Rank), 1, 1}, [4]int64{}), in)
		}
		s.v[i] = g.MulMat(l.rows, g.Mul(s.u, l.d))
		y[i] = g.Add(y[i], g.Mul(s.v[i], l.b))
	}
	return y, s
}

// linearsBack adds ∂b = Σ g ⊙ v and ∂d = Σ u ⊙ h, h = Bᵀ (b ⊙ g), for the gradients dy of the layers' results, and gives the gradient of
// their common input: ∂x = Σ Wᵀ g + Aᵀ Σ d ⊙ h. It gives nil where the input's gradient is not needed.
func (g *graph) linearsBack(dy [3]*bindings.Tensor, s shared, group int, layers []*linear, needInput bool) (dx *bindings.Tensor) {
	var dh *bindings.Tensor
	var adapted *linear
	for i, l := range layers {
		if l.b == nil {
			continue
		}
		h := g.MulMat(l.cols, g.Mul(dy[i], l.b))
		g.nodes.Expand(g.AddInplace(l.gb, g.RepeatBack(g.Mul(dy[i], s.v[i]), l.gb)))
		g.nodes.Expand(g.AddInplace(l.gd, g.RepeatBack(g.Mul(h, s.u), l.gd)))
		dh, adapted = g.plus(dh, g.Mul(h, l.d)), l
	}
	if !needInput {
		return nil
	}
	for i, l := range layers {
		dx = g.plus(dx, g.MulMat(g.weightT(l.w), dy[i]))
	}
	if dh == nil {
		return dx
	}
	da := g.MulMat(g.View(g.m.adapter.aT, [4]int64{int64(g.m.adapter.Rank), int64(adapted.in), 1, 1}, [4]int64{}), dh)
	if mask := g.mask(adapted, group); mask != nil {
		da = g.Mul(da, mask)
	}
	return g.Add(dx, da)
}

// mask is the dropout on a group's input, nil without dropout. PEFT draws one for each layer; here it is one a group, as A x is.
func (g *graph) mask(l *linear, group int) *bindings.Tensor {
	if p := g.m.adapter.Dropout; p > 0 && g.seed != 0 {
		return g.dropoutMask(l.block, group, l.in, p)
	}
	return nil
}

// plus is a + b where a may be nil.
func (g *graph) plus(a, b *bindings.Tensor) *bindings.Tensor {
	if a == nil {
		return b
	}
	return g.Add(a, b)
}
