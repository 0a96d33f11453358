package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
)

// cached is where the rows of texts that grow find the keys and values of earlier tokens, or what a convolution takes
// of the last ones and a delta net's memory, and which rows they are.
type cached struct{ keys, values, last, states, rows *bindings.Tensor }

func (g *graph) heads(b *block) bindings.Heads {
	h := bindings.Heads{Query: g.m.Heads, KV: b.kvHeads, Dim: b.headDim, Scale: g.m.scale.scores,
		Cap: g.m.scale.scoreCap, Sinks: b.sinks}
	if b.local {
		h.Window = g.m.Window
	}
	return h
}

// attention is the causal attention of qkv [head dim · (heads + 2 · KV heads), rows] within each sample, or text:
// [head dim · heads, rows] as products take it.
func (g *graph) attention(b *block, qkv *bindings.Tensor, c *cached) *bindings.Tensor {
	if c != nil {
		return g.AttentionCached(qkv, c.keys, c.values, c.rows, g.heads(b), g.attentionKind())
	}
	return g.Attention(qkv, g.segments, g.heads(b), g.attentionKind())
}

// attentionKind is the type of attention's result: that of products, which take it, but where a gate stands before
// them.
func (g *graph) attentionKind() bindings.Type {
	if g.m.made.gated {
		return bindings.F32
	}
	return g.kind
}

// ungated takes the gates apart from queries, keys and values, where each head has one [head dim] behind its query.
func (g *graph) ungated(b *block, x *bindings.Tensor) (qkv, gates *bindings.Tensor) {
	if !g.m.made.gated || x == nil {
		return x, nil
	}
	q, kv := g.queries(b), b.keyValues()
	qkv = g.NewTensor(bindings.F32, int64(q+kv), x.Ne(1))
	g.nodes.Expand(g.Cpy(g.eachQuery(x, b.headDim, 2*b.headDim, 0), g.eachQuery(qkv, b.headDim, b.headDim, 0)))
	g.nodes.Expand(g.Cpy(g.columns(x, 2*q, kv), g.columns(qkv, q, kv)))
	return qkv, g.eachQuery(x, b.headDim, 2*b.headDim, b.headDim)
}

// ungatedBack is the gradient of ungated's x, as products take it.
func (g *graph) ungatedBack(b *block, dqkv, dgates *bindings.Tensor) *bindings.Tensor {
	if !g.m.made.gated || dqkv == nil {
		return dqkv
	}
	q, kv := g.queries(b), b.keyValues()
	dx := g.NewTensor(bindings.F32, int64(2*q+kv), dqkv.Ne(1))
	g.nodes.Expand(g.Cpy(g.eachQuery(dqkv, b.headDim, b.headDim, 0), g.eachQuery(dx, b.headDim, 2*b.headDim, 0)))
	g.nodes.Expand(g.Cpy(g.eachQuery(dgates, b.headDim, b.headDim, 0),
		g.eachQuery(dx, b.headDim, 2*b.headDim, b.headDim)))
	g.nodes.Expand(g.Cpy(g.columns(dqkv, q, kv), g.columns(dx, 2*q, kv)))
	return g.rounded(dx)
}

// eachQuery is n numbers of every query head, [n, heads, rows] from at on, where these lie so far apart in rows of x.
func (g *graph) eachQuery(x *bindings.Tensor, n, apart, at int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	heads := g.Reshape(x, int64(apart), x.Ne(0)/int64(apart), x.Ne(1))
	return g.View(heads, [4]int64{int64(n), int64(g.m.Heads), x.Ne(1), 1}, [4]int64{int64(at)})
}

// gatedBy puts attention's result behind its gates; attended multiplies it by their σ.
func (g *graph) gatedBy(gates, att *bindings.Tensor) *bindings.Tensor {
	if gates == nil || att == nil {
		return att
	}
	q := att.Ne(0)
	both := g.NewTensor(bindings.F32, 2*q, att.Ne(1))
	g.nodes.Expand(g.Cpy(gates, g.eachQuery(both, int(gates.Ne(0)), int(gates.Ne(0)), 0)))
	g.nodes.Expand(g.Cpy(att, g.columns(both, int(q), int(q))))
	return both
}

// gatedByBack gives the gradients of attention's result and of its gates, for the gradient dy of what attended makes of
// both.
func (g *graph) gatedByBack(dy, both *bindings.Tensor) (datt, dgates *bindings.Tensor) {
	if !g.m.made.gated || dy == nil {
		return dy, nil
	}
	d, q := g.GatedBack(dy, both, bindings.Sigmoid, bindings.F32), int(dy.Ne(0))
	return g.columns(d, q, q), g.Cont(g.columns(d, 0, q))
}

// attentionBack is the gradient of qkv for the gradient of attention's result.
func (g *graph) attentionBack(b *block, dout, qkv *bindings.Tensor) *bindings.Tensor {
	return g.AttentionBack(dout, qkv, g.segments, g.heads(b))
}

// queries and keyValues are how many numbers a row's queries are, and its keys and values.
func (g *graph) queries(b *block) int { return g.m.Heads * b.headDim }

func (s shape) keyValues() int { return 2 * s.kvHeads * s.headDim }

// made is the number of heads, of queries and of keys, that a block makes itself.
func (g *graph) made(b *block) int {
	if b.from >= 0 {
		return g.m.Heads
	}
	return g.m.Heads + b.kvHeads
}

// normHeads norms the queries and keys of raw, and the values where the model does, a head at a time or a row.
func (g *graph) normHeads(b *block, raw *bindings.Tensor) *bindings.Tensor {
	eps := g.m.NormEps
	if b.from >= 0 {
		return g.together(g.Norm(g.apart(b, raw), b.qkNorms.Q, eps, bindings.F32), raw)
	}
	y := g.NormHeads(raw, b.qkNorms, g.m.Heads, b.kvHeads, eps, bindings.F32)
	if g.m.made.vNorm {
		v := g.values(b, raw)
		g.nodes.Expand(g.Cpy(g.together(g.Norm(g.apart(b, v), g.unweighted(b), eps, bindings.F32), v), g.values(b, y)))
	}
	return y
}

// normHeadsBack is the gradient of raw, of type t, for the gradient dy of normHeads' result.
func (g *graph) normHeadsBack(b *block, dy, raw *bindings.Tensor, t bindings.Type) *bindings.Tensor {
	eps := g.m.NormEps
	if b.from >= 0 {
		return g.as(g.together(g.NormBack(g.apart(b, dy), g.apart(b, raw), b.qkNorms.Q, eps, nil), raw), t)
	}
	if b.keysOnly || g.m.made.gated {
		t = bindings.F32 // copyKeysBack and ungatedBack go on with it
	}
	dx := g.NormHeadsBack(dy, raw, b.qkNorms, g.m.Heads, b.kvHeads, eps, t)
	if g.m.made.vNorm {
		v := g.values(b, raw)
		dv := g.NormBack(g.apart(b, g.values(b, dy)), g.apart(b, v), g.unweighted(b), eps, nil)
		g.nodes.Expand(g.Cpy(g.together(dv, v), g.values(b, dx)))
	}
	return dx
}

// values are those of qkv.
func (g *graph) values(b *block, qkv *bindings.Tensor) *bindings.Tensor {
	n := b.keyValues() / 2
	return g.columns(qkv, g.queries(b)+n, n)
}

// unweighted are the weights of a head's norm without weights.
func (g *graph) unweighted(b *block) *bindings.Tensor { return g.ScaleBias(b.qkNorms.Q, 0, 1) }

// apart has each head of x in a column of its own, together as they were in x.
func (g *graph) apart(b *block, x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(g.Cont(x), int64(b.headDim), x.Elements()/int64(b.headDim))
}

func (g *graph) together(y, x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(y, x.Ne(0), x.Ne(1))
}

// copyKeys puts values behind the keys of qk, where they are these.
func (g *graph) copyKeys(b *block, qk *bindings.Tensor) *bindings.Tensor {
	if !b.keysOnly || qk == nil {
		return qk
	}
	return g.beside(qk, g.columns(qk, g.queries(b), b.keyValues()/2))
}

// copyKeysBack is the gradient of copyKeys' qk, as products take it.
func (g *graph) copyKeysBack(b *block, dqkv *bindings.Tensor) *bindings.Tensor {
	if !b.keysOnly {
		return dqkv
	}
	q, n := g.queries(b), b.keyValues()/2
	g.nodes.Expand(g.AddInplace(g.columns(dqkv, q, n), g.values(b, dqkv)))
	return g.rounded(g.Cont(g.columns(dqkv, 0, q+n)))
}

// takeShared puts the keys and values that a block takes of an earlier one behind its queries.
func (g *graph) takeShared(b *block, q *bindings.Tensor) *bindings.Tensor {
	if b.from < 0 || q == nil {
		return q
	}
	return g.beside(q, g.shared[b.from])
}

// share lets later blocks of the graph take a block's keys and values.
func (g *graph) share(block int, kv *bindings.Tensor) {
	g.shared[block] = kv
	if g.first != nil {
		g.first.shared[block] = g.GetRows(kv, g.first.at)
	}
}

// keysValues are those of a block that others take, [·, rows].
func (g *graph) keysValues(b *block, qkv *bindings.Tensor) *bindings.Tensor {
	return g.columns(qkv, g.queries(b), b.keyValues())
}

// sharedBack is what remains of the gradient of qkv for what the block made itself: that of keys and values goes to the
// block that made them, where it is computed, and there it comes from all that took them.
func (g *graph) sharedBack(b *block, dqkv *bindings.Tensor) *bindings.Tensor {
	switch {
	case b.from >= 0:
		if sum := g.sharedGrads[b.from]; sum != nil {
			g.nodes.Expand(g.AddInplace(sum, g.keysValues(b, dqkv)))
		}
		return g.columns(dqkv, 0, g.queries(b))
	case b.gives:
		g.nodes.Expand(g.AddInplace(g.keysValues(b, dqkv), g.sharedGrads[b.groups[0].block]))
	}
	return dqkv
}

// givers lists the blocks whose keys and values others take.
func (m *Model) givers() []*block {
	return slices.DeleteFunc(slices.Clone(m.blocks), func(b *block) bool { return !b.gives })
}
