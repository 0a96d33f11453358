package bindings

// Work counts the additions and multiplications of products, by the numbers that they multiply.
type Work struct{ F32, BF16, Integers float64 }

// Add adds those of o.
func (w *Work) Add(o Work) {
	w.F32 += o.F32
	w.BF16 += o.BF16
	w.Integers += o.Integers
}

// Work is what the context's products are, each as often as it was made; 0 where they are composed.
func (c *Context) Work() Work { return c.work }

// count adds n multiplications in a way of numbers of x's type, each with its addition.
func (c *Context) count(x *Tensor, way Way, n int64) {
	of := &c.work.F32
	if limit, _, _ := Integers(1); way == Rounded && limit > 0 {
		of = &c.work.Integers
	} else if x.Type() == BF16 && FastBF16() {
		of = &c.work.BF16
	}
	*of += 2 * float64(n)
}
