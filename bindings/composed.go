package bindings

// #include "guard.h"
import "C"

// The composed form of veratune's own operations: made of ggml's stock operations, in float32, for every device. Only
// operations that all of ggml's backends have are used, so gradients are written out instead of taken from
// RMS_NORM_BACK and its like. On the CPU, the kernels of package ggml are tested against the composed form.
//
// The fused namesake of a function here has checked its operands.

// composition is what a backend's composed operations share.
type composition struct {
	backend *Backend
	context *Context
	memory  *Buffer
	indices *Tensor // 0, 1, 2, …
	rounds  bool    // products round to bfloat16
}

// upTo is the int32 tensor 0 … n−1.
func (c *Context) upTo(n int64) *Tensor {
	p := c.composed
	if p.indices == nil || p.indices.Ne(0) < n {
		p.close()
		size := int64(1 << 17)
		for size < n {
			size *= 2
		}
		p.context = NewContext(1)
		p.indices = p.context.NewTensor(I32, size)
		values := make([]int32, size)
		for i := range values {
			values[i] = int32(i)
		}
		var err error
		if p.memory, err = p.backend.Allocate(p.context); err == nil {
			err = Set(p.indices, values)
		}
		if err != nil {
			p.close()
			c.Fail(err)
			return nil
		}
	}
	return c.View(p.indices, [4]int64{n, 1, 1, 1}, [4]int64{})
}

func (p *composition) close() {
	if p != nil && p.context != nil {
		p.memory.Close()
		p.context.Close()
		p.context, p.memory, p.indices = nil, nil, nil
	}
}

// composable refuses operands and results that are not float32: composed forms compute in nothing else.
func (c *Context) composable(op string, t Type, operands ...*Tensor) bool {
	if t != F32 {
		c.fail(op, "to %v: on this device everything is computed in f32", t)
		return false
	}
	for _, x := range operands {
		if x != nil && x.Type() != F32 {
			c.fail(op, "%s: on this device everything is computed in f32", x.describe())
			return false
		}
	}
	return true
}

// floats is a matrix of any type as float32. A quantised one is gathered row by row, which every backend can do.
func (c *Context) floats(w *Tensor) *Tensor {
	if w.Type() == F32 {
		return w
	}
	return c.GetRows(w, c.upTo(w.Ne(1)))
}

// unbroken is x in contiguous memory, copied if need be.
func (c *Context) unbroken(x *Tensor) *Tensor {
	if x == nil || x.contiguous() {
		return x
	}
	return c.Cont(x)
}

// times is MulMat, with copies of operands that are parts of a tensor. Vulkan takes parts only where a tensor could
// begin, and rounds those with gaps to float16. Metal rounds to float16 whatever it multiplies by more than 8 columns,
// which loses small gradients; by a bfloat16 matrix, it rounds to bfloat16.
func (c *Context) times(a, b *Tensor) *Tensor {
	if c.composed.rounds && b.Ne(1) > fewColumns {
		return c.MulMat(c.Cast(c.whole(a), BF16), c.whole(b))
	}
	return c.exactTimes(a, b)
}

// exactTimes is times without rounding.
func (c *Context) exactTimes(a, b *Tensor) *Tensor { return c.MulMat(c.whole(a), c.whole(b)) }

func (c *Context) whole(x *Tensor) *Tensor {
	if x == nil || x.contiguous() && (x.view_src == nil || int64(x.view_offs)%c.composed.backend.Alignment() == 0) {
		return x
	}
	return c.Cont(x)
}

// transposed is x transposed, in contiguous memory.
func (c *Context) transposed(x *Tensor) *Tensor { return c.Cont(c.Transpose(x)) }

// part views columns start to start+n of every row of x [·, rows].
func (c *Context) part(x *Tensor, start, n int64) *Tensor {
	return c.View(x, [4]int64{n, x.Ne(1), 1, 1}, [4]int64{start})
}

// scaled multiplies every column of x [n, rows] by v [n]; a nil v leaves x as it is.
func (c *Context) scaled(x, v *Tensor) *Tensor {
	if v == nil {
		return x
	}
	return c.Mul(x, v)
}

// finish computes the rest of a product, y ⊙ Out + Acc, and puts it into Into.
func (p Product) finish(c *Context, y *Tensor) *Tensor {
	y = c.scaled(y, p.Out)
	if p.Acc != nil {
		y = c.Add(y, p.Acc)
	}
	if p.Into != nil {
		y = c.Cpy(y, p.Into)
	}
	return y
}

// fewColumns is up to how many columns backends multiply quantised weights as they are: they read them once.
const fewColumns = 8

func (c *Context) composeLinear(w, x *Tensor, p Product, t Type) *Tensor {
	if !c.composable("linear", t, x) {
		return nil
	}
	if p.Way == Bytes && w.Type() != F32 && x.Ne(1) <= fewColumns && w.contiguous() {
		if y := c.MulMat(w, c.whole(c.scaled(x, p.In))); c.composed.backend.has(y) {
			return p.finish(c, y)
		}
	}
	times := c.times
	if p.Way == Alike {
		times = c.exactTimes
	}
	return p.finish(c, times(c.floats(w), c.scaled(x, p.In)))
}

func (c *Context) composeLinears(parts []Part, x, y, u, acc *Tensor) (nodes []*Tensor) {
	for _, p := range parts {
		place := func(t *Tensor) *Tensor {
			return c.View(t, [4]int64{p.W.Ne(1), p.Rows, 1, 1}, [4]int64{p.Column, p.First})
		}
		some, product := x, Product{Way: p.Way}
		if p.Rows < x.Ne(1) {
			some = c.View(x, [4]int64{x.Ne(0), p.Rows, 1, 1}, [4]int64{0, p.First})
		}
		switch {
		case p.Second:
			product.Into = place(u)
		case acc != nil:
			product.Into, product.Acc = place(y), place(acc)
		default:
			product.Into = place(y)
		}
		nodes = append(nodes, c.Linear(p.W, some, product, F32))
	}
	return nodes
}

func (c *Context) composeAddFactored(layers []Factored, y, u, vectors, slots *Tensor, way Way) (nodes []*Tensor) {
	for _, l := range layers {
		rank, out := l.B.Ne(0), l.B.Ne(1)
		factors := func(offset, n int64) *Tensor {
			of := c.View(vectors, [4]int64{n, vectors.Ne(1), 1, 1}, [4]int64{offset})
			if slots == nil {
				return of
			}
			return c.GetRows(of, slots)
		}
		part := c.part(y, l.Column, out)
		scaled := c.Mul(c.part(u, l.Rank, rank), factors(l.Offset+out, rank))
		product := c.Mul(c.Linear(l.B, scaled, Product{Way: way}, F32), factors(l.Offset, out))
		nodes = append(nodes, c.Cpy(c.Add(product, part), part))
	}
	return nodes
}

func (c *Context) composeLinearBack(w, g *Tensor, p Product, t Type) *Tensor {
	if !c.composable("linear_back", t, g) {
		return nil
	}
	return p.finish(c, c.times(c.transposed(c.floats(w)), c.scaled(g, p.In)))
}

func (c *Context) composeWeightGradient(g, x *Tensor, t Type) *Tensor {
	if !c.composable("weight_gradient", t, g, x) {
		return nil
	}
	return c.times(c.transposed(x), c.transposed(g))
}

func (c *Context) composeMerge(dst, w *Tensor, v *Vectors) *Tensor {
	if !c.composable("merge", dst.Type(), v.A) {
		return nil
	}
	y := c.floats(w)
	if v.LambdaB != nil {
		down := c.View(v.A, [4]int64{w.Ne(0), v.A.Ne(1), 1, 1}, [4]int64{})
		change := c.times(c.transposed(down), c.Mul(v.B, v.LambdaD)) // [in, out]
		y = c.Add(c.Mul(change, c.Reshape(v.LambdaB, 1, w.Ne(1))), y)
	}
	return c.Cpy(y, dst)
}

func (c *Context) composeMergedGradient(grad *Tensor, v Vectors) *Tensor {
	if !c.composable("merged_gradient", F32, grad, v.A) {
		return nil
	}
	down := c.View(v.A, [4]int64{grad.Ne(0), v.A.Ne(1), 1, 1}, [4]int64{})
	return c.vectorsGradient(c.times(down, grad), v)
}

func (c *Context) composeFactoredGradient(g, u *Tensor, v Vectors) *Tensor {
	if !c.composable("factored_gradient", F32, g, u) {
		return nil
	}
	return c.vectorsGradient(c.times(c.transposed(u), c.transposed(g)), v)
}

// vectorsGradient takes T [rank, out] apart: E = B ⊙ T, ∂b = E d, ∂d = Eᵀ b.
func (c *Context) vectorsGradient(t *Tensor, v Vectors) *Tensor {
	e := c.Mul(t, v.B)
	b := c.times(e, v.LambdaD)               // [out]
	d := c.times(c.transposed(e), v.LambdaB) // [rank]
	return c.concat(b, d, 0)
}

func (c *Context) composeNorm(x, w *Tensor, eps float32, t Type) *Tensor {
	if !c.composable("norm", t) {
		return nil
	}
	return c.Mul(c.RMSNorm(x, eps), w)
}

// composeNormBack is (g − x̂ · mean(g ⊙ x̂)) / √(mean(x²) + eps) with g = dy ⊙ w and x̂ = RMSNorm(x).
func (c *Context) composeNormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.composable("norm_back", F32, dy) {
		return nil
	}
	x = c.unbroken(x)
	g, normed := c.Mul(c.unbroken(dy), w), c.RMSNorm(x, eps)
	n := 1 / float32(x.Ne(0))
	along := c.Mul(normed, c.ScaleBias(c.sumRows(c.Mul(g, normed)), n, 0))
	dx := c.div(c.sub(g, along), c.sqrt(c.ScaleBias(c.sumRows(c.Mul(x, x)), n, eps)))
	if acc != nil {
		dx = c.Add(dx, acc)
	}
	return dx
}

// centred is x minus the mean of each row.
func (c *Context) centred(x *Tensor) *Tensor {
	sums := c.sumRows(x)
	if sums == nil {
		return nil
	}
	return c.sub(x, c.ScaleBias(sums, 1/float32(x.Ne(0)), 0))
}

// composeLayerNorm is Norm of the centred x, whose mean square is the variance.
func (c *Context) composeLayerNorm(x, w, b *Tensor, eps float32, t Type) *Tensor {
	if !c.composable("layer_norm", t) {
		return nil
	}
	return c.Add(c.composeNorm(c.centred(c.unbroken(x)), w, eps, t), b)
}

func (c *Context) composeLayerNormBack(dy, x, w *Tensor, eps float32, acc *Tensor) *Tensor {
	if !c.composable("layer_norm_back", F32, dy) {
		return nil
	}
	dx := c.centred(c.composeNormBack(dy, c.centred(c.unbroken(x)), w, eps, nil))
	if acc != nil {
		dx = c.Add(dx, acc)
	}
	return dx
}

// headwise applies f to the heads of q and of k in columns of `all`, [numbers of f's weights, any], and joins the
// results with v.
func (c *Context) headwise(n HeadNorms, heads, kvHeads int, f func(w *Tensor, parts []*Tensor) *Tensor,
	all ...*Tensor) *Tensor {
	dim, offset := all[0].Ne(0)/int64(heads+2*kvHeads), int64(0)
	part := func(x *Tensor, count int) *Tensor { return c.Cont(c.part(x, offset, dim*int64(count))) }
	some := func(w *Tensor, count int) *Tensor {
		parts := make([]*Tensor, len(all))
		for i, x := range all {
			p := part(x, count)
			parts[i] = c.Reshape(p, w.Ne(0), p.Elements()/w.Ne(0))
		}
		offset += dim * int64(count)
		return c.Reshape(f(w, parts), dim*int64(count), all[0].Ne(1))
	}
	qk := c.concat(some(n.Q, heads), some(n.K, kvHeads), 0)
	return c.concat(qk, part(all[0], kvHeads), 0)
}

func (c *Context) composeNormHeads(x *Tensor, w HeadNorms, heads, kvHeads int, eps float32, t Type) *Tensor {
	if !c.composable("norm_heads", t, x) {
		return nil
	}
	return c.headwise(w, heads, kvHeads, func(w *Tensor, parts []*Tensor) *Tensor {
		return c.composeNorm(parts[0], w, eps, F32)
	}, x)
}

func (c *Context) composeNormHeadsBack(dy, x *Tensor, w HeadNorms, heads, kvHeads int, eps float32, t Type) *Tensor {
	if !c.composable("norm_heads_back", t, dy, x) {
		return nil
	}
	return c.headwise(w, heads, kvHeads, func(w *Tensor, parts []*Tensor) *Tensor {
		return c.composeNormBack(parts[0], parts[1], w, eps, nil)
	}, dy, x)
}

// halves are the gate and up parts, contiguous.
func (c *Context) halves(gateUp *Tensor) (gate, up *Tensor) {
	n := gateUp.Ne(0) / 2
	return c.Cont(c.part(gateUp, 0, n)), c.Cont(c.part(gateUp, n, n))
}

// Constants of GELU: 2 √(2/π), and 0.044715 times that.
const geluLinear, geluCubic = 1.5957691216057308, 0.07135481627159867

// sigma is σ(φ(x)).
func (c *Context) sigma(x *Tensor, act Activation) *Tensor {
	switch act {
	case GELU:
		x = c.Mul(x, c.ScaleBias(c.Mul(x, x), geluCubic, geluLinear))
	case Clamped:
		x = c.ScaleBias(x, clampSteep, 0)
	}
	return c.sigmoid(x)
}

// value is act(x), for σ(φ(x)).
func (c *Context) value(x, s *Tensor, act Activation) *Tensor {
	if act == Sigmoid {
		return s
	}
	return c.Mul(x, s)
}

// slope is act′(x) = σ + y φ′ (1 − σ) with y = x σ, or σ (1 − σ).
func (c *Context) slope(x, s, y *Tensor, act Activation) *Tensor {
	switch act {
	case GELU:
		y = c.Mul(y, c.ScaleBias(c.Mul(x, x), 3*geluCubic, geluLinear))
	case Clamped:
		y = c.ScaleBias(y, clampSteep, 0)
	}
	y = c.sub(y, c.Mul(y, s))
	if act == Sigmoid {
		return y
	}
	return c.Add(s, y)
}

func (c *Context) composeActivate(x *Tensor, act Activation, t Type) *Tensor {
	if !c.composable("activate", t, x) {
		return nil
	}
	x = c.unbroken(x)
	return c.Mul(x, c.sigma(x, act))
}

func (c *Context) composeActivateBack(dy, x *Tensor, act Activation, t Type) *Tensor {
	if !c.composable("activate_back", t, dy, x) {
		return nil
	}
	x = c.unbroken(x)
	s := c.sigma(x, act)
	return c.Mul(c.unbroken(dy), c.slope(x, s, c.Mul(x, s), act))
}

func (c *Context) composeGated(gateUp *Tensor, act Activation, t Type) *Tensor {
	if !c.composable("gated", t, gateUp) {
		return nil
	}
	gate, up := c.halves(gateUp)
	if act == Clamped {
		gate, _ = c.atMost(gate)
		up, _ = c.within(up)
		up = c.ScaleBias(up, 1, 1)
	}
	return c.Mul(c.value(gate, c.sigma(gate, act), act), up)
}

func (c *Context) composeGatedBack(dy, gateUp *Tensor, act Activation, t Type) *Tensor {
	if !c.composable("gated_back", t, dy, gateUp) {
		return nil
	}
	dy = c.unbroken(dy)
	gate, up := c.halves(gateUp)
	if act != Clamped {
		s := c.sigma(gate, act)
		y := c.value(gate, s, act)
		return c.concat(c.Mul(c.Mul(dy, up), c.slope(gate, s, y, act)), c.Mul(dy, y), 0)
	}
	gate, gatePasses := c.atMost(gate)
	up, upPasses := c.within(up)
	s := c.sigma(gate, act)
	y := c.Mul(gate, s)
	dgate := c.Mul(c.Mul(dy, c.ScaleBias(up, 1, 1)), c.slope(gate, s, y, act))
	return c.concat(c.Mul(dgate, gatePasses), c.Mul(c.Mul(dy, y), upPasses), 0)
}

// atMost is min(x, clampLimit); passes is 1 where that is x, else 0.
func (c *Context) atMost(x *Tensor) (y, passes *Tensor) {
	above := c.ScaleBias(x, 1, -clampLimit)
	return c.sub(x, c.relu(above)), c.ScaleBias(c.step(above), -1, 1)
}

// within is x held between −clampLimit and clampLimit; passes is 1 where that is x, else 0.
func (c *Context) within(x *Tensor) (y, passes *Tensor) {
	below := c.ScaleBias(x, -1, -clampLimit)
	y, passes = c.atMost(x)
	return c.Add(y, c.relu(below)), c.sub(passes, c.step(below))
}

// composeRotate is x ⊙ (cos, cos) + swapped(x) ⊙ (−sin, sin) on every pair. To rotate back, the signs of sin are
// swapped.
func (c *Context) composeRotate(x, table *Tensor, heads, headDim int, pairing Pairing, back bool, t Type) *Tensor {
	if !c.composable("rotate", t, x) {
		return nil
	}
	dims, dim, rows := table.Ne(0), int64(headDim), x.Ne(1)
	// The first and the second numbers of pairs: [1, dims/2, heads, rows], of halves [dims/2, 1, heads, rows].
	one, half, along := int64(1), dims/2, 0
	if pairing == Halves {
		one, half, along = half, one, 1
	}
	pairs := func(x *Tensor, heads int64, pairing Pairing) (parts [2]*Tensor) {
		for i := range int64(2) {
			if pairing == Neighbours {
				all := c.Reshape(c.unbroken(x), 2, dims/2, heads, rows)
				parts[i] = c.Cont(c.View(all, [4]int64{1, dims / 2, heads, rows}, [4]int64{i}))
			} else {
				all := c.Reshape(c.unbroken(x), dims/2, 2, heads, rows)
				parts[i] = c.Cont(c.View(all, [4]int64{dims / 2, 1, heads, rows}, [4]int64{0, i}))
			}
			parts[i] = c.Reshape(parts[i], one, half, heads, rows)
		}
		return parts
	}
	all := c.Reshape(c.Cont(c.part(x, 0, dim*int64(heads))), dim, int64(heads), rows)
	rotated := c.unbroken(c.View(all, [4]int64{dims, int64(heads), rows, 1}, [4]int64{}))
	angles := pairs(table, 1, Neighbours)
	cos, sin := angles[0], angles[1]
	other := c.ScaleBias(sin, -1, 0)
	if !back {
		sin, other = other, sin
	}
	of := pairs(c.Reshape(rotated, dims*int64(heads), rows), int64(heads), pairing)
	y := c.concat(c.Add(c.Mul(of[0], cos), c.Mul(of[1], sin)), c.Add(c.Mul(of[1], cos), c.Mul(of[0], other)), along)
	y = c.Reshape(y, dims, int64(heads), rows)
	if dims < dim {
		y = c.concat(y, c.Cont(c.View(all, [4]int64{dim - dims, int64(heads), rows, 1}, [4]int64{dims})), 0)
	}
	width := dim * int64(heads)
	y = c.Reshape(y, width, rows)
	if width < x.Ne(0) {
		y = c.concat(y, c.Cont(c.part(x, width, x.Ne(0)-width)), 0)
	}
	return y
}

// pick is the number of each row of x [n, rows] at the index that labels [rows] has for it: [1, 1, rows].
func (c *Context) pick(x, labels *Tensor) *Tensor {
	return c.GetRows(c.Reshape(x, 1, x.Ne(0), x.Ne(1)), c.Reshape(labels, 1, x.Ne(1)))
}

// setPicked writes values [1, 1, rows] to these places of x, in place.
func (c *Context) setPicked(x, values, labels *Tensor) *Tensor {
	if !c.hasOperands("set_rows", x, values, labels) {
		return nil
	}
	whole := c.Reshape(x, 1, x.Ne(0), x.Ne(1))
	y := (*Tensor)(C.ggml_set_rows(c.c, whole.c(), values.c(), c.Reshape(labels, 1, x.Ne(1)).c()))
	return c.Reshape(y, x.Ne(0), x.Ne(1))
}

func (c *Context) composeCapped(x *Tensor, cap float32) *Tensor {
	return c.ScaleBias(c.tanh(c.ScaleBias(c.unbroken(x), 1/cap, 0)), cap, 0)
}

// logits are x, capped if there is a cap, in contiguous memory.
func (c *Context) logits(x *Tensor, cap float32) *Tensor {
	if cap == 0 {
		return c.unbroken(x)
	}
	return c.composeCapped(x, cap)
}

// composeCrossEntropy is the largest logit minus the label's, minus the log of the largest probability, which is never
// 0.
func (c *Context) composeCrossEntropy(logits, labels *Tensor, cap float32) *Tensor {
	logits = c.logits(logits, cap)
	best := c.argmax(logits)
	p := c.Log(c.pick(c.SoftMax(logits, 1), best))
	return c.Reshape(c.sub(c.sub(c.pick(logits, best), c.pick(logits, labels)), p), labels.Ne(0))
}

func (c *Context) composeCrossEntropyBack(logits, labels *Tensor, cap float32, t Type) *Tensor {
	if !c.composable("cross_entropy_back", t) {
		return nil
	}
	logits = c.logits(logits, cap)
	p := c.SoftMax(logits, 1)
	y := c.setPicked(p, c.ScaleBias(c.pick(p, labels), 1, -1), labels)
	if cap != 0 {
		y = c.Mul(y, c.ScaleBias(c.Mul(logits, logits), -1/(cap*cap), 1)) // tanh′ = 1 − tanh²
	}
	return y
}
