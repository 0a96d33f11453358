package vera

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
)

// truncation gives approximations of a rank less than the adapter's to its layers' ΔW, nearly the best in the
// least-squares sense: those of the truncated singular value decomposition (Eckart and Young), by a randomised range
// finder with power iterations (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm 4.4) on the factors.
type truncation struct {
	a          *Adapter
	rank       int
	directions int // that are iterated on: the rank, and more that take up what is close to its last
	iterations int
}

// Random factors, whose singular values fall as slowly as any, lose less than 1e-4 of the energy by these
// (docs/log.md). A layer whose ΔW has no more than leastDirections is decomposed in whole.
const (
	leastDirections = 128
	powerIterations = 8
)

func newTruncation(a *Adapter, rank int) *truncation {
	return &truncation{a, rank, max(2*rank, leastDirections), powerIterations}
}

// factors gives the two factors of ΔW's approximation, √σ in each. Of orthonormal rows Q, n × In, that nearly span ΔW's
// largest right singular vectors, it makes Z = ΔW Qᵀ, Out × n. The eigenvectors V of Zᵀ Z are Z's right singular
// vectors and the eigenvalues σ²; so up = Z V/√σ and down = √σ Vᵀ Q, of the rank largest. What float64 loses by the
// square, values of σ below 1e-8 of the largest, float32 does not hold. It fails where b or d is so large that a factor
// is infinite, and where ctx ends.
func (t *truncation) factors(ctx context.Context, l *Layer) (product, error) {
	up, down := t.a.Factors(l)
	if err := errors.Join(checkFinite(l.Name()+": diag(b) B", up), checkFinite(l.Name()+": diag(d) A", down)); err !=
		nil {
		return product{}, err
	}
	unit := math.Ldexp(1, normalise(up)+normalise(down)) // float32 holds the squares of what is left
	f, err := newFactored(up, down, l)
	if err != nil {
		return product{}, err
	}
	defer f.close()
	rows, total, err := t.span(ctx, f)
	if err != nil {
		return product{}, err
	}
	image, err := f.image(rows)
	if err != nil {
		return product{}, err
	}
	image.Scale(unit, image)
	sigma, right := rightSingular(image, t.rank)
	kept := sigma[:min(t.rank, len(sigma))]
	roots, inverses := make([]float64, len(kept)), make([]float64, len(kept))
	for i := range kept {
		roots[i] = math.Sqrt(sigma[i])
		if floor := 1e-4 * roots[0]; roots[i] < floor {
			roots[i] = floor // of a direction that ΔW does not have: any scale gives the same product
		}
		if roots[i] > 0 {
			inverses[i] = 1 / roots[i]
		}
	}
	var left, low mat.Dense
	left.Mul(image, right)
	scaleColumns(&left, inverses)
	scaleColumns(right, roots)
	low.Mul(right.T(), rows)
	retained := energy(kept, cmp.Or(unit*unit*total, squares(sigma)))
	return product{narrowed(&left, l.Out, t.rank), narrowed(&low, t.rank, l.In), t.rank, float32(t.rank), retained}, nil
}

// span gives orthonormal rows, n × In, and ‖ΔW‖², the sum of all σ²; 0 for that where the rows span all of ΔW.
func (t *truncation) span(ctx context.Context, f *factored) (rows *mat.Dense, total float64, err error) {
	if f.inner <= t.directions {
		down, err := f.values(f.down)
		if err != nil {
			return nil, 0, err
		}
		return orthonormalRows(down, f.in), 0, nil
	}
	// Between the factors, ΔWᵀ ΔW is y ↦ K C y, as ΔWᵀ ΔW downᵀ y = downᵀ (K C y). ‖ΔW‖² is the trace of K C.
	k, c, err := f.grams()
	if err != nil {
		return nil, 0, err
	}
	for i := range k {
		total += float64(k[i]) * float64(c[i])
	}
	step, err := f.alternate(k, c)
	if err != nil {
		return nil, 0, err
	}
	random := rand.New(rand.NewPCG(0, 0))
	y := make([]float32, t.directions*f.inner)
	for i := range y {
		y[i] = float32(random.NormFloat64())
	}
	for range t.iterations {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		if y, err = step(y); err != nil {
			return nil, 0, err
		}
		y = narrowed(orthonormalRows(y, f.inner), t.directions, f.inner)
	}
	x, err := f.combine(y)
	if err != nil {
		return nil, 0, err
	}
	return orthonormalRows(x, f.in), total, nil
}

// orthonormalRows gives orthonormal rows of that width that span what those of values do: the Q of values = L Q. There
// must be no more of them than they are wide.
func orthonormalRows(values []float32, width int) *mat.Dense {
	rows := mat.NewDense(len(values)/width, width, widened(values))
	q := rows.RawMatrix()
	tau, size := make([]float64, q.Rows), make([]float64, 1)
	lapack64.Gelqf(q, tau, size, -1)
	work := make([]float64, int(size[0]))
	lapack64.Gelqf(q, tau, work, len(work))
	lapack64.Orglq(q, tau, size, -1)
	work = make([]float64, int(size[0]))
	lapack64.Orglq(q, tau, work, len(work))
	return rows
}

// normalise divides values by a power of two, so that the largest is in [1/2, 1), and gives its exponent.
func normalise(values []float32) (exponent int) {
	_, exponent = math.Frexp(float64(largest(values)))
	scale(values, float32(math.Ldexp(1, -exponent)))
	return exponent
}

// rightSingular gives all singular values of x in descending order, and the right singular vectors of the largest of
// them, at most most, as columns.
func rightSingular(x *mat.Dense, most int) (sigma []float64, vectors *mat.Dense) {
	var gram mat.SymDense
	gram.SymOuterK(1, x.T())
	var d mat.EigenSym
	if !d.Factorize(&gram, true) {
		panic("vera: no eigenvalues of a matrix that is not finite")
	}
	sigma = d.Values(nil)
	slices.Reverse(sigma)
	for i, lambda := range sigma {
		sigma[i] = math.Sqrt(max(lambda, 0))
	}
	var all mat.Dense
	d.VectorsTo(&all)
	n := len(sigma)
	vectors = mat.NewDense(n, min(most, n), nil)
	vectors.Apply(func(i, j int, _ float64) float64 { return all.At(i, n-1-j) }, vectors)
	return sigma, vectors
}

func scaleColumns(x *mat.Dense, by []float64) {
	x.Apply(func(_, j int, v float64) float64 { return v * by[j] }, x)
}

// energy is the part that the squares of kept singular values are of all, 1 where all are 0.
func energy(kept []float64, all float64) float64 {
	if all == 0 {
		return 1
	}
	return min(1, squares(kept)/all)
}

func squares(values []float64) (sum float64) {
	for _, v := range values {
		sum += v * v
	}
	return sum
}

func widened(values []float32) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// narrowed copies x into rows × columns of float32; what it lacks is 0.
func narrowed(x *mat.Dense, rows, columns int) []float32 {
	out := make([]float32, rows*columns)
	r, c := x.Dims()
	for i := range r {
		for j := range c {
			out[i*columns+j] = float32(x.At(i, j))
		}
	}
	return out
}
