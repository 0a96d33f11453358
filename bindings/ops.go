package bindings

// #include "guard.h"
import "C"

import "slices"

// hasOperands checks that no operand is nil and that the context has room for the result, which it reserves.
func (c *Context) hasOperands(op string, operands ...*Tensor) bool {
	for _, t := range operands {
		if t == nil {
			c.fail(op, "an operand is missing")
			return false
		}
	}
	return c.reserve(op)
}

// areF32 is hasOperands for operands of float32 with unbroken rows.
func (c *Context) areF32(op string, operands ...*Tensor) bool {
	if !c.hasOperands(op, operands...) {
		return false
	}
	for _, t := range operands {
		if t.Type() != F32 || !t.contiguousRows() {
			c.fail(op, "%s: float32 with unbroken rows is needed", t.describe())
			return false
		}
	}
	return true
}

func (c *Context) sameShape(op string, a, b *Tensor) bool {
	if !c.areF32(op, a, b) {
		return false
	}
	if a.Shape() != b.Shape() || !a.contiguous() || !b.contiguous() {
		c.fail(op, "%s and %s: equal contiguous shapes are needed", a.describe(), b.describe())
		return false
	}
	return true
}

func (c *Context) broadcasts(op string, a, b *Tensor) bool {
	if !c.areF32(op, a, b) {
		return false
	}
	for i := range 4 {
		if a.ne[i]%b.ne[i] != 0 {
			c.fail(op, "%s cannot be repeated to %s", b.describe(), a.describe())
			return false
		}
	}
	return true
}

// Add is a + b, b repeated to a's shape.
func (c *Context) Add(a, b *Tensor) *Tensor {
	if !c.broadcasts("add", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_add(c.c, a.c(), b.c()))
}

// AddInplace adds b, repeated to a's shape, to a's own memory.
func (c *Context) AddInplace(a, b *Tensor) *Tensor {
	if !c.broadcasts("add_inplace", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_add_inplace(c.c, a.c(), b.c()))
}

// Mul is the elementwise product a ⊙ b, b repeated to a's shape.
func (c *Context) Mul(a, b *Tensor) *Tensor {
	if !c.broadcasts("mul", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_mul(c.c, a.c(), b.c()))
}

// MulInplace multiplies a by b, repeated to a's shape, in a's own memory.
func (c *Context) MulInplace(a, b *Tensor) *Tensor {
	if !c.broadcasts("mul_inplace", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_mul_inplace(c.c, a.c(), b.c()))
}

// sub is a − b and div a / b, b repeated to a's shape.
func (c *Context) sub(a, b *Tensor) *Tensor {
	if !c.broadcasts("sub", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_sub(c.c, a.c(), b.c()))
}

func (c *Context) div(a, b *Tensor) *Tensor {
	if !c.broadcasts("div", a, b) {
		return nil
	}
	return (*Tensor)(C.ggml_div(c.c, a.c(), b.c()))
}

func (c *Context) sqrt(a *Tensor) *Tensor {
	if !c.sameShape("sqrt", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_sqrt(c.c, a.c()))
}

func (c *Context) sigmoid(a *Tensor) *Tensor {
	if !c.sameShape("sigmoid", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_sigmoid(c.c, a.c()))
}

func (c *Context) relu(a *Tensor) *Tensor {
	if !c.sameShape("relu", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_relu(c.c, a.c()))
}

// step is 1 where a is above 0, else 0.
func (c *Context) step(a *Tensor) *Tensor {
	if !c.sameShape("step", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_step(c.c, a.c()))
}

func (c *Context) tanh(a *Tensor) *Tensor {
	if !c.sameShape("tanh", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_tanh(c.c, a.c()))
}

func (c *Context) exp(a *Tensor) *Tensor {
	if !c.sameShape("exp", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_exp(c.c, a.c()))
}

// softplus is log(1 + eᵃ).
func (c *Context) softplus(a *Tensor) *Tensor {
	if !c.sameShape("softplus", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_softplus(c.c, a.c()))
}

// cumulated is, at each place of a row, the sum of the numbers up to it.
func (c *Context) cumulated(a *Tensor) *Tensor {
	if !c.sameShape("cumsum", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_cumsum(c.c, a.c()))
}

// triangle is the part of a matrix [n, n, any] that tri keeps; the rest becomes 0. Number i of row r is above the
// diagonal where i > r.
type triangle uint32

// ggml's numbers.
const (
	fromDiagonal  triangle = iota // on the diagonal and above
	aboveDiagonal                 // above it
	upToDiagonal                  // on it and below
	belowDiagonal                 // below it
)

func (c *Context) tri(a *Tensor, t triangle) *Tensor {
	if !c.sameShape("tri", a, a) {
		return nil
	}
	if a.ne[0] != a.ne[1] {
		return c.fail("tri", "%s", a.describe())
	}
	return (*Tensor)(C.ggml_tri(c.c, a.c(), C.uint(t)))
}

// solve is x of A x = b for a lower triangle A [n, n, any] and b [m, n, any].
func (c *Context) solve(a, b *Tensor) *Tensor {
	if !c.sameShape("solve", a, a) || !c.sameShape("solve", b, b) {
		return nil
	}
	if a.ne[0] != a.ne[1] || a.ne[1] != b.ne[1] || a.ne[2] != b.ne[2] || a.ne[3] != b.ne[3] {
		return c.fail("solve", "%s for %s", b.describe(), a.describe())
	}
	return (*Tensor)(C.ggml_solve_tri(c.c, a.c(), b.c(), true, true, false))
}

// sumRows is the sum of each row, [1, rows].
func (c *Context) sumRows(a *Tensor) *Tensor {
	if !c.sameShape("sum_rows", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_sum_rows(c.c, a.c()))
}

// SumOfSquares is the sum of the squares of all numbers of a [n, m], [1]. Rows are summed first.
func (c *Context) SumOfSquares(a *Tensor) *Tensor {
	rows := c.sumRows(c.Mul(a, a))
	if rows == nil {
		return nil
	}
	return c.sumRows(c.Reshape(rows, rows.Elements()))
}

// OptStepAdamW moves p [n], in its own memory, by a step of AdamW (Loshchilov and Hutter, arXiv 1711.05101) against its
// gradient g, with the moments m and v, which move too. scalars [7] are the learning rate, β1, β2, ε, the weight decay
// λ, 1/(1−β1ᵗ) and 1/(1−β2ᵗ):
//
//	m ← β1·m + (1−β1)·g        v ← β2·v + (1−β2)·g²        p ← (1−lr·λ)·p − lr · m/(1−β1ᵗ) / (√(v/(1−β2ᵗ)) + ε)
func (c *Context) OptStepAdamW(p, g, m, v, scalars *Tensor) *Tensor {
	const op, param = "opt_step_adamw", 4
	if !c.areF32(op, p, g, m, v, scalars) {
		return nil
	}
	for _, t := range []*Tensor{p, g, m, v} {
		if t.Shape() != p.Shape() || !t.contiguous() {
			return c.fail(op, "%s and %s: equal contiguous shapes are needed", p.describe(), t.describe())
		}
	}
	if scalars.Elements() != 7 {
		return c.fail(op, "%s: 7 numbers are needed", scalars.describe())
	}
	p.flags |= param
	return (*Tensor)(C.ggml_opt_step_adamw(c.c, p.c(), g.c(), m.c(), v.c(), scalars.c()))
}

// argmax is the index of the largest number of each row of a [n, rows], int32 [rows].
func (c *Context) argmax(a *Tensor) *Tensor {
	if !c.sameShape("argmax", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_argmax(c.c, a.c()))
}

// concat puts b behind a in one dimension.
func (c *Context) concat(a, b *Tensor, dim int) *Tensor {
	if !c.areF32("concat", a, b) {
		return nil
	}
	for i := range 4 {
		if i != dim && a.ne[i] != b.ne[i] {
			return c.fail("concat", "%s and %s in dimension %d", a.describe(), b.describe(), dim)
		}
	}
	return (*Tensor)(C.ggml_concat(c.c, a.c(), b.c(), C.int(dim)))
}

// Log is the natural logarithm of each element.
func (c *Context) Log(a *Tensor) *Tensor {
	if !c.sameShape("log", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_log(c.c, a.c()))
}

// ScaleBias is s·a + bias.
func (c *Context) ScaleBias(a *Tensor, s, bias float32) *Tensor {
	if !c.sameShape("scale_bias", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_scale_bias(c.c, a.c(), C.float(s), C.float(bias)))
}

// RMSNorm divides each row by √(mean of its squares + eps).
func (c *Context) RMSNorm(a *Tensor, eps float32) *Tensor {
	if !c.areF32("rms_norm", a) {
		return nil
	}
	if !(eps >= 0) {
		return c.fail("rms_norm", "eps %g", eps)
	}
	return (*Tensor)(C.ggml_rms_norm(c.c, a.c(), C.float(eps)))
}

// MulMat is a·b over the row length: a [k, m, i, j] and b [k, n, i·r, j·s] give [m, n, i·r, j·s]. a may be of any type
// that dequantises, with unbroken rows; b is float32. With a quantised a, ggml rounds b to 8 bits.
func (c *Context) MulMat(a, b *Tensor) *Tensor {
	if !c.hasOperands("mul_mat", a, b) {
		return nil
	}
	if b.Type() != F32 || !a.Type().Dequantizes() || !a.contiguousRows() || !b.contiguousRows() || a.nb[0] > a.nb[1] ||
		a.ne[0] != b.ne[0] || b.ne[2]%a.ne[2] != 0 || b.ne[3]%a.ne[3] != 0 {
		return c.fail("mul_mat", "%s by %s", a.describe(), b.describe())
	}
	return (*Tensor)(C.ggml_mul_mat(c.c, a.c(), b.c()))
}

// GetRows gathers rows of a [n, m] as float32: [n, len(idx)]. The indices, int32, must be smaller than m when the graph
// is computed.
func (c *Context) GetRows(a, idx *Tensor) *Tensor {
	if !c.hasOperands("get_rows", a, idx) {
		return nil
	}
	if idx.Type() != I32 || a.ne[2] != idx.ne[1] || a.ne[3] != idx.ne[2] || idx.ne[3] != 1 || !a.Type().Dequantizes() ||
		!a.contiguousRows() {
		return c.fail("get_rows", "%s by %s", a.describe(), idx.describe())
	}
	return (*Tensor)(C.ggml_get_rows(c.c, a.c(), idx.c()))
}

// SetRows writes the rows of b [n, m], float32, into the memory of a, float32 or float16, at the indices idx [m],
// int32, and is a afterwards.
func (c *Context) SetRows(a, b, idx *Tensor) *Tensor {
	if !c.areF32("set_rows", b) || !c.hasOperands("set_rows", a) {
		return nil
	}
	if a.Type() != F32 && a.Type() != F16 || !a.contiguousRows() || idx == nil || idx.Type() != I32 ||
		a.ne[0] != b.ne[0] || b.ne[1] != idx.ne[0] || idx.Elements() != idx.Ne(0) ||
		a.ne[2] != 1 || b.ne[2] != 1 || a.ne[3] != 1 || b.ne[3] != 1 {
		return c.fail("set_rows", "%s into %s", b.describe(), a.describe())
	}
	return (*Tensor)(C.ggml_set_rows(c.c, a.c(), b.c(), idx.c()))
}

// Cast copies a float32 tensor of any strides into a contiguous one of another type: f32, f16 or bf16.
func (c *Context) Cast(a *Tensor, t Type) *Tensor {
	if !c.hasOperands("cast", a) {
		return nil
	}
	if a.Type() != F32 || t != F32 && t != F16 && t != BF16 {
		return c.fail("cast", "%s to %v", a.describe(), t)
	}
	return (*Tensor)(C.ggml_cast(c.c, a.c(), C.uint(t)))
}

// Cpy copies a, float32 of any strides, into b's memory: as many elements of f32, f16, bf16 or q8_0. From f16 it copies
// to f16.
func (c *Context) Cpy(a, b *Tensor) *Tensor {
	if !c.hasOperands("cpy", a, b) {
		return nil
	}
	takes := a.Type() == F32 && (b.Type() == F32 || b.Type() == BF16 || b.Type() == Q8_0)
	if !takes && (a.Type() != F32 && a.Type() != F16 || b.Type() != F16) || a.Elements() != b.Elements() {
		return c.fail("cpy", "%s into %s", a.describe(), b.describe())
	}
	return (*Tensor)(C.ggml_cpy(c.c, a.c(), b.c()))
}

// Cont is a in contiguous memory.
func (c *Context) Cont(a *Tensor) *Tensor {
	if !c.hasOperands("cont", a) {
		return nil
	}
	if a.Type() != F32 {
		return c.fail("cont", "%s: float32 is needed", a.describe())
	}
	return (*Tensor)(C.ggml_cont(c.c, a.c()))
}

// Transpose swaps the first two dimensions, without a copy.
func (c *Context) Transpose(a *Tensor) *Tensor {
	if !c.hasOperands("transpose", a) {
		return nil
	}
	return (*Tensor)(C.ggml_transpose(c.c, a.c()))
}

// Permute moves dimension i to place axes[i], without a copy.
func (c *Context) Permute(a *Tensor, axes ...int) *Tensor {
	if !c.hasOperands("permute", a) {
		return nil
	}
	if sorted := slices.Sorted(slices.Values(axes)); !slices.Equal(sorted, []int{0, 1, 2, 3}) {
		return c.fail("permute", "axes %v", axes)
	}
	return (*Tensor)(C.ggml_permute(c.c, a.c(), C.int(axes[0]), C.int(axes[1]), C.int(axes[2]), C.int(axes[3])))
}

// Reshape gives a contiguous tensor another shape of as many elements, without a copy.
func (c *Context) Reshape(a *Tensor, ne ...int64) *Tensor {
	if !c.hasOperands("reshape", a) {
		return nil
	}
	shape, left := [4]int64{1, 1, 1, 1}, a.Elements()
	copy(shape[:], ne)
	for _, n := range shape {
		if n < 1 || left%n != 0 {
			return c.fail("reshape", "%s to %v", a.describe(), ne)
		}
		left /= n
	}
	if len(ne) > 4 || left != 1 || shape[0]%a.Type().BlockSize() != 0 || !a.contiguous() {
		return c.fail("reshape", "%s to %v", a.describe(), ne)
	}
	return (*Tensor)(C.ggml_reshape_4d(c.c, a.c(), C.int64_t(shape[0]), C.int64_t(shape[1]), C.int64_t(shape[2]),
		C.int64_t(shape[3])))
}

// View is a part of a, without a copy: shape ne with a's strides, from index start in each dimension. a must have
// unbroken rows. The first index is a multiple of the type's block.
func (c *Context) View(a *Tensor, ne [4]int64, start [4]int64) *Tensor {
	if !c.hasOperands("view", a) {
		return nil
	}
	for i := range 4 {
		if ne[i] < 1 || start[i] < 0 || ne[i] > a.Ne(i)-start[i] {
			return c.fail("view", "%v at %v of %s", ne, start, a.describe())
		}
	}
	block := a.Type().BlockSize()
	if ne[0]%block != 0 || start[0]%block != 0 || !a.contiguousRows() {
		return c.fail("view", "%v at %v of %s: unbroken rows and multiples of the block of %d are needed", ne, start,
			a.describe(), block)
	}
	offset := start[0] / block * a.Stride(0)
	for i := 1; i < 4; i++ {
		offset += start[i] * a.Stride(i)
	}
	return (*Tensor)(C.ggml_view_4d(c.c, a.c(), C.int64_t(ne[0]), C.int64_t(ne[1]), C.int64_t(ne[2]), C.int64_t(ne[3]),
		a.nb[1], a.nb[2], a.nb[3], C.size_t(offset)))
}

// SoftMax is softmax(scale·a) of each row.
func (c *Context) SoftMax(a *Tensor, scale float32) *Tensor {
	if !c.sameShape("soft_max", a, a) {
		return nil
	}
	return (*Tensor)(C.ggml_soft_max_ext(c.c, a.c(), nil, C.float(scale), 0))
}

// softMaxMasked is softmax(scale·a + mask) of each row of a [keys, queries, any]; mask [keys, queries] holds for every
// matrix. With sinks, one for each matrix, a row has one more number, which the result leaves out.
func (c *Context) softMaxMasked(a, mask, sinks *Tensor, scale float32) *Tensor {
	if !c.areF32("soft_max", a, mask) {
		return nil
	}
	if !a.contiguous() || !mask.contiguous() || mask.ne[0] != a.ne[0] || mask.ne[1] != a.ne[1] || mask.ne[2] != 1 ||
		a.ne[3]%mask.ne[3] != 0 {
		return c.fail("soft_max", "%s masked by %s", a.describe(), mask.describe())
	}
	y := (*Tensor)(C.ggml_soft_max_ext(c.c, a.c(), mask.c(), C.float(scale), 0))
	if sinks != nil {
		if !isVectorOrNil(sinks, a.Ne(2)) || !sinks.contiguousRows() {
			return c.fail("soft_max", "%s with sinks %s", a.describe(), sinks.describe())
		}
		C.ggml_soft_max_add_sinks(y.c(), sinks.c())
	}
	return y
}

// Rope holds the constants of rotary position embedding (Su et al., arXiv 2104.09864) in llama.cpp's words, with
// neighbouring numbers of a head rotated together (Rotate takes either pairing). Factors is nil or float32 [Dims/2],
// which divide the frequencies (Llama 3.1).
type Rope struct {
	Dims        int     `json:"dims"`         // numbers of a head that are rotated
	OrigContext int     `json:"orig_context"` // context length of the original training, for YaRN
	FreqBase    float32 `json:"freq_base"`    // θ of the paper
	FreqScale   float32 `json:"freq_scale"`   // 1 / linear scaling factor
	ExtFactor   float32 `json:"ext_factor"`   // 1 with YaRN, else 0
	AttnFactor  float32 `json:"attn_factor"`
	BetaFast    float32 `json:"beta_fast"`
	BetaSlow    float32 `json:"beta_slow"`
}

func (c *Context) ropeFits(op string, a, pos, factors *Tensor, r Rope) bool {
	if !c.areF32(op, a) {
		return false
	}
	if pos == nil || pos.Type() != I32 || pos.Ne(0) != a.Ne(2) || pos.Elements() != pos.Ne(0) || r.Dims%2 != 0 ||
		int64(r.Dims) > a.Ne(0) || r.Dims < 2 ||
		factors != nil && (factors.Type() != F32 || factors.Ne(0) < int64(r.Dims/2)) {
		c.fail(op, "%s with %d rotated numbers", a.describe(), r.Dims)
		return false
	}
	return true
}

// Rope rotates a [head dim, heads, tokens] by the positions pos [tokens], int32.
func (c *Context) Rope(a, pos, factors *Tensor, r Rope) *Tensor {
	if !c.ropeFits("rope", a, pos, factors, r) {
		return nil
	}
	return (*Tensor)(C.ggml_rope_ext(c.c, a.c(), pos.c(), factors.c(), C.int(r.Dims), 0, C.int(r.OrigContext),
		C.float(r.FreqBase),
		C.float(r.FreqScale), C.float(r.ExtFactor), C.float(r.AttnFactor), C.float(r.BetaFast), C.float(r.BetaSlow)))
}
