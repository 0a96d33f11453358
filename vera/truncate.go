package vera

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// truncation gives the best approximations of a rank less than the adapter's to its layers' ΔW, in the least-squares sense: the truncated singular value
// decomposition (Eckart and Young), from the factors alone. All computation is in float64.
type truncation struct {
	a     *Adapter
	rank  int
	bases map[key]*basis
}

// key tells which layers have a basis in common: those of one pair and one In.
type key struct {
	pair *Pair
	in   int
}

// basis is what the layers of one In share: A[:, :In] = coordinates · rowsᵀ, with orthonormal columns in rows. It has min(rank, In) of them.
type basis struct {
	coordinates *mat.Dense // rank × n
	rows        *mat.Dense // In × n
}

func newTruncation(a *Adapter, rank int) *truncation {
	t := &truncation{a: a, rank: rank, bases: map[key]*basis{}}
	if a.Pair != nil {
		for _, l := range a.Layers {
			if k := (key{a.Pair, l.In}); t.bases[k] == nil {
				t.bases[k] = newBasis(a.Pair, l.In)
			}
		}
	}
	return t
}

// newBasis takes the thin singular value decomposition A = U S Vᵀ apart into U S and V.
func newBasis(p *Pair, in int) *basis {
	columns := mat.NewDense(p.Rank, in, nil)
	columns.Apply(func(r, i int, _ float64) float64 { return float64(p.A[r*p.MaxIn+i]) }, columns)
	u, s, v := thinSVD(columns)
	scaleColumns(u, s)
	return &basis{u, v}
}

// factors gives the two factors of ΔW's approximation, √σ in each. With the basis, ΔW = core · rowsᵀ where core = diag(b) B diag(d) · coordinates is
// Out × n and has ΔW's singular values. The eigenvectors V of coreᵀ core, n × n, are its right singular vectors and the eigenvalues σ²; so up = core V/√σ and
// down = √σ Vᵀ rowsᵀ, of the rank largest. That spares the QR decomposition of a tall core and its left vectors; what float64 loses by the square, values of
// σ below 1e-8 of the largest, float32 does not hold. It fails where b is so large that diag(b) B is infinite.
func (t *truncation) factors(l *Layer) (product, error) {
	base := t.bases[key{l.Pair, l.In}]
	if base == nil {
		base = newBasis(l.Pair, l.In)
	}
	up, _ := t.a.Factors(l)
	if err := checkFinite(l.Name()+": diag(b) B", up); err != nil {
		return product{}, err
	}
	var scaled, core, left, down mat.Dense
	scaled.Mul(mat.NewDiagDense(l.Rank(), widened(l.D)), base.coordinates)
	core.Mul(mat.NewDense(l.Out, l.Rank(), widened(up)), &scaled)
	sigma, right := rightSingular(&core, t.rank)
	roots, inverses := make([]float64, len(sigma)), make([]float64, len(sigma))
	for i := range min(t.rank, len(sigma)) {
		roots[i] = math.Sqrt(sigma[i])
		if floor := 1e-4 * roots[0]; roots[i] < floor {
			roots[i] = floor // of a direction that ΔW does not have: any scale gives the same product
		}
		if roots[i] > 0 {
			inverses[i] = 1 / roots[i]
		}
	}
	left.Mul(&core, right)
	scaleColumns(&left, inverses)
	scaleColumns(right, roots)
	down.Mul(right.T(), base.rows.T())
	retained := energy(sigma[:min(t.rank, len(sigma))], sigma)
	return product{narrowed(&left, l.Out, t.rank), narrowed(&down, t.rank, l.In), t.rank, float32(t.rank), retained}, nil
}

// rightSingular gives all singular values of x in descending order, and the right singular vectors of the largest of them, at most most, as columns.
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

// thinSVD gives x = U diag(s) Vᵀ with orthonormal columns in U and V, s in descending order. x must be finite.
func thinSVD(x mat.Matrix) (u *mat.Dense, s []float64, v *mat.Dense) {
	var d mat.SVD
	if !d.Factorize(x, mat.SVDThin) {
		panic("vera: no singular value decomposition of a matrix that is not finite")
	}
	u, v = new(mat.Dense), new(mat.Dense)
	d.UTo(u)
	d.VTo(v)
	return u, d.Values(nil), v
}

func scaleColumns(x *mat.Dense, by []float64) {
	x.Apply(func(_, j int, v float64) float64 { return v * by[j] }, x)
}

// energy is Σ kept² / Σ all², 1 where all are 0.
func energy(kept, all []float64) float64 {
	squares := func(values []float64) (sum float64) {
		for _, v := range values {
			sum += v * v
		}
		return sum
	}
	if squares(all) == 0 {
		return 1
	}
	return squares(kept) / squares(all)
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
