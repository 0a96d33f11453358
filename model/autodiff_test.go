package model

import (
	"math"
	"slices"
)

// matrix is numbers in float64, row after row, and the gradient of a loss by each: nil in a constant.
type matrix struct {
	rows, cols int
	v, g       []float64
}

func constant(rows, cols int, v []float64) *matrix { return &matrix{rows: rows, cols: cols, v: v} }

// row is row i of x, or of its gradient.
func (x *matrix) row(i int) []float64 { return x.v[i*x.cols : (i+1)*x.cols] }

func (x *matrix) rowGrad(i int) []float64 { return x.g[i*x.cols : (i+1)*x.cols] }

// pass adds to the gradient of number i.
func (x *matrix) pass(i int, g float64) {
	if x.g != nil {
		x.g[i] += g
	}
}

// part is the rows start to start+n.
func (x *matrix) part(start, n int) *matrix {
	p := constant(n, x.cols, x.v[start*x.cols:(start+n)*x.cols])
	if x.g != nil {
		p.g = x.g[start*x.cols : (start+n)*x.cols]
	}
	return p
}

// record is what has been computed, operation by operation, so that gradients can be taken by going back: each
// operation gives a matrix and notes how that one's gradient is passed on to what it was made of.
type record struct{ back []func() }

func (r *record) result(rows, cols int) *matrix {
	return &matrix{rows: rows, cols: cols, v: make([]float64, rows*cols), g: make([]float64, rows*cols)}
}

// note keeps the way back of the operation that was just computed.
func (r *record) note(back func()) { r.back = append(r.back, back) }

func (r *record) backward() {
	for _, back := range slices.Backward(r.back) {
		back()
	}
}

// product is x wᵀ, of as many columns of w as x has.
func (r *record) product(x, w *matrix) *matrix {
	y := r.result(x.rows, w.rows)
	for i := range x.rows {
		for j := range w.rows {
			y.row(i)[j] = dot(x.row(i), w.row(j))
		}
	}
	r.note(func() {
		for i := range x.rows {
			for j, g := range y.rowGrad(i) {
				if g != 0 && x.g != nil {
					addScaled(x.rowGrad(i), w.row(j)[:x.cols], g)
				}
				if g != 0 && w.g != nil {
					addScaled(w.rowGrad(j), x.row(i), g)
				}
			}
		}
	})
	return y
}

func (r *record) transposed(x *matrix) *matrix {
	y := r.result(x.cols, x.rows)
	for i := range y.v {
		y.v[i] = x.v[i%x.rows*x.cols+i/x.rows]
	}
	r.note(func() {
		for i, g := range y.g {
			x.pass(i%x.rows*x.cols+i/x.rows, g)
		}
	})
	return y
}

// columns are the columns start to start+n.
func (r *record) columns(x *matrix, start, n int) *matrix {
	y := r.result(x.rows, n)
	for i := range y.v {
		y.v[i] = x.v[i/n*x.cols+start+i%n]
	}
	r.note(func() {
		for i, g := range y.g {
			x.pass(i/n*x.cols+start+i%n, g)
		}
	})
	return y
}

// beside puts matrices of n columns side by side.
func (r *record) beside(n int, parts []*matrix) *matrix {
	y := r.result(parts[0].rows, n*len(parts))
	at := func(p, i int) int { return i/n*y.cols + p*n + i%n }
	for p, x := range parts {
		for i, v := range x.v {
			y.v[at(p, i)] = v
		}
	}
	r.note(func() {
		for p, x := range parts {
			for i := range x.v {
				x.pass(i, y.g[at(p, i)])
			}
		}
	})
	return y
}

// spread is where number i of x meets one of w, which has as many rows and columns, or one row for all, or one column.
func spread(x, w *matrix, i int) int {
	if w.cols == 1 && w.rows == x.rows {
		return i / x.cols
	}
	return i % len(w.v)
}

func (r *record) sum(x, w *matrix) *matrix {
	y := r.result(x.rows, x.cols)
	for i := range y.v {
		y.v[i] = x.v[i] + w.v[spread(x, w, i)]
	}
	r.note(func() {
		for i, g := range y.g {
			x.pass(i, g)
			w.pass(spread(x, w, i), g)
		}
	})
	return y
}

// times multiplies number by number.
func (r *record) times(x, w *matrix) *matrix {
	y := r.result(x.rows, x.cols)
	for i := range y.v {
		y.v[i] = x.v[i] * w.v[spread(x, w, i)]
	}
	r.note(func() {
		for i, g := range y.g {
			at := spread(x, w, i)
			x.pass(i, g*w.v[at])
			w.pass(at, g*x.v[i])
		}
	})
	return y
}

func (r *record) scaled(x *matrix, s float64) *matrix {
	return r.times(x, constant(1, 1, []float64{s}))
}

// each applies a function, which gives its derivative too.
func (r *record) each(x *matrix, f func(v float64) (y, slope float64)) *matrix {
	y, slopes := r.result(x.rows, x.cols), make([]float64, len(x.v))
	for i, v := range x.v {
		y.v[i], slopes[i] = f(v)
	}
	r.note(func() {
		for i, g := range y.g {
			x.pass(i, g*slopes[i])
		}
	})
	return y
}

// convolved sums, for each column, the last rows by its row of w, the last number being that of the row itself.
func (r *record) convolved(x, w *matrix) *matrix {
	y := r.result(x.rows, x.cols)
	visit := func(f func(to, from int, by float64)) {
		for i := range y.v {
			for back := range w.cols {
				if from := i - back*x.cols; from >= 0 {
					f(i, from, w.row(i % x.cols)[w.cols-1-back])
				}
			}
		}
	}
	visit(func(to, from int, by float64) { y.v[to] += by * x.v[from] })
	r.note(func() { visit(func(to, from int, by float64) { x.pass(from, by*y.g[to]) }) })
	return y
}

// normed divides every n numbers by the root of their mean square and of eps.
func (r *record) normed(x *matrix, n int, eps float64) *matrix {
	y := r.result(x.rows, x.cols)
	scale := make([]float64, len(x.v)/n)
	for k := range scale {
		part := x.v[k*n : (k+1)*n]
		scale[k] = 1 / math.Sqrt(dot(part, part)/float64(n)+eps)
		addScaled(y.v[k*n:], part, scale[k])
	}
	r.note(func() {
		for k, s := range scale {
			mean := dot(y.g[k*n:(k+1)*n], y.v[k*n:]) / float64(n)
			for i := k * n; i < (k+1)*n; i++ {
				x.pass(i, s*(y.g[i]-y.v[i]*mean))
			}
		}
	})
	return y
}

// centred takes the mean of every row away.
func (r *record) centred(x *matrix) *matrix {
	ones := constant(x.cols, x.cols, slices.Repeat([]float64{-1 / float64(x.cols)}, x.cols*x.cols))
	return r.sum(x, r.product(x, ones))
}

// softmax is that of each row's numbers that are seen; the others become 0.
func (r *record) softmax(x *matrix, seen func(row, column int) bool) *matrix {
	y := r.result(x.rows, x.cols)
	for i := range x.rows {
		row := slices.Clone(x.row(i))
		for j := range row {
			if !seen(i, j) {
				row[j] = math.Inf(-1)
			}
		}
		total := logSumExp(row)
		for j, v := range row {
			y.row(i)[j] = math.Exp(v - total)
		}
	}
	r.note(func() {
		for i := range y.rows {
			mean := dot(y.row(i), y.rowGrad(i))
			for j, p := range y.row(i) {
				x.pass(i*x.cols+j, p*(y.rowGrad(i)[j]-mean))
			}
		}
	})
	return y
}

// turned rotates pairs of numbers: in row i, of every dim numbers, first(k) and second(k) by angle(i, k), times size.
func (r *record) turned(x *matrix, dim int, pairs [][2]int, angle func(row, pair int) float64, size float64) *matrix {
	y := r.result(x.rows, x.cols)
	copy(y.v, x.v)
	visit := func(turn func(a, b int, sin, cos float64)) {
		for i := range x.rows {
			for k, p := range pairs {
				sin, cos := math.Sincos(angle(i, k))
				for head := i * x.cols; head < (i+1)*x.cols; head += dim {
					turn(head+p[0], head+p[1], size*sin, size*cos)
				}
			}
		}
	}
	visit(func(a, b int, sin, cos float64) { y.v[a], y.v[b] = x.v[a]*cos-x.v[b]*sin, x.v[a]*sin+x.v[b]*cos })
	r.note(func() {
		visit(func(a, b int, sin, cos float64) { y.g[a], y.g[b] = y.g[a]*cos+y.g[b]*sin, y.g[b]*cos-y.g[a]*sin })
		for i, g := range y.g {
			x.pass(i, g)
		}
	})
	return y
}

// loss sums −ln p of the targets, one a row, of which negative ones are left out.
func (r *record) loss(logits *matrix, targets []int32) (sum float64) {
	for i, target := range targets {
		if target >= 0 {
			sum += logSumExp(logits.row(i)) - logits.row(i)[target]
		}
	}
	r.note(func() {
		for i, target := range targets {
			if target < 0 {
				continue
			}
			total := logSumExp(logits.row(i))
			for j, v := range logits.row(i) {
				logits.rowGrad(i)[j] += math.Exp(v - total)
			}
			logits.rowGrad(i)[target]--
		}
	})
	return sum
}

func wide(values []float32) []float64 { return converted[float64](values) }

func converted[T, S float32 | float64](values []S) []T {
	list := make([]T, len(values))
	for i, v := range values {
		list[i] = T(v)
	}
	return list
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func addScaled(a, b []float64, s float64) {
	for i, v := range b {
		a[i] += s * v
	}
}

func logSumExp(x []float64) float64 {
	top := slices.Max(x)
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}
