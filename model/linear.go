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

	vectors *bindings.Vectors // nil where the layer is not adapted
	grads   *bindings.Tensor  // [out + rank]: sums of the gradients of b, then d
}

// group is the layers of a block that share an input. Their results lie one after the other in one tensor [out, rows].
type group struct {
	block, index int // 0 q k v, 1 output, 2 gate up, 3 down
	layers       []*linear
	in, out      int
	merged       *bindings.Tensor // [in, out]: W + ΔW of all layers, where the plan is to merge them
}

func newGroup(index int, layers ...*linear) *group {
	gr := &group{block: layers[0].block, index: index, layers: layers, in: layers[0].in}
	for _, l := range layers {
		gr.out += l.out
	}
	return gr
}

func (gr *group) adapted() bool {
	for _, l := range gr.layers {
		if l.vectors != nil {
			return true
		}
	}
	return false
}

// each calls f for every layer, with where its part of the group's result begins.
func (gr *group) each(f func(l *linear, start int)) {
	start := 0
	for _, l := range gr.layers {
		f(l, start)
		start += l.out
	}
}

// planRows is the number of rows of a pass for which plans are compared.
const planRows = 1024

// mergingPays compares the multiplications of a training pass beyond those with W itself. Merged, ΔW is formed once and its gradient taken apart once,
// 2 · in · out · rank, and each row adds in · out to the weight's gradient. Factored, each row meets A twice and B three times.
func (gr *group) mergingPays(rank int) bool {
	adapted := 0
	for _, l := range gr.layers {
		if l.vectors != nil {
			adapted += l.out
		}
	}
	merged := 2*gr.in*adapted*rank + planRows*gr.in*gr.out
	factored := planRows * rank * (2*gr.in + 3*adapted)
	return merged < factored
}

// attached is an adapter on the backend: the shared pair and the trained numbers.
type attached struct {
	*vera.Adapter
	context       *bindings.Context
	memory        *bindings.Buffer
	params, grads *bindings.Tensor // all b and d in the adapter's order
	lowest        int              // the lowest adapted block; gradients need not go below it
	merged        *bindings.Context
	mergedMemory  *bindings.Buffer
	stale         bool  // the merged matrices are not of the present numbers
	held          int64 // memory of the process when the adapter was attached, for plans
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
		for _, gr := range b.groups {
			gr.merged = nil
			for _, l := range gr.layers {
				l.vectors, l.grads = nil, nil
			}
		}
	}
	if m.adapter != nil {
		m.adapter.memory.Close()
		m.adapter.context.Close()
		m.adapter.mergedMemory.Close()
		if m.adapter.merged != nil {
			m.adapter.merged.Close()
		}
		m.adapter = nil
	}
}

func (m *Model) attach(adapter *vera.Adapter) error {
	rank, maxIn, maxOut := int64(adapter.Rank), int64(adapter.MaxIn), int64(adapter.MaxOut)
	a := &attached{Adapter: adapter, lowest: m.Blocks}
	m.adapter = a
	a.context = bindings.NewContext(8+5*len(adapter.Layers), 0)
	c := a.context
	pairA, plain := c.NewTensor(m.kind(), maxIn, rank), c.NewTensor(bindings.F32, rank, maxOut)
	a.params, a.grads = c.NewTensor(bindings.F32, int64(len(adapter.Params))), c.NewTensor(bindings.F32, int64(len(adapter.Params)))
	// q and k see the rows of B in the file's order; k's are the first of q's, since the order is a head's own.
	var rotated *bindings.Tensor
	turned := m.rotatedRows(adapter)
	if turned > 0 {
		rotated = c.NewTensor(bindings.F32, rank, int64(turned))
	}
	var err error
	if a.memory, err = m.backend.Allocate(c); err != nil {
		return err
	}
	if err := errors.Join(m.store(pairA, adapter.Pair.A), bindings.Set(plain, adapter.Pair.B)); err != nil {
		return err
	}
	if rotated != nil {
		if err := bindings.Set(rotated, adapter.Pair.PermutedB(turned/m.HeadDim, m.HeadDim)); err != nil {
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
		a.lowest = min(a.lowest, l.block)
		rows, out := plain, int64(l.out)
		if l.target == "attn_q" || l.target == "attn_k" {
			rows = rotated
		}
		l.vectors = &bindings.Vectors{
			A: c.View(pairA, [4]int64{int64(l.in), rank, 1, 1}, [4]int64{}), Rows: c.View(rows, [4]int64{rank, out, 1, 1}, [4]int64{}),
			B: part(a.params, at, out), D: part(a.params, at+out, rank),
		}
		l.grads = part(a.grads, at, out+rank)
		at += out + rank
	}
	if err := c.Err(); err != nil {
		return err
	}
	if at != int64(len(adapter.Params)) {
		return fmt.Errorf("the adapter has %d numbers, its layers take %d", len(adapter.Params), at)
	}
	if a.held, err = held(); err != nil {
		return err
	}
	return m.Update()
}

// store copies values into a matrix of float32 or bfloat16.
func (m *Model) store(t *bindings.Tensor, values []float32) error {
	if t.Type() == bindings.F32 {
		return bindings.Set(t, values)
	}
	g := m.newGraph(0, 0, 4)
	defer g.Close()
	g.nodes.Expand(g.Cpy(input(g, values, t.Ne(0), t.Ne(1)), t))
	return g.run()
}

// rotatedRows is how many rows of B attn_q and attn_k see.
func (m *Model) rotatedRows(adapter *vera.Adapter) int {
	n := 0
	for _, l := range adapter.Layers {
		if l.Target == "attn_q" || l.Target == "attn_k" {
			n = max(n, l.Out)
		}
	}
	return n
}

// Update reads the attached adapter's numbers again, after an optimiser step.
func (m *Model) Update() error {
	if m.adapter == nil {
		return errors.New("update: no adapter is attached")
	}
	m.adapter.stale = true
	return bindings.Set(m.adapter.params, m.adapter.Params)
}

// merge brings the merged matrices of the groups that are planned so up to the present numbers.
func (m *Model) merge() error {
	a := m.adapter
	if a == nil || !a.stale {
		return nil
	}
	if err := m.planMerging(); err != nil {
		return err
	}
	for _, b := range m.blocks {
		g := m.newGraph(0, 1, 0)
		for _, gr := range b.groups {
			if gr.merged == nil {
				continue
			}
			gr.each(func(l *linear, start int) {
				place := g.View(gr.merged, [4]int64{int64(gr.in), int64(l.out), 1, 1}, [4]int64{0, int64(start)})
				g.nodes.Expand(g.Merge(place, l.w, l.vectors))
			})
		}
		err := g.run()
		g.Close()
		if err != nil {
			return err
		}
	}
	a.stale = false
	return nil
}

// planMerging decides once which groups are merged, and makes room for them.
func (m *Model) planMerging() error {
	a := m.adapter
	if a.merged != nil {
		return nil
	}
	a.merged = bindings.NewContext(4*len(m.blocks), 0)
	any := false
	for _, gr := range m.mergedGroups() {
		gr.merged = a.merged.NewTensor(m.kind(), int64(gr.in), int64(gr.out))
		any = true
	}
	if !any {
		return a.merged.Err()
	}
	var err error
	a.mergedMemory, err = m.backend.Allocate(a.merged)
	return err
}

// mergedGroups lists the groups whose plan is to merge. Dropout acts on the input of A alone, which merging cannot.
func (m *Model) mergedGroups() (list []*group) {
	if m.options.Plan == PlanFactored || m.options.Compute == ComputeQ8 || m.adapter.Dropout > 0 {
		return nil
	}
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			if gr.adapted() && (m.options.Plan == PlanMerged || gr.mergingPays(m.adapter.Rank)) {
				list = append(list, gr)
			}
		}
	}
	return list
}

// linears computes y = W x + b ⊙ (B (d ⊙ (A x))) + acc for all layers of a group: [out, rows] of type t, float32 where there is an acc. u = A x, which the
// layers share, is what the backward pass needs besides x; it is nil where no layer is adapted or all are merged.
func (g *graph) linears(x *bindings.Tensor, gr *group, acc *bindings.Tensor, t bindings.Type) (y, u *bindings.Tensor) {
	if x == nil {
		return nil, nil
	}
	if gr.merged != nil && g.merging {
		return g.Linear(gr.merged, x, bindings.Product{Acc: acc}, t), nil
	}
	if gr.adapted() {
		u = g.down(x, gr)
	}
	if len(gr.layers) > 1 {
		y = g.NewTensor(t, int64(gr.out), x.Ne(1))
	}
	gr.each(func(l *linear, start int) {
		part := g.columns(y, start, l.out)
		switch {
		case l.vectors == nil:
			y = g.joined(y, g.product(l.w, x, bindings.Product{Acc: acc, Into: part}, t))
		default:
			wx := g.product(l.w, x, bindings.Product{Acc: acc}, bindings.F32)
			y = g.joined(y, g.Linear(l.vectors.Rows, u, bindings.Product{In: l.vectors.D, Out: l.vectors.B, Acc: wx, Into: part}, t))
		}
	})
	return y, u
}

// joined puts a part's node into the graph; where there is no whole yet, the part is the whole.
func (g *graph) joined(whole, part *bindings.Tensor) *bindings.Tensor {
	g.nodes.Expand(part)
	if whole == nil {
		return part
	}
	return whole
}

// down is u = A x [rank, rows], of x with the group's dropout.
func (g *graph) down(x *bindings.Tensor, gr *group) *bindings.Tensor {
	if mask := g.mask(gr); mask != nil {
		x = g.rounded(g.Mul(g.Convert(x, bindings.F32), mask))
	}
	return g.Linear(gr.pair(), x, bindings.Product{}, g.kind)
}

// pair is the group's part of the shared A, [in, rank]; a layer of the group is adapted.
func (gr *group) pair() *bindings.Tensor {
	for _, l := range gr.layers {
		if l.vectors != nil {
			return l.vectors.A
		}
	}
	return nil
}

// product is W x in the run's arithmetic.
func (g *graph) product(w, x *bindings.Tensor, p bindings.Product, t bindings.Type) *bindings.Tensor {
	if g.m.options.Compute != ComputeQ8 {
		return g.Linear(w, x, p, t)
	}
	y := g.MulMat(w, x)
	if p.Acc != nil {
		y = g.Add(y, p.Acc)
	}
	if p.Into != nil {
		y = g.Cpy(y, p.Into)
	}
	return y
}

// linearsBack adds the gradients of a group's b and d, for its input x and the gradient dy [out, rows] of its result, both as products take them, and gives
// the gradient of x, or nil where it is not needed.
//
//	∂x = Σ Wᵀ g + Aᵀ Σ d ⊙ Bᵀ (b ⊙ g)
func (g *graph) linearsBack(dy, x, u *bindings.Tensor, gr *group, needInput bool) (dx *bindings.Tensor) {
	if dy == nil || x == nil {
		return nil
	}
	if gr.merged != nil {
		grad := g.WeightGrad(dy, x, g.kind)
		gr.each(func(l *linear, start int) {
			if l.vectors != nil && grad != nil {
				part := g.View(grad, [4]int64{grad.Ne(0), int64(l.out), 1, 1}, [4]int64{0, int64(start)})
				g.nodes.Expand(g.AddInplace(l.grads, g.MergedGrad(part, *l.vectors)))
			}
		})
		if !needInput {
			return nil
		}
		return g.LinearBack(gr.merged, dy, bindings.Product{}, bindings.F32)
	}
	var dh *bindings.Tensor
	gr.each(func(l *linear, start int) {
		part := g.columns(dy, start, l.out)
		if l.vectors != nil {
			g.nodes.Expand(g.AddInplace(l.grads, g.FactoredGrad(part, u, *l.vectors)))
		}
		if !needInput {
			return
		}
		if l.vectors != nil {
			dh = g.LinearBack(l.vectors.Rows, part, bindings.Product{In: l.vectors.B, Out: l.vectors.D, Acc: dh}, bindings.F32)
		}
		dx = g.LinearBack(l.w, part, bindings.Product{Acc: dx}, bindings.F32)
	})
	if dh == nil {
		return dx
	}
	if mask := g.mask(gr); mask != nil {
		return g.Add(dx, g.Mul(g.LinearBack(gr.pair(), g.rounded(dh), bindings.Product{}, bindings.F32), mask))
	}
	return g.LinearBack(gr.pair(), g.rounded(dh), bindings.Product{Acc: dx}, bindings.F32)
}

// mask is the dropout on a group's input, nil without dropout. PEFT draws one for each layer; here it is one a group, as A x is.
func (g *graph) mask(gr *group) *bindings.Tensor {
	if p := g.m.adapter.Dropout; p > 0 && g.seed != 0 {
		return g.dropoutMask(gr.block, gr.index, gr.in, p)
	}
	return nil
}
