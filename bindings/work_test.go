package bindings

import "testing"

// TestWork holds the count of every product to its formula: two operations for each number of a matrix and each column.
func TestWork(t *testing.T) {
	const in, out, rank, n = 64, 96, 8, 5
	backend, err := NewCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	for name, of := range map[string]struct {
		make func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor
		want float64
	}{
		"linear": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.Linear(f(in, out), f(in, n), Product{}, F32)
		}, 2 * in * out * n},
		"linear back": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.LinearBack(f(in, out), f(out, n), Product{}, F32)
		}, 2 * in * out * n},
		"rounded": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.LinearBack(f(in, out), f(out, n), Product{Way: Rounded}, F32)
		}, 2 * in * out * n},
		"weight gradient": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.WeightGradient(f(out, n), f(in, n), F32, Plain)
		}, 2 * in * out * n},
		"merge": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.Merge(f(in, out), f(in, out), &v, Plain)
		}, 2 * in * out * rank},
		"merged gradient": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.MergedGradient(f(in, out), v, Plain)
		}, 2 * in * out * rank},
		"factored gradient": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.FactoredGradient(f(out, n), f(rank, n), v, Plain)
		}, 2 * rank * out * n},
		"experts": {func(c *Context, f func(...int64) *Tensor, v Vectors) *Tensor {
			return c.EachExpert(f(in, out, 4), f(in, n), Mixture{Routes: c.Route(f(4, n), 2)}, F32)
		}, 2 * in * out * 2 * n},
	} {
		for _, kind := range []Type{F32, BF16} {
			c := backend.NewContext()
			f := func(ne ...int64) *Tensor {
				x := c.NewTensor(F32, ne...)
				if name != "experts" && name != "merge" && kind == BF16 {
					x = c.Convert(x, BF16)
				}
				return x
			}
			v := Vectors{A: c.NewTensor(F32, in, rank), B: c.NewTensor(F32, rank, out),
				LambdaB: c.NewTensor(F32, out), LambdaD: c.NewTensor(F32, rank)}
			of.make(c, f, v)
			if err := c.Err(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			want := Work{F32: of.want}
			if kind == BF16 && FastBF16() && name != "experts" && name != "merge" {
				want = Work{BF16: of.want}
			}
			if limit, _, _ := Integers(1); name == "rounded" && limit > 0 {
				want = Work{Integers: of.want}
			}
			if got := c.Work(); got != want {
				t.Errorf("%s in %v: %+v, want %+v", name, kind, got, want)
			}
			c.Close()
		}
	}
}
