package model

import "github.com/veratune/veratune/bindings"

// deltaEps is the epsilon of the norms of q and k.
const deltaEps = 1e-6

// delta is a gated delta net, without its linear layers.
type delta struct {
	conv        *bindings.Tensor // [taps, q k v]
	decay, bias *bindings.Tensor // [value heads]
	norm        *bindings.Tensor // [numbers of a value head]
}

// delta loads a block's delta net.
func (l *loader) delta(name func(part string) string) *delta {
	h := l.m.Delta
	return &delta{
		conv:  l.f32Tensor(name("ssm_conv1d.weight"), l.m.Taps, l.m.deltaQKV()),
		decay: l.tensor(name("ssm_a"), h.Values),
		bias:  l.tensor(name("ssm_dt.bias"), h.Values),
		norm:  l.tensor(name("ssm_norm.weight"), h.DimV),
	}
}

// deltaQKV is the length of a token's q, k and v in a delta net, deltaOut that of its result.
func (c *Config) deltaQKV() int { return 2*c.Delta.Keys*c.Delta.DimK + c.deltaOut() }
func (c *Config) deltaOut() int { return c.Delta.Values * c.Delta.DimV }

// deltaParts views the parts of x: q k v, the gate z of their result, and the projections a and b.
func (g *graph) deltaParts(x *bindings.Tensor) (qkv, z, a, b *bindings.Tensor) {
	mixed, read, n := g.m.deltaQKV(), g.m.deltaOut(), g.m.Delta.Values
	return g.columns(x, 0, mixed), g.columns(x, mixed, read), g.columns(x, mixed+read, n), g.columns(x, mixed+read+n, n)
}

// deltaInputs are the operands of the delta net, for x and its convolved q k v.
func (g *graph) deltaInputs(b *block, x, convolved *bindings.Tensor) bindings.Delta {
	_, _, alpha, beta := g.deltaParts(x)
	return bindings.Delta{QKV: g.Activate(convolved, bindings.SiLU, bindings.F32), A: alpha, B: beta,
		Decay: b.delta.decay, Bias: b.delta.bias}
}

// deltaNet is the delta net of x [q k v, z, a, b; rows] before its gated norm, float32.
func (g *graph) deltaNet(b *block, x *bindings.Tensor, c *cached) *bindings.Tensor {
	qkv, _, _, _ := g.deltaParts(x)
	d := g.deltaInputs(b, x, g.convolved(qkv, b.delta.conv, c))
	if c != nil {
		y, kept := g.DeltaNetCached(d, c.states, c.places, g.m.Delta, bindings.F32)
		g.nodes.Expand(kept)
		return y
	}
	return g.DeltaNet(d, g.segments, g.m.Delta, bindings.F32)
}

// deltaNetBack is the gradient of x, as products take it, for the gradient dy of the gated norm of y, deltaNet's
// result.
func (g *graph) deltaNetBack(b *block, dy, x, y *bindings.Tensor) *bindings.Tensor {
	qkv, z, _, _ := g.deltaParts(x)
	dy, dz := g.GatedNormBack(dy, y, z, b.delta.norm, g.m.NormEps, bindings.F32)
	convolved := g.convolved(qkv, b.delta.conv, nil)
	dqkv, dalpha, dbeta := g.DeltaNetBack(dy, g.deltaInputs(b, x, convolved), g.segments, g.m.Delta)
	dqkv = g.ConvolutionBack(g.ActivateBack(dqkv, convolved, bindings.SiLU, bindings.F32), b.delta.conv, g.segments)
	return g.rounded(g.concatColumns(dqkv, dz, dalpha, dbeta))
}
