package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// linear is one matrix of a block and, where it is adapted, VeRA's vectors and their gradients on the backend.
type linear struct {
	block   int
	target  string
	in, out int
	w       *bindings.Tensor // [in, out]
	bias    *bindings.Tensor // [out] or nil

	vectors  *bindings.Vectors // nil where the layer is not adapted
	rank     int               // of the layer's part of the adapter
	down     int               // of the rows of the group's A, the first that is the layer's
	grads    *bindings.Tensor  // [out + rank]: sums of the gradients of VeRA's b, then d
	gradRows *bindings.Tensor  // [rank, out]: that of a LoRA's B
}

// group is the layers of a block that share an input. Their results lie one after the other in one tensor [out, rows].
type group struct {
	block, index int // 0 q k v, 1 output, 2 gate up, 3 down
	layers       []*linear
	in, out      int
	merged       *bindings.Tensor // [in, out]: W + ΔW of all layers, where the plan is to merge them
	// [out, layers] b and [rank, layers] d where all layers see the same rows of B, laid out for products with bytes;
	// else nil
	shared *bindings.Vectors
	// [in, rank]: the A that the adapted layers share, or [in, Σ rank] those of all of them
	down       *bindings.Tensor
	sharedDown bool             // whether they share it
	gradDown   *bindings.Tensor // of down's shape: sums of the gradients of a LoRA's A
}

func newGroup(index int, layers ...*linear) *group {
	gr := &group{block: layers[0].block, index: index, layers: layers, in: layers[0].in}
	for _, l := range layers {
		gr.out += l.out
	}
	return gr
}

func (gr *group) adapted() bool { return gr.down != nil }

func (gr *group) biased() bool {
	return slices.ContainsFunc(gr.layers, func(l *linear) bool { return l.bias != nil })
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

// mergingPays compares the multiplications of a training pass beyond those with W itself. Merged, ΔW is formed once and
// its gradient taken apart once, 2 · in · out · rank, and each row adds in · out to the weight's gradient. Factored,
// each row meets A twice and B three times.
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

// merge brings the merged matrices of the groups that are planned so up to the present numbers.
func (m *Model) merge() error {
	a := m.adapter
	if a == nil || !a.stale {
		return nil
	}
	if err := m.planMerging(); err != nil {
		return err
	}
	for i, b := range m.blocks {
		g := m.newGraph(0)
		for _, gr := range b.groups {
			if gr.merged == nil {
				continue
			}
			gr.each(func(l *linear, start int) {
				place := g.View(gr.merged, [4]int64{int64(gr.in), int64(l.out), 1, 1}, [4]int64{0, int64(start)})
				g.nodes.Expand(g.Merge(place, l.w, l.vectors))
			})
		}
		err := g.runBlock(b, i+1)
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
	a.merged = bindings.NewContext(4 * len(m.blocks))
	any := false
	for _, gr := range m.mergedGroups() {
		gr.merged = a.merged.NewTensor(m.kindOf(gr), int64(gr.in), int64(gr.out))
		any = true
	}
	if !any || m.asked != nil {
		return a.merged.Err()
	}
	var err error
	a.mergedMemory, err = m.backend.Allocate(a.merged)
	return err
}

// mergedGroups lists the groups whose plan is to merge. Dropout acts on the input of A alone, which merging cannot; and
// a LoRA has too small a rank for it to pay.
func (m *Model) mergedGroups() (list []*group) {
	if m.adapter.Method == vera.MethodLoRA || m.options.Plan == PlanFactored || m.adapter.Dropout > 0 {
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

// linears computes y = W x + b ⊙ (B (d ⊙ (A x))) + bias + acc for all layers of a group: [out, rows] of type t, float32
// where there is an acc. u = A x, which the layers share, is what the backward pass needs besides x; it is nil where no
// layer is adapted or all are merged. Biases are frozen and have no gradient.
func (g *graph) linears(x *bindings.Tensor, gr *group, acc *bindings.Tensor, t bindings.Type) (y, u *bindings.Tensor) {
	if !gr.biased() {
		return g.products(x, gr, acc, t)
	}
	y, u = g.products(x, gr, acc, bindings.F32)
	gr.each(func(l *linear, start int) {
		if l.bias != nil {
			g.nodes.Expand(g.AddInplace(g.columns(y, start, l.out), l.bias))
		}
	})
	return g.as(y, t), u
}

// products is linears without biases.
func (g *graph) products(x *bindings.Tensor, gr *group, acc *bindings.Tensor, t bindings.Type) (y, u *bindings.Tensor) {
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
	if v := gr.shared; v != nil {
		gr.each(func(l *linear, start int) {
			g.nodes.Expand(g.linear(l.w, x, bindings.Product{Acc: acc, Into: g.columns(y, start, l.out)}, t))
		})
		return g.pairLinear(v.B, u, bindings.Product{In: v.LambdaD, Out: v.LambdaB, Acc: y, Into: y}, t), u
	}
	gr.each(func(l *linear, start int) {
		part := g.columns(y, start, l.out)
		switch {
		case l.vectors == nil:
			y = g.joined(y, g.linear(l.w, x, bindings.Product{Acc: acc, Into: part}, t))
		default:
			wx := g.linear(l.w, x, bindings.Product{Acc: acc}, bindings.F32)
			y = g.joined(y, g.pairLinear(l.vectors.B, g.columns(u, l.down, l.rank),
				bindings.Product{In: l.vectors.LambdaD, Out: l.vectors.LambdaB, Acc: wx, Into: part}, t))
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

// down is u = A x [rank or Σ rank, rows], of x with the group's dropout.
func (g *graph) down(x *bindings.Tensor, gr *group) *bindings.Tensor {
	return g.pairLinear(gr.down, g.dropped(x, gr), bindings.Product{}, g.kind)
}

// dropped is x with the group's dropout, as products take it.
func (g *graph) dropped(x *bindings.Tensor, gr *group) *bindings.Tensor {
	if mask := g.mask(gr); mask != nil {
		return g.rounded(g.Mul(g.Convert(x, bindings.F32), mask))
	}
	return x
}

// linear is g.Linear in the pass's way.
func (g *graph) linear(w, x *bindings.Tensor, p bindings.Product, t bindings.Type) *bindings.Tensor {
	p.Way = g.way
	return g.Linear(w, x, p, t)
}

// pairLinear is linear with one of the adapter's matrices.
func (g *graph) pairLinear(w, x *bindings.Tensor, p bindings.Product, t bindings.Type) *bindings.Tensor {
	p.Way = g.way
	if g.m.adapter.interleaved {
		p.Way = bindings.Interleaved
	}
	return g.Linear(w, x, p, t)
}

// linearsBack adds the gradients of a group's b and d, for its input x and the gradient dy [out, rows] of its result,
// which is as products take it, and gives the gradient of x, or nil where it is not needed.
//
//	∂x = Σ Wᵀ g + Aᵀ Σ d ⊙ Bᵀ (b ⊙ g)
func (g *graph) linearsBack(dy, x, u *bindings.Tensor, gr *group, needInput bool) (dx *bindings.Tensor) {
	if dy == nil || x == nil {
		return nil
	}
	x, u = g.rounded(x), g.rounded(u)
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
	du := g.vectorsBack(dy, u, gr, needInput)
	if gr.gradDown != nil {
		g.nodes.Expand(g.AddInplace(gr.gradDown, g.WeightGrad(du, g.dropped(x, gr), bindings.F32)))
	}
	if !needInput {
		return nil
	}
	gr.each(func(l *linear, start int) {
		dx = g.LinearBack(l.w, g.columns(dy, start, l.out), bindings.Product{Acc: dx}, bindings.F32)
	})
	if du == nil {
		return dx
	}
	if mask := g.mask(gr); mask != nil {
		return g.Add(dx, g.Mul(g.LinearBack(gr.down, du, bindings.Product{}, bindings.F32), mask))
	}
	return g.LinearBack(gr.down, du, bindings.Product{Acc: dx}, bindings.F32)
}

// vectorsBack adds the gradients of the layers' b and d, or of a LoRA's B, and gives that of u = A x, of u's shape as
// products take it, where it is needed:
//
//	∂u = d ⊙ Bᵀ (b ⊙ g)    ∂B = Σ g (d ⊙ u)ᵀ
func (g *graph) vectorsBack(dy, u *bindings.Tensor, gr *group, needed bool) (du *bindings.Tensor) {
	if !gr.adapted() {
		return nil
	}
	needed = needed || gr.gradDown != nil
	if needed && !gr.sharedDown {
		du = g.NewTensor(g.kind, gr.down.Ne(1), dy.Ne(1))
	}
	gr.each(func(l *linear, start int) {
		if l.vectors == nil {
			return
		}
		part, own := g.columns(dy, start, l.out), g.columns(u, l.down, l.rank)
		if l.gradRows != nil {
			g.nodes.Expand(g.AddInplace(l.gradRows, g.Mul(g.WeightGrad(part, own, bindings.F32), l.vectors.LambdaD)))
		} else {
			g.nodes.Expand(g.AddInplace(l.grads, g.FactoredGrad(part, own, *l.vectors)))
		}
		h := bindings.Product{In: l.vectors.LambdaB, Out: l.vectors.LambdaD}
		switch {
		case !needed:
		case gr.sharedDown:
			h.Acc = du
			du = g.LinearBack(l.vectors.B, part, h, bindings.F32)
		default:
			h.Into = g.columns(du, l.down, l.rank)
			g.nodes.Expand(g.LinearBack(l.vectors.B, part, h, g.kind))
		}
	})
	return g.rounded(du)
}

// mask is the dropout on a group's input, nil without dropout. PEFT draws one for each layer; here it is one a group,
// as A x is.
func (g *graph) mask(gr *group) *bindings.Tensor {
	if p := g.m.adapter.Dropout; p > 0 && g.seed != 0 {
		return g.dropoutMask(gr.block, gr.index, gr.in, p)
	}
	return nil
}
