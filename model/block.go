package model

import "github.com/veratune/veratune/bindings"

// acts holds what the backward pass of a block needs of its forward pass, besides the block's input x.
type acts struct {
	raw    *bindings.Tensor    // [head dim · (heads + 2 · KV heads), rows], before norms of heads; nil where there are none
	qkv    *bindings.Tensor    // of the same shape, q and k rotated
	att    *bindings.Tensor    // [head dim · heads, rows]: attention's result
	mid    *bindings.Tensor    // [width, rows]: the residual stream between attention and feed-forward
	gateUp *bindings.Tensor    // [2 · feed-forward length, rows]
	u      [4]*bindings.Tensor // A x of each group that is adapted and not merged
}

// tensors lists all of them.
func (a *acts) tensors() []**bindings.Tensor {
	return []**bindings.Tensor{&a.raw, &a.qkv, &a.att, &a.mid, &a.gateUp, &a.u[0], &a.u[1], &a.u[2], &a.u[3]}
}

// forward computes a block: y [width, rows] from x [width, rows]. With a cache, the rows continue its texts.
func (g *graph) forward(b *block, x *bindings.Tensor, c *cached) (y *bindings.Tensor, a acts) {
	y0, first := g.first.forward(b, x)
	qkv, u := g.linears(g.norm(x, b.attnNorm), b.groups[0], nil, bindings.F32)
	a.u[0] = u
	if g.m.made.headNorms {
		a.raw = g.first.into(qkv, first.raw)
		qkv = g.NormHeads(a.raw, b.headNorms, g.m.Heads, g.m.KVHeads, g.m.NormEps, bindings.F32)
	}
	a.qkv = g.first.into(g.rotate(b, qkv, false, bindings.F32), first.qkv)
	a.att = g.attention(a.qkv, c)
	a.mid, a.u[1] = g.added(a.att, b.groups[1], x)
	a.mid = g.first.into(a.mid, first.mid)

	a.gateUp, a.u[2] = g.linears(g.norm(a.mid, b.ffnNorm), b.groups[2], nil, g.kind)
	y, a.u[3] = g.added(g.Gated(a.gateUp, bindings.SiLU, g.kind), b.groups[3], a.mid)
	return g.first.into(y, y0), a
}

// backward adds the gradients of the block's vectors and gives that of its input x for the gradient dy of its result; nil where needInput is
// false.
func (g *graph) backward(b *block, dy, x *bindings.Tensor, a acts, needInput bool) (dx *bindings.Tensor) {
	t := g.kind
	dhidden := g.linearsBack(g.addedBack(dy), g.Gated(a.gateUp, bindings.SiLU, t), a.u[3], b.groups[3], true)
	dn := g.linearsBack(g.GatedBack(dhidden, a.gateUp, bindings.SiLU, t), g.norm(a.mid, b.ffnNorm), a.u[2], b.groups[2], true)
	dmid := g.NormBack(dn, a.mid, b.ffnNorm, g.m.NormEps, dy)

	datt := g.linearsBack(g.addedBack(dmid), a.att, a.u[1], b.groups[1], true)
	dqkv := g.attentionBack(datt, a.qkv)
	if g.m.made.headNorms {
		dqkv = g.NormHeadsBack(g.rotate(b, dqkv, true, bindings.F32), a.raw, b.headNorms, g.m.Heads, g.m.KVHeads, g.m.NormEps, t)
	} else {
		dqkv = g.rotate(b, dqkv, true, t)
	}
	dn = g.linearsBack(dqkv, g.norm(x, b.attnNorm), a.u[0], b.groups[0], needInput)
	if !needInput {
		return nil
	}
	return g.NormBack(dn, x, b.attnNorm, g.m.NormEps, dmid)
}

// rotate turns the queries and keys of qkv by their positions, or back, where the block does so.
func (g *graph) rotate(b *block, qkv *bindings.Tensor, back bool, t bindings.Type) *bindings.Tensor {
	if b.straight {
		return g.as(qkv, t)
	}
	return g.Rotate(qkv, g.rotation, g.m.Heads+g.m.KVHeads, g.m.HeadDim, g.m.made.pairs, back, t)
}

// added is the residual stream x and, scaled, what a group makes of its input.
func (g *graph) added(input *bindings.Tensor, gr *group, x *bindings.Tensor) (y, u *bindings.Tensor) {
	if g.m.scale.added == 1 {
		return g.linears(input, gr, x, bindings.F32)
	}
	y, u = g.linears(input, gr, nil, bindings.F32)
	return g.Add(g.scaled(y, g.m.scale.added), x), u
}

// addedBack is the gradient of what the group makes, as products take it, for the gradient dy of added's result.
func (g *graph) addedBack(dy *bindings.Tensor) *bindings.Tensor {
	return g.rounded(g.scaled(dy, g.m.scale.added))
}
