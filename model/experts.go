package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
)

// experts are the frozen matrices of a block's feed-forward, of which every row takes a few: in the order of importance
// that the router gives them.
type experts struct {
	router *bindings.Tensor // [width, experts]
	// [width, feed-forward length, experts] twice, [feed-forward length, width, experts]
	gate, up, down *bindings.Tensor

	// [experts], [feed-forward length, experts] twice, [width, experts]; nil where there are none.
	routerBias, gateBias, upBias, downBias *bindings.Tensor
}

// llama.cpp's numbers of the softmax of all logits, and of that of the chosen ones, among the functions that make
// weights of a router's logits. Divided by the sum of those chosen, as they are here, the first are the second.
const softMaxGate, softMaxChosenGate = 1, 3

// feedForward reads the shape of the feed-forward.
func (r *metadata) feedForward(c *Config) {
	const most = 1 << 22
	if !c.arch.experts {
		c.hidden = r.perBlock("feed_forward_length", *c, 0, 1, most)
		c.Hidden = slices.Max(c.hidden)
		return
	}
	c.Experts = r.count("expert_count", 1, 1<<12)
	c.ExpertsUsed = r.count("expert_used_count", 1, c.Experts)
	if r.err != nil {
		return
	}
	if length := r.optional("expert_feed_forward_length", 0); length == 0 {
		c.Hidden = r.count("feed_forward_length", c.ExpertsUsed, most) / c.ExpertsUsed
	} else {
		c.Hidden = r.count("expert_feed_forward_length", 1, most)
	}
}

// experts loads those of the block whose parts have these names.
func (l *loader) experts(name func(part string) string) *experts {
	m := l.m
	e := &experts{
		router: l.tensor(name("ffn_gate_inp.weight"), m.Width, m.Experts),
		gate:   l.tensor(name("ffn_gate_exps.weight"), m.Width, m.Hidden, m.Experts),
		up:     l.tensor(name("ffn_up_exps.weight"), m.Width, m.Hidden, m.Experts),
		down:   l.tensor(name("ffn_down_exps.weight"), m.Hidden, m.Width, m.Experts),
	}
	if !m.arch.expertBiases {
		return e
	}
	bias := func(part string, out int) *bindings.Tensor { return l.tensor(name(part+".bias"), out, m.Experts) }
	e.routerBias = l.tensor(name("ffn_gate_inp.bias"), m.Experts)
	e.gateBias, e.upBias, e.downBias = bias("ffn_gate_exps", m.Hidden), bias("ffn_up_exps", m.Hidden),
		bias("ffn_down_exps", m.Width)
	return e
}

// mixed is the feed-forward of experts: y [width, rows] is mid with what each row's experts give, by their weights.
//
//	y = mid + Σ w_e · down_e (act(gate_e n) ⊙ up_e n)    n = norm(mid)    w = softmax of the largest of router n
//
// Each of the four matrices may have a bias, which is added to its product. It is a matrix that meets a 1.
func (g *graph) mixed(b *block, mid *bindings.Tensor) (y, up, routes *bindings.Tensor) {
	e, x := b.experts, g.normed(mid, b.ffnNorm, bindings.F32)
	logits := g.Linear(e.router, x, bindings.Product{Way: bindings.Alike}, bindings.F32)
	if e.routerBias != nil {
		logits = g.Add(logits, e.routerBias)
	}
	routes = g.Route(logits, g.m.ExpertsUsed)
	if routes == nil {
		return nil, nil, nil
	}
	x = g.rounded(x)
	up = g.NewTensor(g.kind, int64(2*g.m.Hidden), g.Slots(routes)*routes.Ne(1))
	biases := []*bindings.Tensor{e.gateBias, e.upBias}
	for i, w := range []*bindings.Tensor{e.gate, e.up} {
		part := g.columns(up, i*g.m.Hidden, g.m.Hidden)
		g.nodes.Expand(g.EachExpert(w, x, bindings.Mixture{Routes: routes, Into: part, Way: g.way}, g.kind))
		if biases[i] != nil {
			g.nodes.Expand(g.AddInplace(part, g.EachExpert(g.asMatrices(biases[i]), g.ones(routes.Ne(1), g.kind),
				bindings.Mixture{Routes: routes, Way: g.way}, g.kind)))
		}
	}
	y = g.SumExperts(e.down, g.Weigh(g.activated(up), routes, g.kind), bindings.Mixture{Routes: routes, Acc: mid,
		Way: g.way})
	if e.downBias != nil {
		y = g.SumExperts(g.asMatrices(e.downBias), g.Weigh(g.ones(up.Ne(1), g.kind), routes, g.kind),
			bindings.Mixture{Routes: routes, Acc: y, Way: g.way})
	}
	return y, up, routes
}

// mixedBack is the gradient of the experts' input, norm(mid), for the gradient dy of mixed's result: through the
// experts and through their weights.
func (g *graph) mixedBack(b *block, dy *bindings.Tensor, a acts) (dn *bindings.Tensor) {
	e, back := b.experts, bindings.Mixture{Routes: a.routes, Back: true}
	dhidden := g.EachExpert(e.down, g.rounded(dy), back, g.kind) // of w · hidden
	dlogits := g.RouteBack(dhidden, g.activated(a.up), a.routes, g.m.Experts)
	if e.downBias != nil {
		ones := g.ones(a.up.Ne(1), g.kind)
		dlogits = g.Add(dlogits, g.RouteBack(g.EachExpert(g.asMatrices(e.downBias), g.rounded(dy), back, g.kind), ones,
			a.routes, g.m.Experts))
	}
	dup := g.activatedBack(g.Weigh(dhidden, a.routes, g.kind), a.up)
	dn = g.LinearBack(e.router, dlogits, bindings.Product{}, bindings.F32)
	for i, w := range []*bindings.Tensor{e.gate, e.up} {
		back.Acc = dn
		dn = g.SumExperts(w, g.columns(dup, i*g.m.Hidden, g.m.Hidden), back)
	}
	return dn
}

// asMatrices views the experts' biases [n, experts] as matrices [1, n, experts], which multiply a 1 in every row.
func (g *graph) asMatrices(biases *bindings.Tensor) *bindings.Tensor {
	n, experts := biases.Ne(0), biases.Ne(1)
	if biases.Type() != bindings.F32 {
		all := make([]int32, experts)
		for i := range all {
			all[i] = int32(i)
		}
		biases = g.GetRows(biases, input(g, all, experts))
	}
	return g.Reshape(biases, 1, n, experts)
}

// ones is a 1 for each of n rows, as products take it.
func (g *graph) ones(n int64, t bindings.Type) *bindings.Tensor {
	return g.as(input(g, slices.Repeat([]float32{1}, int(n)), 1, n), t)
}
