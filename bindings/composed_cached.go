package bindings

// Convolutions and delta nets of rows that continue texts, composed. What is kept of a text is written by a node of its
// own, which the graph must have beside the result.

// tapPlaces are where a convolution's rows and those before them lie: in x, then in `old`, then zeros.
type tapPlaces struct {
	old         *Tensor   // [texts · (taps − 1)]: of the state, the rows before each text's, the last first
	earlier     []*Tensor // [rows] for each distance, from 1 on: the row so far before each
	last, slots *Tensor   // of the rows that are kept, their number in x and in the state
}

// tapsOf makes these inputs, once for all convolutions of as many taps. The row at position p lies in slot p mod
// (taps − 1) of its text.
func (c *Context) tapsOf(p *Places, taps int) *tapPlaces {
	if t := p.taps[taps]; t != nil {
		return t
	}
	keep, texts, n := int32(taps-1), int32(0), int32(len(p.rows)/2)
	for _, g := range p.groups {
		texts += int32(g.texts)
	}
	// each calls f for every text: its number in the pass and in the cache, its first row, how many it has, and the
	// position of the first.
	each := func(f func(i, text, first, count, at int32)) {
		i := int32(0)
		for _, g := range p.groups {
			for t := range g.texts {
				first := int32(g.first + t*g.each)
				f(i, p.rows[2*first], first, int32(g.each), p.rows[2*first+1])
				i++
			}
		}
	}
	t := &tapPlaces{}
	t.old = p.index(c, func() (list []int32) {
		each(func(_, text, _, _, at int32) {
			for back := int32(1); back <= keep; back++ {
				list = append(list, text*keep+max(at-back, 0)%keep)
			}
		})
		return list
	})
	for back := int32(1); back <= keep; back++ {
		t.earlier = append(t.earlier, p.index(c, func() (list []int32) {
			each(func(i, _, first, count, at int32) {
				for row := range count {
					switch {
					case row >= back:
						list = append(list, first+row-back)
					case at+row >= back:
						list = append(list, n+i*keep+back-row-1)
					default:
						list = append(list, n+texts*keep)
					}
				}
			})
			return list
		}))
	}
	kept := func(of func(text, row, at int32) int32) func() []int32 {
		return func() (list []int32) {
			each(func(_, text, first, count, at int32) {
				for row := max(0, count-keep); row < count; row++ {
					list = append(list, of(text, first+row, at+row))
				}
			})
			return list
		}
	}
	t.last = p.index(c, kept(func(_, row, _ int32) int32 { return row }))
	t.slots = p.index(c, kept(func(text, _, at int32) int32 { return text*keep + at%keep }))
	p.taps[taps] = t
	return t
}

func (c *Context) composeConvolutionCached(x, w, state *Tensor, p *Places, t Type) (y, kept *Tensor) {
	if !c.composable("convolution_cached", t, x) {
		return nil, nil
	}
	at := c.tapsOf(p, int(w.Ne(0)))
	x = c.unbroken(x)
	all := c.concat(x, c.GetRows(state, at.old), 1)
	y = c.convolved(x, all, w, func(back int) []*Tensor { return at.earlier[back-1 : back] })
	return y, c.SetRows(state, c.GetRows(all, at.last), at.slots) // of all, so that `old` is read before
}

// statesOf makes the inputs that tell where the states of a group's texts lie, and which of them begin: there the index
// is that of a zero state behind all of them.
func (c *Context) statesOf(p *Places, g *placeGroup) (states, begins *Tensor) {
	if g.states == nil {
		of := func(f func(t, text, at int32) int32) func() []int32 {
			return func() (list []int32) {
				for t := range g.texts {
					row := g.first + t*g.each
					list = append(list, f(int32(t), p.rows[2*row], p.rows[2*row+1]))
				}
				return list
			}
		}
		g.states = p.index(c, of(func(_, text, _ int32) int32 { return text }))
		g.begins = p.index(c, of(func(t, _, at int32) int32 {
			if at == 0 {
				t += int32(g.texts)
			}
			return t
		}))
	}
	return g.states, g.begins
}

// composeDeltaNetCached computes texts with equally many rows together, as further heads.
func (c *Context) composeDeltaNetCached(d Delta, states *Tensor, p *Places, h DeltaHeads, t Type) (y, kept *Tensor) {
	if !c.composable("delta_net_cached", t, d.QKV, d.A, d.B) {
		return nil, nil
	}
	rows, size := c.deltaRows(d, h), states.Ne(0)
	var all []*Tensor
	for i := range p.groups {
		g := &p.groups[i]
		place, begins := c.statesOf(p, g)
		var state *Tensor
		var parts []*Tensor
		for offset := int64(0); offset < g.each; offset += deltaSpan {
			s := c.span(rows, h, deltaPlace{g.first, g.each, g.texts, offset, min(g.each-offset, deltaSpan)})
			if state == nil {
				both := c.concat(c.GetRows(states, place), c.Reshape(c.noState(s), size, g.texts), 1)
				state = c.Reshape(c.GetRows(both, begins), int64(h.DimK), int64(h.DimV), int64(h.Values)*g.texts)
			}
			c.solveFrom(s, state)
			parts = append(parts, c.byText(c.read(s), g.texts))
			state = c.after(s)
		}
		all = append(all, c.Reshape(c.joined(parts, 1), h.out(), g.each*g.texts))
		states = c.SetRows(states, c.Reshape(state, size, g.texts), place)
	}
	return c.joined(all, 1), states
}

// byText is x [dim, n, heads · texts] as [dim · heads, n, texts].
func (c *Context) byText(x *Tensor, texts int64) *Tensor {
	dim, n, heads := x.Ne(0), x.Ne(1), x.Ne(2)/texts
	return c.Reshape(c.Cont(c.Permute(c.Reshape(x, dim, n, heads, texts), 0, 2, 1, 3)), dim*heads, n, texts)
}
