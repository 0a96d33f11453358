package vera

import (
	"errors"
	"slices"

	"gonum.org/v1/gonum/mat"

	"github.com/veratune/veratune/bindings"
)

// factored is a layer's ΔW = up · down in memory of the engine, whose float32 products are fast. They run on one
// thread, so that their bits do not depend on what is computed beside them.
type factored struct {
	out, in, inner int              // up is Out × inner, down inner × In; inner is no more than Out and In
	up, down       *bindings.Tensor // [inner, Out], [In, inner]
	backend        *bindings.Backend
	placed         []interface{ Close() }
}

func newFactored(up, down []float32, l *Layer) (*factored, error) {
	backend, err := bindings.NewCPU(1)
	if err != nil {
		return nil, err
	}
	f := &factored{out: l.Out, in: l.In, inner: l.Rank(), backend: backend}
	if err = f.set(up, down); err == nil && f.inner > min(f.in, f.out) {
		err = f.reduce()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *factored) close() {
	for _, c := range slices.Backward(f.placed) {
		c.Close()
	}
	f.backend.Close()
}

func (f *factored) set(up, down []float32) (err error) {
	if f.up, err = f.place(up, f.inner); err != nil {
		return err
	}
	f.down, err = f.place(down, f.in)
	return err
}

// reduce makes ΔW itself one of the factors, and an identity the other.
func (f *factored) reduce() error {
	change, err := f.compute(func(c *bindings.Context) *bindings.Tensor { return back(c, f.down, f.up) })
	if err != nil {
		return err
	}
	f.inner = min(f.in, f.out)
	identity := make([]float32, f.inner*f.inner)
	for i := range f.inner {
		identity[i*f.inner+i] = 1
	}
	if f.out < f.in {
		return f.set(identity, change)
	}
	return f.set(change, identity)
}

// grams gives K = upᵀ up and C = down downᵀ, both inner × inner.
func (f *factored) grams() (k, c []float32, err error) {
	if k, err = f.compute(func(c *bindings.Context) *bindings.Tensor {
		return c.WeightGradient(f.up, f.up, bindings.F32, bindings.Plain)
	}); err != nil {
		return nil, nil, err
	}
	c, err = f.compute(func(c *bindings.Context) *bindings.Tensor { return linear(c, f.down, f.down) })
	return k, c, err
}

// alternate gives the function that takes each row y of inner numbers to K C y.
func (f *factored) alternate(k, c []float32) (func(y []float32) ([]float32, error), error) {
	first, err := f.place(c, f.inner)
	if err != nil {
		return nil, err
	}
	second, err := f.place(k, f.inner)
	return func(y []float32) ([]float32, error) {
		return f.apply(y, f.inner, func(c *bindings.Context, y *bindings.Tensor) *bindings.Tensor {
			return linear(c, second, linear(c, first, y))
		})
	}, err
}

// combine takes each row y of inner numbers to downᵀ y, of In numbers.
func (f *factored) combine(y []float32) ([]float32, error) {
	return f.apply(y, f.inner, func(c *bindings.Context, y *bindings.Tensor) *bindings.Tensor {
		return back(c, f.down, y)
	})
}

// image is ΔW rowsᵀ, Out × n.
func (f *factored) image(rows *mat.Dense) (*mat.Dense, error) {
	n, _ := rows.Dims()
	values, err := f.apply(narrowed(rows, n, f.in), f.in,
		func(c *bindings.Context, x *bindings.Tensor) *bindings.Tensor {
			return linear(c, f.up, linear(c, f.down, x))
		})
	if err != nil {
		return nil, err
	}
	return mat.DenseCopyOf(mat.NewDense(n, f.out, widened(values)).T()), nil
}

// linear is W x for each row x of another matrix, in float32, and back is Wᵀ x.
func linear(c *bindings.Context, w, x *bindings.Tensor) *bindings.Tensor {
	return c.Linear(w, x, bindings.Product{}, bindings.F32)
}

func back(c *bindings.Context, w, x *bindings.Tensor) *bindings.Tensor {
	return c.LinearBack(w, x, bindings.Product{}, bindings.F32)
}

// apply computes what build makes of rows of that width.
func (f *factored) apply(rows []float32, width int,
	build func(c *bindings.Context, x *bindings.Tensor) *bindings.Tensor) ([]float32, error) {
	x, err := f.place(rows, width)
	if err != nil {
		return nil, err
	}
	return f.compute(func(c *bindings.Context) *bindings.Tensor { return build(c, x) })
}

// place copies rows of that width to the engine, until close.
func (f *factored) place(rows []float32, width int) (*bindings.Tensor, error) {
	c := bindings.NewContext(1)
	f.placed = append(f.placed, c)
	t := c.NewTensor(bindings.F32, int64(width), int64(len(rows)/width))
	memory, err := f.backend.Allocate(c)
	if err != nil {
		return nil, err
	}
	f.placed = append(f.placed, memory)
	return t, bindings.Set(t, rows)
}

// compute computes what build makes of placed tensors.
func (f *factored) compute(build func(c *bindings.Context) *bindings.Tensor) ([]float32, error) {
	c := f.backend.NewContext()
	defer c.Close()
	t := build(c)
	memory, err := f.backend.Allocate(c)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	g := c.NewGraph()
	g.Expand(t)
	if err := errors.Join(c.Err(), f.backend.Compute(g)); err != nil {
		return nil, err
	}
	return f.values(t)
}

func (f *factored) values(t *bindings.Tensor) ([]float32, error) {
	values := make([]float32, t.Elements())
	return values, bindings.Get(t, values)
}
