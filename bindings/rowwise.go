package bindings

// #include "guard.h"
import "C"

import "math"

// areActivations checks that all operands are activations with as many rows, for a result of type t.
func (c *Context) areActivations(op string, t Type, operands ...*Tensor) bool {
	if !c.areMatrices(op, operands...) {
		return false
	}
	for _, x := range operands {
		if !isActivation(x.Type()) || !isActivation(t) || x.ne[1] != operands[0].ne[1] {
			c.fail(op, "%s and %s to %v", operands[0].describe(), x.describe(), t)
			return false
		}
	}
	return true
}

// isColumnWeight tells whether w is a vector with a number for each column of x.
func isColumnWeight(w, x *Tensor) bool {
	return w != nil && isVectorOrNil(w, x.Ne(0)) && w.contiguousRows()
}

// Norm is x ⊙ w / √(mean(x²) + eps) for each row (RMS norm; Zhang and Sennrich, arXiv 1910.07467), of type t: x
// [n, rows] and w [n] float32.
func (c *Context) Norm(x, w *Tensor, eps float32, t Type) *Tensor {
	if !c.areActivations("norm", t, x) {
		return nil
	}
	if x.Type() != F32 || !isColumnWeight(w, x) || !(eps >= 0) {
		return c.fail("norm", "%s, eps %g", x.describe(), eps)
	}
	if c.composed != nil {
		return c.composeNorm(x, w, eps, t)
	}
	return c.node(C.GGML_VERA_NORM, withEps(eps), like(x, t), x, w)
}

func withEps(eps float32) parameters {
	return parameters{norm: C.struct_ggml_vera_norm{eps: C.float(eps)}}
}

func (c *Context) normBackFits(op string, dy, x, w *Tensor, eps float32, acc *Tensor) bool {
	if !c.areActivations(op, F32, dy, x) {
		return false
	}
	if x.Type() != F32 || dy.ne[0] != x.ne[0] || !isColumnWeight(w, x) || !(eps >= 0) ||
		acc != nil && (acc.Type() != F32 || !acc.contiguousRows() || acc.Shape() != x.Shape()) {
		c.fail(op, "%s for %s, eps %g", dy.describe(), x.describe(), eps)
		return false
	}
	return true
}

// NormBack is acc plus the gradient of Norm's input x for the gradient dy of its result, float32 [n, rows]. acc is nil
// or float32 of that shape.
func (c *Context) NormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.normBackFits("norm_back", dy, x, w, eps, acc) {
		return nil
	}
	if c.composed != nil {
		return c.composeNormBack(dy, x, w, eps, acc)
	}
	return c.node(C.GGML_VERA_NORM_BACK, withEps(eps), like(x, F32), dy, x, w, acc)
}

// LayerNorm is (x − mean(x)) / √(var(x) + eps) ⊙ w + b for each row, where var is the mean of squared deviations (Ba,
// Kiros and Hinton, arXiv 1607.06450), of type t: x [n, rows], w and b [n] float32.
func (c *Context) LayerNorm(x, w, b *Tensor, eps float32, t Type) *Tensor {
	if !c.areActivations("layer_norm", t, x) {
		return nil
	}
	if x.Type() != F32 || !isColumnWeight(w, x) || !isColumnWeight(b, x) || !(eps >= 0) {
		return c.fail("layer_norm", "%s, eps %g", x.describe(), eps)
	}
	if c.composed != nil {
		return c.composeLayerNorm(x, w, b, eps, t)
	}
	return c.node(C.GGML_VERA_LAYER_NORM, withEps(eps), like(x, t), x, w, b)
}

// LayerNormBack is NormBack for LayerNorm.
func (c *Context) LayerNormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.normBackFits("layer_norm_back", dy, x, w, eps, acc) {
		return nil
	}
	if c.composed != nil {
		return c.composeLayerNormBack(dy, x, w, eps, acc)
	}
	return c.node(C.GGML_VERA_LAYER_NORM_BACK, withEps(eps), like(x, F32), dy, x, w, acc)
}

// HeadNorms are the weights of the norms of q and of k, float32: [headDim] where every head is normed alone, as long as
// all heads where the whole row is.
type HeadNorms struct{ Q, K *Tensor }

// fits tells whether x [headDim · (heads + 2 · kvHeads), rows] is float32 and has heads for these norms.
func (n HeadNorms) fits(x *Tensor, heads, kvHeads int, eps float32) bool {
	if x.Type() != F32 || heads < 1 || kvHeads < 1 || !(eps >= 0) || x.Ne(0)%int64(heads+2*kvHeads) != 0 {
		return false
	}
	dim := x.Ne(0) / int64(heads+2*kvHeads)
	norms := func(w *Tensor, count int) bool {
		return w != nil && w.contiguousRows() && (isVectorOrNil(w, dim) || isVectorOrNil(w, dim*int64(count)))
	}
	return norms(n.Q, heads) && norms(n.K, kvHeads)
}

// NormHeads is Norm of the heads of q and k, with v copied, of type t, for x [headDim · (heads + 2 · kvHeads), rows],
// float32, as Attention takes it.
func (c *Context) NormHeads(x *Tensor, w HeadNorms, heads, kvHeads int, eps float32, t Type) *Tensor {
	if !c.areActivations("norm_heads", t, x) {
		return nil
	}
	if !w.fits(x, heads, kvHeads, eps) {
		return c.fail("norm_heads", "%s with %d heads, %d KV heads, eps %g", x.describe(), heads, kvHeads, eps)
	}
	if c.composed != nil {
		return c.composeNormHeads(x, w, heads, kvHeads, eps, t)
	}
	return c.node(C.GGML_VERA_NORM_HEADS, withHeads(heads, kvHeads, eps), like(x, t), x, w.Q, w.K)
}

func withHeads(heads, kvHeads int, eps float32) parameters {
	return parameters{norm_heads: C.struct_ggml_vera_norm_heads{heads: C.int32_t(heads), kv_heads: C.int32_t(kvHeads),
		eps: C.float(eps)}}
}

// NormHeadsBack is the gradient of NormHeads' input x, of type t, for the gradient dy of its result.
func (c *Context) NormHeadsBack(dy, x *Tensor, w HeadNorms, heads, kvHeads int, eps float32, t Type) *Tensor {
	if !c.areActivations("norm_heads_back", t, dy, x) {
		return nil
	}
	if dy.ne[0] != x.ne[0] || !w.fits(x, heads, kvHeads, eps) {
		return c.fail("norm_heads_back", "%s for %s with %d heads, %d KV heads, eps %g", dy.describe(), x.describe(),
			heads, kvHeads, eps)
	}
	if c.composed != nil {
		return c.composeNormHeadsBack(dy, x, w, heads, kvHeads, eps, t)
	}
	return c.node(C.GGML_VERA_NORM_HEADS_BACK, withHeads(heads, kvHeads, eps), like(x, t), dy, x, w.Q, w.K)
}

// Activation is a function of one number, x · σ(φ(x)) with the logistic σ; Sigmoid is σ alone.
type Activation int

// The activations that there are.
const (
	SiLU Activation = C.GGML_VERA_SILU // φ = x
	// φ = 2 √(2/π) (x + 0.044715 x³): ½ x (1 + tanh(φ/2)) in other words (Hendrycks and Gimpel, arXiv 1606.08415)
	GELU Activation = C.GGML_VERA_GELU
	// φ = 1.702 x; for Gated alone, which takes min(gate, 7), and 1 + up with up between −7 and 7 (gpt-oss, arXiv
	// 2508.10925)
	Clamped     Activation = C.GGML_VERA_CLAMPED
	Sigmoid     Activation = C.GGML_VERA_SIGMOID // σ(x); for Gated alone (gated attention, arXiv 2505.06708)
	activations            = C.GGML_VERA_ACTIVATIONS
)

// The limits of Clamped, and its φ's slope.
const (
	clampLimit = 7
	clampSteep = 1.702
)

func (a Activation) known() bool { return a >= 0 && a < activations }

func (a Activation) parameters() parameters {
	return parameters{activation: C.struct_ggml_vera_activation{act: C.int32_t(a)}}
}

// ungated tells whether the activation exists without a gate.
func (a Activation) ungated() bool { return a.known() && a != Clamped && a != Sigmoid }

// Activate is act(x), of type t.
func (c *Context) Activate(x *Tensor, act Activation, t Type) *Tensor {
	if !c.areActivations("activate", t, x) {
		return nil
	}
	if !act.ungated() {
		return c.fail("activate", "activation %d", act)
	}
	if c.composed != nil {
		return c.composeActivate(x, act, t)
	}
	return c.node(C.GGML_VERA_ACTIVATE, act.parameters(), like(x, t), x)
}

// ActivateBack is the gradient of Activate's input, of type t, for the gradient dy of its result.
func (c *Context) ActivateBack(dy, x *Tensor, act Activation, t Type) *Tensor {
	if !c.areActivations("activate_back", t, dy, x) {
		return nil
	}
	if x.ne[0] != dy.ne[0] || !act.ungated() {
		return c.fail("activate_back", "%s for %s, activation %d", dy.describe(), x.describe(), act)
	}
	if c.composed != nil {
		return c.composeActivateBack(dy, x, act, t)
	}
	return c.node(C.GGML_VERA_ACTIVATE_BACK, act.parameters(), like(x, t), dy, x)
}

// Gated is act(gate) ⊙ up, [n, rows] of type t, for gateUp [2n, rows], the gate's numbers before up's (Shazeer, arXiv
// 2002.05202).
func (c *Context) Gated(gateUp *Tensor, act Activation, t Type) *Tensor {
	if !c.areActivations("gated", t, gateUp) {
		return nil
	}
	if gateUp.ne[0]%2 != 0 || !act.known() {
		return c.fail("gated", "%s, activation %d", gateUp.describe(), act)
	}
	if c.composed != nil {
		return c.composeGated(gateUp, act, t)
	}
	return c.node(C.GGML_VERA_GATED, act.parameters(), result{t, gateUp.Ne(0) / 2, gateUp.Ne(1), nil}, gateUp)
}

// GatedBack is the gradient of Gated's input, [2n, rows] of type t, for the gradient dy [n, rows] of its result.
func (c *Context) GatedBack(dy, gateUp *Tensor, act Activation, t Type) *Tensor {
	if !c.areActivations("gated_back", t, dy, gateUp) {
		return nil
	}
	if gateUp.ne[0] != 2*dy.ne[0] || !act.known() {
		return c.fail("gated_back", "%s for %s, activation %d", dy.describe(), gateUp.describe(), act)
	}
	if c.composed != nil {
		return c.composeGatedBack(dy, gateUp, act, t)
	}
	return c.node(C.GGML_VERA_GATED_BACK, act.parameters(), like(gateUp, t), dy, gateUp)
}

// Pairing says which numbers of a head are rotated together.
type Pairing bool

// The pairings that there are.
const (
	Neighbours Pairing = false // number 2i and number 2i + 1
	Halves     Pairing = true  // number i and number i + dims/2
)

// Rotate rotates pairs of numbers in the first heads of x [headDim · any, rows] by the angles of table [dims, rows],
// float32: m·cos and m·sin for each of the dims/2 pairs of a head's first numbers. back rotates the other way, for
// gradients. Other numbers are copied. The result has type t.
func (c *Context) Rotate(x, table *Tensor, heads, headDim int, pairs Pairing, back bool, t Type) *Tensor {
	if !c.areActivations("rotate", t, x, table) {
		return nil
	}
	if table.Type() != F32 || heads < 1 || headDim < 1 || int64(heads) > x.Ne(0)/int64(headDim) ||
		table.Ne(0) > int64(headDim) || table.Ne(0)%2 != 0 {
		return c.fail("rotate", "%d heads of %d in %s by %s", heads, headDim, x.describe(), table.describe())
	}
	if c.composed != nil {
		return c.composeRotate(x, table, heads, headDim, pairs, back, t)
	}
	with := parameters{rotation: C.struct_ggml_vera_rotation{heads: C.int32_t(heads), head_dim: C.int32_t(headDim),
		back: C.bool(back), halves: C.bool(pairs)}}
	return c.node(C.GGML_VERA_ROTATE, with, like(x, t), x, table)
}

// Convert is x [n, rows] as type t.
func (c *Context) Convert(x *Tensor, t Type) *Tensor {
	if !c.areActivations("convert", t, x) {
		return nil
	}
	if c.composed != nil {
		if !c.composable("convert", t, x) {
			return nil
		}
		return c.Cont(x)
	}
	return c.node(C.GGML_VERA_CONVERT, parameters{}, like(x, t), x)
}

// isCap tells whether logits can be held between −cap and cap; 0 leaves them as they are.
func isCap(cap float32) bool { return cap >= 0 && cap <= math.MaxFloat32 }

// Capped is cap · tanh(x / cap), float32, for x [n, rows], float32: logits as Gemma 2 has them (arXiv 2408.00118).
func (c *Context) Capped(x *Tensor, cap float32) *Tensor {
	if !c.areActivations("capped", F32, x) {
		return nil
	}
	if x.Type() != F32 || !isCap(cap) || cap == 0 {
		return c.fail("capped", "%s to %g", x.describe(), cap)
	}
	if c.composed != nil {
		return c.composeCapped(x, cap)
	}
	return c.node(C.GGML_VERA_CAPPED, withCap(cap), like(x, F32), x)
}

func withCap(cap float32) parameters {
	return parameters{cap: C.struct_ggml_vera_cap{cap: C.float(cap)}}
}

func (c *Context) labelsFit(op string, logits, labels *Tensor, cap float32, t Type) bool {
	if !c.areActivations(op, t, logits) {
		return false
	}
	if labels == nil || labels.Type() != I32 || logits.Type() != F32 || labels.Ne(0) != logits.Ne(1) ||
		labels.Elements() != labels.Ne(0) ||
		!labels.contiguousRows() || !isCap(cap) {
		c.fail(op, "%s, cap %g", logits.describe(), cap)
		return false
	}
	return true
}

// CrossEntropy is −log softmax(logits)[label] of each row, float32 [rows], for logits [vocabulary, rows], float32, and
// labels [rows], int32, which must be smaller than the vocabulary when the graph is computed. With a cap that is not 0,
// the logits are Capped first.
func (c *Context) CrossEntropy(logits, labels *Tensor, cap float32) *Tensor {
	if !c.labelsFit("cross_entropy", logits, labels, cap, F32) {
		return nil
	}
	if c.composed != nil {
		return c.composeCrossEntropy(logits, labels, cap)
	}
	to := result{Type: F32, width: logits.Ne(1), rows: 1}
	return c.node(C.GGML_VERA_CROSS_ENTROPY, withCap(cap), to, logits, labels)
}

// CrossEntropyBack is the gradient of the sum of CrossEntropy by the logits, of type t: softmax(logits) − onehot(label)
// without a cap.
func (c *Context) CrossEntropyBack(logits, labels *Tensor, cap float32, t Type) *Tensor {
	if !c.labelsFit("cross_entropy_back", logits, labels, cap, t) {
		return nil
	}
	if c.composed != nil {
		return c.composeCrossEntropyBack(logits, labels, cap, t)
	}
	return c.node(C.GGML_VERA_CROSS_ENTROPY_BACK, withCap(cap), like(logits, t), logits, labels)
}
