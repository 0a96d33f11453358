package bindings

// #include "guard.h"
import "C"

import (
	"fmt"
	"math"
)

// Segments cut the tokens of a pack into runs, which form a tree. A run is its first token, its length, the index of
// its parent, which comes before it, or −1, and the number of tokens in all its ancestors. A token sees all tokens of
// its run's ancestors, and its own run up to itself.
type Segments struct {
	runs    [][4]int32
	tensor  *Tensor // [4, runs], int32: for the kernels
	pieces  []piece // for composed attention
	indices []index // for the composed convolution
}

// NewSegments makes the inputs of a graph that hold the runs of a pack. Each run must begin where the one before it
// ends; that is not checked.
func (c *Context) NewSegments(runs [][4]int32) *Segments {
	s := &Segments{runs: runs}
	switch {
	case len(runs) == 0:
		c.fail("segments", "there is none")
	case c.composed != nil:
		s.pieces = pieces(runs)
	default:
		s.tensor = c.NewTensor(I32, 4, int64(len(runs))).Input()
	}
	return s
}

// Set sets those inputs that the graph uses, once it has memory.
func (s *Segments) Set() error {
	for _, p := range s.pieces {
		for window, mask := range p.masks {
			if mask.placed() {
				if err := Set(mask, masked(s.runs, p, window)); err != nil {
					return err
				}
			}
		}
	}
	for _, x := range s.indices {
		if x.placed() {
			if err := Set(x.Tensor, x.rows); err != nil {
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

// Heads describe the heads in qkv [Dim · (Query + 2 · KV), n]: a column has the queries of all heads, then the keys of
// the KV heads, then their values. Query/KV heads share a KV head. Scores are Scale · Q Kᵀ.
type Heads struct {
	Query, KV, Dim int
	Scale          float32
	Window         int     // a token sees so many last tokens, itself included; 0: all
	Cap            float32 // scores s become Cap · tanh(s / Cap), as in Gemma 2; 0: no cap
	// [Query], float32: one more score of each head, with no value, which every token sees, as in gpt-oss (arXiv
	// 2309.17453); nil for none
	Sinks *Tensor
}

// width is the length of a column of qkv.
func (h Heads) width() int64 { return int64(h.Dim * (h.Query + 2*h.KV)) }

// fits tells whether qkv has the shape of the heads.
func (h Heads) fits(qkv *Tensor) bool {
	few := func(n int) bool { return n > 0 && n <= math.MaxInt16 }
	return few(h.Query) && few(h.KV) && few(h.Dim) && h.Query%h.KV == 0 && h.Window >= 0 && h.Window <= math.MaxInt32 &&
		h.Cap >= 0 && qkv.Ne(0) == h.width() &&
		(h.Sinks == nil || isVectorOrNil(h.Sinks, int64(h.Query)) && h.Sinks.contiguousRows())
}

func (h Heads) parameters() parameters {
	return parameters{attention: C.struct_ggml_vera_attention{heads: C.int32_t(h.Query), kv_heads: C.int32_t(h.KV),
		window: C.int32_t(h.Window), scale: C.float(h.Scale), cap: C.float(h.Cap)}}
}

// result is attention's, for n tokens.
func (h Heads) result(n int64, t Type) result {
	return result{Type: t, width: int64(h.Dim * h.Query), rows: n}
}

func (h Heads) String() string {
	s := fmt.Sprintf("%d heads, %d KV heads of %d", h.Query, h.KV, h.Dim)
	if h.Window != 0 || h.Cap != 0 {
		s += fmt.Sprintf(", window %d, scores capped at %g", h.Window, h.Cap)
	}
	if h.Sinks != nil {
		s += ", sinks " + h.Sinks.describe()
	}
	return s
}

// headsFit checks qkv, and perhaps the gradient dout [Dim · Query, n], against the heads.
func (c *Context) headsFit(op string, h Heads, qkv *Tensor, s *Segments, dout ...*Tensor) bool {
	if !c.areMatrices(op, append(dout, qkv)...) {
		return false
	}
	if !isActivation(qkv.Type()) || !h.fits(qkv) {
		c.fail(op, "%s with %v", qkv.describe(), h)
		return false
	}
	if s == nil {
		c.fail(op, "there are no segments")
		return false
	}
	for _, g := range dout {
		if !isActivation(g.Type()) || g.Ne(0) != int64(h.Dim*h.Query) || g.ne[1] != qkv.ne[1] {
			c.fail(op, "%s for %s", g.describe(), qkv.describe())
			return false
		}
	}
	return true
}

// Attention is the causal attention of packed samples, softmax(scores) V for each head: [Dim · Query, n] of type t.
func (c *Context) Attention(qkv *Tensor, s *Segments, h Heads, t Type) *Tensor {
	if !c.headsFit("attention", h, qkv, s) {
		return nil
	}
	if !isActivation(t) {
		return c.fail("attention", "to %v", t)
	}
	if c.composed != nil {
		return c.composeAttention(qkv, s, h, t)
	}
	return c.node(C.GGML_VERA_ATTENTION, h.parameters(), h.result(qkv.Ne(1), t), qkv, s.tensor, h.Sinks)
}

// AttentionBack is the gradient of qkv, float32, for the gradient dout of Attention's result.
func (c *Context) AttentionBack(dout, qkv *Tensor, s *Segments, h Heads) *Tensor {
	if !c.headsFit("attention_back", h, qkv, s, dout) {
		return nil
	}
	if c.composed != nil {
		return c.composeAttentionBack(dout, qkv, s, h)
	}
	return c.node(C.GGML_VERA_ATTENTION_BACK, h.parameters(), like(qkv, F32), dout, qkv, s.tensor, h.Sinks)
}

// CacheBlock divides the room of a text in a cache and, where kernels compute, of a head in it.
const CacheBlock = 16

// cacheHead is the room, in numbers, of a head's keys or values of one token in a cache of the kernels.
func cacheHead(headDim int) int { return (headDim + CacheBlock - 1) / CacheBlock * CacheBlock }

// AttentionCached is Attention of rows that continue texts: a row sees the tokens of its text in the cache, and the new
// ones up to itself. Where kernels compute, its result does not depend on the rows that are computed with it.
//
// keys and values, of the backend's CacheShape, both float32 or, for kernels, float16, are the cache, which gets the
// rows' keys and values. The rows of a text at p, columns of qkv, float32, must follow each other, from the first
// position that the cache does not hold or an earlier one, and within the room, when the graph is computed; that is not
// checked.
func (c *Context) AttentionCached(qkv, keys, values *Tensor, p *Places, h Heads, t Type) *Tensor {
	const op = "attention_cached"
	if !c.areMatrices(op, qkv, keys, values) || !c.placesFit(op, p, qkv) {
		return nil
	}
	if qkv.Type() != F32 || !h.fits(qkv) || !isActivation(t) {
		return c.fail(op, "%s with %v, to %v", qkv.describe(), h, t)
	}
	for _, x := range []*Tensor{keys, values} {
		if x.Type() != keys.Type() || x.Type() != F32 && x.Type() != F16 || !x.contiguous() ||
			x.Shape() != keys.Shape() || !p.holds(x, h) {
			return c.fail(op, "a cache of %s", x.describe())
		}
	}
	if c.composed != nil {
		return c.composeAttentionCached(qkv, keys, values, p, h, t)
	}
	return c.node(C.GGML_VERA_ATTENTION_CACHED, h.parameters(), h.result(qkv.Ne(1), t), qkv, keys, values,
		p.tensor, h.Sinks)
}
