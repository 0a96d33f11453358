package model

import "github.com/veratune/veratune/bindings"

// gates are the two gates of a short convolution and what it takes, [width, rows] each, of bcx [3 · width, rows].
func (g *graph) gates(bcx *bindings.Tensor) (in, out, x *bindings.Tensor) {
	w := g.m.Width
	return g.columns(bcx, 0, w), g.columns(bcx, w, w), g.columns(bcx, 2*w, w)
}

// shortConv is out ⊙ convolution(in ⊙ x), [width, rows] as products take it.
func (g *graph) shortConv(b *block, bcx *bindings.Tensor, c *cached) *bindings.Tensor {
	in, out, x := g.gates(bcx)
	x = g.Mul(in, x)
	if c != nil {
		x = g.ConvolutionCached(x, b.conv, c.last, c.rows, bindings.F32)
	} else {
		x = g.Convolution(x, b.conv, g.segments, bindings.F32)
	}
	return g.rounded(g.Mul(out, x))
}

// shortConvBack is the gradient of bcx, as products take it, for the gradient dy of shortConv's result.
func (g *graph) shortConvBack(b *block, dy, bcx *bindings.Tensor) *bindings.Tensor {
	in, out, x := g.gates(bcx)
	dgated := g.ConvolutionBack(g.Mul(out, dy), b.conv, g.segments)
	dbcx := g.NewTensor(bindings.F32, 3*int64(g.m.Width), dy.Ne(1))
	din, dout, dx := g.gates(dbcx)
	g.nodes.Expand(g.Cpy(g.Mul(x, dgated), din))
	g.nodes.Expand(g.Cpy(g.Mul(dy, g.Convolution(g.Mul(in, x), b.conv, g.segments, bindings.F32)), dout))
	g.nodes.Expand(g.Cpy(g.Mul(in, dgated), dx))
	return g.rounded(dbcx)
}
