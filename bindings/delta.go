package bindings

// #include "guard.h"
import "C"

import "math"

// A gated delta net (Yang, Kautz and Hatamizadeh, arXiv 2412.06464), as Qwen3-Next and Qwen 3.5 have it: attention
// whose memory of a text is one matrix S a value head, [DimV, DimK], of zeros where the text begins. With q and k
// divided by √(Σ x² + Eps), and q also by √DimK, a token makes
//
//	g = A · log(1 + e^(a + bias))    β = σ(b)    S ← e^g S    u = β (v − S k)    S ← S + u kᵀ    y = S q
//
// Everything is computed in float32. There are gradients of q, k, v, a and b; A and bias are frozen.

// DeltaHeads say what is in a row of a delta net. Value head i goes with key head i mod Keys, as GGUF files have them
// (transformers: i / (Values / Keys)).
type DeltaHeads struct {
	Keys   int     `json:"keys"`   // how many heads of q and k
	Values int     `json:"values"` // of v, a multiple
	DimK   int     `json:"dim_k"`  // numbers of a head of q and k
	DimV   int     `json:"dim_v"`  // of v
	Eps    float32 `json:"eps"`    // of the norm of q and k
}

func (h DeltaHeads) parameters() parameters {
	return parameters{delta_net: C.struct_ggml_vera_delta_net{keys: C.int32_t(h.Keys), values: C.int32_t(h.Values),
		dim_k: C.int32_t(h.DimK), dim_v: C.int32_t(h.DimV), eps: C.float(h.Eps)}}
}

// width is that of QKV, and out that of the result.
func (h DeltaHeads) width() int64 { return int64(2*h.Keys*h.DimK) + h.out() }
func (h DeltaHeads) out() int64   { return int64(h.Values * h.DimV) }

func (h DeltaHeads) valid() bool {
	few := func(n int) bool { return n > 0 && n <= math.MaxInt16 }
	return few(h.Keys) && few(h.Values) && few(h.DimK) && few(h.DimV) && h.Values%h.Keys == 0 && h.Eps >= 0
}

// Delta is what a delta net takes of n tokens: QKV [DimK · 2 · Keys + DimV · Values, n] has the heads of q, then those
// of k, then those of v (behind the convolution and its SiLU), A and B [Values, n] the projections a and b as they are,
// all float32 or bfloat16. Decay [Values] is A, below 0, and Bias [Values], both float32.
type Delta struct{ QKV, A, B, Decay, Bias *Tensor }

// deltaFits checks the operands d, and perhaps the gradient dy of the result, against the heads.
func (c *Context) deltaFits(op string, d Delta, h DeltaHeads, t Type, dy ...*Tensor) bool {
	if !c.areActivations(op, t, append([]*Tensor{d.QKV, d.A, d.B}, dy...)...) {
		return false
	}
	n := int64(h.Values)
	if !h.valid() || d.QKV.Ne(0) != h.width() || d.A.Ne(0) != n || d.B.Ne(0) != n || d.Decay == nil || d.Bias == nil ||
		!isVectorOrNil(d.Decay, n) || !isVectorOrNil(d.Bias, n) {
		c.fail(op, "%s, %s and %s with %+v", d.QKV.describe(), d.A.describe(), d.B.describe(), h)
		return false
	}
	for _, g := range dy {
		if g.Ne(0) != h.out() {
			c.fail(op, "%s for %+v", g.describe(), h)
			return false
		}
	}
	return true
}

// DeltaNet is y [DimV · Values, n], of type t. Texts begin where segments without a parent do; those with one continue
// it.
func (c *Context) DeltaNet(d Delta, s *Segments, h DeltaHeads, t Type) *Tensor {
	const op = "delta_net"
	if !c.deltaFits(op, d, h, t) {
		return nil
	}
	if s == nil {
		return c.fail(op, "there are no segments")
	}
	if c.composed != nil {
		return c.composeDeltaNet(d, s, h, t)
	}
	to := result{Type: t, width: h.out(), rows: d.QKV.Ne(1)}
	return c.node(C.GGML_VERA_DELTA_NET, h.parameters(), to, d.QKV, d.A, d.B, d.Decay, d.Bias, s.tensor)
}

// DeltaNetBack gives the gradients of QKV, A and B, float32 of their shapes, for the gradient dy of DeltaNet's result.
// They are columns of one tensor: their rows have gaps between them.
func (c *Context) DeltaNetBack(dy *Tensor, d Delta, s *Segments, h DeltaHeads) (qkv, a, b *Tensor) {
	const op = "delta_net_back"
	if !c.deltaFits(op, d, h, F32, dy) {
		return nil, nil, nil
	}
	if s == nil {
		return c.fail(op, "there are no segments"), nil, nil
	}
	var all *Tensor
	if c.composed != nil {
		all = c.composeDeltaNetBack(dy, d, s, h)
	} else {
		to := result{Type: F32, width: h.width() + int64(2*h.Values), rows: d.QKV.Ne(1)}
		all = c.node(C.GGML_VERA_DELTA_NET_BACK, h.parameters(), to, dy, d.QKV, d.A, d.B, d.Decay, d.Bias, s.tensor)
	}
	w, n := h.width(), int64(h.Values)
	return c.part(all, 0, w), c.part(all, w, n), c.part(all, w+n, n)
}

// DeltaNetCached is DeltaNet of rows that continue texts. A row's result does not depend on the rows that are computed
// with it.
//
// states [DimK · DimV · Values, texts], float32, are the texts' memories, which the rows change: by the graph's node
// `kept`, or with y where that is nil. One of position 0 begins with zeros, whatever is there. The columns of a text at
// p must follow each other without a gap, from the first position that its state has not seen; that is not checked.
func (c *Context) DeltaNetCached(d Delta, states *Tensor, p *Places, h DeltaHeads, t Type) (y, kept *Tensor) {
	const op = "delta_net_cached"
	if !c.deltaFits(op, d, h, t) || !c.areMatrices(op, states) || !c.placesFit(op, p, d.QKV) {
		return nil, nil
	}
	if states.Type() != F32 || states.Ne(0) != int64(h.DimK)*h.out() {
		return c.fail(op, "states %s", states.describe()), nil
	}
	if c.composed != nil {
		return c.composeDeltaNetCached(d, states, p, h, t)
	}
	to := result{Type: t, width: h.out(), rows: d.QKV.Ne(1)}
	y = c.node(C.GGML_VERA_DELTA_NET_CACHED, h.parameters(), to, d.QKV, d.A, d.B, d.Decay, d.Bias, states, p.tensor)
	return y, nil
}

// gatedNormFits checks that x, z and perhaps dy have one shape, whose columns are heads as long as w.
func (c *Context) gatedNormFits(op string, w *Tensor, eps float32, t Type, x ...*Tensor) bool {
	if !c.areActivations(op, t, x...) {
		return false
	}
	for _, other := range x {
		if w == nil || !isVectorOrNil(w, w.Ne(0)) || !w.contiguousRows() || other.Shape() != x[0].Shape() ||
			other.Ne(0)%w.Ne(0) != 0 || !(eps >= 0) {
			c.fail(op, "%s and %s, eps %g", x[0].describe(), other.describe(), eps)
			return false
		}
	}
	return true
}

// GatedNorm is Norm of every head of x [dim · heads, n], for w [dim], times SiLU(z), of type t: x and z, of the same
// shape, are float32 or bfloat16.
func (c *Context) GatedNorm(x, z, w *Tensor, eps float32, t Type) *Tensor {
	if !c.gatedNormFits("gated_norm", w, eps, t, x, z) {
		return nil
	}
	if c.composed != nil {
		return c.composeGatedNorm(x, z, w, eps, t)
	}
	return c.node(C.GGML_VERA_GATED_NORM, withEps(eps), like(x, t), x, z, w)
}

// GatedNormBack gives the gradients of x and z, of type t, for the gradient dy of GatedNorm's result. They are columns
// of one tensor: their rows have gaps between them.
func (c *Context) GatedNormBack(dy, x, z, w *Tensor, eps float32, t Type) (dx, dz *Tensor) {
	if !c.gatedNormFits("gated_norm_back", w, eps, t, dy, x, z) {
		return nil, nil
	}
	if c.composed != nil {
		return c.composeGatedNormBack(dy, x, z, w, eps, t)
	}
	to := result{Type: t, width: 2 * x.Ne(0), rows: x.Ne(1)}
	all := c.node(C.GGML_VERA_GATED_NORM_BACK, withEps(eps), to, dy, x, z, w)
	return c.part(all, 0, x.Ne(0)), c.part(all, x.Ne(0), x.Ne(0))
}
