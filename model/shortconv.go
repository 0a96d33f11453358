package model

import "github.com/veratune/veratune/bindings"

// gates views the two gates of a short convolution and its input, [width, rows] each, in bcx [3 · width, rows].
func (g *graph) gates(bcx *bindings.Tensor) (in, out, x *bindings.Tensor) {
	w := g.m.Width
	return g.columns(bcx, 0, w), g.columns(bcx, w, w), g.columns(bcx, 2*w, w)
}

// shortConv is out ⊙ convolution(in ⊙ x), [width, rows] as products take it.
func (g *graph) shortConv(b *block, bcx *bindings.Tensor, c *cached) *bindings.Tensor {
	in, out, x := g.gates(bcx)
	return g.rounded(g.Mul(out, g.convolved(g.Mul(in, x), b.conv, c)))
}

// convolved is the causal convolution of x by w, float32. With a cache, rows continue its texts.
func (g *graph) convolved(x, w *bindings.Tensor, c *cached) *bindings.Tensor {
	if c != nil {
		y, kept := g.ConvolutionCached(x, w, c.last, c.places, bindings.F32)
		g.nodes.Expand(kept)
		return y
	}
	return g.Convolution(x, w, g.segments, bindings.F32)
}

// shortConvBack is the gradient of bcx, as products take it, for the gradient dy of shortConv's result.
func (g *graph) shortConvBack(b *block, dy, bcx *bindings.Tensor) *bindings.Tensor {
	in, out, x := g.gates(bcx)
	dgated := g.ConvolutionBack(g.Mul(out, dy), b.conv, g.segments)
	return g.rounded(g.concatColumns(g.Mul(x, dgated), g.Mul(dy, g.convolved(g.Mul(in, x), b.conv, nil)),
		g.Mul(in, dgated)))
}
