package model

import (
	"slices"

	"github.com/veratune/veratune/bindings"
)

// cached is the part of a Cache that a block uses, and the rows that are computed: keys and values of earlier tokens;
// or a convolution's last inputs and a delta net's states.
type cached struct {
	keys, values, last, states *bindings.Tensor
	places                     *bindings.Places
}

func (g *graph) heads(b *block) bindings.Heads {
	h := bindings.Heads{Query: g.m.Heads, KV: b.kvHeads, Dim: b.headDim, Scale: g.m.scale.scores,
		Cap: g.m.scale.scoreCap, Sinks: b.sinks}
	if b.local {
		h.Window = g.m.Window
	}
	return h
}

// attention is causal attention of qkv [head dim · (heads + 2 · KV heads), rows], within each sample or text: [head dim
// · heads, rows].
func (g *graph) attention(b *block, qkv *bindings.Tensor, c *cached) *bindings.Tensor {
	if c != nil {
		return g.AttentionCached(qkv, c.keys, c.values, c.places, g.heads(b), g.attentionKind())
	}
	return g.Attention(qkv, g.segments, g.heads(b), g.attentionKind())
}

// attentionKind is the type of attention's result: what products take, or float32 if a gate follows.
func (g *graph) attentionKind() bindings.Type {
	if g.m.arch.gatedAttention {
		return bindings.F32
	}
	return g.kind
}

// splitGates separates q k v from the gates, if each head's query has a gate [head dim] behind it.
func (g *graph) splitGates(b *block, x *bindings.Tensor) (qkv, gates *bindings.Tensor) {
	if !g.m.arch.gatedAttention || x == nil {
		return x, nil
	}
	q, kv := g.queries(b), b.keyValues()
	qkv = g.NewTensor(bindings.F32, int64(q+kv), x.Ne(1))
	g.nodes.Expand(g.Cpy(g.eachQuery(x, b.headDim, 2*b.headDim, 0), g.eachQuery(qkv, b.headDim, b.headDim, 0)))
	g.nodes.Expand(g.Cpy(g.columns(x, 2*q, kv), g.columns(qkv, q, kv)))
	return qkv, g.eachQuery(x, b.headDim, 2*b.headDim, b.headDim)
}

// splitGatesBack is the gradient of splitGates' x, as products take it.
func (g *graph) splitGatesBack(b *block, dqkv, dgates *bindings.Tensor) *bindings.Tensor {
	if !g.m.arch.gatedAttention || dqkv == nil {
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

// eachQuery views n numbers of every query head, [n, heads, rows], from an offset on; heads are `apart` numbers from
// each other in a row of x.
func (g *graph) eachQuery(x *bindings.Tensor, n, apart, offset int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	heads := g.Reshape(x, int64(apart), x.Ne(0)/int64(apart), x.Ne(1))
	return g.View(heads, [4]int64{int64(n), int64(g.m.Heads), x.Ne(1), 1}, [4]int64{int64(offset)})
}

// joinGates puts the gates in front of attention's result; attended multiplies it by their σ.
func (g *graph) joinGates(gates, att *bindings.Tensor) *bindings.Tensor {
	if gates == nil || att == nil {
		return att
	}
	q := att.Ne(0)
	both := g.NewTensor(bindings.F32, 2*q, att.Ne(1))
	g.nodes.Expand(g.Cpy(gates, g.eachQuery(both, int(gates.Ne(0)), int(gates.Ne(0)), 0)))
	g.nodes.Expand(g.Cpy(att, g.columns(both, int(q), int(q))))
	return both
}

// joinGatesBack gives the gradients of attention's result and of its gates, for the gradient dy of attended's result.
func (g *graph) joinGatesBack(dy, both *bindings.Tensor) (datt, dgates *bindings.Tensor) {
	if !g.m.arch.gatedAttention || dy == nil {
		return dy, nil
	}
	d, q := g.GatedBack(dy, both, bindings.Sigmoid, bindings.F32), int(dy.Ne(0))
	return g.columns(d, q, q), g.Cont(g.columns(d, 0, q))
}

// attentionBack is the gradient of qkv for the gradient of attention's result.
func (g *graph) attentionBack(b *block, dout, qkv *bindings.Tensor) *bindings.Tensor {
	return g.AttentionBack(dout, qkv, g.segments, g.heads(b))
}

// queries is the number of a row's numbers that are queries; keyValues that of its keys and values.
func (g *graph) queries(b *block) int { return g.m.Heads * b.headDim }

func (s shape) keyValues() int { return 2 * s.kvHeads * s.headDim }

// madeHeads is the number of query and key heads that a block computes itself.
func (g *graph) madeHeads(b *block) int {
	if b.kvFrom >= 0 {
		return g.m.Heads
	}
	return g.m.Heads + b.kvHeads
}

// normHeads norms queries and keys, a head at a time or a row, and in some models the values.
func (g *graph) normHeads(b *block, raw *bindings.Tensor) *bindings.Tensor {
	eps := g.m.NormEps
	if b.kvFrom >= 0 {
		return g.reshapeLike(g.Norm(g.perHead(b, raw), b.qkNorms.Q, eps, bindings.F32), raw)
	}
	y := g.NormHeads(raw, b.qkNorms, g.m.Heads, b.kvHeads, eps, bindings.F32)
	if g.m.arch.vNorm {
		v := g.valuesOf(b, raw)
		g.nodes.Expand(g.Cpy(g.reshapeLike(g.Norm(g.perHead(b, v), g.unweighted(b), eps, bindings.F32), v),
			g.valuesOf(b, y)))
	}
	return y
}

// normHeadsBack is the gradient of normHeads' input raw, of type t, for the gradient dy of its result.
func (g *graph) normHeadsBack(b *block, dy, raw *bindings.Tensor, t bindings.Type) *bindings.Tensor {
	eps := g.m.NormEps
	if b.kvFrom >= 0 {
		return g.as(g.reshapeLike(g.NormBack(g.perHead(b, dy), g.perHead(b, raw), b.qkNorms.Q, eps, nil), raw), t)
	}
	if b.keysAsValues || g.m.arch.gatedAttention {
		t = bindings.F32 // copyKeysBack and ungatedBack go on with it
	}
	dx := g.NormHeadsBack(dy, raw, b.qkNorms, g.m.Heads, b.kvHeads, eps, t)
	if g.m.arch.vNorm {
		v := g.valuesOf(b, raw)
		dv := g.NormBack(g.perHead(b, g.valuesOf(b, dy)), g.perHead(b, v), g.unweighted(b), eps, nil)
		g.nodes.Expand(g.Cpy(g.reshapeLike(dv, v), g.valuesOf(b, dx)))
	}
	return dx
}

// valuesOf views the values of qkv.
func (g *graph) valuesOf(b *block, qkv *bindings.Tensor) *bindings.Tensor {
	n := b.keyValues() / 2
	return g.columns(qkv, g.queries(b)+n, n)
}

// unweighted is all ones: the weights of a head's norm that has none.
func (g *graph) unweighted(b *block) *bindings.Tensor { return g.ScaleBias(b.qkNorms.Q, 0, 1) }

// perHead is x with one column a head; reshapeLike is the way back.
func (g *graph) perHead(b *block, x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(g.Cont(x), int64(b.headDim), x.Elements()/int64(b.headDim))
}

func (g *graph) reshapeLike(y, x *bindings.Tensor) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.Reshape(y, x.Ne(0), x.Ne(1))
}

// copyKeys appends the keys as values, for blocks that have no values of their own.
func (g *graph) copyKeys(b *block, qk *bindings.Tensor) *bindings.Tensor {
	if !b.keysAsValues || qk == nil {
		return qk
	}
	return g.concatColumns(qk, g.columns(qk, g.queries(b), b.keyValues()/2))
}

// copyKeysBack is the gradient of copyKeys' input, as products take it.
func (g *graph) copyKeysBack(b *block, dqkv *bindings.Tensor) *bindings.Tensor {
	if !b.keysAsValues {
		return dqkv
	}
	q, n := g.queries(b), b.keyValues()/2
	g.nodes.Expand(g.AddInplace(g.columns(dqkv, q, n), g.valuesOf(b, dqkv)))
	return g.rounded(g.Cont(g.columns(dqkv, 0, q+n)))
}

// takeShared appends the keys and values of the earlier block that this one shares them with.
func (g *graph) takeShared(b *block, q *bindings.Tensor) *bindings.Tensor {
	if b.kvFrom < 0 || q == nil {
		return q
	}
	return g.concatColumns(q, g.shared[b.kvFrom])
}

// share keeps a block's keys and values for later blocks of the graph.
func (g *graph) share(block int, kv *bindings.Tensor) {
	g.shared[block] = kv
	if g.first != nil {
		g.first.shared[block] = g.GetRows(kv, g.first.rowIndices)
	}
}

// keysValues views the keys and values in qkv, [·, rows].
func (g *graph) keysValues(b *block, qkv *bindings.Tensor) *bindings.Tensor {
	return g.columns(qkv, g.queries(b), b.keyValues())
}

// sharedBack moves gradients of shared keys and values. In a block that took them, theirs is added to the sum of the
// block that made them, and the queries' remains. In the block that made them, the sum is added.
func (g *graph) sharedBack(b *block, dqkv *bindings.Tensor) *bindings.Tensor {
	switch {
	case b.kvFrom >= 0:
		if sum := g.sharedGrads[b.kvFrom]; sum != nil {
			g.nodes.Expand(g.AddInplace(sum, g.keysValues(b, dqkv)))
		}
		return g.columns(dqkv, 0, g.queries(b))
	case b.sharesKV:
		g.nodes.Expand(g.AddInplace(g.keysValues(b, dqkv), g.sharedGrads[b.groups[0].block]))
	}
	return dqkv
}

// kvSources lists the blocks whose keys and values other blocks take.
func (m *Model) kvSources() []*block {
	return slices.DeleteFunc(slices.Clone(m.blocks), func(b *block) bool { return !b.sharesKV })
}
