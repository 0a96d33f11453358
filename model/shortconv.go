package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// kvHeads reads the number of key and value heads. Blocks that have none have a short convolution, of as many tokens as its key says.
func (r *metadata) kvHeads(c *Config) {
	const key = "attention.head_count_kv"
	if !c.made.shortConv {
		c.KVHeads = r.optional(key, c.Heads)
		return
	}
	const most = 16 // rows that are summed
	c.Taps = r.count("shortconv.l_cache", 2, most)
	list, ok := r.g.Uints(r.key(key))
	if !ok || len(list) != c.Blocks {
		if r.err == nil {
			r.err = fmt.Errorf("%s is %v: a number for each of %d blocks is needed, 0 where it has a short convolution", r.key(key), r.g.Value(r.key(key)), c.Blocks)
		}
		return
	}
	c.conv, c.KVHeads = make([]bool, c.Blocks), 0
	for i, n := range list {
		switch {
		case n == 0:
			c.conv[i] = true
		case c.KVHeads == 0 && n <= uint64(c.Heads):
			c.KVHeads = int(n)
		case n != uint64(c.KVHeads):
			r.fail(key, list)
		}
	}
	if c.KVHeads == 0 { // no block has attention
		c.KVHeads = c.Heads
	}
}

// recurrent tells whether blocks keep a state of a text, which cannot go back to what it was some tokens before.
func (m *Model) recurrent() bool { return m.conv != nil }

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
