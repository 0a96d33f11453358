package bindings

// #include "guard.h"
import "C"

import "math"

// Segments cut the tokens of a pack into runs, a tree: of each its first token, its length, its parent's index, smaller than its own, or −1, and the number of
// tokens in all its ancestors. A token sees the tokens of its run's ancestors and those up to itself in its own run.
type Segments struct {
	runs   [][4]int32
	tensor *Tensor // [4, runs], int32: what the kernels take
	pieces []piece // what the composed form takes
}

// NewSegments makes the inputs of a graph that tell the runs of a pack. Every token must be in one run, which begins where the one before it ends; that is not checked.
func (c *Context) NewSegments(runs [][4]int32) *Segments {
	s := &Segments{runs: runs}
	switch {
	case len(runs) == 0:
		c.fail("segments", "there is none")
	case c.composed != nil:
		s.pieces = c.pieces(runs)
	default:
		s.tensor = c.NewTensor(I32, 4, int64(len(runs))).Input()
	}
	return s
}

// Set gives the inputs their values, once those that the graph uses have memory.
func (s *Segments) Set() error {
	for _, p := range s.pieces {
		if p.mask.placed() {
			if err := Set(p.mask, p.values); err != nil {
				return err
			}
		}
	}
	if !s.tensor.placed() {
		return nil
	}
	flat := make([]int32, 0, 4*len(s.runs))
	for _, r := range s.runs {
		flat = append(flat, r[:]...)
	}
	return Set(s.tensor, flat)
}

// attends is own with qkv [headDim · (heads + 2 · kvHeads), n], and perhaps the gradient dout [headDim · heads, n].
func (c *Context) attends(op string, heads, kvHeads, headDim int, qkv *Tensor, s *Segments, dout ...*Tensor) bool {
	if !c.own(op, append(dout, qkv)...) {
		return false
	}
	few := func(n int) bool { return n > 0 && n <= math.MaxInt16 }
	if !few(heads) || !few(kvHeads) || !few(headDim) || heads%kvHeads != 0 || !activation(qkv.Type()) || qkv.Ne(0) != int64(headDim*(heads+2*kvHeads)) {
		c.fail(op, "%s with %d heads, %d KV heads of %d", qkv.describe(), heads, kvHeads, headDim)
		return false
	}
	if s == nil {
		c.fail(op, "there are no segments")
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
func (c *Context) Attention(qkv *Tensor, s *Segments, heads, kvHeads, headDim int, scale float32, t Type) *Tensor {
	if !c.attends("attention", heads, kvHeads, headDim, qkv, s) {
		return nil
	}
	if !activation(t) {
		return c.fail("attention", "to %v", t)
	}
	if c.composed != nil {
		return c.composeAttention(qkv, s, heads, kvHeads, headDim, scale, t)
	}
	return (*Tensor)(C.ggml_vera_attention(c.c, c.nodes, qkv.c(), s.tensor.c(), C.int(heads), C.int(kvHeads), C.float(scale), C.uint(t)))
}

// AttentionBack is the gradient of qkv, float32, for the gradient dout of Attention's result.
func (c *Context) AttentionBack(dout, qkv *Tensor, s *Segments, heads, kvHeads, headDim int, scale float32) *Tensor {
	if !c.attends("attention_back", heads, kvHeads, headDim, qkv, s, dout) {
		return nil
	}
	if c.composed != nil {
		return c.composeAttentionBack(dout, qkv, s, heads, kvHeads, headDim, scale)
	}
	return (*Tensor)(C.ggml_vera_attention_back(c.c, c.nodes, dout.c(), qkv.c(), s.tensor.c(), C.int(heads), C.int(kvHeads), C.float(scale)))
}

// CacheBlock is what the room of a text in a cache, and a head's numbers there, are multiples of.
const CacheBlock = 16

// CacheHead is the room in numbers that a head's keys, or values, of one token take in a cache.
func CacheHead(headDim int) int { return (headDim + CacheBlock - 1) / CacheBlock * CacheBlock }

// AttentionCached is Attention of rows that continue texts: they see all tokens of their text that the cache holds, and those up to themselves. A row's result
// does not depend on the rows that are computed with it.
//
// keys and values [CacheHead · room, texts · kvHeads], both float32 or float16, are the cache, which gets the rows' keys and values; room is a multiple of CacheBlock. rows [2, n],
// int32, has the text of each column of qkv, float32, and its position there. Those of a text must follow each other, from the first position that the cache does
// not hold or an earlier one, and within the room, when the graph is computed; that is not checked.
func (c *Context) AttentionCached(qkv, keys, values, rows *Tensor, heads, kvHeads, headDim int, scale float32, t Type) *Tensor {
	const op = "attention_cached"
	if !c.own(op, qkv, keys, values, rows) {
		return nil
	}
	few := func(n int) bool { return n > 0 && n <= math.MaxInt16 }
	if !few(heads) || !few(kvHeads) || !few(headDim) || heads%kvHeads != 0 || qkv.Type() != F32 || qkv.Ne(0) != int64(headDim*(heads+2*kvHeads)) || !activation(t) {
		return c.fail(op, "%s with %d heads, %d KV heads of %d, to %v", qkv.describe(), heads, kvHeads, headDim, t)
	}
	for _, x := range []*Tensor{keys, values} {
		if x.Type() != keys.Type() || x.Type() != F32 && x.Type() != F16 || !x.contiguous() || x.Shape() != keys.Shape() || x.Ne(0)%int64(CacheBlock*CacheHead(headDim)) != 0 || x.Ne(1)%int64(kvHeads) != 0 {
			return c.fail(op, "a cache of %s", x.describe())
		}
	}
	if rows.Type() != I32 || !rows.contiguous() || rows.Ne(0) != 2 || rows.Ne(1) != qkv.Ne(1) {
		return c.fail(op, "rows %s", rows.describe())
	}
	if c.composed != nil {
		return c.fail(op, "answers are computed on the CPU alone")
	}
	return (*Tensor)(C.ggml_vera_attention_cached(c.c, c.nodes, qkv.c(), keys.c(), values.c(), rows.c(), C.int(heads), C.int(kvHeads), C.float(scale), C.uint(t)))
}
