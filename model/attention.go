package model

import "github.com/veratune/veratune/bindings"

// cached is where the rows of texts that grow find the keys and values of earlier tokens, and which rows they are.
type cached struct{ keys, values, rows *bindings.Tensor }

func (g *graph) heads(b *block) bindings.Heads {
	h := bindings.Heads{Query: g.m.Heads, KV: g.m.KVHeads, Dim: g.m.HeadDim, Scale: g.m.scale.scores, Cap: g.m.scale.scoreCap, Sinks: b.sinks}
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
