package bindings

// #include "guard.h"
import "C"

import "fmt"

// veratune's own operations. Activations are float32 or bfloat16 with unbroken rows. A product multiplies in bfloat16
// if its activations have that type and the processor multiplies it (FastBF16), else in float32; sums are always
// float32. The caller chooses the type of a result, F32 or BF16.

// areMatrices checks that the context has a backend, which veratune's own operations need, and that all operands are
// matrices with unbroken rows.
func (c *Context) areMatrices(op string, operands ...*Tensor) bool {
	if !c.hasOperands(op, operands...) {
		return false
	}
	if c.nodes == nil && c.composed == nil {
		c.fail(op, "the context has no backend")
		return false
	}
	for _, t := range operands {
		if !t.contiguousRows() || t.ne[2] != 1 || t.ne[3] != 1 {
			c.fail(op, "%s: a matrix with unbroken rows is needed", t.describe())
			return false
		}
	}
	return true
}

func isActivation(t Type) bool { return t == F32 || t == BF16 }

// isVectorOrNil tells whether t is nil or float32 [n].
func isVectorOrNil(t *Tensor, n int64) bool {
	return t == nil || t.Type() == F32 && t.contiguousRows() && t.Ne(0) == n && t.Elements() == n
}

// isMatrixOrNil tells whether x is nil or [width, rows] of a type.
func isMatrixOrNil(x *Tensor, t Type, width, rows int64) bool {
	return x == nil || x.Type() == t && x.contiguousRows() && x.Shape() == [4]int64{width, rows, 1, 1}
}

// Product holds the optional parts of a product y = W (In ⊙ x) ⊙ Out + Acc: nil is ones, or nothing to add. Acc is
// float32 of y's shape. Into, of y's type and shape, is where y goes, else it gets memory of its own; Into may be Acc.
// Linear and LinearBack have a choice of ways.
type Product struct {
	In, Out, Acc, Into *Tensor
	Way                Way
}

// Way is how Linear computes.
type Way uint32

// The ways that there are. But for Plain, a row's result does not depend on the rows that are computed with it; they
// are fast for few rows.
const (
	Plain Way = C.GGML_VERA_PLAIN
	Alike Way = C.GGML_VERA_ALIKE // in float32
	// Activations are rounded to 8 bits in blocks of 32, where w's type is quantised in 4 to 8 bits; else Alike.
	// Composed, few rows are multiplied as the device's backend of ggml does it, which may round them so or not at all.
	Bytes       Way = C.GGML_VERA_BYTES
	Interleaved Way = C.GGML_VERA_INTERLEAVED // Bytes, for a matrix that Interleave has packed
	// In training: on the CPU, both operands are rounded to Integers. It is fast for many rows.
	Rounded Way = C.GGML_VERA_INTEGERS
)

func (w Way) parameters() parameters {
	return parameters{linear: C.struct_ggml_vera_linear{way: C.int32_t(w)}}
}

// trains tells whether it is a way of training's products.
func (w Way) trains() bool { return w == Plain || w == Rounded }

func (p Product) fits(in, out, n int64, t Type) bool {
	return isActivation(t) && isVectorOrNil(p.In, in) && isVectorOrNil(p.Out, out) &&
		isMatrixOrNil(p.Acc, F32, out, n) && isMatrixOrNil(p.Into, t, out, n)
}

// InterleavedRows is the number of rows that Interleave packs together.
const InterleavedRows = 16

// Interleave packs a whole q8_0 matrix [in, out] in its own memory, for products of the way Interleaved; nothing else
// can read it afterwards. A strip of InterleavedRows rows has one column of blocks after the other. A column has the
// numbers of its rows, four of each row side by side, then all scales.
func (t *Tensor) Interleave() error {
	rows, row := t.Ne(1), t.Type().RowBytes(t.Ne(0))
	if t.Type() != Q8_0 || !t.contiguous() || rows%InterleavedRows != 0 || t.Elements() != t.Ne(0)*rows ||
		t.data == 0 {
		return fmt.Errorf("interleave %s: a whole q8_0 matrix with a multiple of %d rows is needed", t.describe(),
			InterleavedRows)
	}
	const scale, block = 2, 34 // bytes
	data, strip := t.raw(), make([]byte, 0, InterleavedRows*row)
	for start := int64(0); start < rows*row; start += InterleavedRows * row {
		strip = strip[:0]
		pack := func(i, from, n int64) { // bytes of the strip's row i
			strip = append(strip, data[start+i*row+from:][:n]...)
		}
		for b := int64(0); b < row; b += block {
			for k := int64(0); k < 32; k += 4 {
				for i := range int64(InterleavedRows) {
					pack(i, b+scale+k, 4)
				}
			}
			for i := range int64(InterleavedRows) {
				pack(i, b, scale)
			}
		}
		copy(data[start:], strip)
	}
	return nil
}

// Linear is y = W x [out, n] of type t, for w [in, out] of any type that dequantises and activations x [in, n].
func (c *Context) Linear(w, x *Tensor, p Product, t Type) *Tensor {
	if !c.areMatrices("linear", w, x) {
		return nil
	}
	if !isActivation(x.Type()) || !w.Type().Dequantizes() || w.ne[0] != x.ne[0] ||
		p.Way == Interleaved && w.Type() != Q8_0 || !p.fits(w.Ne(0), w.Ne(1), x.Ne(1), t) {
		return c.fail("linear", "%s by %s to %v", w.describe(), x.describe(), t)
	}
	if c.composed != nil {
		return c.composeLinear(w, x, p, t)
	}
	c.count(x, p.Way, w.Elements()*x.Ne(1))
	return c.node(C.GGML_VERA_LINEAR, p.Way.parameters(), result{t, w.Ne(1), x.Ne(1), p.Into}, w, x, p.In, p.Out, p.Acc)
}

// MostParts is the most matrices that Linears and AddFactored take.
const MostParts = C.GGML_VERA_PARTS

// Part is one of the matrices of Linears: W [in, out] and where its product with columns First … First + Rows of x
// goes, from element Column of the result on.
type Part struct {
	W           *Tensor
	Way         Way
	Second      bool // to the second result
	Column      int64
	First, Rows int64
}

// Linears computes several products with one x [in, n] in a way other than Plain: W x + acc into y [·, n], W x into u
// [·, n] for parts of the second result; all are float32. acc is y's shape or nil; u is nil if no part goes there. The
// graph takes the nodes in their order.
func (c *Context) Linears(parts []Part, x, y, u, acc *Tensor) []*Tensor {
	if !c.areMatrices("linears", x, y) {
		return nil
	}
	n := x.Ne(1)
	with := C.struct_ggml_vera_linears{n: C.int32_t(len(parts))}
	sources := []*Tensor{x, acc, u}
	isRight := len(parts) <= MostParts && isActivation(x.Type()) && isMatrixOrNil(y, F32, y.Ne(0), n) &&
		isMatrixOrNil(acc, F32, y.Ne(0), n)
	for i, p := range parts {
		to := y
		if p.Second {
			to = u
		}
		if isRight = isRight && p.W != nil && p.W.Type().Dequantizes() && p.W.Ne(0) == x.Ne(0) && !p.Way.trains() &&
			to != nil && isMatrixOrNil(to, F32, to.Ne(0), n) && p.Column >= 0 && p.Column+p.W.Ne(1) <= to.Ne(0) &&
			p.First >= 0 && p.First+p.Rows <= n && (p.Way != Interleaved || p.W.Type() == Q8_0); !isRight {
			break
		}
		with.part[i] = C.struct_ggml_vera_part{way: C.int32_t(p.Way), second: C.bool(p.Second),
			column: C.int32_t(p.Column), first: C.int32_t(p.First), rows: C.int32_t(p.Rows)}
		sources = append(sources, p.W)
		c.count(x, p.Way, p.W.Elements()*p.Rows)
	}
	if !isRight {
		c.fail("linears", "%d products of %s to %s", len(parts), x.describe(), y.describe())
		return nil
	}
	if !c.host {
		return c.composeLinears(parts, x, y, u, acc)
	}
	return []*Tensor{c.node(C.GGML_VERA_LINEARS, parameters{linears: with}, result{F32, y.Ne(0), n, y}, sources...)}
}

// Factored is what an adapter adds to a layer: B [rank, out], where b and, behind it, d begin in the vectors, and where
// the layer's parts of y and u begin.
type Factored struct {
	B                    *Tensor
	Offset, Column, Rank int64
}

// AddFactored adds b ⊙ (B (d ⊙ u)) of every layer to its part of y [·, n], for u [·, n], in a way other than Plain;
// both are float32. The vectors are float32 [·]; or, with slots [n], int32, a table of float16 [·, ·], and column i
// takes row slots[i]. The graph takes the nodes in their order.
func (c *Context) AddFactored(layers []Factored, y, u, vectors, slots *Tensor, way Way) []*Tensor {
	if !c.areMatrices("add_factored", u, y, vectors) {
		return nil
	}
	n := u.Ne(1)
	with := C.struct_ggml_vera_factored{n: C.int32_t(len(layers)), way: C.int32_t(way)}
	sources := []*Tensor{u, vectors, slots}
	isRight := len(layers) <= MostParts && !way.trains() && u.Type() == F32 &&
		isMatrixOrNil(y, F32, y.Ne(0), n)
	if slots == nil {
		isRight = isRight && isVectorOrNil(vectors, vectors.Ne(0))
	} else {
		isRight = isRight && vectors.Type() == F16 && slots.Type() == I32 && slots.contiguous() && slots.Elements() == n
	}
	for i, l := range layers {
		if isRight = isRight && l.B != nil && l.B.Type().Dequantizes() && l.Rank >= 0 && l.Rank+l.B.Ne(0) <= u.Ne(0) &&
			l.Column >= 0 && l.Column+l.B.Ne(1) <= y.Ne(0) && l.Offset >= 0 &&
			l.Offset+l.B.Ne(1)+l.B.Ne(0) <= vectors.Ne(0) && (way != Interleaved || l.B.Type() == Q8_0); !isRight {
			break
		}
		with.layer[i] = C.struct_ggml_vera_factored_layer{column: C.int32_t(l.Column), rank: C.int32_t(l.Rank),
			offset: C.int64_t(l.Offset)}
		sources = append(sources, l.B)
		c.count(u, way, l.B.Elements()*n)
	}
	if !isRight {
		c.fail("add_factored", "%d layers, %s to %s", len(layers), u.describe(), y.describe())
		return nil
	}
	if !c.host {
		return c.composeAddFactored(layers, y, u, vectors, slots, way)
	}
	return []*Tensor{c.node(C.GGML_VERA_ADD_FACTORED, parameters{factored: with}, result{F32, y.Ne(0), n, y},
		sources...)}
}

// LinearBack is Wᵀ g [in, n] of type t, for w [in, out] and the gradient g [out, n] of Linear's result: In is [out]
// here, and Out [in].
func (c *Context) LinearBack(w, g *Tensor, p Product, t Type) *Tensor {
	if !c.areMatrices("linear_back", w, g) {
		return nil
	}
	if !isActivation(g.Type()) || !w.Type().Dequantizes() || w.ne[1] != g.ne[0] || !p.Way.trains() ||
		!p.fits(w.Ne(1), w.Ne(0), g.Ne(1), t) {
		return c.fail("linear_back", "%s by %s to %v", w.describe(), g.describe(), t)
	}
	if c.composed != nil {
		return c.composeLinearBack(w, g, p, t)
	}
	c.count(g, p.Way, w.Elements()*g.Ne(1))
	return c.node(C.GGML_VERA_LINEAR_BACK, p.Way.parameters(), result{t, w.Ne(0), g.Ne(1), p.Into}, w, g, p.In, p.Out,
		p.Acc)
}

// WeightGradient is G = Σ g xᵀ over the tokens, [in, out] of type t, for the gradient g [out, n] of Linear's result and
// its input x [in, n], of one type.
func (c *Context) WeightGradient(g, x *Tensor, t Type, way Way) *Tensor {
	if !c.areMatrices("weight_gradient", g, x) {
		return nil
	}
	if !isActivation(g.Type()) || g.Type() != x.Type() || !isActivation(t) || g.ne[1] != x.ne[1] || !way.trains() {
		return c.fail("weight_gradient", "%s by %s to %v", g.describe(), x.describe(), t)
	}
	if c.composed != nil {
		return c.composeWeightGradient(g, x, t)
	}
	c.count(g, way, g.Elements()*x.Ne(0))
	return c.node(C.GGML_VERA_WEIGHT_GRADIENT, way.parameters(), result{t, x.Ne(0), g.Ne(0), nil}, g, x)
}

// Vectors are one layer's part of an adapter: the shared pair A [≥ in, rank], float32 or bfloat16, and B [rank, out],
// float32, with VeRA's vectors b [out], LambdaB, and d [rank], LambdaD.
type Vectors struct{ A, B, LambdaB, LambdaD *Tensor }

func (v Vectors) fits(in, out int64) bool {
	return isActivation(v.A.Type()) && v.B.Type() == F32 && v.A.Ne(0) >= in && v.A.Ne(1) == v.B.Ne(0) &&
		v.B.Ne(1) == out && isVectorOrNil(v.LambdaB, out) && isVectorOrNil(v.LambdaD, v.B.Ne(0))
}

// Merge writes W + diag(b) B diag(d) A, or W without vectors, into dst [in, out], F32 or BF16, and gives dst.
func (c *Context) Merge(dst, w *Tensor, v *Vectors, way Way) *Tensor {
	if v == nil {
		v = &Vectors{}
	}
	operands := []*Tensor{dst, w}
	if v.LambdaB != nil {
		operands = append(operands, v.A, v.B, v.LambdaB, v.LambdaD)
	}
	if !c.areMatrices("merge", operands...) {
		return nil
	}
	if !isActivation(dst.Type()) || !w.Type().Dequantizes() || dst.ne[0] != w.ne[0] || dst.ne[1] != w.ne[1] ||
		v.LambdaB != nil && !v.fits(w.Ne(0), w.Ne(1)) || !way.trains() {
		return c.fail("merge", "%s into %s", w.describe(), dst.describe())
	}
	if c.composed != nil {
		return c.composeMerge(dst, w, v)
	}
	if v.B != nil {
		c.count(dst, way, w.Elements()*v.LambdaD.Elements())
	}
	to := like(dst, dst.Type())
	to.into = dst
	return c.node(C.GGML_VERA_MERGE, way.parameters(), to, w, v.A, v.B, v.LambdaB, v.LambdaD)
}

// MergedGradient gives the gradients of b and d, [out + rank], from the gradient grad [in, out] of the merged weight:
// with T = grad Aᵀ and E = B ⊙ T, ∂b = E d and ∂d = Eᵀ b.
func (c *Context) MergedGradient(grad *Tensor, v Vectors, way Way) *Tensor {
	if !c.areMatrices("merged_gradient", grad, v.A, v.B, v.LambdaB, v.LambdaD) {
		return nil
	}
	if !isActivation(grad.Type()) || !v.fits(grad.Ne(0), grad.Ne(1)) || !way.trains() {
		return c.fail("merged_gradient", "%s", grad.describe())
	}
	if c.composed != nil {
		return c.composeMergedGradient(grad, v)
	}
	c.count(grad, way, grad.Elements()*v.LambdaD.Elements())
	return c.node(C.GGML_VERA_MERGED_GRADIENT, way.parameters(), v.gradient(), grad, v.A, v.B, v.LambdaB, v.LambdaD)
}

// FactoredGradient is MergedGradient with T = Σ g uᵀ over the tokens, for the gradient g [out, n] of the layer's result
// and u = A x [rank, n], of one type.
func (c *Context) FactoredGradient(g, u *Tensor, v Vectors, way Way) *Tensor {
	if !c.areMatrices("factored_gradient", g, u, v.B, v.LambdaB, v.LambdaD) {
		return nil
	}
	if !isActivation(g.Type()) || u.Type() != g.Type() || g.ne[1] != u.ne[1] ||
		v.B.ne[0] != u.ne[0] || v.B.ne[1] != g.ne[0] ||
		!isVectorOrNil(v.LambdaB, g.Ne(0)) || !isVectorOrNil(v.LambdaD, u.Ne(0)) || v.B.Type() != F32 ||
		!way.trains() {
		return c.fail("factored_gradient", "%s by %s", g.describe(), u.describe())
	}
	if c.composed != nil {
		return c.composeFactoredGradient(g, u, v)
	}
	c.count(g, way, g.Elements()*u.Ne(0))
	return c.node(C.GGML_VERA_FACTORED_GRADIENT, way.parameters(), v.gradient(), g, u, v.B, v.LambdaB, v.LambdaD)
}

// gradient is that of b, then that of d.
func (v Vectors) gradient() result {
	return result{Type: F32, width: v.LambdaB.Ne(0) + v.LambdaD.Ne(0), rows: 1}
}

// Largest are the largest that products of a context have, in numbers: a weight, activations, B. States are the float32
// numbers that a thread keeps for a delta net's gradient.
type Largest struct{ Matrix, Operand, Pair, States int64 }

// Largest tells from what follows what veratune's own products take beside their results; all 0 where they are
// composed.
func (c *Context) Largest() Largest {
	if c.nodes == nil {
		return Largest{}
	}
	n := C.ggml_vera_largest_of(c.nodes)
	return Largest{int64(n.matrix), int64(n.operand), int64(n.pair), int64(n.states)}
}

// Max has the larger of both in each number.
func (l Largest) Max(o Largest) Largest {
	return Largest{max(l.Matrix, o.Matrix), max(l.Operand, o.Operand), max(l.Pair, o.Pair), max(l.States, o.States)}
}

// Peak is [1]: the number of additions and multiplications that computing it takes, on registers alone, in numbers of
// x's type: float32, bfloat16, or int32 for Integers.
func (c *Context) Peak(x *Tensor) *Tensor {
	if !c.areMatrices("peak", x) {
		return nil
	}
	if c.composed != nil {
		return c.fail("peak", "is measured on the CPU alone")
	}
	if t := x.Type(); !isActivation(t) && t != I32 {
		return c.fail("peak", "in %v", t)
	}
	return c.node(C.GGML_VERA_PEAK, parameters{}, result{Type: F32, width: 1, rows: 1}, x)
}
