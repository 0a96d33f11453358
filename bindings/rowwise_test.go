package bindings

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// rowCase is one of the operations on rows to be computed.
type rowCase struct {
	op            string
	n, rows       int  // n: numbers in a row; of the gate where there is one
	g, x, y       Type // of the gradient, of what it is the gradient for, and of the result
	acc           bool // norm back: adds to something
	dim, dims     int  // rotate: numbers in a head, and how many of them are rotated
	heads         int  // rotate: how many heads are rotated
	before, after int  // as in product
}

func (r rowCase) String() string {
	return fmt.Sprintf("%s %v %v %v [%d %d] acc %v, %d heads %d of %d, in %d %d",
		r.op, r.g, r.x, r.y, r.n, r.rows, r.acc, r.heads, r.dims, r.dim, r.before, r.after)
}

const (
	rowEps = 0.1
	unit   = 1.0 / (1 << 24) // what rounding to float32 is off by at most, in parts of the result
)

// rowTolerance bounds each number's error in units, in parts of the sizes of the terms it is made of (see want). The
// vectors' exponential is off by 2.
var rowTolerance = map[string]float64{
	"norm":               6, // three operations; a sum of up to 576 squares, whose error the root halves
	"norm back":          8, // the same, and a second sum
	"layer norm":         6, // as norm, and a mean
	"layer norm back":    8,
	"silu":               6, // the exponential and four operations
	"silu back":          8, // the exponential and six operations
	"gated silu":         6,
	"gated silu back":    8,
	"gelu":               6, // and what the exponential is of
	"gelu back":          10,
	"gated gelu":         6,
	"gated gelu back":    10,
	"rotate":             2, // two products and their sum
	"rotate back":        2,
	"rotate halves":      2,
	"rotate halves back": 2,
	"norm heads":         6,
	"norm heads back":    8,
	"norm rows":          6,
	"norm rows back":     8,
	"capped":             5, // the exponential and four operations
	"convert":            0,
	// the exponential, the difference before it and the loss; the errors of many exponentials are of both signs
	"cross-entropy":             4,
	"cross-entropy back":        12, // the exponential, its sum, three operations
	"capped cross-entropy":      10, // and two units of the logits, which are up to 3
	"capped cross-entropy back": 16,
}

var rowOperations = slices.Sorted(maps.Keys(rowTolerance))

// rowCap is what logits are capped to.
const rowCap = 3

// activation is that of an operation with one, and its x σ(φ(x)) taken apart: φ(x) and φ′(x).
func (r rowCase) activation() (act Activation, phi, slope func(x float64) float64) {
	if strings.Contains(r.op, "silu") {
		return SiLU, func(x float64) float64 { return x }, func(float64) float64 { return 1 }
	}
	by := 2 * math.Sqrt(2/math.Pi)
	return GELU, func(x float64) float64 { return by * (x + 0.044715*x*x*x) }, func(x float64) float64 {
		return by * (1 + 3*0.044715*x*x)
	}
}

func (r rowCase) cap() float32 {
	if strings.HasPrefix(r.op, "capped") {
		return rowCap
	}
	return 0
}

func (r rowCase) operands() []matrix {
	x, g, w, table := matrix{"x", r.x, r.n, r.rows}, matrix{"g", r.g, r.n, r.rows}, matrix{"w", F32, r.n, 1},
		matrix{"table", F32, r.dims, r.rows}
	both := matrix{"x", r.x, 2 * r.n, r.rows}
	switch r.op {
	case "norm":
		return []matrix{x, w}
	case "layer norm":
		return []matrix{x, w, {"w added", F32, r.n, 1}}
	case "norm back", "layer norm back":
		if r.acc {
			return []matrix{g, x, w, {"acc", F32, r.n, r.rows}}
		}
		return []matrix{g, x, w}
	case "gated silu", "gated gelu":
		return []matrix{both}
	case "gated silu back", "gated gelu back":
		return []matrix{g, both}
	case "silu back", "gelu back":
		return []matrix{g, x}
	case "rotate", "rotate back", "rotate halves", "rotate halves back":
		return []matrix{x, table}
	case "norm heads":
		return []matrix{x, {"w", F32, r.dim, 1}, {"w of k", F32, r.dim, 1}}
	case "norm heads back":
		return []matrix{g, x, {"w", F32, r.dim, 1}, {"w of k", F32, r.dim, 1}}
	case "norm rows":
		return []matrix{x, {"w", F32, r.heads * r.dim, 1}, {"w of k", F32, r.dim, 1}}
	case "norm rows back":
		return []matrix{g, x, {"w", F32, r.heads * r.dim, 1}, {"w of k", F32, r.dim, 1}}
	default:
		return []matrix{x}
	}
}

func (r rowCase) result() matrix {
	switch r.op {
	case "gated silu back", "gated gelu back":
		return matrix{"y", r.y, 2 * r.n, r.rows}
	case "cross-entropy", "capped cross-entropy":
		return matrix{"y", F32, r.rows, 1}
	default:
		return matrix{"y", r.y, r.n, r.rows}
	}
}

func (r rowCase) build(c *Context, o map[string]*Tensor) *Tensor {
	act, _, _ := r.activation()
	switch r.op {
	case "norm":
		return c.Norm(o["x"], o["w"], rowEps, r.y)
	case "norm back":
		return c.NormBack(o["g"], o["x"], o["w"], rowEps, o["acc"])
	case "layer norm":
		return c.LayerNorm(o["x"], o["w"], o["w added"], rowEps, r.y)
	case "layer norm back":
		return c.LayerNormBack(o["g"], o["x"], o["w"], rowEps, o["acc"])
	case "silu", "gelu":
		return c.Activate(o["x"], act, r.y)
	case "silu back", "gelu back":
		return c.ActivateBack(o["g"], o["x"], act, r.y)
	case "gated silu", "gated gelu":
		return c.Gated(o["x"], act, r.y)
	case "gated silu back", "gated gelu back":
		return c.GatedBack(o["g"], o["x"], act, r.y)
	case "rotate", "rotate back", "rotate halves", "rotate halves back":
		return c.Rotate(o["x"], o["table"], r.heads, r.dim, Pairing(strings.HasPrefix(r.op, "rotate halves")),
			strings.HasSuffix(r.op, "back"), r.y)
	case "norm heads", "norm rows":
		return c.NormHeads(o["x"], HeadNorms{o["w"], o["w of k"]}, r.heads, 1, rowEps, r.y)
	case "norm heads back", "norm rows back":
		return c.NormHeadsBack(o["g"], o["x"], HeadNorms{o["w"], o["w of k"]}, r.heads, 1, rowEps, r.y)
	case "convert":
		return c.Convert(o["x"], r.y)
	case "capped":
		return c.Capped(o["x"], rowCap)
	case "cross-entropy", "capped cross-entropy":
		return c.CrossEntropy(o["x"], o["labels"], r.cap())
	default:
		return c.CrossEntropyBack(o["x"], o["labels"], r.cap(), r.y)
	}
}

func (r rowCase) label(row int) int { return (row*7919 + 5) % r.n }

// fill makes r's operands of random numbers around 1, changed by a function if there is one.
func (r rowCase) fill(t testing.TB, change func(m matrix, values []float32)) map[string]numbers {
	all := map[string]numbers{}
	for i, m := range r.operands() {
		n := numbersOf(t, m, uint64(i+1))
		if change != nil {
			change(m, n.values)
			var err error
			if n.data, err = Quantize(m.kind, n.values, int64(m.width)); err != nil {
				t.Fatal(err)
			}
			if err := Dequantize(m.kind, n.data, n.values); err != nil {
				t.Fatal(err)
			}
		}
		all[m.name] = n
	}
	return all
}

// compute gives the bytes of r's result. Nothing is written beside it.
func (r rowCase) compute(t testing.TB, backend *Backend, data map[string]numbers) []byte {
	t.Helper()
	s := newStage(t, backend)
	defer s.Close()
	o := map[string]*Tensor{}
	for _, m := range r.operands() {
		around := product{before: r.before, after: r.after}
		if strings.HasPrefix(m.name, "w") {
			around = product{} // a vector
		}
		_, o[m.name] = s.place(around, m, data[m.name].data)
	}
	labels := make([]int32, r.rows)
	for i := range labels {
		labels[i] = int32(r.label(i))
	}
	o["labels"] = s.own(s.NewTensor(I32, int64(r.rows)))
	if err := Set(o["labels"], labels); err != nil {
		t.Fatal(err)
	}
	y := r.build(s.Context, o)
	if err := s.Err(); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	const behind = 64
	around := s.own(s.NewTensor(F32, (y.Bytes()+3)/4+behind))
	if err := s.buffers[len(s.buffers)-1].PlaceAt(y, 0); err != nil {
		t.Fatal(err)
	}
	graph := s.NewGraph()
	graph.Expand(y)
	if err := backend.Compute(graph); err != nil {
		t.Fatalf("%v: %v", r, err)
	}
	if rest := around.raw()[y.Bytes():]; len(bytes.Trim(rest, "\xff")) != 0 {
		t.Errorf("%v: written behind the result", r)
	}
	return slices.Clone(y.raw())
}

// want is r's result in float64, with the sizes of the terms that each number is made of.
func (r rowCase) want(data map[string]numbers) (want, size []float64) {
	_, phi, slope := r.activation()
	// rounded is what rounding makes of a term with the exponential of −x: that is off by as many units as x is large,
	// where it is not 0.
	rounded := func(term, x float64) float64 {
		if strings.Contains(r.op, "silu") || term == 0 || x > 0 {
			return 0
		}
		return term * x
	}
	put := func(v float64, terms ...float64) {
		sum := 0.0
		for _, t := range terms {
			sum += math.Abs(t)
		}
		want, size = append(want, v), append(size, sum)
	}
	n := float64(r.n)
	for row := range r.rows {
		get := func(name string) []float64 {
			values := data[name].values
			if !strings.HasPrefix(name, "w") {
				each := len(values) / r.rows
				values = values[row*each : (row+1)*each]
			}
			return wide(values)
		}
		x, g, w, acc, table := get("x"), get("g"), get("w"), get("acc"), get("table")
		scale := func() float64 {
			squares := 0.0
			for i := range r.n {
				squares += x[i] * x[i]
			}
			return 1 / math.Sqrt(squares/n+rowEps)
		}
		switch r.op {
		case "norm":
			s := scale()
			for i := range r.n {
				y := x[i] * s * w[i]
				put(y, y)
			}
		case "norm back":
			s, mean, sizes := scale(), 0.0, 0.0
			for i := range r.n {
				xg := x[i] * g[i] * w[i] / n
				mean, sizes = mean+xg, sizes+math.Abs(xg)
			}
			for i := range r.n {
				a, b := s*g[i]*w[i], s*s*s*x[i]
				if r.acc {
					put(acc[i]+a-b*mean, acc[i], a, b*sizes)
				} else {
					put(a-b*mean, a, b*sizes)
				}
			}
		case "layer norm", "layer norm back":
			mean, sizeMean, squares := 0.0, 0.0, 0.0
			for i := range r.n {
				mean, sizeMean = mean+x[i]/n, sizeMean+math.Abs(x[i])/n
			}
			for i := range r.n {
				squares += (x[i] - mean) * (x[i] - mean)
			}
			s := 1 / math.Sqrt(squares/n+rowEps)
			if r.op == "layer norm" {
				for i, b := range get("w added") {
					y := (x[i] - mean) * s * w[i]
					put(y+b, y, b, sizeMean*s*w[i])
				}
				continue
			}
			all, with, sizeAll, sizeWith := 0.0, 0.0, 0.0, 0.0
			for i := range r.n {
				a, b := g[i]*w[i]/n, (x[i]-mean)*g[i]*w[i]/n
				all, with = all+a, with+b
				sizeAll, sizeWith = sizeAll+math.Abs(a), sizeWith+math.Abs(b)+math.Abs(sizeMean*a)
			}
			for i := range r.n {
				a, b := s*g[i]*w[i], s*s*s*(x[i]-mean)
				y, terms := a-s*all-b*with, []float64{a, s * sizeAll, b * sizeWith, s * s * s * sizeMean * with}
				if r.acc {
					y, terms = y+acc[i], append(terms, acc[i])
				}
				put(y, terms...)
			}
		case "silu", "gelu", "gated silu", "gated gelu":
			for i := range r.n {
				f := phi(x[i])
				y := x[i] / (1 + math.Exp(-f))
				if strings.HasPrefix(r.op, "gated") {
					y *= x[r.n+i]
				}
				put(y, y, rounded(y, f))
			}
		case "silu back", "gelu back", "gated silu back", "gated gelu back":
			gated := strings.HasPrefix(r.op, "gated")
			sigma := func(i int) float64 { return 1 / (1 + math.Exp(-phi(x[i]))) }
			for i := range r.n {
				a, along := g[i]*sigma(i), x[i]*slope(x[i])
				if gated {
					a *= x[r.n+i]
				}
				b := along * (1 - sigma(i))
				// 1 − σ is off by a unit of 1 where σ is near that.
				put(a*(1+b), a, a*along, rounded(a*(1+b), phi(x[i])))
			}
			for i := range r.n {
				if gated {
					y := g[i] * x[i] * sigma(i)
					put(y, y, rounded(y, phi(x[i])))
				}
			}
		case "capped":
			for i := range r.n {
				y := rowCap * math.Tanh(x[i]/rowCap)
				put(y, y)
			}
		case "norm heads", "norm heads back", "norm rows", "norm rows back":
			back := strings.HasSuffix(r.op, "back")
			for at := 0; at < r.n; {
				w := get("w")
				if at >= r.heads*r.dim {
					w = get("w of k")
				}
				of := len(w)
				x, g := x[at:at+of], g
				if back {
					g = g[at : at+of]
				}
				normed := at < (r.heads+1)*r.dim
				at += of
				squares, mean, sizes := 0.0, 0.0, 0.0
				for _, v := range x {
					squares += v * v
				}
				s := 1 / math.Sqrt(squares/float64(of)+rowEps)
				for i := range g {
					xg := x[i] * g[i] * w[i] / float64(of)
					mean, sizes = mean+xg, sizes+math.Abs(xg)
				}
				for i, v := range x {
					switch {
					case normed && !back:
						put(v*s*w[i], v*s*w[i])
					case !back:
						put(v)
					case normed:
						a, b := s*g[i]*w[i], s*s*s*v
						put(a-b*mean, a, b*sizes)
					default:
						put(g[i])
					}
				}
			}
		case "rotate halves", "rotate halves back":
			way := 1.0
			if strings.HasSuffix(r.op, "back") {
				way = -1
			}
			for i := range r.n {
				at, half := i%r.dim, r.dims/2
				switch pair := 2 * (at % max(1, half)); {
				case i >= r.heads*r.dim || at >= r.dims:
					put(x[i])
				case at < half:
					c, s := table[pair], way*table[pair+1]
					put(x[i]*c-x[i+half]*s, x[i]*c, x[i+half]*s)
				default:
					c, s := table[pair], way*table[pair+1]
					put(x[i-half]*s+x[i]*c, x[i-half]*s, x[i]*c)
				}
			}
		case "rotate", "rotate back":
			way := 1.0
			if r.op == "rotate back" {
				way = -1
			}
			for i := range r.n {
				at := i % r.dim
				if i >= r.heads*r.dim || at >= r.dims {
					put(x[i])
					continue
				}
				c, s := table[at&^1], way*table[at|1]
				if at%2 == 0 {
					put(x[i]*c-x[i+1]*s, x[i]*c, x[i+1]*s)
				} else {
					put(x[i-1]*s+x[i]*c, x[i-1]*s, x[i]*c)
				}
			}
		case "convert":
			for i := range r.n {
				put(x[i])
			}
		default:
			if by := float64(r.cap()); by != 0 {
				for i := range r.n {
					x[i] = by * math.Tanh(x[i]/by)
				}
			}
			top, total := math.Inf(-1), 0.0
			for i := range r.n {
				top = max(top, x[i])
			}
			for i := range r.n {
				total += math.Exp(x[i] - top)
			}
			label := r.label(row)
			if !strings.HasSuffix(r.op, "back") {
				loss := math.Log(total) + top - x[label]
				put(loss, max(1, loss))
				continue
			}
			for i := range r.n {
				p, one := math.Exp(x[i]-top)/total, 0.0
				if i == label {
					one = 1
				}
				// The difference from the greatest logit is rounded, so that its exponential is off by as many units.
				y, terms := p-one, []float64{p, p * (x[i] - top), one}
				if by := float64(r.cap()); by != 0 {
					y *= 1 - x[i]/by*(x[i]/by) // terms stay: that difference is off by a unit of 1
				}
				put(y, terms...)
			}
		}
	}
	return want, size
}

func wide(values []float32) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// check compares with float64: NaN and infinities are where they are there, and nowhere else.
func (r rowCase) check(t testing.TB, data []byte, want, size []float64) {
	t.Helper()
	m := r.result()
	got := make([]float32, m.values())
	if err := Dequantize(m.kind, data, got); err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		// what is below the normal numbers is 0, and so is σ below e⁻⁸⁸·⁷
		allowed := rowTolerance[r.op]*unit*size[i] + 0x1p-100
		if m.kind == BF16 {
			_, exponent := math.Frexp(w)
			allowed += math.Ldexp(1, exponent-9)
		}
		g := float64(got[i])
		same := g == w || math.IsNaN(g) && math.IsNaN(w)
		if !same && !(math.Abs(g-w) <= allowed) || math.IsInf(w, 0) && g != w {
			t.Errorf("%v: number %d of row %d is %v, want %v, off by %.3g units of %v", r, i%m.width, i/m.width, g, w,
				math.Abs(g-w)/unit/size[i], size[i])
			return
		}
	}
}

// testRows compares each case with float64 on one thread, and with the bits that 2 or 3 threads give, with every
// instruction set.
func testRows(t *testing.T, cases []rowCase, change func(m matrix, values []float32)) {
	backend := openCPU(t, 1)
	data := make([]map[string]numbers, len(cases))
	want, size := make([][]float64, len(cases)), make([][]float64, len(cases))
	for i, r := range cases {
		data[i] = r.fill(t, change)
		want[i], size[i] = r.want(data[i])
	}
	everyISA(t, func(t *testing.T) {
		results := map[int][]byte{} // of those that a single thread does not do alone
		for i, r := range cases {
			y := r.compute(t, backend, data[i])
			r.check(t, y, want[i], size[i])
			if r.n*r.rows > 8192 {
				results[i] = y
			}
		}
		for threads := 2; threads <= 3 && len(results) > 0; threads++ {
			backend := openCPU(t, threads)
			for i, y := range results {
				if i%2 == threads%2 && !bytes.Equal(cases[i].compute(t, backend, data[i]), y) {
					t.Errorf("%v: other bits with %d threads than with one", cases[i], threads)
				}
			}
		}
	})
}

// kinds are the cases of r with all types that its operation takes and gives.
func (r rowCase) kinds() (all []rowCase) {
	half := []Type{F32, BF16}
	for _, r.g = range half {
		for _, r.x = range half {
			for _, r.y = range half {
				c := r
				switch c.op {
				case "norm", "layer norm", "norm heads", "norm rows", "cross-entropy back", "capped cross-entropy back":
					c.g, c.x = F32, F32
				case "norm back", "layer norm back":
					c.acc = c.y == BF16 // of no other use here
					c.x, c.y = F32, F32
				case "silu", "gelu", "gated silu", "gated gelu", "convert", "rotate", "rotate back", "rotate halves",
					"rotate halves back":
					c.g = F32
				case "norm heads back", "norm rows back":
					c.x = F32
				case "capped", "cross-entropy", "capped cross-entropy":
					c.g, c.x, c.y = F32, F32, F32
				}
				if !slices.Contains(all, c) {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// rowShapes are the cases of one operation with n numbers in a row, in all types.
func rowShapes(op string, n, rows, place int) []rowCase {
	r := rowCase{op: op, n: n, rows: rows, before: around[place%len(around)][0], after: around[place%len(around)][1]}
	if strings.HasPrefix(op, "norm heads") || strings.HasPrefix(op, "norm rows") {
		r.dim, r.heads = n/4, 2 // two of q, one of k, one of v
		if r.n = n / 4 * 4; n < 4 {
			return nil
		}
	}
	if strings.HasPrefix(op, "rotate") {
		r.dim, r.dims, r.heads = n, n/2*2, 1 // an odd number of n is left
		if n == 1 {
			return nil
		}
		if n >= 64 {
			r.dim, r.dims, r.heads = n/4, n/4/4*2+2, 3 // a head, and numbers of each, are left
		}
	}
	return r.kinds()
}

func TestRows(t *testing.T) {
	var all []rowCase
	for _, op := range rowOperations {
		for i, n := range []int{1, 2, 7, 31, 64, 65, 576} {
			all = append(all, rowShapes(op, n, 1, i)...)
			all = append(all, rowShapes(op, n, 67, i+1)...)
		}
		all = append(all, rowShapes(op, 2, 9001, 0)...) // more than two pieces of 8192 numbers
		all = append(all, rowShapes(op, 9001, 3, 1)...)
	}
	testRows(t, all, nil)
}

// TestLargeNumbers has exponentials that are 0 and infinite, and sums of squares that are tiny and huge.
func TestLargeNumbers(t *testing.T) {
	for _, by := range []float32{1e-20, 30, 300, 1e15} {
		var all []rowCase
		for _, op := range rowOperations {
			if by < 1e6 || op != "cross-entropy back" && !strings.HasSuffix(op, "lu back") {
				all = append(all, rowShapes(op, 65, 5, 0)...)
			}
		}
		testRows(t, all, func(m matrix, values []float32) {
			if m.name == "x" {
				for i := range values {
					values[i] *= by
				}
			}
		})
	}
}

// TestRowsPoison puts a NaN or an infinity into one number of each operand: it comes out in the numbers that are made
// of it, all in its row.
func TestRowsPoison(t *testing.T) {
	for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, op := range rowOperations {
			if strings.Contains(op, "cross-entropy") && math.IsInf(value, 1) {
				continue // TestInfiniteLogits
			}
			cases := rowShapes(op, 65, 7, 2)
			for _, m := range cases[len(cases)-1].operands() {
				testRows(t, cases, func(of matrix, values []float32) {
					if of.name == m.name {
						values[m.rows/2*m.width+m.width/3] = float32(value)
					}
				})
			}
		}
	}
}

func TestInfiniteLogits(t *testing.T) {
	nan, inf, most := math.NaN(), math.Inf(1), math.MaxFloat32
	backend := openCPU(t, 1)
	for _, c := range []struct {
		what                 string
		logit, label, others float64 // one of the others, the label's, and the 31 that are left
		loss                 float64
		dLogit, dLabel, dAll float64
	}{
		{"usual", 0, 0, 0, math.Log(33), 1. / 33, 1./33 - 1, 1. / 33},
		{"NaN", nan, 0, 0, nan, nan, nan, nan},
		{"NaN at the label", 0, nan, 0, nan, nan, nan, nan},
		{"NaN beside infinity", nan, inf, 0, nan, nan, nan, nan},
		{"NaN beside nothing", nan, -inf, -inf, nan, nan, nan, nan},
		{"infinite", inf, 0, 0, inf, nan, -1, 0},
		{"infinite label", 0, inf, 0, nan, 0, nan, 0},
		{"impossible", -inf, 0, 0, math.Log(32), 0, 1./32 - 1, 1. / 32},
		{"impossible label", 0, -inf, 0, inf, 1. / 32, -1, 1. / 32},
		{"certain label", -inf, 7, -inf, 0, 0, 0, 0},
		{"nothing possible", -inf, -inf, -inf, nan, nan, nan, nan},
		{"certain of another", 0, -1000, -2000, 1000, 1, -1, 0},
		{"greatest floats", most, -most, 0, inf, 1, -1, 0},
	} {
		for _, logit := range []int{0, 17, 32} {
			loss := rowCase{op: "cross-entropy", n: 33, rows: 3, x: F32, y: F32}
			back := loss
			back.op = "cross-entropy back"
			// The middle row of three; the others are usual.
			label, x := loss.label(1), make([]float32, 99)
			losses, gradient := slices.Repeat([]float64{math.Log(33)}, 3), slices.Repeat([]float64{1. / 33}, 99)
			losses[1] = c.loss
			gradient[loss.label(0)] -= 1
			gradient[66+loss.label(2)] -= 1
			for i := range 33 {
				v, d := c.others, c.dAll
				switch i {
				case label:
					v, d = c.label, c.dLabel
				case logit:
					v, d = c.logit, c.dLogit
				}
				x[33+i], gradient[33+i] = float32(v), d
			}
			bits, err := Quantize(F32, x, 33)
			if err != nil {
				t.Fatal(err)
			}
			data := map[string]numbers{"x": {bits, x}}
			everyISA(t, func(t *testing.T) {
				t.Run(c.what, func(t *testing.T) {
					loss.check(t, loss.compute(t, backend, data), losses, []float64{3, max(1, c.loss), 3})
					back.check(t, back.compute(t, backend, data), gradient, slices.Repeat([]float64{1}, 99))
				})
			})
		}
	}
}

// TestConvert goes through all bfloat16 numbers, and all float32 numbers around those and around the middles between
// two.
func TestConvert(t *testing.T) {
	const width, rows = 257, 255 // of all but one; odd
	backend := openCPU(t, 2)
	var half, single []byte
	var nearest []uint16
	for i := range width * rows {
		half = binary.LittleEndian.AppendUint16(half, uint16(i))
		for _, low := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff} {
			u := uint32(i)<<16 | low
			single = binary.LittleEndian.AppendUint32(single, u)
			odd := u >> 16 & 1
			nearest = append(nearest, uint16((u+0x7fff+odd)>>16))
		}
	}
	everyISA(t, func(t *testing.T) {
		wide := rowCase{op: "convert", n: width, rows: rows, x: BF16, y: F32}.compute(t, backend,
			map[string]numbers{"x": {data: half}})
		for i := range width * rows {
			if u := binary.LittleEndian.Uint32(wide[4*i:]); u != uint32(i)<<16 {
				t.Fatalf("bfloat16 %#x became %#x", i, u)
			}
		}
		for _, kind := range []Type{F32, BF16} {
			data := map[Type][]byte{F32: single, BF16: half}[kind]
			r := rowCase{op: "convert", n: width, rows: len(data) / width / int(kind.RowBytes(1)), x: kind, y: kind}
			if !bytes.Equal(r.compute(t, backend, map[string]numbers{"x": {data: data}}), data) {
				t.Errorf("%v does not stay what it is", kind)
			}
		}
		narrow := rowCase{op: "convert", n: width, rows: 6 * rows, x: F32, y: BF16}.compute(t, backend,
			map[string]numbers{"x": {data: single}})
		for i, want := range nearest {
			got, u := binary.LittleEndian.Uint16(narrow[2*i:]), binary.LittleEndian.Uint32(single[4*i:])
			switch {
			case u&0x7fffffff > 0x7f800000:
				if got&0x7fff <= 0x7f80 {
					t.Fatalf("NaN %#x became %#x", u, got)
				}
			case u&0x7f800000 == 0 && FastBF16() && got == uint16(u>>31<<15): // 0 of its sign
			case got != want:
				t.Fatalf("float32 %#x became %#x, want %#x", u, got, want)
			}
		}
	})
}

// computeAll gives the values of the float32 tensors that build makes, with veratune's operations among them.
func computeAll(t *testing.T, backend *Backend, build func(b *bench) []*Tensor) (values [][]float32) {
	t.Helper()
	c := backend.NewContext()
	defer c.Close()
	b := &bench{Context: c, graph: c.NewGraph()}
	results := build(b)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		b.graph.Expand(r.Output())
	}
	defer b.run(t, backend).Close()
	for _, r := range results {
		v := make([]float32, r.Elements())
		if err := Get(r, v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

// everyRow are all operations on rows.
func everyRow(b *bench) []*Tensor {
	const n, rows, heads, dim = 66, 9, 3, 10
	labels := make([]int32, rows)
	for i := range labels {
		labels[i] = int32(i * 7)
	}
	x := func(seed uint64) *Tensor { return b.f(normal(seed, n*rows), n, rows) }
	table := func(dims int64) *Tensor { return b.f(normal(7, int(dims)*rows), dims, rows) }
	w, at, both := b.f(normal(9, n), n), b.i(labels, rows), b.f(normal(1, 2*n*rows), 2*n, rows)
	norms, rowNorms := HeadNorms{b.f(normal(10, 11), 11), b.f(normal(11, 11), 11)},
		HeadNorms{b.f(normal(10, 22), 22), b.f(normal(11, 22), 22)}
	return []*Tensor{
		b.Norm(x(1), w, 1e-5, F32), b.NormBack(x(1), x(2), w, 1e-5, x(3)), b.NormBack(x(1), x(2), w, 1e-5, nil),
		b.LayerNorm(x(1), w, b.f(normal(12, n), n), 1e-5, F32), b.LayerNormBack(x(1), x(2), w, 1e-5, x(3)),
		b.LayerNormBack(x(1), x(2), w, 1e-5, nil),
		b.Gated(both, SiLU, F32), b.GatedBack(x(2), both, SiLU, F32), b.Gated(both, GELU, F32),
		b.GatedBack(x(2), both, GELU, F32),
		b.Activate(x(1), SiLU, F32), b.ActivateBack(x(1), x(2), SiLU, F32), b.Activate(x(1), GELU, F32),
		b.ActivateBack(x(1), x(2), GELU, F32),
		b.Rotate(x(1), table(dim), heads, dim, Neighbours, false, F32),
		b.Rotate(x(1), table(dim), heads, dim, Neighbours, true, F32),
		b.Rotate(x(1), table(dim), heads, dim, Halves, false, F32), b.Rotate(x(1), table(6), heads, dim, Halves,
			true, F32),
		b.NormHeads(x(1), norms, 2, 2, 1e-5, F32), b.NormHeadsBack(x(1), x(2), norms, 2, 2, 1e-5, F32),
		b.NormHeads(x(1), rowNorms, 2, 2, 1e-5, F32), b.NormHeadsBack(x(1), x(2), rowNorms, 2, 2, 1e-5, F32),
		b.Rotate(b.View(x(1), [4]int64{dim * heads, rows, 1, 1}, [4]int64{2}), table(6), heads, dim, Neighbours,
			false, F32),
		b.CrossEntropy(b.ScaleBias(x(1), 30, 0), at, 0), b.CrossEntropyBack(x(1), at, 0, F32),
		b.CrossEntropy(b.ScaleBias(x(1), 30, 0), at, 30), b.CrossEntropyBack(b.ScaleBias(x(1), 30, 0), at, 30, F32),
		b.Capped(x(1), 2),
	}
}

// TestRowsComposed compares with the composed forms.
func TestRowsComposed(t *testing.T) {
	want := computeAll(t, openComposed(t), everyRow)
	everyISA(t, func(t *testing.T) {
		for i, got := range computeAll(t, openCPU(t, 2), everyRow) {
			near(t, fmt.Sprintf("operation %d", i), got, want[i]...)
		}
	})
}

// TestRotateIsRope makes the table as the model does, by ggml's rotation of (1, 0) in every pair, and compares with
// ggml's rotation of the heads.
func TestRotateIsRope(t *testing.T) {
	backend := openCPU(t, 2)
	positions := []int32{0, 1, 2, 5, 31, 33, 1000, 4095, 3, 3, 70000}
	tokens := int64(len(positions))
	plain := Rope{FreqBase: 10000, FreqScale: 1, AttnFactor: 1, BetaFast: 32, BetaSlow: 1}
	yarn := Rope{OrigContext: 64, FreqBase: 10000, FreqScale: 0.25, ExtFactor: 1, AttnFactor: 1.3, BetaFast: 32,
		BetaSlow: 1}
	linear := Rope{FreqBase: 500000, FreqScale: 0.5, AttnFactor: 1, BetaFast: 32, BetaSlow: 1}
	for _, shape := range []struct{ dim, dims, heads, turned int64 }{
		{2, 2, 1, 1}, {7, 6, 3, 2}, {64, 64, 5, 4}, {64, 16, 2, 2}, {96, 50, 3, 1}, {128, 128, 2, 1},
	} {
		for name, r := range map[string]Rope{"plain": plain, "yarn": yarn, "linear": linear} {
			r.Dims = int(shape.dims)
			for _, withFactors := range []bool{false, true} {
				for _, kind := range []Type{F32, BF16} {
					for _, back := range []bool{false, true} {
						width := shape.dim * shape.heads
						values := roundedTo(t, kind, normal(1, int(width*tokens)))
						everyISA(t, func(t *testing.T) {
							got := computeAll(t, backend, func(b *bench) []*Tensor {
								var factors *Tensor
								if withFactors {
									f := normal(2, int(shape.dims/2))
									for i := range f {
										f[i] = 1 + f[i]*f[i]
									}
									factors = b.f(f, shape.dims/2)
								}
								pairs := make([]float32, shape.dims*tokens)
								for i := 0; i < len(pairs); i += 2 {
									pairs[i] = 1
								}
								pos, x := b.i(positions, tokens), b.f(values, shape.dim, shape.heads, tokens)
								table := b.Reshape(b.Rope(b.f(pairs, shape.dims, 1, tokens), pos, factors, r),
									shape.dims, tokens)
								turned := positions
								if back {
									turned = make([]int32, len(positions))
									for i, p := range positions {
										turned[i] = -p
									}
								}
								flat := b.Convert(b.Reshape(x, width, tokens), kind)
								return []*Tensor{b.Rotate(flat, table, int(shape.turned), int(shape.dim), Neighbours,
									back, F32), b.Rope(x, b.i(turned, tokens), factors, r)}
							})
							want := got[1]
							for i := range want {
								if int64(i)%width >= shape.turned*shape.dim {
									want[i] = values[i]
								}
							}
							near(t, fmt.Sprintf("%v %s, factors %v, %v, back %v", shape, name, withFactors, kind, back),
								got[0], want...)
						})
					}
				}
			}
		}
	}
}

func TestRowsRefuse(t *testing.T) {
	backend := openCPU(t, 1)
	type made func(kind Type, ne ...int64) *Tensor
	for name, build := range map[string]func(c *Context, f made) *Tensor{
		"norm of bfloat16": func(c *Context, f made) *Tensor {
			return c.Norm(f(BF16, 4, 3), f(F32, 4), 1, F32)
		},
		"norm to float16":       func(c *Context, f made) *Tensor { return c.Norm(f(F32, 4, 3), f(F32, 4), 1, F16) },
		"norm without a weight": func(c *Context, f made) *Tensor { return c.Norm(f(F32, 4, 3), nil, 1, F32) },
		"norm by another width": func(c *Context, f made) *Tensor { return c.Norm(f(F32, 4, 3), f(F32, 3), 1, F32) },
		"norm by a matrix": func(c *Context, f made) *Tensor {
			return c.Norm(f(F32, 4, 3), f(F32, 4, 3), 1, F32)
		},
		"norm by a column": func(c *Context, f made) *Tensor {
			return c.Norm(f(F32, 4, 3), column(c, f(F32, 3, 4)), 1, F32)
		},
		"norm with a bad eps": func(c *Context, f made) *Tensor {
			return c.Norm(f(F32, 4, 3), f(F32, 4), -1, F32)
		},
		"norm of a transposed": func(c *Context, f made) *Tensor {
			return c.Norm(c.Transpose(f(F32, 3, 4)), f(F32, 4), 1, F32)
		},
		"norm of three dimensions": func(c *Context, f made) *Tensor {
			return c.Norm(f(F32, 4, 3, 2), f(F32, 4), 1, F32)
		},
		"norm back: rows": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 4, 2), f(F32, 4, 3), f(F32, 4), 1, nil)
		},
		"norm back: width": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 5, 3), f(F32, 4, 3), f(F32, 4), 1, nil)
		},
		"norm back: x": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 4, 3), f(BF16, 4, 3), f(F32, 4), 1, nil)
		},
		"norm back: weight": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 4, 3), f(F32, 4, 3), f(F32, 3), 1, nil)
		},
		"norm back: acc's type": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 4, 3), f(F32, 4, 3), f(F32, 4), 1, f(BF16, 4, 3))
		},
		"norm back: acc's shape": func(c *Context, f made) *Tensor {
			return c.NormBack(f(F32, 4, 3), f(F32, 4, 3), f(F32, 4), 1, f(F32, 4, 2))
		},
		"layer norm without a bias": func(c *Context, f made) *Tensor {
			return c.LayerNorm(f(F32, 4, 3), f(F32, 4), nil, 1, F32)
		},
		"layer norm: bias": func(c *Context, f made) *Tensor {
			return c.LayerNorm(f(F32, 4, 3), f(F32, 4), f(F32, 5), 1, F32)
		},
		"layer norm: weight": func(c *Context, f made) *Tensor {
			return c.LayerNorm(f(F32, 4, 3), f(F32, 3), f(F32, 4), 1, F32)
		},
		"layer norm of bfloat16": func(c *Context, f made) *Tensor {
			return c.LayerNorm(f(BF16, 4, 3), f(F32, 4), f(F32, 4), 1, F32)
		},
		"layer norm: eps": func(c *Context, f made) *Tensor {
			return c.LayerNorm(f(F32, 4, 3), f(F32, 4), f(F32, 4), -1, F32)
		},
		"layer norm back: width": func(c *Context, f made) *Tensor {
			return c.LayerNormBack(f(F32, 5, 3), f(F32, 4, 3), f(F32, 4), 1, nil)
		},
		"activate: which":     func(c *Context, f made) *Tensor { return c.Activate(f(F32, 4, 3), activations, F32) },
		"activate to float16": func(c *Context, f made) *Tensor { return c.Activate(f(F32, 4, 3), GELU, F16) },
		"activate back: which": func(c *Context, f made) *Tensor {
			return c.ActivateBack(f(F32, 4, 3), f(F32, 4, 3), -1, F32)
		},
		"activate back: width": func(c *Context, f made) *Tensor {
			return c.ActivateBack(f(F32, 4, 3), f(F32, 8, 3), GELU, F32)
		},
		"clamped alone":         func(c *Context, f made) *Tensor { return c.Activate(f(F32, 4, 3), Clamped, F32) },
		"gated of an odd width": func(c *Context, f made) *Tensor { return c.Gated(f(F32, 5, 3), SiLU, F32) },
		"gated of integers":     func(c *Context, f made) *Tensor { return c.Gated(f(I32, 4, 3), SiLU, F32) },
		"gated: which":          func(c *Context, f made) *Tensor { return c.Gated(f(F32, 4, 3), activations, F32) },
		"gated back: width": func(c *Context, f made) *Tensor {
			return c.GatedBack(f(F32, 4, 3), f(F32, 4, 3), SiLU, F32)
		},
		"gated back: nothing": func(c *Context, f made) *Tensor { return c.GatedBack(nil, f(F32, 4, 3), SiLU, F32) },
		"gated back: which": func(c *Context, f made) *Tensor {
			return c.GatedBack(f(F32, 4, 3), f(F32, 8, 3), activations, F32)
		},
		"capped to nothing": func(c *Context, f made) *Tensor { return c.Capped(f(F32, 4, 3), 0) },
		"capped to NaN": func(c *Context, f made) *Tensor {
			return c.Capped(f(F32, 4, 3), float32(math.NaN()))
		},
		"capped: bfloat16": func(c *Context, f made) *Tensor { return c.Capped(f(BF16, 4, 3), 1) },
		"cross-entropy: cap": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(F32, 4, 3), f(I32, 3), -1)
		},
		"cross-entropy: no cap": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(F32, 4, 3), f(I32, 3), float32(math.Inf(1)))
		},
		"cross-entropy back: cap": func(c *Context, f made) *Tensor {
			return c.CrossEntropyBack(f(F32, 4, 3), f(I32, 3), float32(math.NaN()), F32)
		},
		"norm heads: rows of q, of another length": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(F32, 16, 3), HeadNorms{f(F32, 16), f(F32, 4)}, 2, 1, 1, F32)
		},
		"norm heads: rows of k, of another length": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(F32, 16, 3), HeadNorms{f(F32, 8), f(F32, 8)}, 2, 1, 1, F32)
		},
		"norm heads: width": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(F32, 16, 3), HeadNorms{f(F32, 3), f(F32, 3)}, 2, 1, 1, F32)
		},
		"norm heads: one": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(F32, 16, 3), HeadNorms{f(F32, 4), nil}, 2, 1, 1, F32)
		},
		"norm heads: bfloat16": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(BF16, 16, 3), HeadNorms{f(F32, 4), f(F32, 4)}, 2, 1, 1, F32)
		},
		"norm heads: no KV heads": func(c *Context, f made) *Tensor {
			return c.NormHeads(f(F32, 16, 3), HeadNorms{f(F32, 4), f(F32, 4)}, 4, 0, 1, F32)
		},
		"norm heads back: rows": func(c *Context, f made) *Tensor {
			return c.NormHeadsBack(f(F32, 16, 2), f(F32, 16, 3), HeadNorms{f(F32, 4), f(F32, 4)}, 2, 1, 1, F32)
		},
		"rotate: heads": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 4, 3), 3, 4, Neighbours, false, F32)
		},
		"rotate: no heads": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 4, 3), 0, 4, Neighbours, false, F32)
		},
		"rotate: no numbers": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 4, 3), 1, 0, Neighbours, false, F32)
		},
		"rotate: beyond the head": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 6, 3), 2, 4, Neighbours, false, F32)
		},
		"rotate: odd": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 3, 3), 2, 4, Neighbours, false, F32)
		},
		"rotate: tokens": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(F32, 4, 2), 2, 4, Neighbours, false, F32)
		},
		"rotate: table": func(c *Context, f made) *Tensor {
			return c.Rotate(f(F32, 8, 3), f(BF16, 4, 3), 2, 4, Neighbours, false, F32)
		},
		"convert from float16": func(c *Context, f made) *Tensor { return c.Convert(f(F16, 4, 3), F32) },
		"convert to float16":   func(c *Context, f made) *Tensor { return c.Convert(f(F32, 4, 3), F16) },
		"cross-entropy: bfloat16": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(BF16, 4, 3), f(I32, 3), 0)
		},
		"cross-entropy: labels": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(F32, 4, 3), f(I32, 4), 0)
		},
		"cross-entropy: no labels": func(c *Context, f made) *Tensor { return c.CrossEntropy(f(F32, 4, 3), nil, 0) },
		"cross-entropy: floats": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(F32, 4, 3), f(F32, 3), 0)
		},
		"cross-entropy: a column": func(c *Context, f made) *Tensor {
			return c.CrossEntropy(f(F32, 4, 3), column(c, f(I32, 2, 3)), 0)
		},
		"cross-entropy back: type": func(c *Context, f made) *Tensor {
			return c.CrossEntropyBack(f(F32, 4, 3), f(I32, 3), 0, F16)
		},
		"cross-entropy back: label": func(c *Context, f made) *Tensor {
			return c.CrossEntropyBack(f(F32, 4, 3), f(I32, 3, 3), 0, F32)
		},
	} {
		c := backend.NewContext()
		if build(c, c.NewTensor) != nil || c.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
}

// column is the first of a matrix [m, n], [n], whose numbers are m apart.
func column(c *Context, x *Tensor) *Tensor {
	return c.Transpose(c.View(x, [4]int64{1, x.Ne(1), 1, 1}, [4]int64{}))
}

// BenchmarkRows gives what is read and written by the second. "convert F32 F32" is a copy.
func BenchmarkRows(b *testing.B) {
	const rows, width, hidden, vocab, heads, dim = 1300, 576, 1536, 49152, 15, 64
	backend := openCPU(b, 2)
	for _, r := range []rowCase{
		{op: "convert", n: width, x: F32, y: F32}, {op: "convert", n: width, x: F32, y: BF16},
		{op: "convert", n: width, x: BF16, y: F32},
		{op: "norm", n: width, x: F32, y: BF16}, {op: "norm", n: width, x: F32, y: F32},
		{op: "norm back", n: width, g: F32, x: F32, y: F32, acc: true}, {op: "norm back", n: width, g: BF16, x: F32,
			y: F32, acc: true},
		{op: "gated silu", n: hidden, x: F32, y: BF16}, {op: "gated silu", n: hidden, x: BF16, y: BF16},
		{op: "gated silu", n: hidden, x: F32, y: F32},
		{op: "gated silu back", n: hidden, g: F32, x: F32, y: BF16}, {op: "gated silu back", n: hidden, g: BF16,
			x: BF16, y: BF16},
		{op: "gated silu back", n: hidden, g: F32, x: F32, y: F32},
		{op: "rotate", n: heads * dim, x: F32, y: F32, heads: 12, dim: dim, dims: dim},
		{op: "rotate back", n: heads * dim, x: F32, y: BF16, heads: 12, dim: dim, dims: dim},
		{op: "cross-entropy", n: vocab, x: F32, y: F32},
		{op: "cross-entropy back", n: vocab, x: F32, y: BF16}, {op: "cross-entropy back", n: vocab, x: F32, y: F32},
	} {
		r.rows = rows
		if r.n == vocab {
			r.rows = 256
		}
		b.Run(fmt.Sprintf("%s/%v %v %v", r.op, r.g, r.x, r.y), func(b *testing.B) { r.benchmark(b, backend) })
	}
}

func (r rowCase) benchmark(b *testing.B, backend *Backend) {
	s := newStage(b, backend)
	defer s.Close()
	o, moved := map[string]*Tensor{}, int64(0)
	for i, m := range r.operands() {
		_, o[m.name] = s.place(product{}, m, numbersOf(b, m, uint64(i+1)).data)
		moved += o[m.name].Bytes()
	}
	o["labels"] = s.own(s.NewTensor(I32, int64(r.rows)))
	if err := o["labels"].Zero(); err != nil {
		b.Fatal(err)
	}
	y := s.own(r.build(s.Context, o))
	moved += y.Bytes()
	graph := s.NewGraph()
	graph.Expand(y)
	for b.Loop() {
		if err := backend.Compute(graph); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(moved)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
}

// TestGates compares with float64 what Gated alone takes; numbers are on both sides of gpt-oss's limits.
func TestGates(t *testing.T) {
	const n, rows = 37, 5
	within := func(inside bool) float64 {
		if inside {
			return 1
		}
		return 0
	}
	for name, test := range map[string]struct {
		act   Activation
		gated func(x, u float64) (y, dx, du float64)
	}{
		"clamped": {Clamped, func(x, u float64) (y, dx, du float64) {
			gate, up := min(x, 7), min(max(u, -7), 7)+1
			s := 1 / (1 + math.Exp(-1.702*gate))
			return gate * s * up, up * s * (1 + 1.702*gate*(1-s)) * within(x <= 7), gate * s * within(u >= -7 && u <= 7)
		}},
		"sigmoid": {Sigmoid, func(x, u float64) (y, dx, du float64) {
			s := 1 / (1 + math.Exp(-x))
			return s * u, u * s * (1 - s), s
		}},
	} {
		t.Run(name, func(t *testing.T) {
			gateUp, dy := normal(1, 2*n*rows), normal(2, n*rows)
			for i := range gateUp {
				gateUp[i] *= 6
			}
			want := [2][]float32{make([]float32, n*rows), make([]float32, 2*n*rows)}
			for i, g := range wide(dy) {
				at := i/n*2*n + i%n
				y, dx, du := test.gated(float64(gateUp[at]), float64(gateUp[at+n]))
				want[0][i], want[1][at], want[1][at+n] = float32(y), float32(g*dx), float32(g*du)
			}
			check := func(t *testing.T, backend *Backend) {
				t.Helper()
				got := computeAll(t, backend, func(b *bench) []*Tensor {
					x := b.f(gateUp, 2*n, rows)
					return []*Tensor{b.Gated(x, test.act, F32), b.GatedBack(b.f(dy, n, rows), x, test.act, F32)}
				})
				for i, name := range []string{"result", "gradient"} {
					if e := offBy(got[i], want[i]); !(e <= 1e-6) {
						t.Errorf("%s off by %.1e", name, e)
					}
				}
			}
			check(t, openComposed(t))
			cpu := openCPU(t, 2)
			everyISA(t, func(t *testing.T) { check(t, cpu) })
		})
	}
}
