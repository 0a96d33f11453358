package model

import "github.com/veratune/veratune/bindings"

// acts holds what the backward pass of a block needs of its forward pass, besides the block's input x.
type acts struct {
	qkv, output, gateUp, down shared           // of the four groups of linear layers
	q, k                      *bindings.Tensor // after rope: [head dim, heads, tokens], [head dim, KV heads, tokens]
	v                         *bindings.Tensor // [head dim · KV heads, tokens]
	mid                       *bindings.Tensor // [width, tokens]: the residual stream between attention and feed-forward
	gate, up                  *bindings.Tensor // [feed-forward length, tokens]
}

// tensors lists all of them; those of layers that are not adapted are nil.
func (a *acts) tensors() []**bindings.Tensor {
	list := []**bindings.Tensor{&a.q, &a.k, &a.v, &a.mid, &a.gate, &a.up}
	for _, s := range []*shared{&a.qkv, &a.output, &a.gateUp, &a.down} {
		list = append(list, &s.u, &s.v[0], &s.v[1], &s.v[2])
	}
	return list
}

// forward computes a block: y [width, tokens] from x [width, tokens]. With a cache, the pack is one sample that continues it.
func (g *graph) forward(b *block, x *bindings.Tensor, c *cache) (y *bindings.Tensor, a acts) {
	qkv, s := g.linears(g.norm(x, b.attnNorm), 0, b.groups[0])
	a.qkv = s
	a.q = g.Rope(g.heads(qkv[0], g.m.Heads), g.pos, g.m.ropeFactors, g.m.Rope)
	a.k = g.Rope(g.heads(qkv[1], g.m.KVHeads), g.pos, g.m.ropeFactors, g.m.Rope)
	a.v = qkv[2]
	out, s := g.linears(g.flat(g.attention(a.q, a.k, g.heads(a.v, g.m.KVHeads), c)), 1, b.groups[1])
	a.output = s
	a.mid = g.Add(x, out[0])

	gateUp, s := g.linears(g.norm(a.mid, b.ffnNorm), 2, b.groups[2])
	a.gateUp, a.gate, a.up = s, gateUp[0], gateUp[1]
	down, s := g.linears(g.Mul(g.Silu(a.gate), a.up), 3, b.groups[3])
	a.down = s
	return g.Add(a.mid, down[0]), a
}

// backward adds the gradients of the block's vectors and gives that of its input x for the gradient dy of its result; nil where needInput is
// false.
func (g *graph) backward(b *block, dy, x *bindings.Tensor, a acts, needInput bool) (dx *bindings.Tensor) {
	hidden := g.linearsBack([3]*bindings.Tensor{dy}, a.down, 3, b.groups[3], true)
	gateUp := [3]*bindings.Tensor{g.SiluBack(g.Mul(hidden, a.up), a.gate), g.Mul(hidden, g.Silu(a.gate))}
	dn := g.linearsBack(gateUp, a.gateUp, 2, b.groups[2], true)
	dmid := g.Add(dy, g.normBack(dn, a.mid, b.ffnNorm))

	datt := g.linearsBack([3]*bindings.Tensor{dmid}, a.output, 1, b.groups[1], true)
	dq, dk, dv := g.attentionBack(g.heads(datt, g.m.Heads), a.q, a.k, g.heads(a.v, g.m.KVHeads))
	qkv := [3]*bindings.Tensor{
		g.flat(g.RopeBack(dq, g.pos, g.m.ropeFactors, g.m.Rope)),
		g.flat(g.RopeBack(dk, g.pos, g.m.ropeFactors, g.m.Rope)),
		g.flat(dv),
	}
	dn = g.linearsBack(qkv, a.qkv, 0, b.groups[0], needInput)
	if !needInput {
		return nil
	}
	return g.Add(dmid, g.normBack(dn, x, b.attnNorm))
}
