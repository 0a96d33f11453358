package bindings

import "math"

// The composed delta net computes spans of a text one after the other, all value heads at once. The formulas are those
// of ggml/delta.hpp.

// deltaSpan is the number of tokens in a span.
const deltaSpan = 64

// deltaRows are the rows of a whole pack, after norms and gates.
type deltaRows struct {
	q, k, v *Tensor // [dim, heads, n]: q normed and scaled, k normed
	g, beta *Tensor // [values, n]
}

func (c *Context) deltaRows(d Delta, h DeltaHeads) deltaRows {
	n, dk, keys := d.QKV.Ne(1), int64(h.DimK), int64(h.Keys)
	normed := func(offset int64, by float64) *Tensor {
		x := c.RMSNorm(c.Reshape(c.Cont(c.part(d.QKV, offset, dk*keys)), dk, keys, n), h.Eps/float32(h.DimK))
		return c.ScaleBias(x, float32(by), 0)
	}
	return deltaRows{
		q:    normed(0, 1/float64(dk)),
		k:    normed(dk*keys, 1/math.Sqrt(float64(dk))),
		v:    c.Reshape(c.Cont(c.part(d.QKV, 2*dk*keys, h.out())), int64(h.DimV), int64(h.Values), n),
		g:    c.Mul(c.softplus(c.Add(c.unbroken(d.A), d.Bias)), d.Decay),
		beta: c.sigmoid(c.unbroken(d.B)),
	}
}

// deltaPlace says which rows a span is of: n from an offset on, of each of some texts, which have as many rows each
// from first on.
type deltaPlace struct{ first, each, texts, offset, n int64 }

// deltaTokens is a span, of all value heads, and of several texts as if they were further heads; for a pair of tokens i
// and j, [j, i].
type deltaTokens struct {
	n                int64
	q, k, v          *Tensor // [dim, n, values]
	beta, kept, left *Tensor // β, e^(G of the last − G), and both, L [n, 1, values]
	column           *Tensor // L [1, n, values]
	grown, all       *Tensor // e^G [1, n, values], e^(G of the last) [1, 1, values]
	decays, weighed  *Tensor // D, and D β
	qk, kk, system   *Tensor // 1 − N
	w                *Tensor // [dim v, n, values]
	state            *Tensor // S before [dim k, dim v, values]
}

// span takes the rows of a span. solveFrom does the rest, for which it takes the memory before them.
func (c *Context) span(r deltaRows, h DeltaHeads, at deltaPlace) *deltaTokens {
	n, values, group := at.n, int64(h.Values)*at.texts, h.Values/h.Keys
	take := func(x *Tensor) *Tensor { // [dim, n, heads, texts]
		x = c.View(x, [4]int64{x.Ne(0), x.Ne(1), at.each * at.texts, 1}, [4]int64{0, 0, at.first})
		x = c.Reshape(x, x.Ne(0), x.Ne(1), at.each, at.texts)
		x = c.View(x, [4]int64{x.Ne(0), x.Ne(1), n, at.texts}, [4]int64{0, 0, at.offset})
		return c.Cont(c.Permute(x, 0, 2, 1, 3))
	}
	each := func(x *Tensor, times int) *Tensor { // of value heads
		list := make([]*Tensor, times)
		for i := range list {
			list[i] = x
		}
		return c.Reshape(c.joined(list, 2), x.Ne(0), n, values)
	}
	gate := func(x *Tensor) *Tensor {
		return c.Reshape(take(c.Reshape(x, 1, x.Ne(0), x.Ne(1))), n, 1, values)
	}
	s := &deltaTokens{n: n, q: each(take(r.q), group), k: each(take(r.k), group), v: each(take(r.v), 1),
		beta: gate(r.beta)}
	sums := c.cumulated(gate(r.g))
	last := c.Cont(c.View(sums, [4]int64{1, 1, values, 1}, [4]int64{n - 1}))
	s.grown, s.all = c.Reshape(c.exp(sums), 1, n, values), c.exp(last)
	s.kept = c.exp(c.ScaleBias(c.sub(sums, last), -1, 0))
	s.left = c.Mul(s.kept, s.beta)
	s.column = c.Reshape(s.left, 1, n, values)
	s.qk, s.kk = c.exactTimes(s.k, s.q), c.exactTimes(s.k, s.k)
	between := c.sub(c.Add(c.ScaleBias(s.qk, 0, 0), c.Reshape(sums, 1, n, values)), sums)
	s.decays = c.tri(c.exp(c.tri(between, upToDiagonal)), upToDiagonal)
	s.weighed = c.Mul(s.decays, s.beta)
	s.system = c.Add(c.sub(s.decays, c.tri(s.decays, belowDiagonal)), c.tri(c.Mul(s.weighed, s.kk), belowDiagonal))
	return s
}

// noState is the memory before a text begins.
func (c *Context) noState(s *deltaTokens) *Tensor {
	return c.ScaleBias(c.exactTimes(c.transposed(s.k), c.transposed(s.v)), 0, 0)
}

// solveFrom computes w of a span for the memory before it.
func (c *Context) solveFrom(s *deltaTokens, state *Tensor) {
	s.state = state
	s.w = c.solve(s.system, c.sub(s.v, c.Mul(c.exactTimes(s.state, s.k), s.grown)))
}

// read is the result of a span, [dim v, n, values].
func (c *Context) read(s *deltaTokens) *Tensor {
	return c.Add(c.Mul(c.exactTimes(s.state, s.q), s.grown), c.exactTimes(c.transposed(s.w), c.Mul(s.weighed, s.qk)))
}

// after is the memory after the span.
func (c *Context) after(s *deltaTokens) *Tensor {
	return c.Add(c.Mul(s.state, s.all), c.exactTimes(c.transposed(s.k), c.transposed(c.Mul(s.w, s.column))))
}

// deltaSpans gives the spans of all segments, in order.
func (c *Context) deltaSpans(d Delta, s *Segments, h DeltaHeads) (spans [][]*deltaTokens) {
	rows := c.deltaRows(d, h)
	ends := make([]*Tensor, len(s.runs))
	for i, run := range s.runs {
		var state *Tensor
		if run[2] >= 0 {
			state = ends[run[2]]
		}
		var list []*deltaTokens
		for offset := int64(0); offset < int64(run[1]); offset += deltaSpan {
			t := c.span(rows, h, deltaPlace{int64(run[0]), int64(run[1]), 1, offset,
				min(int64(run[1])-offset, deltaSpan)})
			if state == nil {
				state = c.noState(t)
			}
			c.solveFrom(t, state)
			state = c.after(t)
			list = append(list, t)
		}
		ends[i] = state
		spans = append(spans, list)
	}
	return spans
}

// byToken is x [dim, n, heads] as [dim · heads, n].
func (c *Context) byToken(x *Tensor) *Tensor {
	dim, n, heads := x.Ne(0), x.Ne(1), x.Ne(2)
	return c.Reshape(c.Cont(c.Permute(x, 0, 2, 1, 3)), dim*heads, n)
}

func (c *Context) composeDeltaNet(d Delta, s *Segments, h DeltaHeads, t Type) *Tensor {
	if !c.composable("delta_net", t, d.QKV, d.A, d.B) {
		return nil
	}
	var all []*Tensor
	for _, list := range c.deltaSpans(d, s, h) {
		for _, t := range list {
			all = append(all, c.byToken(c.read(t)))
		}
	}
	return c.joined(all, 1)
}

// composeDeltaNetBack has the gradients of q, k, v, a and b side by side.
func (c *Context) composeDeltaNetBack(dy *Tensor, d Delta, s *Segments, h DeltaHeads) *Tensor {
	if !c.composable("delta_net_back", F32, dy, d.QKV, d.A, d.B) {
		return nil
	}
	n, values := d.QKV.Ne(1), int64(h.Values)
	dy = c.Reshape(c.unbroken(dy), int64(h.DimV), values, n)
	spans := c.deltaSpans(d, s, h)
	grads := make([]*Tensor, len(spans)) // of the memory behind each segment
	parts := make([][]*Tensor, len(spans))
	for i := len(spans) - 1; i >= 0; i-- {
		e, end := grads[i], int64(s.runs[i][0]+s.runs[i][1])
		rows := make([]*Tensor, len(spans[i]))
		for j := len(rows) - 1; j >= 0; j-- {
			t := spans[i][j]
			end -= t.n
			if e == nil {
				e = c.ScaleBias(t.state, 0, 0)
			}
			rows[j], e = c.spanBack(t, h, c.Cont(
				c.Permute(c.View(dy, [4]int64{dy.Ne(0), values, t.n, 1}, [4]int64{0, 0, end}), 0, 2, 1, 3)), e)
		}
		if p := s.runs[i][2]; p >= 0 {
			if grads[p] != nil {
				e = c.Add(e, grads[p])
			}
			grads[p] = e
		}
		parts[i] = rows
	}
	var list []*Tensor
	for _, rows := range parts {
		list = append(list, rows...)
	}
	all := c.joined(list, 1) // ∂q and ∂k of all value heads, normed, then ∂v, ∂g and ∂β
	// The sums over the value heads of a key head, through the norms.
	dk, keys := int64(h.DimK), int64(h.Keys)
	width := dk * values
	norm := func(index int64, by float64) *Tensor {
		var g *Tensor
		for r := range values / keys {
			p := c.Cont(c.part(all, index*width+r*dk*keys, dk*keys))
			if g == nil {
				g = p
			} else {
				g = c.Add(g, p)
			}
		}
		x := c.Reshape(c.Cont(c.part(d.QKV, index*dk*keys, dk*keys)), dk, keys*n)
		w := c.ScaleBias(c.Cont(c.View(x, [4]int64{dk, 1, 1, 1}, [4]int64{})), 0, float32(by))
		return c.Reshape(c.composeNormBack(c.Reshape(g, dk, keys*n), x, w, h.Eps/float32(h.DimK), nil), dk*keys, n)
	}
	gate := func(index int64) *Tensor { return c.Cont(c.part(all, 2*width+h.out()+index*values, values)) }
	beta := c.sigmoid(c.unbroken(d.B))
	slope := c.Mul(c.sigmoid(c.Add(c.unbroken(d.A), d.Bias)), d.Decay)
	return c.joined([]*Tensor{
		norm(0, 1/float64(dk)), norm(1, 1/math.Sqrt(float64(dk))), c.Cont(c.part(all, 2*width, h.out())),
		c.Mul(gate(0), slope), c.Mul(gate(1), c.Mul(beta, c.ScaleBias(beta, -1, 1))),
	}, 0)
}

// spanBack gives the gradients of a span's rows [2 · dim k · values + dim v · values + 2 · values, n], of normed q and
// k of every value head, v, g and β, and that of the memory before it, for those of its result and of the memory behind
// it.
func (c *Context) spanBack(t *deltaTokens, h DeltaHeads, dy, e *Tensor) (rows, before *Tensor) {
	n, values := t.n, int64(h.Values)
	ke, lw := c.exactTimes(e, t.k), c.Mul(t.w, t.column)
	dw := c.Add(c.exactTimes(c.transposed(dy), c.transposed(c.Mul(t.weighed, t.qk))), c.Mul(ke, t.column))
	unit := c.sub(t.decays, c.tri(t.decays, belowDiagonal))
	dv := c.exactTimes(c.transposed(dw), c.transposed(c.solve(t.system, unit)))
	x, y := c.Mul(dy, t.grown), c.ScaleBias(c.Mul(dv, t.grown), -1, 0)
	xs, ys := c.exactTimes(c.transposed(t.state), x), c.exactTimes(c.transposed(t.state), y)
	outer := c.Mul(t.decays, c.exactTimes(t.w, dy))
	inner := c.ScaleBias(c.tri(c.Mul(t.decays, c.exactTimes(t.w, dv)), belowDiagonal), -1, 0)
	j, m := c.Mul(outer, t.beta), c.Mul(inner, t.beta)
	dq := c.Add(c.exactTimes(c.transposed(t.k), j), xs)
	dk := c.Add(c.exactTimes(c.transposed(t.q), c.transposed(j)),
		c.exactTimes(c.transposed(t.k), c.Add(m, c.transposed(m))))
	dk = c.Add(c.Add(dk, ys), c.exactTimes(c.transposed(e), lw))

	pairs := c.transposed(c.Add(c.Mul(outer, t.qk), c.Mul(inner, t.kk))) // [i, j]
	written := c.Reshape(c.sumRows(c.Mul(ke, t.w)), n, 1, values)
	dbeta := c.Add(c.Reshape(c.sumRows(pairs), n, 1, values), c.Mul(t.kept, written))
	ones := c.ScaleBias(t.decays, 0, 1)
	from, below := c.tri(ones, fromDiagonal), c.tri(ones, belowDiagonal)
	passed := c.tri(c.exactTimes(from, c.Mul(pairs, c.Reshape(t.beta, 1, n, values))), aboveDiagonal) // [t, j]
	dg := c.Reshape(c.sumRows(c.transposed(passed)), n, 1, values)
	reads := c.Reshape(c.sumRows(c.Add(c.Mul(t.q, xs), c.Mul(t.k, ys))), n, 1, values)
	dg = c.Add(dg, c.Add(c.exactTimes(from, reads), c.exactTimes(below, c.Mul(t.left, written))))
	dg = c.Add(dg, c.Mul(t.all, c.sumRows(c.Reshape(c.Mul(e, t.state), e.Ne(0)*e.Ne(1), 1, values))))
	gate := func(x *Tensor) *Tensor { return c.transposed(c.Reshape(x, n, values)) }

	before = c.Add(c.Mul(e, t.all), c.Add(c.exactTimes(c.transposed(t.q), c.transposed(x)),
		c.exactTimes(c.transposed(t.k), c.transposed(y))))
	return c.joined([]*Tensor{c.byToken(dq), c.byToken(dk), c.byToken(dv), gate(dg), gate(dbeta)}, 0), before
}

func (c *Context) composeGatedNorm(x, z, w *Tensor, eps float32, t Type) *Tensor {
	if !c.composable("gated_norm", t, x, z) {
		return nil
	}
	y := c.composeNorm(c.Reshape(c.unbroken(x), w.Ne(0), x.Elements()/w.Ne(0)), w, eps, t)
	return c.Mul(c.Reshape(y, x.Ne(0), x.Ne(1)), c.composeActivate(z, SiLU, t))
}

func (c *Context) composeGatedNormBack(dy, x, z, w *Tensor, eps float32, t Type) (dx, dz *Tensor) {
	if !c.composable("gated_norm_back", t, dy, x, z) {
		return nil, nil
	}
	heads := func(x *Tensor) *Tensor { return c.Reshape(c.unbroken(x), w.Ne(0), x.Elements()/w.Ne(0)) }
	dx = c.composeNormBack(heads(c.Mul(c.unbroken(dy), c.composeActivate(z, SiLU, t))), heads(x), w, eps, nil)
	y := c.Reshape(c.composeNorm(heads(x), w, eps, t), x.Ne(0), x.Ne(1))
	return c.Reshape(dx, x.Ne(0), x.Ne(1)), c.composeActivateBack(c.Mul(c.unbroken(dy), y), z, SiLU, t)
}
