package bindings

import (
	"math"
	"math/rand/v2"
	"testing"
)

// bench builds one graph with inputs, and computes it.
type bench struct {
	*Context
	graph  *Graph
	inputs []func() error
}

// f makes a float32 input, i an int32 one.
func (b *bench) f(values []float32, ne ...int64) *Tensor { return newInput(b, F32, values, ne) }
func (b *bench) i(values []int32, ne ...int64) *Tensor   { return newInput(b, I32, values, ne) }

func newInput[T float32 | int32](b *bench, kind Type, values []T, ne []int64) *Tensor {
	x := b.NewTensor(kind, ne...).Input()
	b.graph.Expand(x)
	b.inputs = append(b.inputs, func() error { return Set(x, values) })
	return x
}

// run computes the graph; its values last until the allocator is closed.
func (b *bench) run(t testing.TB, backend *Backend) *Allocator {
	t.Helper()
	alloc := backend.NewAllocator()
	if err := alloc.Allocate(b.graph); err != nil {
		t.Fatal(err)
	}
	for _, set := range b.inputs {
		if err := set(); err != nil {
			t.Fatal(err)
		}
	}
	if err := backend.Compute(b.graph); err != nil {
		t.Fatal(err)
	}
	return alloc
}

// compute gives the values of the tensor that build makes, row after row.
func compute(t testing.TB, build func(b *bench) *Tensor) []float32 {
	t.Helper()
	c := NewContext(64)
	defer c.Close()
	b := &bench{Context: c, graph: c.NewGraph()}
	out := c.Cont(build(b)).Output()
	b.graph.Expand(out)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	backend, err := NewCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	defer b.run(t, backend).Close()
	values := make([]float32, out.Elements())
	if err := Get(out, values); err != nil {
		t.Fatal(err)
	}
	return values
}

func normal(seed uint64, n int) []float32 {
	random := rand.New(rand.NewPCG(seed, 3))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(random.NormFloat64())
	}
	return values
}

// near compares with a tolerance for float32 rounding; ggml's exponential is good to 2 units in the last place.
func near(t *testing.T, what string, got []float32, want ...float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d numbers, want %d", what, len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] && !(math.Abs(float64(got[i]-want[i])) <= 2e-6*max(1, math.Abs(float64(want[i])))) {
			t.Errorf("%s: number %d is %g, want %g", what, i, got[i], want[i])
			return
		}
	}
}

func TestOps(t *testing.T) {
	inf := float32(math.Inf(-1))
	exp := func(v float64) float32 { return float32(math.Exp(v)) }
	six := []float32{1, 2, 3, 4, 5, 6}
	for name, c := range map[string]struct {
		build func(b *bench) *Tensor
		want  []float32
	}{
		"add": {func(b *bench) *Tensor { return b.Add(b.f(six, 3, 2), b.f(six, 3, 2)) },
			[]float32{2, 4, 6, 8, 10, 12}},
		"add a row": {func(b *bench) *Tensor { return b.Add(b.f(six, 3, 2), b.f(six[:3], 3)) },
			[]float32{2, 4, 6, 5, 7, 9}},
		"add a column": {func(b *bench) *Tensor { return b.Add(b.f(six, 3, 2), b.f(six[:2], 1, 2)) },
			[]float32{2, 3, 4, 6, 7, 8}},
		"add in place": {func(b *bench) *Tensor { x := b.f(six, 6); b.graph.Expand(b.AddInplace(x, x)); return x },
			[]float32{2, 4, 6, 8, 10, 12}},
		"mul": {func(b *bench) *Tensor { return b.Mul(b.f(six, 3, 2), b.f(six[3:], 3)) },
			[]float32{4, 10, 18, 16, 25, 36}},
		"mul in place": {func(b *bench) *Tensor {
			x := b.f(six, 6)
			b.graph.Expand(b.MulInplace(x, b.f([]float32{2}, 1)))
			return x
		}, []float32{2, 4, 6, 8, 10, 12}},
		"squares": {func(b *bench) *Tensor { return b.SumOfSquares(b.f(six, 2, 3)) }, []float32{91}},
		"AdamW": {func(b *bench) *Tensor {
			p, g, m, v := b.f([]float32{1, -2}, 2), b.f([]float32{4, 0}, 2), b.f([]float32{2, 1}, 2),
				b.f([]float32{16, 4}, 2)
			b.graph.Expand(b.OptStepAdamW(p, g, m, v, b.f([]float32{0.5, 0.5, 0.75, 0.25, 0.1, 2, 4}, 7)))
			return b.concat(b.concat(p, m, 0), v, 0)
		}, []float32{
			0.95 - 0.5*6/8.25, -1.9 - 0.5*1/(float32(math.Sqrt(12))+0.25), 3, 0.5, 16, 3,
		}},
		"log": {func(b *bench) *Tensor { return b.Log(b.f([]float32{1, exp(1), exp(-3), 0}, 4)) },
			[]float32{0, 1, -3, inf}},
		"scale": {func(b *bench) *Tensor { return b.ScaleBias(b.f(six[:2], 2), -2, 0.5) },
			[]float32{-1.5, -3.5}},
		"rms norm": {func(b *bench) *Tensor { return b.RMSNorm(b.f([]float32{3, 4, 0, 0}, 2, 2), 0.5) },
			[]float32{3 / float32(math.Sqrt(13)), 4 / float32(math.Sqrt(13)), 0, 0}},
		"product": {func(b *bench) *Tensor { return b.MulMat(b.f(six, 2, 3), b.f([]float32{1, 10, 0, 1}, 2, 2)) },
			[]float32{21, 43, 65, 2, 4, 6}},
		"shared matrix": {func(b *bench) *Tensor {
			return b.MulMat(b.f(six[:2], 2, 1, 1), b.f([]float32{1, 0, 0, 1}, 2, 1, 2))
		}, []float32{1, 2}},
		"get rows": {func(b *bench) *Tensor { return b.GetRows(b.f(six, 2, 3), b.i([]int32{2, 0, 2}, 3)) },
			[]float32{5, 6, 1, 2, 5, 6}},
		"set rows": {func(b *bench) *Tensor {
			return b.SetRows(b.f(six, 2, 3), b.f([]float32{7, 8}, 2, 1), b.i([]int32{1}, 1))
		}, []float32{1, 2, 7, 8, 5, 6}},
		"transpose": {func(b *bench) *Tensor { return b.Transpose(b.f(six, 3, 2)) }, []float32{1, 4, 2, 5, 3, 6}},
		"permute": {func(b *bench) *Tensor { return b.Permute(b.f(six, 1, 2, 3), 0, 2, 1, 3) },
			[]float32{1, 3, 5, 2, 4, 6}},
		"reshape": {func(b *bench) *Tensor { return b.Transpose(b.Reshape(b.f(six, 3, 2), 2, 3)) },
			[]float32{1, 3, 5, 2, 4, 6}},
		"view": {func(b *bench) *Tensor { return b.View(b.f(six, 3, 2), [4]int64{2, 2, 1, 1}, [4]int64{1}) },
			[]float32{2, 3, 5, 6}},
		"view of rows": {func(b *bench) *Tensor { return b.View(b.f(six, 2, 3), [4]int64{2, 1, 1, 1}, [4]int64{0, 2}) },
			[]float32{5, 6}},
		"soft max": {func(b *bench) *Tensor { return b.SoftMax(b.f([]float32{0, 2, inf}, 3), 0.5) },
			[]float32{1 / (1 + exp(1)), 1 - 1/(1+exp(1)), 0}},
		"copy into a part": {func(b *bench) *Tensor {
			x := b.f(six, 3, 2)
			b.graph.Expand(b.Cpy(b.Transpose(b.f([]float32{7, 8, 9, 10}, 2, 2)),
				b.View(x, [4]int64{2, 2, 1, 1}, [4]int64{1})))
			return x
		}, []float32{1, 7, 9, 4, 8, 10}},
		"rope": {func(b *bench) *Tensor {
			r := Rope{Dims: 4, FreqBase: 100, FreqScale: 1, AttnFactor: 1, BetaFast: 32, BetaSlow: 1}
			return b.Rope(b.f([]float32{1, 0, 0, 1, 5}, 5, 1, 1), b.i([]int32{2}, 1), b.f([]float32{1, 4}, 2), r)
		}, []float32{float32(math.Cos(2)), float32(math.Sin(2)), -float32(math.Sin(0.05)), float32(math.Cos(0.05)), 5}},
	} {
		t.Run(name, func(t *testing.T) { near(t, name, compute(t, c.build), c.want...) })
	}
}

// TestRounding casts strided and contiguous numbers to the half precisions and back.
func TestRounding(t *testing.T) {
	values := normal(1, 12)
	for _, kind := range []Type{F32, F16, BF16} {
		// With 8 bits of mantissa (BF16) and 11 (F16), rounding is off by half a unit in the last place.
		tolerance := map[Type]float64{F32: 0, F16: 1.0 / (1 << 11), BF16: 1.0 / (1 << 8)}[kind]
		for name, build := range map[string]func(b *bench) *Tensor{
			"cast": func(b *bench) *Tensor {
				return b.GetRows(b.Cast(b.f(values, 3, 4), kind), b.i([]int32{0, 1, 2, 3}, 4))
			},
			"cast a transposed": func(b *bench) *Tensor {
				return b.Transpose(b.GetRows(b.Cast(b.Transpose(b.f(values, 3, 4)), kind), b.i([]int32{0, 1, 2}, 3)))
			},
			"copy": func(b *bench) *Tensor {
				to := b.NewTensor(kind, 3, 4)
				b.graph.Expand(b.Cpy(b.f(values, 3, 4), to))
				return b.GetRows(to, b.i([]int32{0, 1, 2, 3}, 4))
			},
		} {
			got := compute(t, build)
			for i, want := range values {
				if off := math.Abs(float64(got[i] - want)); !(off <= tolerance*math.Abs(float64(want))) {
					t.Errorf("%s to %v: %g became %g", name, kind, want, got[i])
				}
			}
		}
	}
}

// TestQuantize writes every type that this project names and reads it back with an error below the step of its bits.
func TestQuantize(t *testing.T) {
	const width, rows = 256, 3
	values := normal(2, width*rows)
	for kind, limit := range map[Type]float64{F32: 0, F16: 0.002, BF16: 0.02, Q8_0: 0.02, Q6_K: 0.1, Q5_0: 0.2,
		Q5_1: 0.2, Q5_K: 0.2, Q4_0: 0.4, Q4_1: 0.4, Q4_K: 0.4,
		Q3_K: 0.8, Q2_K: 1.5} {
		data, err := Quantize(kind, values, width)
		if err != nil {
			t.Error(err)
			continue
		}
		out := make([]float32, width*rows)
		if err := Dequantize(kind, data, out); err != nil {
			t.Error(err)
			continue
		}
		for i, v := range out {
			if !(math.Abs(float64(v-values[i])) <= limit) {
				t.Errorf("%v: %g became %g", kind, values[i], v)
				break
			}
		}
	}
	for name, err := range map[string]error{
		"an unknown type":      errOf(Quantize(99, values, width)),
		"a removed type":       errOf(Quantize(4, values, width)),
		"products' q8_1":       errOf(Quantize(9, values, width)),
		"products' q8_K":       errOf(Quantize(15, values, width)),
		"integers":             errOf(Quantize(I32, values, width)),
		"no rows":              errOf(Quantize(Q4_0, nil, width)),
		"no width":             errOf(Quantize(Q4_0, values, 0)),
		"a broken row":         errOf(Quantize(F32, values, 100)),
		"a broken block":       errOf(Quantize(Q4_K, values, 128)),
		"an importance matrix": errOf(Quantize(16, values, width)),
		"bytes that are few":   Dequantize(Q4_0, make([]byte, 17), make([]float32, 32)),
		"bytes that are many":  Dequantize(F32, make([]byte, 8), make([]float32, 1)),
		"half a block":         Dequantize(Q4_0, make([]byte, 9), make([]float32, 16)),
		"type 99":              Dequantize(99, make([]byte, 4), make([]float32, 1)),
		"int32":                Dequantize(I32, make([]byte, 4), make([]float32, 1)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := Dequantize(Q4_0, nil, nil); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

// TestDequantize gives random bytes as every type that a file may hold: Dequantize and GetRows must agree to the bit.
func TestDequantize(t *testing.T) {
	const width, rows = 256, 3
	random, types := rand.New(rand.NewPCG(8, 8)), 0
	for kind := range typeCount {
		if !kind.Dequantizes() {
			continue
		}
		types++
		data := aligned(make([]byte, rows*kind.RowBytes(width)))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		want := make([]float32, width*rows)
		if err := Dequantize(kind, data, want); err != nil {
			t.Error(err)
			continue
		}
		c := NewContext(1)
		memory := HostBuffer(data)
		x := c.NewTensor(kind, width, rows)
		if err := memory.PlaceAt(x, 0); err != nil {
			t.Fatal(err)
		}
		got := compute(t, func(b *bench) *Tensor { return b.GetRows(x, b.i([]int32{0, 1, 2}, 3)) })
		for i := range got {
			if got[i] != want[i] && !(math.IsNaN(float64(got[i])) && math.IsNaN(float64(want[i]))) {
				t.Errorf("%v: GetRows gives %g, Dequantize %g", kind, got[i], want[i])
				break
			}
		}
		memory.Close()
		c.Close()
	}
	if types < 25 {
		t.Errorf("only %d types", types)
	}
}

func errOf(_ []byte, err error) error { return err }

// aligned copies bytes to an address that ggml's buffers may begin at.
func aligned(data []byte) []byte {
	const to = 64
	room := make([]byte, len(data)+to)
	at := 0
	for uintptr(ptr(room[at:]))%to != 0 {
		at++
	}
	copy(room[at:], data)
	return room[at : at+len(data) : at+len(data)]
}

// TestWrongOperands gives every operation what ggml would abort the process on.
func TestWrongOperands(t *testing.T) {
	r := Rope{Dims: 4, FreqBase: 100, FreqScale: 1, AttnFactor: 1, BetaFast: 32, BetaSlow: 1}
	odd, wide := r, r
	odd.Dims, wide.Dims = 3, 6
	// x is 4 × 3, y 3 × 4; q is quantised, h in half precision, i int32; t is x transposed, p a stack of matrices
	// permuted.
	type operands struct{ x, y, q, h, i, t, p *Tensor }
	for name, build := range map[string]func(c *Context, o operands) *Tensor{
		"add: shapes": func(c *Context, o operands) *Tensor { return c.Add(o.x, o.y) },
		"add: larger second": func(c *Context, o operands) *Tensor {
			return c.Add(c.View(o.x, [4]int64{4, 1, 1, 1}, [4]int64{}), o.x)
		},
		"add: types":           func(c *Context, o operands) *Tensor { return c.Add(o.x, o.i) },
		"add: transposed":      func(c *Context, o operands) *Tensor { return c.Add(o.y, o.t) },
		"add: nothing":         func(c *Context, o operands) *Tensor { return c.Add(o.x, nil) },
		"add in place: shapes": func(c *Context, o operands) *Tensor { return c.AddInplace(o.x, o.y) },
		"mul: shapes":          func(c *Context, o operands) *Tensor { return c.Mul(o.x, o.y) },
		"mul: half precision":  func(c *Context, o operands) *Tensor { return c.Mul(o.h, o.h) },
		"log: type":            func(c *Context, o operands) *Tensor { return c.Log(o.i) },
		"log: permuted":        func(c *Context, o operands) *Tensor { return c.Log(o.p) },
		"scale: transposed":    func(c *Context, o operands) *Tensor { return c.ScaleBias(o.t, 1, 0) },
		"rms norm: transposed": func(c *Context, o operands) *Tensor { return c.RMSNorm(o.t, 1e-5) },
		"rms norm: eps":        func(c *Context, o operands) *Tensor { return c.RMSNorm(o.x, -1) },
		"rms norm: NaN": func(c *Context, o operands) *Tensor {
			return c.RMSNorm(o.x, float32(math.NaN()))
		},
		"product: row lengths":       func(c *Context, o operands) *Tensor { return c.MulMat(o.x, o.y) },
		"product: transposed first":  func(c *Context, o operands) *Tensor { return c.MulMat(o.t, o.y) },
		"product: transposed second": func(c *Context, o operands) *Tensor { return c.MulMat(o.y, o.t) },
		"product: quantised second":  func(c *Context, o operands) *Tensor { return c.MulMat(o.q, o.q) },
		"product: integers": func(c *Context, o operands) *Tensor {
			return c.MulMat(c.NewTensor(I32, 4, 3), o.x)
		},
		"product: stacks": func(c *Context, o operands) *Tensor {
			return c.MulMat(c.NewTensor(F32, 4, 3, 2), o.x)
		},
		"get rows: index": func(c *Context, o operands) *Tensor { return c.GetRows(o.x, o.x) },
		"get rows: stacks": func(c *Context, o operands) *Tensor {
			return c.GetRows(c.NewTensor(F32, 4, 3, 2), o.i)
		},
		"get rows: integers":    func(c *Context, o operands) *Tensor { return c.GetRows(o.i, o.i) },
		"get rows: transposed":  func(c *Context, o operands) *Tensor { return c.GetRows(o.t, o.i) },
		"set rows: row lengths": func(c *Context, o operands) *Tensor { return c.SetRows(o.x, o.y, o.i) },
		"set rows: number": func(c *Context, o operands) *Tensor {
			return c.SetRows(o.x, o.x, c.NewTensor(I32, 2))
		},
		"set rows: index of matrices": func(c *Context, o operands) *Tensor {
			return c.SetRows(o.x, o.x, c.NewTensor(I32, 3, 2))
		},
		"set rows: no index":  func(c *Context, o operands) *Tensor { return c.SetRows(o.x, o.x, nil) },
		"set rows: quantised": func(c *Context, o operands) *Tensor { return c.SetRows(o.q, o.x, o.i) },
		"cast: from":          func(c *Context, o operands) *Tensor { return c.Cast(o.q, F32) },
		"cast: to":            func(c *Context, o operands) *Tensor { return c.Cast(o.x, Q4_0) },
		"copy: number": func(c *Context, o operands) *Tensor {
			return c.Cpy(o.x, c.NewTensor(F32, 4, 4))
		},
		"copy: type": func(c *Context, o operands) *Tensor {
			return c.Cpy(o.x, c.NewTensor(I32, 4, 3))
		},
		"cont: quantised":          func(c *Context, o operands) *Tensor { return c.Cont(o.q) },
		"transpose: nothing":       func(c *Context, o operands) *Tensor { return c.Transpose(nil) },
		"permute: no axes":         func(c *Context, o operands) *Tensor { return c.Permute(o.x) },
		"permute: an axis twice":   func(c *Context, o operands) *Tensor { return c.Permute(o.x, 0, 1, 1, 3) },
		"permute: an axis too far": func(c *Context, o operands) *Tensor { return c.Permute(o.x, 0, 1, 2, 4) },
		"permute: five axes":       func(c *Context, o operands) *Tensor { return c.Permute(o.x, 0, 1, 2, 3, 4) },
		"reshape: number":          func(c *Context, o operands) *Tensor { return c.Reshape(o.x, 5, 2) },
		"reshape: negative":        func(c *Context, o operands) *Tensor { return c.Reshape(o.x, -4, -3) },
		"reshape: zero":            func(c *Context, o operands) *Tensor { return c.Reshape(o.x, 12, 0) },
		"reshape: five dimensions": func(c *Context, o operands) *Tensor { return c.Reshape(o.x, 12, 1, 1, 1, 1) },
		"reshape: transposed":      func(c *Context, o operands) *Tensor { return c.Reshape(o.t, 12) },
		"reshape: a block":         func(c *Context, o operands) *Tensor { return c.Reshape(o.q, 16, 4) },
		"view: too long": func(c *Context, o operands) *Tensor {
			return c.View(o.x, [4]int64{4, 3, 1, 1}, [4]int64{0, 1})
		},
		"view: nothing": func(c *Context, o operands) *Tensor {
			return c.View(o.x, [4]int64{4, 0, 1, 1}, [4]int64{})
		},
		"view: before": func(c *Context, o operands) *Tensor {
			return c.View(o.x, [4]int64{4, 1, 1, 1}, [4]int64{0, -1})
		},
		"view: far": func(c *Context, o operands) *Tensor {
			return c.View(o.x, [4]int64{4, 1, 1, 1}, [4]int64{0, math.MaxInt64})
		},
		"view: a block": func(c *Context, o operands) *Tensor {
			return c.View(o.q, [4]int64{16, 1, 1, 1}, [4]int64{})
		},
		"view: transposed": func(c *Context, o operands) *Tensor {
			return c.View(o.t, [4]int64{2, 2, 1, 1}, [4]int64{})
		},
		"soft max: permuted": func(c *Context, o operands) *Tensor { return c.SoftMax(o.p, 1) },
		"rope: no positions": func(c *Context, o operands) *Tensor { return c.Rope(o.x, nil, nil, r) },
		"rope: positions in floats": func(c *Context, o operands) *Tensor {
			return c.Rope(o.x, c.NewTensor(F32, 1), nil, r)
		},
		"rope: number of positions": func(c *Context, o operands) *Tensor { return c.Rope(o.x, o.i, nil, r) },
		"rope: matrix of positions": func(c *Context, o operands) *Tensor {
			return c.Rope(c.NewTensor(F32, 4, 1, 3), c.NewTensor(I32, 1, 3), nil, r)
		},
		"rope: odd": func(c *Context, o operands) *Tensor {
			return c.Rope(o.x, c.NewTensor(I32, 1), nil, odd)
		},
		"rope: beyond the head": func(c *Context, o operands) *Tensor {
			return c.Rope(o.x, c.NewTensor(I32, 1), nil, wide)
		},
		"rope: few factors": func(c *Context, o operands) *Tensor {
			return c.Rope(o.x, c.NewTensor(I32, 1), c.NewTensor(F32, 1, 2), r)
		},
		"new: no shape":        func(c *Context, o operands) *Tensor { return c.NewTensor(F32) },
		"new: zero":            func(c *Context, o operands) *Tensor { return c.NewTensor(F32, 3, 0) },
		"new: five dimensions": func(c *Context, o operands) *Tensor { return c.NewTensor(F32, 1, 1, 1, 1, 1) },
		"new: too large": func(c *Context, o operands) *Tensor {
			return c.NewTensor(F32, math.MaxInt64, math.MaxInt64)
		},
		"new: a block":      func(c *Context, o operands) *Tensor { return c.NewTensor(Q4_0, 31) },
		"new: unknown type": func(c *Context, o operands) *Tensor { return c.NewTensor(99, 32) },
		"new: removed type": func(c *Context, o operands) *Tensor { return c.NewTensor(4, 32) },
	} {
		t.Run(name, func(t *testing.T) {
			c := NewContext(16)
			defer c.Close()
			o := operands{x: c.NewTensor(F32, 4, 3), y: c.NewTensor(F32, 3, 4), q: c.NewTensor(Q4_0, 32, 2),
				h: c.NewTensor(F16, 4, 3), i: c.NewTensor(I32, 3)}
			o.t, o.p = c.Transpose(o.x), c.Permute(c.NewTensor(F32, 2, 3, 4), 0, 2, 1, 3)
			if err := c.Err(); err != nil {
				t.Fatal(err)
			}
			result := build(c, o)
			if result != nil || c.Err() == nil {
				t.Fatalf("result %v, error %v", result, c.Err())
			}
			first := c.Err()
			if c.Add(result, o.x) != nil || c.Err() != first {
				t.Errorf("what is built on it does not keep the first error: %v", c.Err())
			}
		})
	}
}

func TestFullContext(t *testing.T) {
	c := NewContext(2)
	defer c.Close()
	x := c.NewTensor(F32, 4)
	if c.Add(x, x) == nil {
		t.Fatal(c.Err())
	}
	if c.Add(x, x) != nil || c.Err() == nil {
		t.Error("a third tensor in a context for two has no error")
	}
	if c.NewTensor(F32, 4) != nil {
		t.Error("after an error a tensor is made")
	}
	c.Close()
}

func TestMemory(t *testing.T) {
	backend, err := NewCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	for _, threads := range []int{0, -1, 513} {
		if b, err := NewCPU(threads); err == nil {
			b.Close()
			t.Errorf("%d threads are taken", threads)
		}
	}
	c := NewContext(4)
	defer c.Close()
	x, y, i := c.NewTensor(F32, 4), c.NewTensor(F32, 100), c.NewTensor(I32, 4)
	values := []float32{1, 2, 3, 4}
	if Set(x, values) == nil || Get(x, values) == nil || x.Zero() == nil || Set[float32](nil, nil) == nil {
		t.Error("a tensor without memory is used")
	}
	buffer, err := backend.NewBuffer(256)
	if err != nil {
		t.Fatal(err)
	}
	defer buffer.Close()
	if err := buffer.PlaceAt(x, -64); err == nil {
		t.Error("placed before the buffer")
	}
	if err := buffer.PlaceAt(x, 250); err == nil {
		t.Error("placed across the end of the buffer")
	}
	if at, err := buffer.Place(x); err != nil || at != 0 {
		t.Fatalf("placed at %d: %v", at, err)
	}
	if err := buffer.PlaceAt(x, 0); err == nil {
		t.Error("placed twice")
	}
	if _, err := buffer.Place(y); err == nil {
		t.Error("400 bytes placed in 256")
	}
	if at, err := buffer.Place(i); err != nil || at != buffer.Padded(16) {
		t.Errorf("placed at %d: %v", at, err)
	}
	if Set(i, values) == nil || Set(x, values[:3]) == nil || Get(x, make([]float32, 5)) == nil {
		t.Error("values of another type or number are taken")
	}
	if err := Set(x, values); err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 4)
	if err := Get(x, got); err != nil {
		t.Fatal(err)
	}
	near(t, "set and get", got, values...)
	if err := x.Zero(); err != nil {
		t.Fatal(err)
	}
	if err := Get(x, got); err != nil {
		t.Fatal(err)
	}
	near(t, "zero", got, 0, 0, 0, 0)
	if err := buffer.PlaceAt(nil, 0); err == nil {
		t.Error("nothing is placed")
	}
	if b, err := backend.NewBuffer(1 << 60); err == nil {
		b.Close()
		t.Error("an exabyte is to be had")
	}
	for range 2 {
		buffer.Close()
		backend.Close()
	}
}
