package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// linear is one matrix of a block.
type linear struct {
	block   int
	target  string
	in, out int
	w       *bindings.Tensor // [in, out]
	bias    *bindings.Tensor // [out] or nil
}

// group is the layers of a block that share an input. Their results lie one after the other in one tensor [out, rows].
type group struct {
	block, index int // 0 q k v, 1 output, 2 gate up, 3 down
	layers       []*linear
	in, out      int
	adapter      *groupAdapter    // the attached adapter's part; nil where it has none
	merged       *bindings.Tensor // [in, out]: W + ΔW of all layers; nil where they are not merged
}

// groupAdapter is what an adapter adds to a group.
type groupAdapter struct {
	layers  []layerAdapter   // of the group's
	matrixA *bindings.Tensor // [in, rank] where the adapted layers share A, else [in, Σ rank]
	sharesA bool
	way     bindings.Way     // of products with A and B, where it is not the graph's
	gradA   *bindings.Tensor // of A's shape: sums of the gradients of a LoRA's A
}

// layerAdapter is what an adapter adds to a layer.
type layerAdapter struct {
	vectors   *bindings.Vectors // nil where the layer is not adapted
	rank      int
	firstRank int              // its first row in the group's A
	offset    int64            // of its b, behind which its d stands, among the adapter's vectors
	grads     *bindings.Tensor // [out + rank]: sums of the gradients of b, then d
	gradB     *bindings.Tensor // [rank, out]: the same of a LoRA's B
}

func newGroup(index int, layers ...*linear) *group {
	gr := &group{block: layers[0].block, index: index, layers: layers, in: layers[0].in}
	for _, l := range layers {
		gr.out += l.out
	}
	return gr
}

func (gr *group) biased() bool {
	return slices.ContainsFunc(gr.layers, func(l *linear) bool { return l.bias != nil })
}

// each calls f for every layer, with what the adapter adds to it and the offset of its part in the group's result.
func (gr *group) each(a *groupAdapter, f func(l *linear, a layerAdapter, start int)) {
	start := 0
	for i, l := range gr.layers {
		if a == nil {
			f(l, layerAdapter{}, start)
		} else {
			f(l, a.layers[i], start)
		}
		start += l.out
	}
}

// planRows is the number of rows for which plans are compared.
const planRows = 1024

// mergingPays compares the multiplications of a training pass, without those by W. Merged: 2 · in · out · rank to form
// ΔW and to take its gradient apart, and in · out a row for the gradient of the weight. Factored: each row meets A
// twice and B three times.
func (gr *group) mergingPays(rank int) bool {
	adapted := 0
	gr.each(gr.adapter, func(l *linear, a layerAdapter, _ int) {
		if a.vectors != nil {
			adapted += l.out
		}
	})
	merged := 2*gr.in*adapted*rank + planRows*gr.in*gr.out
	factored := planRows * rank * (2*gr.in + 3*adapted)
	return merged < factored
}

// merge forms the merged matrices again, if the vectors have changed.
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
			gr.each(gr.adapter, func(l *linear, a layerAdapter, start int) {
				place := g.View(gr.merged, [4]int64{int64(gr.in), int64(l.out), 1, 1}, [4]int64{0, int64(start)})
				g.nodes.Expand(g.Merge(place, l.w, a.vectors, m.mergingWay(gr)))
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

// planMerging decides once which groups are merged, and makes their tensors.
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
	if !any || m.probe != nil {
		return a.merged.Err()
	}
	var err error
	a.mergedMemory, err = m.backend.Allocate(a.merged)
	return err
}

// mergedGroups lists the groups that are merged. None is with dropout, which acts on the input of A alone, nor in a
// LoRA, whose rank is too small for merging to pay.
func (m *Model) mergedGroups() (list []*group) {
	if m.adapter.Method == vera.MethodLoRA || m.options.Plan == PlanFactored || m.adapter.Dropout > 0 {
		return nil
	}
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			if gr.adapter != nil && (m.options.Plan == PlanMerged || gr.mergingPays(m.adapter.Rank)) {
				list = append(list, gr)
			}
		}
	}
	return list
}

// linears computes y = W x + b ⊙ (B (d ⊙ (A x))) + bias + acc for all layers of a group: [out, rows] of type t, which
// is float32 where there is an acc. u = A x, which the layers share, is kept for the backward pass; it is nil where no
// layer is adapted or all are merged. Biases are frozen.
func (g *graph) linears(x *bindings.Tensor, gr *group, acc *bindings.Tensor, t bindings.Type) (y, u *bindings.Tensor) {
	if !gr.biased() {
		return g.products(x, gr, acc, t)
	}
	y, u = g.products(x, gr, acc, bindings.F32)
	gr.each(nil, func(l *linear, _ layerAdapter, start int) {
		if l.bias != nil {
			g.nodes.Expand(g.AddInplace(g.columns(y, start, l.out), l.bias))
		}
	})
	return g.as(y, t), u
}

// products is linears without biases.
func (g *graph) products(x *bindings.Tensor, gr *group, acc *bindings.Tensor, t bindings.Type) (y, u *bindings.Tensor) {
	way := g.m.forwardWay(gr)
	switch {
	case x == nil:
		return nil, nil
	case gr.merged != nil && g.useMerged:
		return g.Linear(gr.merged, x, bindings.Product{Acc: acc, Way: way}, t), nil
	case g.way != bindings.Plain:
		return g.as(g.answerProducts(x, gr, acc), t), nil
	}
	ad := gr.adapter
	if ad != nil {
		u = g.timesA(x, gr)
	}
	if len(gr.layers) > 1 {
		y = g.NewTensor(t, int64(gr.out), x.Ne(1))
	}
	gr.each(ad, func(l *linear, a layerAdapter, start int) {
		part := g.columns(y, start, l.out)
		switch {
		case a.vectors == nil:
			y = g.joined(y, g.Linear(l.w, x, bindings.Product{Acc: acc, Into: part, Way: way}, t))
		default:
			wx := g.Linear(l.w, x, bindings.Product{Acc: acc, Way: way}, bindings.F32)
			y = g.joined(y, g.Linear(a.vectors.B, g.columns(u, a.firstRank, a.rank),
				bindings.Product{In: a.vectors.LambdaD, Out: a.vectors.LambdaB, Acc: wx, Into: part, Way: way}, t))
		}
	})
	return y, u
}

// joined adds a part's node to the graph and gives the whole; a part without a whole is the whole.
func (g *graph) joined(whole, part *bindings.Tensor) *bindings.Tensor {
	g.nodes.Expand(part)
	if whole == nil {
		return part
	}
	return whole
}

// timesA is u = A x [rank or Σ rank, rows], with the group's dropout on x.
func (g *graph) timesA(x *bindings.Tensor, gr *group) *bindings.Tensor {
	return g.Linear(gr.adapter.matrixA, g.dropped(x, gr), bindings.Product{Way: g.m.forwardWay(gr)}, g.kind)
}

// dropped is x with the group's dropout, as products take it.
func (g *graph) dropped(x *bindings.Tensor, gr *group) *bindings.Tensor {
	if mask := g.mask(gr); mask != nil {
		return g.rounded(g.Mul(g.Convert(x, bindings.F32), mask))
	}
	return x
}

// linear is g.Linear computed in the graph's way.
func (g *graph) linear(w, x *bindings.Tensor, p bindings.Product, t bindings.Type) *bindings.Tensor {
	p.Way = g.way
	return g.Linear(w, x, p, t)
}

// wayIn is how products with A and B are computed in a graph.
func (a *groupAdapter) wayIn(g *graph) bindings.Way {
	if a.way != bindings.Plain {
		return a.way
	}
	return g.way
}

// linearsBack adds the gradients of a group's b and d, for its input x and the gradient dy [out, rows] of its result,
// as products take it. It gives the gradient of x, or nil where that is not needed.
//
//	∂x = Σ Wᵀ g + Aᵀ Σ d ⊙ Bᵀ (b ⊙ g)
func (g *graph) linearsBack(dy, x, u *bindings.Tensor, gr *group, needInput bool) (dx *bindings.Tensor) {
	if dy == nil || x == nil {
		return nil
	}
	x, u = g.rounded(x), g.rounded(u)
	way := g.m.trainingWay()
	if gr.merged != nil {
		grad := g.WeightGradient(dy, x, g.kind, g.m.gradientWay())
		gr.each(gr.adapter, func(l *linear, a layerAdapter, start int) {
			if a.vectors != nil && grad != nil {
				part := g.View(grad, [4]int64{grad.Ne(0), int64(l.out), 1, 1}, [4]int64{0, int64(start)})
				g.nodes.Expand(g.AddInplace(a.grads, g.MergedGradient(part, *a.vectors, g.m.gradientWay())))
			}
		})
		if !needInput {
			return nil
		}
		return g.LinearBack(gr.merged, dy, bindings.Product{Way: way}, bindings.F32)
	}
	du := g.vectorsBack(dy, u, gr, needInput)
	ad := gr.adapter
	if ad != nil && ad.gradA != nil {
		g.nodes.Expand(g.AddInplace(ad.gradA, g.WeightGradient(du, g.dropped(x, gr), bindings.F32, way)))
	}
	if !needInput {
		return nil
	}
	gr.each(nil, func(l *linear, _ layerAdapter, start int) {
		dx = g.LinearBack(l.w, g.columns(dy, start, l.out), bindings.Product{Acc: dx, Way: way}, bindings.F32)
	})
	if du == nil {
		return dx
	}
	if mask := g.mask(gr); mask != nil {
		return g.Add(dx, g.Mul(g.LinearBack(ad.matrixA, du, bindings.Product{Way: way}, bindings.F32), mask))
	}
	return g.LinearBack(ad.matrixA, du, bindings.Product{Acc: dx, Way: way}, bindings.F32)
}

// vectorsBack adds the gradients of the layers' b and d, or of a LoRA's B. It gives the gradient of u = A x, as
// products take it, where that is needed:
//
//	∂u = d ⊙ Bᵀ (b ⊙ g)    ∂B = Σ g (d ⊙ u)ᵀ
func (g *graph) vectorsBack(dy, u *bindings.Tensor, gr *group, needed bool) (du *bindings.Tensor) {
	ad, way := gr.adapter, g.m.trainingWay()
	if ad == nil {
		return nil
	}
	needed = needed || ad.gradA != nil
	if needed && !ad.sharesA {
		du = g.NewTensor(g.kind, ad.matrixA.Ne(1), dy.Ne(1))
	}
	gr.each(ad, func(l *linear, a layerAdapter, start int) {
		if a.vectors == nil {
			return
		}
		part, layerU := g.columns(dy, start, l.out), g.columns(u, a.firstRank, a.rank)
		if a.gradB != nil {
			g.nodes.Expand(g.AddInplace(a.gradB, g.Mul(g.WeightGradient(part, layerU, bindings.F32, way),
				a.vectors.LambdaD)))
		} else {
			g.nodes.Expand(g.AddInplace(a.grads, g.FactoredGradient(part, layerU, *a.vectors, way)))
		}
		h := bindings.Product{In: a.vectors.LambdaB, Out: a.vectors.LambdaD, Way: way}
		switch {
		case !needed:
		case ad.sharesA:
			h.Acc = du
			du = g.LinearBack(a.vectors.B, part, h, bindings.F32)
		default:
			h.Into = g.columns(du, a.firstRank, a.rank)
			g.nodes.Expand(g.LinearBack(a.vectors.B, part, h, g.kind))
		}
	})
	return g.rounded(du)
}

// mask is the dropout mask of a group's input, nil without dropout. PEFT draws a mask for each layer; here the group
// shares one, as it shares A x.
func (g *graph) mask(gr *group) *bindings.Tensor {
	if p := g.m.adapter.Dropout; p > 0 && g.seed != 0 {
		return g.dropoutMask(gr.block, gr.index, gr.in, p)
	}
	return nil
}
