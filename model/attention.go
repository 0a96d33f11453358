package model

import (
	"math"

	"github.com/veratune/veratune/bindings"
)

func (m *Model) attentionScale() float32 { return float32(1 / math.Sqrt(float64(m.HeadDim))) }

// heads gives x [head dim · heads, tokens] as [head dim, heads, tokens].
func (g *graph) heads(x *bindings.Tensor, heads int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(x, int64(g.m.HeadDim), int64(heads), x.Elements()/int64(g.m.HeadDim*heads))
}

// flat gives x [head dim, heads, tokens] as [head dim · heads, tokens].
func (g *graph) flat(x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(x, x.Ne(0)*x.Ne(1), x.Ne(2))
}

// sample is the part of x [head dim, heads, tokens] from token start, as [head dim, n, heads].
func (g *graph) sample(x *bindings.Tensor, start, n int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Permute(g.View(x, [4]int64{x.Ne(0), x.Ne(1), int64(n), 1}, [4]int64{0, 0, int64(start)}), 0, 2, 1, 3)
}

// probabilities is P = softmax(mask(Kᵀ Q / √head dim)), [keys, queries, heads], for queries [head dim, L, heads] that follow past earlier keys
// [head dim, past + L, KV heads]. Query heads of a group share a key head.
func (g *graph) probabilities(q, k *bindings.Tensor, past int) *bindings.Tensor {
	return g.SoftMax(g.DiagMaskInf(g.MulMat(k, g.Cont(q)), past), g.m.attentionScale())
}

// cache is where generation finds the keys and values of earlier tokens, [head dim, KV heads, context], and how many there are.
type cache struct {
	k, v *bindings.Tensor
	past int
}

// attention is the causal attention within each sample: q [head dim, heads, tokens], k and v [head dim, KV heads, tokens] give
// [head dim, heads, tokens]. With a cache, the pack is one sample that continues the cached tokens and joins them.
func (g *graph) attention(q, k, v *bindings.Tensor, c *cache) *bindings.Tensor {
	if q == nil || k == nil || v == nil {
		return nil
	}
	out := g.NewTensor(bindings.F32, q.Ne(0), q.Ne(1), q.Ne(2))
	if c != nil {
		n := g.pack.tokens
		part := func(of *bindings.Tensor) *bindings.Tensor {
			return g.View(of, [4]int64{of.Ne(0), of.Ne(1), int64(n), 1}, [4]int64{0, 0, int64(c.past)})
		}
		g.nodes.Expand(g.Cpy(k, part(c.k)))
		g.nodes.Expand(g.Cpy(v, part(c.v)))
		g.attend(g.sample(out, 0, n), g.sample(q, 0, n), g.sample(c.k, 0, c.past+n), g.sample(c.v, 0, c.past+n), c.past)
		return out
	}
	for i, n := range g.pack.lengths {
		at := g.pack.starts[i]
		g.attend(g.sample(out, at, n), g.sample(q, at, n), g.sample(k, at, n), g.sample(v, at, n), 0)
	}
	return out
}

// attend writes P V into out; all are [head dim, tokens, heads].
func (g *graph) attend(out, q, k, v *bindings.Tensor, past int) {
	p := g.probabilities(q, k, past)
	g.nodes.Expand(g.Cpy(g.MulMat(g.Cont(g.Transpose(v)), p), out))
}

// attentionBack gives the gradients of q, k and v for the gradient dout of attention's result, all [head dim, heads, tokens]. P is computed again:
//
//	∂V = P ∂O    ∂P = V ∂Oᵀ    ∂S = P ⊙ (∂P − rowsum(P ⊙ ∂P)) / √head dim    ∂Q = K ∂S    ∂K = Q ∂Sᵀ
func (g *graph) attentionBack(dout, q, k, v *bindings.Tensor) (dq, dk, dv *bindings.Tensor) {
	if dout == nil || q == nil || k == nil || v == nil {
		return nil, nil, nil
	}
	dq = g.NewTensor(bindings.F32, q.Ne(0), q.Ne(1), q.Ne(2))
	dk = g.NewTensor(bindings.F32, k.Ne(0), k.Ne(1), k.Ne(2))
	dv = g.NewTensor(bindings.F32, v.Ne(0), v.Ne(1), v.Ne(2))
	for i, n := range g.pack.lengths {
		at := g.pack.starts[i]
		q, k, v, dout := g.sample(q, at, n), g.sample(k, at, n), g.sample(v, at, n), g.sample(dout, at, n)
		p := g.probabilities(q, k, 0)
		ds := g.SoftMaxBack(g.MulMat(v, g.Cont(dout)), p, g.m.attentionScale())
		g.nodes.Expand(g.Cpy(g.MulMat(g.Cont(g.Transpose(k)), ds), g.sample(dq, at, n)))
		g.nodes.Expand(g.Cpy(g.MulMat(g.grouped(q), g.grouped(ds)), g.sample(dk, at, n)))
		g.nodes.Expand(g.Cpy(g.MulMat(g.grouped(dout), g.grouped(p)), g.sample(dv, at, n)))
	}
	return dq, dk, dv
}

// grouped gives x [n, queries, heads] as [queries · heads of a group, n, KV heads]: a product over its rows sums over the queries and the
// heads that share a key head.
func (g *graph) grouped(x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	kv := int64(g.m.KVHeads)
	return g.Cont(g.Transpose(g.Reshape(g.Cont(x), x.Ne(0), x.Ne(1)*x.Ne(2)/kv, kv)))
}
