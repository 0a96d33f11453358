package bindings

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// product is one of veratune's products to be computed: its weight is [k, m], there are n tokens, and the shared pair's
// rank is r.
type product struct {
	// "linear", "linear back", "weight gradient", "merge", "merged gradient" or "factored gradient"
	op         string
	w, x, y, a Type // of the weight, of activations and gradients, of the result, and of A
	k, m, n, r int
	// letters for the parts of Product: i for In, o for Out, a for Acc, t for Into and T for Into that is Acc
	with string
	// numbers or blocks that every row lies inside of a longer one, if not 0, with rows of others around
	before, after int
	way           Way // Plain or Rounded
	// the operand that has value in its middle, or at its last number but one of the last row but one
	poison string
	tail   bool
	value  float32
}

func (p product) String() string {
	s := fmt.Sprintf("%s %v %v %v %v [%d %d] n%d r%d %q in %d %d", p.op, p.w, p.x, p.y, p.a, p.k, p.m, p.n, p.r, p.with,
		p.before, p.after)
	if p.poison != "" {
		s += fmt.Sprintf(" %v in %s", p.value, p.poison)
	}
	return s
}

// matrix describes an operand or a result.
type matrix struct {
	name        string
	kind        Type
	width, rows int
}

func (m matrix) values() int { return m.width * m.rows }

// operands are what p is computed from: A and B are the shared pair, b and d the layer's vectors, G is the weight's
// gradient.
func (p product) operands() []matrix {
	w, x, g := matrix{"w", p.w, p.k, p.m}, matrix{"x", p.x, p.k, p.n}, matrix{"g", p.x, p.m, p.n}
	pair := []matrix{{"A", p.a, p.k, p.r}, {"B", F32, p.r, p.m}, {"b", F32, p.m, 1}, {"d", F32, p.r, 1}}
	switch p.op {
	case "linear":
		return p.parts(w, x)
	case "linear back":
		return p.parts(w, g)
	case "weight gradient":
		return []matrix{g, x}
	case "merge":
		return append(pair, w)
	case "merged gradient":
		return append(pair, matrix{"G", p.x, p.k, p.m})
	default:
		return append(pair[1:], g, matrix{"u", p.x, p.r, p.n})
	}
}

// parts appends the optional parts to the operands w and x.
func (p product) parts(w, x matrix) []matrix {
	all, y := []matrix{w, x}, p.result()
	for _, part := range []struct {
		letters string
		matrix
	}{{"i", matrix{"in", F32, x.width, 1}}, {"o", matrix{"out", F32, y.width, 1}},
		{"aT", matrix{"acc", F32, y.width, y.rows}}} {
		if strings.ContainsAny(p.with, part.letters) {
			all = append(all, part.matrix)
		}
	}
	return all
}

func (p product) result() matrix {
	switch p.op {
	case "linear":
		return matrix{"y", p.y, p.m, p.n}
	case "linear back":
		return matrix{"y", p.y, p.k, p.n}
	case "weight gradient", "merge":
		return matrix{"y", p.y, p.k, p.m}
	default:
		return matrix{"y", F32, p.m + p.r, 1}
	}
}

// half tells whether the operands are rounded to bfloat16.
func (p product) half() bool {
	if p.op == "merge" {
		return p.y == BF16 && FastBF16() && !p.rounds()
	}
	return p.x == BF16 && FastBF16() && !p.rounds()
}

// rounds tells whether the operands are rounded to integers.
func (p product) rounds() bool {
	limit, _, _ := Integers(1)
	return p.way == Rounded && limit > 0
}

// arithmetic is what a product's numbers depend on.
func (p product) arithmetic() (a struct {
	half                bool
	limit, span, turned int
}) {
	a.half = p.half()
	if p.rounds() {
		a.limit, a.span, a.turned = Integers(p.summed())
	}
	return a
}

// summed is the length of the sums.
func (p product) summed() int {
	switch p.op {
	case "linear", "merged gradient":
		return p.k
	case "linear back":
		return p.m
	case "merge":
		return p.r
	default:
		return p.n
	}
}

// build makes p's node out of its operands, into the tensor given.
func (p product) build(c *Context, t map[string]*Tensor, into *Tensor) *Tensor {
	parts := Product{In: t["in"], Out: t["out"], Acc: t["acc"], Into: into}
	if strings.Contains(p.with, "T") {
		parts.Into = parts.Acc
	}
	v := Vectors{A: t["A"], B: t["B"], LambdaB: t["b"], LambdaD: t["d"]}
	switch p.op {
	case "linear":
		parts.Way = p.way
		return c.Linear(t["w"], t["x"], parts, p.y)
	case "linear back":
		parts.Way = p.way
		return c.LinearBack(t["w"], t["g"], parts, p.y)
	case "weight gradient":
		return c.WeightGradient(t["g"], t["x"], p.y, p.way)
	case "merge":
		return c.Merge(into, t["w"], &v, p.way)
	case "merged gradient":
		return c.MergedGradient(t["G"], v, p.way)
	default:
		return c.FactoredGradient(t["g"], t["u"], v, p.way)
	}
}

// placed tells how p is given its result's place.
func (p product) placed() bool { return p.op == "merge" || strings.Contains(p.with, "t") }

// numbers are an operand's, as stored and as they are read.
type numbers struct {
	data   []byte
	values []float32
}

// numbersOf makes random numbers of m's type, around 1.
func numbersOf(t testing.TB, m matrix, seed uint64) (n numbers) {
	t.Helper()
	n.values = normal(seed, m.values())
	var err error
	if slow(m.kind) {
		n.data, err = randomBlocks(m, seed)
	} else {
		n.data, err = Quantize(m.kind, n.values, int64(m.width))
	}
	if err == nil {
		err = Dequantize(m.kind, n.data, n.values)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// slow tells of types most of which ggml cannot write without an importance matrix, and it takes long for the others.
func slow(t Type) bool { return strings.HasPrefix(t.String(), "iq") }

// randomBlocks draws each block until its largest number is neither tiny nor huge: scales are often float16, of any
// size or none.
func randomBlocks(m matrix, seed uint64) ([]byte, error) {
	random, block := rand.New(rand.NewPCG(seed, 4)), make([]byte, m.kind.RowBytes(m.kind.BlockSize()))
	values := make([]float32, m.kind.BlockSize())
	var data []byte
	for range m.values() / len(values) {
		for tries := 0; ; tries++ {
			for i := range block {
				block[i] = byte(random.Uint32())
			}
			if err := Dequantize(m.kind, block, values); err != nil {
				return nil, err
			}
			most := 0.0
			for _, v := range values {
				most = math.Max(most, math.Abs(float64(v)))
			}
			if finite(values) && most > 0.25 && most < 16 {
				break
			}
			if tries == 10000 {
				return nil, fmt.Errorf("%v: no block of random bytes has usual numbers", m.kind)
			}
		}
		data = append(data, block...)
	}
	return data, nil
}

// fill makes p's operands.
func (p product) fill(t testing.TB) map[string]numbers {
	all := map[string]numbers{}
	for i, m := range p.operands() {
		n := numbersOf(t, m, uint64(i+1))
		if m.name == p.poison {
			at := m.width*(m.rows/2) + m.width/2
			if p.tail {
				at = m.width*max(m.rows-2, 0) + m.width - 2
			}
			n.values[at] = p.value
			if n.data, _ = Quantize(m.kind, n.values, int64(m.width)); m.kind != F32 && m.kind != BF16 {
				t.Fatal("only numbers without blocks can be poisoned")
			}
		}
		all[m.name] = n
	}
	return all
}

// The place of a matrix is a tensor of its own, as large as it, or one around it whose other numbers are NaN: what is
// read there by mistake comes out, and what is written there shows.
const filler = 0xff

// size gives the width and rows of the tensor around m, and the place of m in it.
func (p product) size(m matrix) (width, rows int, start [4]int64) {
	if p.before+p.after == 0 {
		return m.width, m.rows, start
	}
	block := int(m.kind.BlockSize())
	return m.width + (p.before+p.after)*block, m.rows + 3, [4]int64{int64(p.before * block), 2}
}

// cut gives m's own part of the bytes of the tensor around it, and tells whether all the others are untouched.
func (p product) cut(m matrix, whole []byte) (part []byte, untouched bool) {
	width, rows, start := p.size(m)
	stride, from, n := m.kind.RowBytes(int64(width)), m.kind.RowBytes(start[0]), m.kind.RowBytes(int64(m.width))
	rest := slices.Clone(whole)
	for i := range int64(rows) {
		if i >= start[1] && i < start[1]+int64(m.rows) {
			row := rest[i*stride+from:][:n]
			part = append(part, row...)
			for j := range row {
				row[j] = filler
			}
		}
	}
	return part, bytes.Count(rest, []byte{filler}) == len(rest)
}

// stage is where a product is computed: each of its matrices has a buffer of just its size, so that a sanitizer sees
// what goes beyond.
type stage struct {
	*Context
	t       testing.TB
	backend *Backend
	buffers []*Buffer
}

func newStage(t testing.TB, backend *Backend) *stage {
	return &stage{Context: backend.NewContext(), t: t, backend: backend}
}

func (s *stage) Close() {
	for _, b := range s.buffers {
		b.Close()
	}
	s.Context.Close()
}

// own gives x, whose context has not failed, a buffer of its own, filled.
func (s *stage) own(x *Tensor) *Tensor {
	if err := s.Err(); err != nil {
		s.t.Fatal(err)
	}
	b, err := s.backend.NewBuffer(x.Bytes())
	if err != nil {
		s.t.Fatal(err)
	}
	s.buffers = append(s.buffers, b)
	if _, err := b.Place(x); err != nil {
		s.t.Fatal(err)
	}
	blank(x)
	return x
}

func blank(x *Tensor) {
	raw := x.raw()
	for i := range raw {
		raw[i] = filler
	}
}

// place makes the tensor around m and its part with m's data, if there are any.
func (s *stage) place(p product, m matrix, data []byte) (whole, part *Tensor) {
	width, rows, start := p.size(m)
	whole = s.own(s.NewTensor(m.kind, int64(width), int64(rows)))
	part = whole
	if width != m.width {
		shape := [4]int64{int64(m.width), int64(m.rows), 1, 1}
		if m.name == "A" {
			shape[0] += int64(p.after) // as for all layers but the widest
		}
		part = s.View(whole, shape, start)
	}
	stride, from, n := m.kind.RowBytes(int64(width)), m.kind.RowBytes(start[0]), int(m.kind.RowBytes(int64(m.width)))
	for i := 0; i*n < len(data); i++ {
		copy(whole.raw()[(start[1]+int64(i))*stride+from:], data[i*n:(i+1)*n])
	}
	return whole, part
}

// compute gives the bytes of p's result.
func (p product) compute(t testing.TB, backend *Backend, data map[string]numbers) []byte {
	t.Helper()
	s := newStage(t, backend)
	defer s.Close()
	wholes, parts := map[string]*Tensor{}, map[string]*Tensor{}
	for _, m := range p.operands() {
		wholes[m.name], parts[m.name] = s.place(p, m, data[m.name].data)
	}
	result := p.result()
	var whole *Tensor
	if p.placed() {
		whole, parts["y"] = s.place(p, result, nil)
	}
	y := p.build(s.Context, parts, parts["y"])
	switch {
	case strings.Contains(p.with, "T"):
		whole = wholes["acc"]
		delete(wholes, "acc")
	case !p.placed():
		whole = s.own(y)
	}
	g := s.NewGraph()
	g.Expand(y)
	if err := s.Err(); err != nil {
		t.Fatalf("%v: %v", p, err)
	}
	if err := backend.Compute(g); err != nil {
		t.Fatalf("%v: %v", p, err)
	}
	for _, m := range p.operands() {
		if w := wholes[m.name]; w != nil {
			if part, untouched := p.cut(m, w.raw()); !untouched || !bytes.Equal(part, data[m.name].data) {
				t.Errorf("%v: %s has been written to", p, m.name)
			}
		}
	}
	if whole == y { // its own, without anything around
		return slices.Clone(whole.raw())
	}
	part, untouched := p.cut(result, whole.raw())
	if !untouched {
		t.Errorf("%v: written beside the result", p)
	}
	return part
}

// want is p's result in float64.
func (p product) want(t testing.TB, data map[string]numbers) []float64 {
	half := p.half()
	// round gives numbers as the product takes them, each multiplied by one of s.
	round := func(values []float32, s func(i int) float32) []float64 {
		out := make([]float64, len(values))
		scaled := make([]float32, len(values))
		for i, v := range values {
			out[i], scaled[i] = float64(v)*float64(s(i)), v*s(i)
		}
		if half {
			for i, v := range roundedTo(t, BF16, scaled) {
				out[i] = float64(v)
			}
		}
		return out
	}
	one := func(int) float32 { return 1 }
	get := func(name string) []float32 { return data[name].values }
	times := func(name string, index func(i int) int) func(i int) float32 {
		if s := get(name); s != nil {
			return func(i int) float32 { return s[index(i)] }
		}
		return one
	}
	column := func(width int) func(i int) int { return func(i int) int { return i % width } }
	k, m, r := p.k, p.m, p.r
	dots := func(a, b []float64) []float64 {
		k := p.summed()
		if p.rounds() {
			_, span, _ := Integers(k)
			if p.op == "weight gradient" || p.op == "factored gradient" {
				balance(a, b, k)
			}
			a, b, k = inBlocks(a, k, p.op != "merge"), inBlocks(b, k, p.op != "merge"), (k+span-1)/span*span
		}
		return dots(a, b, k)
	}
	var y []float64
	switch p.op {
	case "linear":
		y = dots(round(get("x"), times("in", column(k))), round(get("w"), one))
	case "linear back":
		y = dots(round(get("g"), times("in", column(m))), turned(round(get("w"), one), k))
	case "weight gradient":
		y = dots(turned(round(get("g"), one), m), turned(round(get("x"), one), k))
	case "merge":
		y = dots(round(get("B"), times("d", column(r))), turned(round(get("A"), one), k))
		for i := range y {
			y[i] = float64(get("w")[i]) + float64(get("b")[i/k])*y[i]
		}
	case "merged gradient":
		return p.vectors(dots(round(get("G"), one), round(get("A"), one)), get("B"), get("b"), get("d"))
	default:
		return p.vectors(dots(turned(round(get("g"), one), m), turned(round(get("u"), one), r)), get("B"),
			get("b"), get("d"))
	}
	by := times("out", column(p.result().width))
	for i := range y {
		y[i] *= float64(by(i))
		if acc := get("acc"); acc != nil {
			y[i] += float64(acc[i])
		}
	}
	return y
}

// vectors is the gradient of b and d from T [r, m].
func (p product) vectors(T []float64, B, b, d []float32) []float64 {
	y := make([]float64, p.m+p.r)
	for i := range p.m {
		for j := range p.r {
			e := float64(B[i*p.r+j]) * T[i*p.r+j]
			y[i] += e * float64(d[j])
			y[p.m+j] += e * float64(b[i])
		}
	}
	return y
}

// dots is Σ_l a[i, l] b[j, l], row by row over i, of two matrices with rows of k.
func dots(a, b []float64, k int) []float64 {
	var c []float64
	for ; len(a) > 0; a = a[k:] {
		for b := b; len(b) > 0; b = b[k:] {
			sum := 0.0
			for l, v := range a[:k] {
				sum += v * b[l]
			}
			c = append(c, sum)
		}
	}
	return c
}

// balance multiplies the numbers of each token in a and b, which have rows of k tokens, by a power of two and its
// inverse, so that the largest of both are alike; by 0 where they add nothing.
func balance(a, b []float64, k int) {
	largest := func(x []float64, token int) (most float64) {
		for ; token < len(x); token += k {
			most = max(most, math.Abs(x[token])) // NaN if one is
		}
		return most
	}
	for token := range k {
		inA, inB := largest(a, token), largest(b, token)
		by, back := 1.0, 1.0
		if inA == 0 || inB == 0 {
			if inA+inB < math.Inf(1) {
				by, back = 0, 0
			}
		} else if inA < math.Inf(1) && inB < math.Inf(1) {
			_, x := math.Frexp(inA)
			_, y := math.Frexp(inB)
			n := max(-100, min((y-x)/2, 100))
			by, back = math.Ldexp(1, n), math.Ldexp(1, -n)
		}
		for i := token; i < len(a); i += k {
			a[i] *= by
		}
		for i := token; i < len(b); i += k {
			b[i] *= back
		}
	}
}

// inBlocks rounds rows of k numbers, with zeros behind them that fill the last block, to Integers: themselves, or their
// products with a Hadamard matrix, which are multiplied by its inverse then. A block with a NaN or an infinity is NaN.
func inBlocks(rows []float64, k int, turn bool) (out []float64) {
	limit, span, turned := Integers(k)
	for ; len(rows) > 0; rows = rows[k:] {
		for block := range slices.Chunk(rows[:k], span) {
			block = append(slices.Clone(block), make([]float64, span-len(block))...)
			if turn && turned > 0 {
				hadamard(block, turned, func(v float64) float64 { return float64(float32(v)) })
			}
			most := float32(0)
			for _, v := range block {
				most = max(most, float32(math.Abs(v))) // NaN if one is
			}
			by, back := float64(float32(limit)/most), float64(most/float32(limit))
			switch {
			case !finite([]float32{most}):
				back = math.NaN()
			case most < 1e-34:
				by, back = 0, 0
			}
			rounded := make([]float64, len(block))
			for i, v := range block {
				rounded[i] = math.RoundToEven(float64(float32(v))*by) * back
			}
			if turn && turned > 0 {
				hadamard(rounded, turned, func(v float64) float64 { return v })
				for i := range rounded {
					rounded[i] /= float64(turned)
				}
			}
			out = append(out, rounded...)
		}
	}
	return out
}

// hadamard multiplies every n of some numbers by a Hadamard matrix, and rounds each sum.
func hadamard(x []float64, n int, round func(float64) float64) {
	for h := 1; h < n; h *= 2 {
		for i := range x {
			if i&h == 0 {
				a, b := x[i], x[i+h]
				x[i], x[i+h] = round(a+b), round(a-b)
			}
		}
	}
}

func turned(a []float64, width int) []float64 {
	t := make([]float64, 0, len(a))
	for j := range width {
		for i := j; i < len(a); i += width {
			t = append(t, a[i])
		}
	}
	return t
}

// tolerance bounds the length of the difference from float64, as a part of the result's. An element is the sum of
// `terms` numbers, each addition rounded by up to 2^-24 of what has come together so far, half of that on average;
// signs are random, so that it grows with the root of their number. Four more roundings are those of In, Out, Acc and a
// single product. The products here reach up to 0.7 of it.
func (p product) tolerance() float64 {
	if p.half() && ISA() == "emulated" {
		return math.Exp2(-8) // a matrix is rounded with its scales there
	}
	terms := map[string]int{"linear": p.k, "linear back": p.m, "weight gradient": p.n, "merge": p.r,
		"merged gradient":   p.k + p.m + p.r,
		"factored gradient": p.n + p.m + p.r}[p.op]
	return math.Exp2(-24) * (4 + math.Sqrt(float64(terms))/2)
}

// check compares p's result with float64: NaN and infinities are where they are there, and nowhere else; but where
// kernels for graphics processors scale the matrix in place of the result, an infinite scale gives sums of infinities
// of either sign, NaN. A result in bfloat16 is rounded to the nearest, and so off by up to half a unit in the last of 8
// bits, which is not counted.
func (p product) check(t testing.TB, data []byte, want []float64) {
	t.Helper()
	m := p.result()
	got := make([]float32, m.values())
	if err := Dequantize(m.kind, data, got); err != nil {
		t.Fatal(err)
	}
	rounding := func(w float64) float64 {
		if m.kind != BF16 {
			return 0
		}
		_, exponent := math.Frexp(w)
		return math.Ldexp(1, exponent-9)
	}
	var off, all float64
	for i, w := range want {
		g := float64(got[i])
		if math.IsNaN(w) || math.IsInf(w, 0) {
			folded := ISA() == "emulated" && (p.poison == "out" || p.poison == "b")
			if g != w && !(math.IsNaN(g) && (math.IsNaN(w) || folded)) {
				t.Errorf("%v: number %d of row %d is %v, want %v", p, i%m.width, i/m.width, g, w)
				return
			}
			continue
		}
		if math.IsNaN(g) || math.IsInf(g, 0) {
			t.Errorf("%v: number %d of row %d is %v, want %v", p, i%m.width, i/m.width, g, w)
			return
		}
		off += math.Pow(math.Max(0, math.Abs(g-w)-rounding(w)), 2)
		all += w * w
	}
	if off, all := math.Sqrt(off), math.Sqrt(all); !(off <= p.tolerance()*all) {
		t.Errorf("%v: off by %.2g of %.3g, tolerance %.2g", p, off, all, p.tolerance())
	}
}

func openCPU(t testing.TB, threads int) *Backend {
	b, err := NewCPU(threads)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// openComposed opens the CPU by ggml's own operations.
func openComposed(t testing.TB) *Backend { return openNamed(t, Composed) }

// testProducts compares each product with float64, with every instruction set.
func testProducts(t *testing.T, products []product) {
	backend := openCPU(t, 1)
	data := make([]map[string]numbers, len(products))
	wants := make([]map[any][]float64, len(products))
	for i, p := range products {
		data[i], wants[i] = p.fill(t), map[any][]float64{}
	}
	everyISA(t, func(t *testing.T) {
		for i, p := range products {
			want, ok := wants[i][p.arithmetic()]
			if !ok {
				want = p.want(t, data[i])
				wants[i][p.arithmetic()] = want
			}
			p.check(t, p.compute(t, backend, data[i]), want)
		}
	})
}

var operations = []string{"linear", "linear back", "weight gradient", "merge", "merged gradient", "factored gradient"}

// around are places inside of wider rows: none; aligned; at an odd number, with which a bfloat16 row begins inside of a
// 32-bit word; in rows of an odd length.
var around = [][2]int{{0, 0}, {4, 4}, {3, 3}, {4, 5}}

// sizes of a product's weight, tokens and rank.
type sizes struct{ k, m, n, r int }

// every gives each operation with each of the sizes, with operands and results in float32 and in bfloat16, and in the
// next place each time.
func every(all ...sizes) (products []product) {
	for _, op := range operations {
		kinds := [][3]Type{{F32, F32, F32}, {BF16, F32, BF16}, {BF16, BF16, F32}}
		if op == "merge" || op == "merged gradient" {
			kinds = append(kinds, [3]Type{F32, F32, BF16}, [3]Type{BF16, BF16, BF16})
		}
		for i, s := range all {
			for j, kind := range kinds {
				place := around[(i+j)%len(around)]
				products = append(products, product{op: op, w: kind[0], x: kind[0], y: kind[1], a: kind[2], k: s.k,
					m: s.m, n: s.n, r: s.r, before: place[0], after: place[1]})
			}
		}
	}
	return products
}

func TestProductShapes(t *testing.T) {
	all := []sizes{
		{1, 1, 1, 1}, {2, 1, 1, 2},
		// more than a strip, and than two chunks
		{130, 257, 193, 131},
		{96, 192, 288, 128},                                                    // all whole
		{36, 40, 30, 20}, {36, 40, 30, 20}, {36, 40, 30, 20}, {36, 40, 30, 20}, // even, in all places
		// 2051: blocks of k, of floats and of pairs
		{37, 43, 29, 19}, {37, 43, 2051, 19}, {2051, 43, 29, 19}, {37, 2051, 29, 19},
		{37, 43, 29, 2051},
	}
	for _, v := range []int{1, 2, 3, 5, 7, 31, 33, 63, 65, 97, 130, 193, 257} {
		all = append(all, sizes{v, 43, 29, 19}, sizes{37, v, 29, 19}, sizes{37, 43, v, 19}, sizes{37, 43, 29, v})
	}
	testProducts(t, every(all...))
}

// TestProductThreads compares the bits that several threads give with those of one.
func TestProductThreads(t *testing.T) {
	products := append(every(sizes{5, 7, 1, 3}), every(sizes{130, 257, 193, 131})...)
	one := map[string][]byte{}
	for _, threads := range []int{1, 2, 3, 5} {
		backend := openCPU(t, threads) // its threads spin for a while after each graph, in the way of another backend's
		everyISA(t, func(t *testing.T) {
			for _, p := range products {
				y, name := p.compute(t, backend, p.fill(t)), p.String()+ISA()
				if threads == 1 {
					one[name] = y
				} else if !bytes.Equal(y, one[name]) {
					t.Errorf("%v: other bits with %d threads than with one", p, threads)
				}
			}
		})
		backend.Close()
	}
}

func TestProductTypes(t *testing.T) {
	var all []product
	for kind := range typeCount {
		if !kind.Dequantizes() {
			continue
		}
		block := int(kind.BlockSize())
		// Rows of more than the 256 numbers that are unpacked at a time, and more columns than a strip.
		k := max(block*3, 320/block*block)
		for _, op := range []string{"linear", "linear back", "merge"} {
			for _, x := range []Type{F32, BF16} {
				for _, place := range [][2]int{{}, {1, 1}} {
					y := F32
					if op == "merge" {
						y = x
					}
					all = append(all, product{op: op, w: kind, x: x, y: y, k: k, m: 67, n: 13, r: 11, with: "io",
						before: place[0], after: place[1]})
				}
			}
		}
	}
	testProducts(t, all)
}

func TestProductParts(t *testing.T) {
	var all []product
	for _, op := range []string{"linear", "linear back"} {
		for _, with := range []string{"", "i", "o", "a", "io", "ioa", "t", "iot", "at", "ioat", "T", "ioT"} {
			for _, kinds := range [][2]Type{{F32, F32}, {F32, BF16}, {BF16, F32}, {BF16, BF16}} {
				for _, place := range around {
					if strings.Contains(with, "T") && kinds[1] == BF16 {
						continue // acc is float32
					}
					all = append(all, product{op: op, w: Q4_1, x: kinds[0], y: kinds[1], k: 96, m: 70, n: 7, with: with,
						before: place[0], after: place[1]})
				}
			}
		}
	}
	testProducts(t, all)
}

// TestProductPoison puts a NaN or an infinity into each operand.
func TestProductPoison(t *testing.T) {
	var all []product
	for _, op := range operations {
		for _, kind := range []Type{F32, BF16} {
			p := product{op: op, w: kind, x: kind, y: kind, a: kind, k: 71, m: 67, n: 33, r: 35, with: "ioa"}
			for _, m := range p.operands() {
				for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
					for _, tail := range []bool{false, true} {
						p.poison, p.value, p.tail = m.name, float32(value), tail
						all = append(all, p)
					}
				}
			}
		}
	}
	testProducts(t, all)
}

// TestProductsBesideEachOther computes queries, keys and values into one tensor, twice: a node can be computed again.
func TestProductsBesideEachOther(t *testing.T) {
	const k, n = 96, 40
	widths := []int{64, 33, 31}
	for _, threads := range []int{1, 2} {
		backend := openCPU(t, threads)
		s := newStage(t, backend)
		defer s.Close()
		x := numbersOf(t, matrix{"x", F32, k, n}, 1)
		_, in := s.place(product{}, matrix{"x", F32, k, n}, x.data)
		whole := s.own(s.NewTensor(F32, 128, n))
		g, at, want := s.NewGraph(), 0, make([]float64, 128*n)
		for i, m := range widths {
			w := numbersOf(t, matrix{"w", Q4_0, k, m}, uint64(i+2))
			_, weight := s.place(product{}, matrix{"w", Q4_0, k, m}, w.data)
			g.Expand(s.Linear(weight, in, Product{Into: s.View(whole, [4]int64{int64(m), n, 1, 1},
				[4]int64{int64(at)})}, F32))
			p := product{op: "linear", k: k, m: m, n: n}
			for j, v := range p.want(t, map[string]numbers{"x": x, "w": w}) {
				want[j/m*128+at+j%m] = v
			}
			at += m
		}
		for range 2 {
			blank(whole)
			if err := backend.Compute(g); err != nil {
				t.Fatal(err)
			}
			product{op: "linear", y: F32, k: k, m: 128, n: n}.check(t, whole.raw(), want)
		}
	}
}

// TestMergeAlone writes weights without vectors: they are just those that ggml reads, also where scales are subnormal
// numbers of float16.
func TestMergeAlone(t *testing.T) {
	backend := openCPU(t, 1)
	const rows = 5
	for kind := range typeCount {
		if !kind.Dequantizes() {
			continue
		}
		m := matrix{"w", kind, max(int(kind.BlockSize()), 96), rows}
		tiny := normal(1, m.values())
		for i := range tiny {
			tiny[i] *= 1e-6
		}
		all := []numbers{numbersOf(t, m, 1)}
		if !slow(kind) {
			data, err := Quantize(kind, tiny, int64(m.width))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, numbers{data, nil})
		}
		for _, w := range all {
			want := make([]float32, m.values())
			if err := Dequantize(kind, w.data, want); err != nil {
				t.Fatal(err)
			}
			everyISA(t, func(t *testing.T) {
				for _, to := range []Type{F32, BF16} {
					s := newStage(t, backend)
					_, weight := s.place(product{}, m, w.data)
					dst := s.own(s.NewTensor(to, int64(m.width), rows))
					g := s.NewGraph()
					g.Expand(s.Merge(dst, weight, nil, Plain))
					if err := backend.Compute(g); err != nil {
						t.Fatal(err)
					}
					got := make([]float32, m.values())
					if err := Dequantize(to, dst.raw(), got); err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got, roundedTo(t, to, want)) { // but for the sign of zeros
						t.Errorf("%v to %v: other numbers than ggml's", kind, to)
					}
					s.Close()
				}
			})
		}
	}
}

// everyProduct are all products with a weight of some type, in all their parts.
func everyProduct(t testing.TB, kind Type, n int64) func(b *bench) []*Tensor {
	const k, m, rank = 256, 37, 24
	data := numbersOf(t, matrix{"w", kind, k, m}, 1).data
	return func(b *bench) []*Tensor {
		f := func(seed uint64, ne ...int64) *Tensor {
			size := int64(1)
			for _, n := range ne {
				size *= n
			}
			return b.f(normal(seed, int(size)), ne...)
		}
		w, x, g, small := b.raw(data, kind, k, m), f(2, k, n), f(3, m, n), f(4, rank, n)
		// Parts of larger tensors, as the model has them.
		a := b.View(f(5, k+16, rank), [4]int64{k, rank, 1, 1}, [4]int64{})
		rows := b.View(f(6, rank+16, m+3), [4]int64{rank, m, 1, 1}, [4]int64{})
		numbers := f(7, 1+m+rank)
		v := Vectors{A: a, B: rows, LambdaB: b.View(numbers, [4]int64{m, 1, 1, 1}, [4]int64{1}),
			LambdaD: b.View(numbers, [4]int64{rank, 1, 1, 1}, [4]int64{m + 1})}
		place := b.View(f(9, m+5, n), [4]int64{m, n, 1, 1}, [4]int64{2})
		return []*Tensor{
			b.Linear(w, x, Product{}, F32), b.Linear(w, x, Product{In: f(10, k), Out: f(11, m), Acc: f(12, m, n)}, F32),
			b.Cont(b.Linear(rows, small, Product{In: v.LambdaD, Out: v.LambdaB, Acc: f(12, m, n), Into: place}, F32)),
			b.LinearBack(w, g, Product{}, F32), b.LinearBack(w, g, Product{In: v.LambdaB, Out: f(10, k), Acc: x}, F32),
			b.WeightGradient(g, x, F32, Plain), b.Merge(f(13, k, m), w, &v, Plain), b.Merge(f(13, k, m), w, nil, Plain),
			b.MergedGradient(f(14, k, m), v, Plain), b.FactoredGradient(g, small, v, Plain),
		}
	}
}

// TestProductsComposed compares with the composed forms.
func TestProductsComposed(t *testing.T) {
	for kind := range typeCount {
		if !kind.Dequantizes() {
			continue
		}
		for _, n := range []int64{13, 3} {
			build := everyProduct(t, kind, n)
			want := computeAll(t, openComposed(t), build)
			everyISA(t, func(t *testing.T) {
				for i, got := range computeAll(t, openCPU(t, 1), build) {
					alike(t, fmt.Sprintf("%v, %d columns, product %d", kind, n, i), got, want[i])
				}
			})
		}
	}
}

// raw makes an input of any type.
func (b *bench) raw(data []byte, kind Type, ne ...int64) *Tensor {
	x := b.NewTensor(kind, ne...).Input()
	b.graph.Expand(x)
	b.inputs = append(b.inputs, func() error { return x.Upload(data) })
	return x
}

func TestProductsRefuse(t *testing.T) {
	backend := openCPU(t, 1)
	f := func(c *Context, kind Type, ne ...int64) *Tensor { return c.NewTensor(kind, ne...) }
	// spread is a vector whose numbers lie apart.
	spread := func(c *Context, n int64) *Tensor {
		return c.Transpose(c.View(f(c, F32, 5, n), [4]int64{1, n, 1, 1}, [4]int64{}))
	}
	vectors := func(c *Context, k, m, r int64) Vectors {
		return Vectors{f(c, F32, k, r), f(c, F32, r, m), f(c, F32, m), f(c, F32, r)}
	}
	for name, build := range map[string]func(c *Context) *Tensor{
		"no weight": func(c *Context) *Tensor { return c.Linear(nil, f(c, F32, 4, 3), Product{}, F32) },
		"another width": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 5, 6), f(c, F32, 4, 3), Product{}, F32)
		},
		"another width back": func(c *Context) *Tensor {
			return c.LinearBack(f(c, F32, 5, 6), f(c, F32, 5, 3), Product{}, F32)
		},
		"float16 activations": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F16, 4, 3), Product{}, F32)
		},
		"a float16 result": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{}, F16)
		},
		"an integer weight": func(c *Context) *Tensor {
			return c.Linear(f(c, I32, 4, 6), f(c, F32, 4, 3), Product{}, F32)
		},
		"a stack of weights": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6, 2), f(c, F32, 4, 3), Product{}, F32)
		},
		"broken rows": func(c *Context) *Tensor {
			return c.Linear(c.Transpose(f(c, F32, 6, 4)), f(c, F32, 4, 3), Product{}, F32)
		},
		"a short In": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{In: f(c, F32, 3)}, F32)
		},
		"In with gaps": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{In: spread(c, 4)}, F32)
		},
		"a bfloat16 Out": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{Out: f(c, BF16, 6)}, F32)
		},
		"Acc of another shape": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{Acc: f(c, F32, 6, 4)}, F32)
		},
		"a bfloat16 Acc": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{Acc: f(c, BF16, 6, 3)}, BF16)
		},
		"Into of another type": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{Into: f(c, BF16, 6, 3)}, F32)
		},
		"Into of broken rows": func(c *Context) *Tensor {
			return c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{Into: c.Transpose(f(c, F32, 3, 6))}, F32)
		},
		"gradients of two types": func(c *Context) *Tensor {
			return c.WeightGradient(f(c, F32, 4, 3), f(c, BF16, 5, 3), F32, Plain)
		},
		"gradients of other tokens": func(c *Context) *Tensor {
			return c.WeightGradient(f(c, F32, 4, 3), f(c, F32, 5, 2), F32, Plain)
		},
		"merged into a smaller one": func(c *Context) *Tensor {
			v := vectors(c, 4, 6, 2)
			return c.Merge(f(c, F32, 4, 5), f(c, F32, 4, 6), &v, Plain)
		},
		"merged into float16": func(c *Context) *Tensor {
			v := vectors(c, 4, 6, 2)
			return c.Merge(f(c, F16, 4, 6), f(c, F32, 4, 6), &v, Plain)
		},
		"A narrower than the layer": func(c *Context) *Tensor {
			v := vectors(c, 3, 6, 2)
			return c.Merge(f(c, F32, 4, 6), f(c, F32, 4, 6), &v, Plain)
		},
		"more rows of B than needed": func(c *Context) *Tensor {
			return c.MergedGradient(f(c, F32, 4, 5), vectors(c, 4, 6, 2), Plain)
		},
		"no A": func(c *Context) *Tensor {
			v := vectors(c, 4, 6, 2)
			v.A = nil
			return c.MergedGradient(f(c, F32, 4, 6), v, Plain)
		},
		"d with gaps": func(c *Context) *Tensor {
			v := vectors(c, 4, 6, 2)
			v.LambdaD = spread(c, 2)
			return c.MergedGradient(f(c, F32, 4, 6), v, Plain)
		},
		"u of another rank": func(c *Context) *Tensor {
			return c.FactoredGradient(f(c, F32, 6, 5), f(c, F32, 3, 5), vectors(c, 4, 6, 2), Plain)
		},
		"u of other tokens": func(c *Context) *Tensor {
			return c.FactoredGradient(f(c, F32, 6, 5), f(c, F32, 2, 4), vectors(c, 4, 6, 2), Plain)
		},
	} {
		c := backend.NewContext()
		if build(c) != nil || c.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
	c := NewContext(16)
	defer c.Close()
	if c.Linear(f(c, F32, 4, 6), f(c, F32, 4, 3), Product{}, F32) != nil || c.Err() == nil {
		t.Error("a context without a backend: no error")
	}
}

// TestPeak multiplies on registers alone with every instruction set.
func TestPeak(t *testing.T) {
	for _, kind := range []Type{F32, BF16, I32} {
		everyISA(t, func(t *testing.T) {
			backend := openCPU(t, 2)
			s := newStage(t, backend)
			defer s.Close()
			n := s.own(s.Peak(s.own(s.NewTensor(kind, 32))))
			g := s.NewGraph()
			g.Expand(n)
			if err := backend.Compute(g); err != nil {
				t.Fatal(err)
			}
			operations := []float32{0}
			if err := Get(n, operations); err != nil {
				t.Fatal(err)
			}
			if operations[0] < 1e8 {
				t.Errorf("%v operations", operations[0])
			}
		})
	}
}
