package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
)

// experts are the frozen matrices of a block's feed-forward, of which every row takes a few: in the order of importance that the router gives them.
type experts struct {
	router         *bindings.Tensor // [width, experts]
	gate, up, down *bindings.Tensor // [width, feed-forward length, experts] twice, [feed-forward length, width, experts]
}

// softMaxGate is llama.cpp's number of the softmax among the functions that make weights of a router's logits.
const softMaxGate = 1

// feedForward reads the shape of the feed-forward.
func (r *metadata) feedForward(c *Config) {
	const most = 1 << 22
	if !c.made.experts {
		c.hidden = r.each("feed_forward_length", *c, 0, most)
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
	return &experts{
		router: l.tensor(name("ffn_gate_inp.weight"), m.Width, m.Experts),
		gate:   l.tensor(name("ffn_gate_exps.weight"), m.Width, m.Hidden, m.Experts),
		up:     l.tensor(name("ffn_up_exps.weight"), m.Width, m.Hidden, m.Experts),
		down:   l.tensor(name("ffn_down_exps.weight"), m.Hidden, m.Width, m.Experts),
	}
}

// mixed is the feed-forward of experts: y [width, rows] is mid with what each row's experts give, by their weights.
//
//	y = mid + Σ w_e · down_e (act(gate_e n) ⊙ up_e n)    n = norm(mid)    w = softmax of the largest of router n
func (g *graph) mixed(b *block, mid *bindings.Tensor) (y, up, routes *bindings.Tensor) {
	e, x := b.experts, g.normed(mid, b.ffnNorm, bindings.F32)
	routes = g.Route(g.Linear(e.router, x, bindings.Product{Way: bindings.Alike}, bindings.F32), g.m.ExpertsUsed)
	if routes == nil {
		return nil, nil, nil
	}
	x = g.rounded(x)
	up = g.NewTensor(g.kind, int64(2*g.m.Hidden), g.Slots(routes)*routes.Ne(1))
	for i, w := range []*bindings.Tensor{e.gate, e.up} {
		g.nodes.Expand(g.EachExpert(w, x, bindings.Mixture{Routes: routes, Into: g.columns(up, i*g.m.Hidden, g.m.Hidden), Way: g.way}, g.kind))
	}
	return g.SumExperts(e.down, g.Weigh(g.activated(up), routes, g.kind), bindings.Mixture{Routes: routes, Acc: mid, Way: g.way}), up, routes
}

// mixedBack is the gradient of the experts' input, norm(mid), for the gradient dy of mixed's result: through the experts and through their weights.
func (g *graph) mixedBack(b *block, dy *bindings.Tensor, a acts) (dn *bindings.Tensor) {
	e, back := b.experts, bindings.Mixture{Routes: a.routes, Back: true}
	dhidden := g.EachExpert(e.down, g.rounded(dy), back, g.kind) // of w · hidden
	dlogits := g.RouteBack(dhidden, g.activated(a.up), a.routes, g.m.Experts)
	dup := g.activatedBack(g.Weigh(dhidden, a.routes, g.kind), a.up)
	dn = g.LinearBack(e.router, dlogits, bindings.Product{}, bindings.F32)
	for i, w := range []*bindings.Tensor{e.gate, e.up} {
		back.Acc = dn
		dn = g.SumExperts(w, g.columns(dup, i*g.m.Hidden, g.m.Hidden), back)
	}
	return dn
}
