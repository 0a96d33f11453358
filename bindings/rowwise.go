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
	return (*Tensor)(C.ggml_vera_norm(c.c, c.nodes, x.c(), w.c(), C.float(eps), C.uint(t)))
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

// NormBack is acc plus the gradient of Norm's input x for the gradient dy of its result, float32 [n, rows]. acc is
// float32 of that shape, or nil.
func (c *Context) NormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.normBackFits("norm_back", dy, x, w, eps, acc) {
		return nil
	}
	if c.composed != nil {
		return c.composeNormBack(dy, x, w, eps, acc)
	}
	return (*Tensor)(C.ggml_vera_norm_back(c.c, c.nodes, dy.c(), x.c(), w.c(), acc.c(), C.float(eps)))
}

// LayerNorm is (x − mean(x)) / √(var(x) + eps) ⊙ w + b for each row, with the mean of the squared deviations for var
// (Ba, Kiros and Hinton, arXiv 1607.06450), of type t: x [n, rows], w and b [n] float32.
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
	return (*Tensor)(C.ggml_vera_layer_norm(c.c, c.nodes, x.c(), w.c(), b.c(), C.float(eps), C.uint(t)))
}

// LayerNormBack is NormBack for LayerNorm.
func (c *Context) LayerNormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.normBackFits("layer_norm_back", dy, x, w, eps, acc) {
		return nil
	}
	if c.composed != nil {
		return c.composeLayerNormBack(dy, x, w, eps, acc)
	}
	return (*Tensor)(C.ggml_vera_layer_norm_back(c.c, c.nodes, dy.c(), x.c(), w.c(), acc.c(), C.float(eps)))
}

// HeadNorms are the weights of the norms of q and of k, float32: [headDim] where every head is normed alone, or as long
// as all heads together where the whole row is.
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

// NormHeads is Norm of the heads of q and of k alone, of type t, for x [headDim · (heads + 2 · kvHeads), rows],
// float32, as Attention takes it. v is copied.
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
	return (*Tensor)(C.ggml_vera_norm_heads(c.c, c.nodes, x.c(), w.Q.c(), w.K.c(), C.int(heads), C.int(kvHeads),
		C.float(eps), C.uint(t)))
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
	return (*Tensor)(C.ggml_vera_norm_heads_back(c.c, c.nodes, dy.c(), x.c(), w.Q.c(), w.K.c(), C.int(heads),
		C.int(kvHeads), C.float(eps), C.uint(t)))
}

// Activation is a function of one number: x · σ(φ(x)) with the logistic σ, or that.
type Activation int

// The activations that there are.
const (
	SiLU Activation = iota // φ = x
	// φ = 2 √(2/π) (x + 0.044715 x³): ½ x (1 + tanh(φ/2)) in other words (Hendrycks and Gimpel, arXiv 1606.08415)
	GELU
	// φ = 1.702 x; for Gated alone, which takes min(gate, 7), and 1 + up with up between −7 and 7 (gpt-oss, arXiv
	// 2508.10925)
	Clamped
	Sigmoid     // σ(x); for Gated alone (gated attention, arXiv 2505.06708)
	activations // how many
)

// The limits of Clamped, and its φ's slope.
const (
	clampLimit = 7
	clampSteep = 1.702
)

func (a Activation) known() bool { return a >= 0 && a < activations }

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
	return (*Tensor)(C.ggml_vera_activate(c.c, c.nodes, x.c(), C.int(act), C.uint(t)))
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
	return (*Tensor)(C.ggml_vera_activate_back(c.c, c.nodes, dy.c(), x.c(), C.int(act), C.uint(t)))
}

// Gated is act(gate) ⊙ up, [n, rows] of type t, for gateUp [2n, rows]: the gate's numbers, then those of up (Shazeer,
// arXiv 2002.05202).
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
	return (*Tensor)(C.ggml_vera_gated(c.c, c.nodes, gateUp.c(), C.int(act), C.uint(t)))
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
	return (*Tensor)(C.ggml_vera_gated_back(c.c, c.nodes, dy.c(), gateUp.c(), C.int(act), C.uint(t)))
}

// Pairing says which numbers of a head are rotated together.
type Pairing bool

// The pairings that there are.
const (
	Neighbours Pairing = false // number 2i and number 2i + 1
	Halves     Pairing = true  // number i and number i + dims/2
)

// Rotate turns pairs of numbers of the first heads of x [headDim · any, rows] by the angles of table [dims, rows],
// float32: m·cos and m·sin for each of the dims/2 pairs of a head's first numbers; back is the transposed, for
// gradients. The other numbers are copied. The result has type t.
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
	return (*Tensor)(C.ggml_vera_rotate(c.c, c.nodes, x.c(), table.c(), C.int(heads), C.int(headDim), C.bool(pairs),
		C.bool(back), C.uint(t)))
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
	return (*Tensor)(C.ggml_vera_convert(c.c, c.nodes, x.c(), C.uint(t)))
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
	return (*Tensor)(C.ggml_vera_capped(c.c, c.nodes, x.c(), C.float(cap)))
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
	return (*Tensor)(C.ggml_vera_cross_entropy(c.c, c.nodes, logits.c(), labels.c(), C.float(cap)))
}

// CrossEntropyBack is the gradient of the sum of CrossEntropy by the logits, softmax(logits) − onehot(label) where
// there is no cap, of type t.
func (c *Context) CrossEntropyBack(logits, labels *Tensor, cap float32, t Type) *Tensor {
	if !c.labelsFit("cross_entropy_back", logits, labels, cap, t) {
		return nil
	}
	if c.composed != nil {
		return c.composeCrossEntropyBack(logits, labels, cap, t)
	}
	return (*Tensor)(C.ggml_vera_cross_entropy_back(c.c, c.nodes, logits.c(), labels.c(), C.float(cap), C.uint(t)))
}
