package bindings

// Composed mixtures compute all experts for all rows; those that a row did not choose weigh 0. That takes experts /
// used times as long as need be, but ggml's products of chosen matrices have kernels of their own, and none for
// gradients. Routes are the weights of all experts, [experts, rows].

// nowhere is the logit of an expert that is left out: its exponential is 0 beside any other.
const nowhere = -1e30

// composeRoute moves the largest logits one by one to a place where there are no others.
func (c *Context) composeRoute(logits *Tensor, used int) *Tensor {
	rest := c.Cont(logits)
	chosen := c.ScaleBias(rest, 0, nowhere)
	for range used {
		best := c.argmax(rest)
		largest := c.pick(rest, best)
		chosen = c.setPicked(chosen, largest, best)
		rest = c.setPicked(rest, c.ScaleBias(largest, 0, nowhere), best)
	}
	return c.SoftMax(chosen, 1)
}

func (c *Context) composeWeigh(h, routes *Tensor, t Type) *Tensor {
	if !c.composable("weigh", t, h) {
		return nil
	}
	return c.Mul(c.unbroken(h), c.Reshape(routes, 1, routes.Elements()))
}

func (c *Context) composeRouteBack(dy, h, routes *Tensor) *Tensor {
	if !c.composable("route_back", F32, dy, h) {
		return nil
	}
	dw := c.Reshape(c.sumRows(c.Mul(c.unbroken(dy), c.unbroken(h))), routes.Ne(0), routes.Ne(1))
	return c.Mul(routes, c.sub(dw, c.sumRows(c.Mul(routes, dw))))
}

// composeExperts is one product: of a row with all rows of all matrices, or of what all experts take of a row with all
// columns.
func (c *Context) composeExperts(w, x *Tensor, m Mixture, sum bool, t Type) *Tensor {
	if !c.composable("experts", t, x) {
		return nil
	}
	in, out, n, rows := w.Ne(0), w.Ne(1), w.Ne(2), m.Routes.Ne(1)
	all := c.Reshape(c.floats(c.Reshape(w, in, out*n)), in, out, n)
	switch {
	case m.Back && sum:
		all = c.Cont(c.Permute(all, 2, 0, 1, 3)) // [out, experts, in]
	case m.Back:
		all = c.Cont(c.Permute(all, 1, 0, 2, 3)) // [out, in, experts]
	case sum:
		all = c.Cont(c.Permute(all, 0, 2, 1, 3)) // [in, experts, out]
	}
	k := x.Ne(0) * x.Ne(1) / rows
	y := c.times(c.Reshape(all, k, in*out*n/k), c.Reshape(c.unbroken(x), k, rows))
	if !sum {
		y = c.Reshape(y, y.Ne(0)/n, n*rows)
	}
	return Product{Acc: m.Acc, Into: m.Into}.finish(c, y)
}
