package model

import (
	"math"

	"github.com/veratune/veratune/bindings"
)

func (m *Model) attentionScale() float32 { return float32(1 / math.Sqrt(float64(m.HeadDim))) }

// cache is where generation finds the keys and values of earlier tokens, [head dim, KV heads, context], and how many there are.
type cache struct {
	k, v *bindings.Tensor
	past int
}

// attention is the causal attention of qkv [head dim · (heads + 2 · KV heads), rows] within each sample: [head dim · heads, rows] as products take it.
func (g *graph) attention(qkv *bindings.Tensor, c *cache) *bindings.Tensor {
	if c != nil {
		return g.rounded(g.attend(qkv, c))
	}
	return g.Attention(qkv, g.segments, g.m.Heads, g.m.KVHeads, g.m.HeadDim, g.m.attentionScale(), g.kind)
}

// attentionBack is the gradient of qkv for the gradient of attention's result.
func (g *graph) attentionBack(dout, qkv *bindings.Tensor) *bindings.Tensor {
	return g.AttentionBack(dout, qkv, g.segments, g.m.Heads, g.m.KVHeads, g.m.HeadDim, g.m.attentionScale())
}

// attend is the attention of rows that continue the cached tokens and join them.
func (g *graph) attend(qkv *bindings.Tensor, c *cache) *bindings.Tensor {
	if qkv == nil {
		return nil
	}
	heads, kv, dim, n := int64(g.m.Heads), int64(g.m.KVHeads), int64(g.m.HeadDim), qkv.Ne(1)
	all := g.Reshape(qkv, dim, heads+2*kv, n)
	part := func(first, count int64) *bindings.Tensor {
		return g.View(all, [4]int64{dim, count, n, 1}, [4]int64{0, first})
	}
	place := func(of *bindings.Tensor) *bindings.Tensor {
		return g.View(of, [4]int64{dim, kv, n, 1}, [4]int64{0, 0, int64(c.past)})
	}
	g.nodes.Expand(g.Cpy(part(heads, kv), place(c.k)))
	g.nodes.Expand(g.Cpy(part(heads+kv, kv), place(c.v)))
	// [head dim, tokens, heads] of all that is cached.
	seen := func(of *bindings.Tensor) *bindings.Tensor {
		return g.Permute(g.View(of, [4]int64{dim, kv, int64(c.past) + n, 1}, [4]int64{}), 0, 2, 1, 3)
	}
	scores := g.DiagMaskInf(g.MulMat(seen(c.k), g.Cont(g.Permute(part(0, heads), 0, 2, 1, 3))), c.past)
	out := g.MulMat(g.Cont(g.Transpose(seen(c.v))), g.SoftMax(scores, g.m.attentionScale()))
	return g.Reshape(g.Cont(g.Permute(out, 0, 2, 1, 3)), dim*heads, n)
}
