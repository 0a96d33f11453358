package model

import "github.com/veratune/veratune/bindings"

// deltaEps is of the norm of q and k.
const deltaEps = 1e-6

// delta is what a gated delta net has beside its linear layers.
type delta struct {
	conv        *bindings.Tensor // [taps, q k v]
	decay, bias *bindings.Tensor // [value heads]
	norm        *bindings.Tensor // [numbers of a value head]
}

// delta loads that of a block.
func (l *loader) delta(name func(part string) string) *delta {
	h := l.m.Delta
	return &delta{
		conv:  l.numbers(name("ssm_conv1d.weight"), l.m.Taps, l.m.mixed()),
		decay: l.tensor(name("ssm_a"), h.Values),
		bias:  l.tensor(name("ssm_dt.bias"), h.Values),
		norm:  l.tensor(name("ssm_norm.weight"), h.DimV),
	}
}

// mixed is how many numbers q, k and v of a token are in a delta net, and read those of its result.
func (c *Config) mixed() int { return 2*c.Delta.Keys*c.Delta.DimK + c.read() }
func (c *Config) read() int  { return c.Delta.Values * c.Delta.DimV }

// deltaParts are q k v, what their result is gated by, and the projections a and b.
func (g *graph) deltaParts(x *bindings.Tensor) (qkv, z, a, b *bindings.Tensor) {
	mixed, read, n := g.m.mixed(), g.m.read(), g.m.Delta.Values
	return g.columns(x, 0, mixed), g.columns(x, mixed, read), g.columns(x, mixed+read, n), g.columns(x, mixed+read+n, n)
}

// takes is what the delta net takes of x, whose q k v are convolved, with what SiLU makes of that.
func (g *graph) takes(b *block, x, convolved *bindings.Tensor) bindings.Delta {
	_, _, alpha, beta := g.deltaParts(x)
	return bindings.Delta{QKV: g.Activate(convolved, bindings.SiLU, bindings.F32), A: alpha, B: beta,
		Decay: b.delta.decay, Bias: b.delta.bias}
}

// deltaNet is that of x [q k v, z, a, b; rows] before its gated norm, float32.
func (g *graph) deltaNet(b *block, x *bindings.Tensor, c *cached) *bindings.Tensor {
	qkv, _, _, _ := g.deltaParts(x)
	d := g.takes(b, x, g.convolved(qkv, b.delta.conv, c))
	if c != nil {
		return g.DeltaNetCached(d, c.states, c.rows, g.m.Delta, bindings.F32)
	}
	return g.DeltaNet(d, g.segments, g.m.Delta, bindings.F32)
}

// deltaNetBack is the gradient of x, as products take it, for the gradient dy of the gated norm of y, which deltaNet
// has made.
func (g *graph) deltaNetBack(b *block, dy, x, y *bindings.Tensor) *bindings.Tensor {
	qkv, z, _, _ := g.deltaParts(x)
	dy, dz := g.GatedNormBack(dy, y, z, b.delta.norm, g.m.NormEps, bindings.F32)
	convolved := g.convolved(qkv, b.delta.conv, nil)
	dqkv, dalpha, dbeta := g.DeltaNetBack(dy, g.takes(b, x, convolved), g.segments, g.m.Delta)
	dqkv = g.ConvolutionBack(g.ActivateBack(dqkv, convolved, bindings.SiLU, bindings.F32), b.delta.conv, g.segments)
	return g.rounded(g.beside(dqkv, dz, dalpha, dbeta))
}
