package model

import "github.com/veratune/veratune/bindings"

// acts holds what the backward pass of a block needs of its forward pass, besides the block's input x.
type acts struct {
	raw *bindings.Tensor // [head dim · (heads + 2 · KV heads), rows], before norms of q and k; nil where there are none
	// of the same shape, q and k rotated; of a short convolution [3 · width, rows], its two gates and what it takes; of
	// a delta net what deltaParts takes apart
	qkv *bindings.Tensor
	// [head dim · heads, rows]: attention's result, behind its gate where it has one; or that of a short convolution or
	// a delta net
	att *bindings.Tensor
	mid *bindings.Tensor // [width, rows]: the residual stream between attention and feed-forward
	// [feed-forward length, rows] before its activation, with a gate [2 · feed-forward length, rows]; of experts, of
	// each that a row chose
	up *bindings.Tensor

	routes *bindings.Tensor // those and their weights; nil where the feed-forward is dense
	// [width, rows]: what attention, feed-forward and the block's embedding give, before norms; nil where there are
	// none
	outs [3]*bindings.Tensor
	// [2 · embedding's length, rows]: the gate of the block's embedding, and that; nil where there is none
	gates *bindings.Tensor
	u     [4]*bindings.Tensor // A x of each group that is adapted and not merged
}

// tensors lists all of them.
func (a *acts) tensors() []**bindings.Tensor {
	return []**bindings.Tensor{&a.raw, &a.qkv, &a.att, &a.mid, &a.up, &a.routes, &a.outs[0], &a.outs[1], &a.outs[2],
		&a.gates, &a.u[0], &a.u[1], &a.u[2], &a.u[3]}
}

// forward computes a block: y [width, rows] from x [width, rows]. With a cache, the rows continue its texts.
func (g *graph) forward(b *block, x *bindings.Tensor, c *cached) (y *bindings.Tensor, a acts) {
	y0, first := g.first.forward(b, x)
	in := g
	if g.kind != bindings.F32 {
		in = g.in(g.m.kindOf(b.groups[0]))
	}
	qkv, u := in.linears(in.norm(x, b.attnNorm), b.groups[0], nil, bindings.F32)
	a.u[0] = u
	switch b.mixer {
	case shortConvolution:
		a.qkv = g.first.into(qkv, first.qkv)
		a.att = g.shortConv(b, a.qkv, c)
	case deltaNet:
		a.qkv = g.first.into(qkv, first.qkv)
		a.att = g.deltaNet(b, a.qkv, c)
	default:
		qkv, gate := g.ungated(b, g.copyKeys(b, qkv))
		if b.qkNorms.Q != nil {
			a.raw = g.first.into(qkv, first.raw)
			qkv = g.normHeads(b, a.raw)
		}
		a.qkv = g.first.into(g.takeShared(b, g.rotate(b, qkv, false, bindings.F32)), first.qkv)
		if b.gives {
			g.share(b.groups[0].block, g.keysValues(b, a.qkv))
		}
		a.att = g.gatedBy(gate, g.attention(b, a.qkv, c))
	}
	a.mid, a.outs[0], a.u[1] = g.added(g.attended(b, a), b.groups[1], b.attnAfter, x, first.outs[0])
	a.mid = g.first.into(a.mid, first.mid)

	if b.experts != nil {
		y, a.up, a.routes = g.mixed(b, a.mid)
		return g.first.into(y, y0), a
	}
	a.up, a.u[2] = g.linears(g.norm(a.mid, b.ffnNorm), b.groups[2], nil, g.kind)
	y, a.outs[1], a.u[3] = g.added(g.activated(a.up), b.groups[3], b.ffnAfter, a.mid, first.outs[1])
	if b.embedding != nil {
		y, a.gates, a.outs[2] = g.embeddingAdded(b, y, first)
	}
	return g.first.into(g.scaled(y, b.scale), y0), a
}

// backward adds the gradients of the block's vectors and gives that of its input x for the gradient dy of its result;
// nil where needInput is false.
func (g *graph) backward(b *block, dy, x *bindings.Tensor, a acts, needInput bool) (dx *bindings.Tensor) {
	g = g.in(g.m.backKind())
	t := g.kind
	dy = g.scaled(dy, b.scale)
	if b.embedding != nil {
		dy = g.embeddingBack(b, dy, a)
	}
	var dn *bindings.Tensor
	if b.experts != nil {
		dn = g.mixedBack(b, dy, a)
	} else {
		dhidden := g.linearsBack(g.addedBack(dy, a.outs[1], b.ffnAfter), g.activated(a.up), a.u[3], b.groups[3], true)
		dn = g.linearsBack(g.activatedBack(dhidden, a.up), g.norm(a.mid, b.ffnNorm), a.u[2], b.groups[2], true)
	}
	dmid := g.normBack(dn, a.mid, b.ffnNorm, dy)

	datt := g.linearsBack(g.addedBack(dmid, a.outs[0], b.attnAfter), g.attended(b, a), a.u[1], b.groups[1], true)
	var dqkv *bindings.Tensor
	switch b.mixer {
	case shortConvolution:
		dqkv = g.shortConvBack(b, datt, a.qkv)
	case deltaNet:
		dqkv = g.deltaNetBack(b, datt, a.qkv, a.att)
	default:
		datt, dgate := g.gatedByBack(datt, a.att)
		dqkv = g.sharedBack(b, g.attentionBack(b, datt, a.qkv))
		if b.qkNorms.Q != nil {
			dqkv = g.copyKeysBack(b, g.normHeadsBack(b, g.rotate(b, dqkv, true, bindings.F32), a.raw, t))
		} else {
			dqkv = g.rotate(b, dqkv, true, t)
		}
		dqkv = g.ungatedBack(b, dqkv, dgate)
	}
	dn = g.linearsBack(dqkv, g.norm(x, b.attnNorm), a.u[0], b.groups[0], needInput)
	if !needInput {
		return nil
	}
	return g.normBack(dn, x, b.attnNorm, dmid)
}

// attended is what the output's group takes, as products do, for what is kept of attention or of what stands in its
// place.
func (g *graph) attended(b *block, a acts) *bindings.Tensor {
	switch {
	case b.mixer == deltaNet:
		_, z, _, _ := g.deltaParts(a.qkv)
		return g.GatedNorm(a.att, z, b.delta.norm, g.m.NormEps, g.kind)
	case g.m.made.gated:
		return g.Gated(a.att, bindings.Sigmoid, g.kind)
	}
	return a.att
}

// norm is x [width, rows] normed as products take it, or as it is where there is no norm.
func (g *graph) norm(x *bindings.Tensor, n norm) *bindings.Tensor { return g.normed(x, n, g.kind) }

func (g *graph) normed(x *bindings.Tensor, n norm, t bindings.Type) *bindings.Tensor {
	switch {
	case n.weight == nil:
		return g.as(x, t)
	case n.bias != nil:
		return g.LayerNorm(x, n.weight, n.bias, g.m.NormEps, t)
	}
	return g.Norm(x, n.weight, g.m.NormEps, t)
}

// normBack is acc, which may be nil, and the gradient of x for the gradient dn of its norm.
func (g *graph) normBack(dn, x *bindings.Tensor, n norm, acc *bindings.Tensor) *bindings.Tensor {
	switch {
	case n.weight == nil && acc == nil:
		return dn
	case n.weight == nil:
		return g.Add(dn, acc)
	case n.bias != nil:
		return g.LayerNormBack(dn, x, n.weight, g.m.NormEps, acc)
	}
	return g.NormBack(dn, x, n.weight, g.m.NormEps, acc)
}

// rotate turns the queries and keys of qkv by their positions, or back, where the block does so.
func (g *graph) rotate(b *block, qkv *bindings.Tensor, back bool, t bindings.Type) *bindings.Tensor {
	if b.straight {
		return g.as(qkv, t)
	}
	if back {
		g.warm(b, qkv)
	}
	y := g.Rotate(qkv, g.rotations[b.rotation], g.made(b), b.headDim, g.m.made.pairs, back, t)
	if !back {
		g.warm(b, y)
	}
	return y
}

// warm multiplies the queries of qkv, float32, or their gradients by what their scores grow by at their positions, in
// place.
func (g *graph) warm(b *block, qkv *bindings.Tensor) {
	if g.warmth != nil && qkv != nil {
		g.nodes.Expand(g.MulInplace(g.columns(qkv, 0, g.queries(b)), g.warmth))
	}
}

// added is the residual stream x and what a group makes of its input, normed where n is a norm, and scaled. out is what
// the norm takes, its first tokens being first.
func (g *graph) added(input *bindings.Tensor, gr *group, n norm, x, first *bindings.Tensor) (y, out,
	u *bindings.Tensor) {
	if n.weight == nil && g.m.scale.added == 1 {
		y, u = g.linears(input, gr, x, bindings.F32)
		return y, nil, u
	}
	y, u = g.linears(input, gr, nil, bindings.F32)
	if n.weight != nil {
		out = g.first.into(y, first)
		y = g.normed(out, n, bindings.F32)
	}
	return g.Add(g.scaled(y, g.m.scale.added), x), out, u
}

// addedBack is the gradient of what the group makes, as products take it, for the gradient dy of added's result.
func (g *graph) addedBack(dy, out *bindings.Tensor, n norm) *bindings.Tensor {
	return g.rounded(g.normBack(g.scaled(dy, g.m.scale.added), out, n, nil))
}

// activated is what the feed-forward's last group takes, for the results of the one before it.
func (g *graph) activated(up *bindings.Tensor) *bindings.Tensor {
	if g.m.made.plain {
		return g.Activate(up, g.m.made.act, g.kind)
	}
	return g.Gated(up, g.m.made.act, g.kind)
}

func (g *graph) activatedBack(dy, up *bindings.Tensor) *bindings.Tensor {
	if g.m.made.plain {
		return g.ActivateBack(dy, up, g.m.made.act, g.kind)
	}
	return g.GatedBack(dy, up, g.m.made.act, g.kind)
}
