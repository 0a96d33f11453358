package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
)

// cached is where the rows of texts that grow find the keys and values of earlier tokens, and which rows they are.
type cached struct{ keys, values, rows *bindings.Tensor }

func (g *graph) heads(b *block) bindings.Heads {
	h := bindings.Heads{Query: g.m.Heads, KV: b.kvHeads, Dim: b.headDim, Scale: g.m.scale.scores, Cap: g.m.scale.scoreCap, Sinks: b.sinks}
	if b.local {
		h.Window = g.m.Window
	}
	return h
}

// attention is the causal attention of qkv [head dim · (heads + 2 · KV heads), rows] within each sample, or text: [head dim · heads, rows] as products take it.
func (g *graph) attention(b *block, qkv *bindings.Tensor, c *cached) *bindings.Tensor {
	if c != nil {
		return g.AttentionCached(qkv, c.keys, c.values, c.rows, g.heads(b), g.kind)
	}
	return g.Attention(qkv, g.segments, g.heads(b), g.kind)
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
	if b.keysOnly {
		t = bindings.F32 // copyKeysBack adds
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
	q, n := g.queries(b), b.keyValues()/2
	qkv := g.NewTensor(bindings.F32, int64(q+2*n), qk.Ne(1))
	g.nodes.Expand(g.Cpy(qk, g.columns(qkv, 0, q+n)))
	g.nodes.Expand(g.Cpy(g.columns(qk, q, n), g.values(b, qkv)))
	return qkv
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
	n := g.queries(b)
	qkv := g.NewTensor(bindings.F32, int64(n+b.keyValues()), q.Ne(1))
	g.nodes.Expand(g.Cpy(q, g.columns(qkv, 0, n)))
	g.nodes.Expand(g.Cpy(g.shared[b.from], g.columns(qkv, n, b.keyValues())))
	return qkv
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

// sharedBack is what remains of the gradient of qkv for what the block made itself: that of keys and values goes to the block that made them, where it is computed, and
// there it comes from all that took them.
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
