package model

import "github.com/veratune/veratune/bindings"

// acts holds what a block's backward pass needs of its forward pass, besides the block's input x.
type acts struct {
	raw *bindings.Tensor // [head dim · (heads + 2 · KV heads), rows]: before norms of q and k; nil without such norms
	// The same shape, q and k rotated. Of a short convolution: its two gates and input, [3 · width, rows]. Of a delta
	// net: what deltaParts separates.
	qkv *bindings.Tensor
	// [head dim · heads, rows]: attention's result, behind its gates if it has some; or that of its substitute.
	att *bindings.Tensor
	mid *bindings.Tensor // [width, rows]: the residual stream between attention and feed-forward
	// [feed-forward length, rows] before the activation, twice that with a gate; of experts, of each that a row chose.
	up *bindings.Tensor

	routes *bindings.Tensor // chosen experts and their weights; nil where the feed-forward is dense
	// [width, rows]: results of attention, feed-forward and block embedding before their norms; nil without norms.
	outs [3]*bindings.Tensor
	// [2 · embedding length, rows]: gate of the block's embedding, then the embedding; nil without one.
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
		in = g.withKind(g.m.kindOf(b.groups[0]))
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
		qkv, gate := g.splitGates(b, g.copyKeys(b, qkv))
		if b.qkNorms.Q != nil {
			a.raw = g.first.into(qkv, first.raw)
			qkv = g.normHeads(b, a.raw)
		}
		a.qkv = g.first.into(g.takeShared(b, g.rotate(b, qkv, false, bindings.F32)), first.qkv)
		if b.sharesKV {
			g.share(b.groups[0].block, g.keysValues(b, a.qkv))
		}
		a.att = g.joinGates(gate, g.attention(b, a.qkv, c))
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

// backward adds the gradients of the block's vectors. For the gradient dy of the block's result it gives that of the
// input x, or nil where needInput is false.
func (g *graph) backward(b *block, dy, x *bindings.Tensor, a acts, needInput bool) (dx *bindings.Tensor) {
	g = g.withKind(g.m.backKind())
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
		datt, dgate := g.joinGatesBack(datt, a.att)
		dqkv = g.sharedBack(b, g.attentionBack(b, datt, a.qkv))
		if b.qkNorms.Q != nil {
			dqkv = g.copyKeysBack(b, g.normHeadsBack(b, g.rotate(b, dqkv, true, bindings.F32), a.raw, t))
		} else {
			dqkv = g.rotate(b, dqkv, true, t)
		}
		dqkv = g.splitGatesBack(b, dqkv, dgate)
	}
	dn = g.linearsBack(dqkv, g.norm(x, b.attnNorm), a.u[0], b.groups[0], needInput)
	if !needInput {
		return nil
	}
	return g.normBack(dn, x, b.attnNorm, dmid)
}

// attended is the input of the output layer, as products take it.
func (g *graph) attended(b *block, a acts) *bindings.Tensor {
	switch {
	case b.mixer == deltaNet:
		_, z, _, _ := g.deltaParts(a.qkv)
		return g.GatedNorm(a.att, z, b.delta.norm, g.m.NormEps, g.kind)
	case g.m.arch.gatedAttention:
		return g.Gated(a.att, bindings.Sigmoid, g.kind)
	}
	return a.att
}

// norm is x [width, rows] normed, as products take it; x itself where there is no norm.
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

// normBack is acc, which may be nil, plus the gradient of x for the gradient dn of its norm.
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

// rotate rotates the queries and keys of qkv by their positions, or back. In a block without rotation it only converts.
func (g *graph) rotate(b *block, qkv *bindings.Tensor, back bool, t bindings.Type) *bindings.Tensor {
	if b.nope {
		return g.as(qkv, t)
	}
	if back {
		g.applyTemperature(b, qkv)
	}
	y := g.Rotate(qkv, g.rotations[b.rotation], g.madeHeads(b), b.headDim, g.m.arch.pairs, back, t)
	if !back {
		g.applyTemperature(b, y)
	}
	return y
}

// applyTemperature multiplies the queries of qkv, float32, or their gradients by the temperature at their positions, in
// place.
func (g *graph) applyTemperature(b *block, qkv *bindings.Tensor) {
	if g.temperature != nil && qkv != nil {
		g.nodes.Expand(g.MulInplace(g.columns(qkv, 0, g.queries(b)), g.temperature))
	}
}

// added is the residual stream x plus the group's result, which is normed where n is a norm, and scaled. out is the
// norm's input; `first` replaces its first tokens.
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

// addedBack is the gradient of the group's result, as products take it, for the gradient dy of added's result.
func (g *graph) addedBack(dy, out *bindings.Tensor, n norm) *bindings.Tensor {
	return g.rounded(g.normBack(g.scaled(dy, g.m.scale.added), out, n, nil))
}

// activated is the input of the feed-forward's last group, for the results of the one before.
func (g *graph) activated(up *bindings.Tensor) *bindings.Tensor {
	if g.m.arch.ungated {
		return g.Activate(up, g.m.arch.act, g.kind)
	}
	return g.Gated(up, g.m.arch.act, g.kind)
}

func (g *graph) activatedBack(dy, up *bindings.Tensor) *bindings.Tensor {
	if g.m.arch.ungated {
		return g.ActivateBack(dy, up, g.m.arch.act, g.kind)
	}
	return g.GatedBack(dy, up, g.m.arch.act, g.kind)
}
