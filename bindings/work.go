package bindings

// Work counts the additions and multiplications of products, by the type that they are computed in.
type Work struct{ F32, BF16 float64 }

// Add adds those of o.
func (w *Work) Add(o Work) {
	w.F32 += o.F32
	w.BF16 += o.BF16
}

// Work is what the context's products are, each as often as it was made; 0 where they are composed.
func (c *Context) Work() Work { return c.work }

// count adds n multiplications of numbers of x's type, each with its addition.
func (c *Context) count(x *Tensor, n int64) {
	if x.Type() == BF16 && FastBF16() {
		c.work.BF16 += 2 * float64(n)
	} else {
		c.work.F32 += 2 * float64(n)
	}
}
