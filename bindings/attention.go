package bindings

// #include "guard.h"
import "C"

import "math"

// attends is own with qkv [headDim · (heads + 2 · kvHeads), n], segments [4, any], int32, and perhaps the gradient dout [headDim · heads, n].
func (c *Context) attends(op string, heads, kvHeads, headDim int, qkv, segments *Tensor, dout ...*Tensor) bool {
	if !c.own(op, append(dout, qkv, segments)...) {
		return false
	}
	few := func(n int) bool { return n > 0 && n <= math.MaxInt16 }
	if !few(heads) || !few(kvHeads) || !few(headDim) || heads%kvHeads != 0 || !activation(qkv.Type()) || qkv.Ne(0) != int64(headDim*(heads+2*kvHeads)) {
		c.fail(op, "%s with %d heads, %d KV heads of %d", qkv.describe(), heads, kvHeads, headDim)
		return false
	}
	if segments.Type() != I32 || segments.Ne(0) != 4 || !segments.contiguous() {
		c.fail(op, "segments %s", segments.describe())
		return false
	}
	for _, g := range dout {
		if !activation(g.Type()) || g.Ne(0) != int64(headDim*heads) || g.ne[1] != qkv.ne[1] {
			c.fail(op, "%s for %s", g.describe(), qkv.describe())
			return false
		}
	}
	return true
}

// Attention is the causal attention of packed samples, softmax(scale · Q Kᵀ) V for each head, [headDim · heads, n] of type t. A column of qkv, which is
// [headDim · (heads + 2 · kvHeads), n], has the queries of all heads, then the KV heads' keys, then their values; heads/kvHeads heads share a KV head.
//
// segments [4, any], int32, cuts the n tokens into runs, a tree: of each its first token, its length, its parent's index, smaller than its own, or −1, and
// the number of tokens in all its ancestors. Every token must be in one run when the graph is computed; that is not checked. A token sees the tokens of its
// run's ancestors and those up to itself in its own run.
func (c *Context) Attention(qkv, segments *Tensor, heads, kvHeads, headDim int, scale float32, t Type) *Tensor {
	if !c.attends("attention", heads, kvHeads, headDim, qkv, segments) {
		return nil
	}
	if !activation(t) {
		return c.fail("attention", "to %v", t)
	}
	return (*Tensor)(C.ggml_vera_attention(c.c, c.nodes, qkv.c(), segments.c(), C.int(heads), C.int(kvHeads), C.float(scale), C.uint(t)))
}

// AttentionBack is the gradient of qkv, float32, for the gradient dout of Attention's result.
func (c *Context) AttentionBack(dout, qkv, segments *Tensor, heads, kvHeads, headDim int, scale float32) *Tensor {
	if !c.attends("attention_back", heads, kvHeads, headDim, qkv, segments, dout) {
		return nil
	}
	return (*Tensor)(C.ggml_vera_attention_back(c.c, c.nodes, dout.c(), qkv.c(), segments.c(), C.int(heads), C.int(kvHeads), C.float(scale)))
}
