package bindings

// #include "guard.h"
import "C"

import "slices"

// MostTaps is how many rows a convolution's sum may be of.
const MostTaps = 16

// convolutionFits checks activations x and their weights w [taps, columns], float32.
func (c *Context) convolutionFits(op string, x, w *Tensor, t Type) bool {
	if !c.areActivations(op, t, x) || !c.hasOperands(op, w) {
		return false
	}
	if w.Type() != F32 || !w.contiguousRows() || w.Ne(0) < 2 || w.Ne(0) > MostTaps || w.Elements() != w.Ne(0)*x.Ne(0) ||
		w.Ne(1) != x.Ne(0) {
		c.fail(op, "%s by %s", x.describe(), w.describe())
		return false
	}
	return true
}

// Convolution is a causal convolution of every column for itself along each sample of a pack: row r is Σ
// w[taps − 1 − i] ⊙ x[the row i before r in its sample], of type t, for x [n, rows] and w [taps, n], float32. Before a
// sample's first row are zeros.
func (c *Context) Convolution(x, w *Tensor, s *Segments, t Type) *Tensor {
	const op = "convolution"
	if !c.convolutionFits(op, x, w, t) {
		return nil
	}
	if s == nil {
		return c.fail(op, "there are no segments")
	}
	if c.composed != nil {
		return c.composeConvolution(x, w, s, t)
	}
	return c.node(C.GGML_VERA_CONVOLUTION, parameters{}, like(x, t), x, w, s.tensor)
}

// ConvolutionBack is the gradient of Convolution's input, float32, for the gradient dy of its result.
func (c *Context) ConvolutionBack(dy, w *Tensor, s *Segments) *Tensor {
	const op = "convolution_back"
	if !c.convolutionFits(op, dy, w, F32) {
		return nil
	}
	if s == nil {
		return c.fail(op, "there are no segments")
	}
	if c.composed != nil {
		return c.composeConvolutionBack(dy, w, s)
	}
	return c.node(C.GGML_VERA_CONVOLUTION_BACK, parameters{}, like(dy, F32), dy, w, s.tensor)
}

// ConvolutionCached is Convolution of rows, float32, that continue texts, as in AttentionCached. state
// [n, (taps − 1) · texts], float32, has the last rows of each text, and gets these: by the graph's node `kept`, or with
// y where that is nil. A row's result does not depend on the rows that are computed with it.
func (c *Context) ConvolutionCached(x, w, state *Tensor, p *Places, t Type) (y, kept *Tensor) {
	const op = "convolution_cached"
	if !c.convolutionFits(op, x, w, t) || !c.hasOperands(op, state) || !c.placesFit(op, p, x) {
		return nil, nil
	}
	if x.Type() != F32 || state.Type() != F32 || !state.contiguousRows() || state.Ne(0) != x.Ne(0) ||
		state.Ne(1)%(w.Ne(0)-1) != 0 {
		return c.fail(op, "%s with the state %s", x.describe(), state.describe()), nil
	}
	if c.composed != nil {
		return c.composeConvolutionCached(x, w, state, p, t)
	}
	return c.node(C.GGML_VERA_CONVOLUTION_CACHED, parameters{}, like(x, t), x, w, state, p.tensor), nil
}

// before is the row that lies so many before row i of run r in its samples, or −1.
func before(runs [][4]int32, r, i, back int) int {
	for i -= back; i < 0; i += int(runs[r][1]) {
		if r = int(runs[r][2]); r < 0 {
			return -1
		}
	}
	return int(runs[r][0]) + i
}

// index is an input that says which row each row of a pack takes; their number stands for none.
type index struct {
	*Tensor
	rows []int32
}

// earlier is the row of each row that lies so many before it.
func (s *Segments) earlier(c *Context, back int) *Tensor {
	var rows []int32
	for r, run := range s.runs {
		for i := range int(run[1]) {
			rows = append(rows, int32(before(s.runs, r, i, back)))
		}
	}
	return s.index(c, rows)
}

// later are the rows that have each row so many before them: several, where samples begin alike.
func (s *Segments) later(c *Context, back int) (list []*Tensor) {
	last := s.runs[len(s.runs)-1]
	found := make([][]int32, last[0]+last[1])
	most := 0
	for r, run := range s.runs {
		for i := range run[1] {
			if source := before(s.runs, r, int(i), back); source >= 0 {
				found[source] = append(found[source], run[0]+i)
				most = max(most, len(found[source]))
			}
		}
	}
	for k := range most {
		rows := slices.Repeat([]int32{-1}, len(found))
		for i, f := range found {
			if k < len(f) {
				rows[i] = f[k]
			}
		}
		list = append(list, s.index(c, rows))
	}
	return list
}

// index makes the input, with −1 for none.
func (s *Segments) index(c *Context, rows []int32) *Tensor {
	for i, r := range rows {
		if r < 0 {
			rows[i] = int32(len(rows))
		}
	}
	x := index{c.NewTensor(I32, int64(len(rows))).Input(), rows}
	s.indices = append(s.indices, x)
	return x.Tensor
}

// convolved sums, for each tap, what gather lists of the rows in `all` and a row of zeros behind them, times its
// weights; for the first tap it takes the rows of x, which `all` begins with.
func (c *Context) convolved(x, all, w *Tensor, gather func(back int) []*Tensor) (y *Tensor) {
	w = c.transposed(w)
	taps := w.Ne(1)
	weight := func(back int64) *Tensor { return c.View(w, [4]int64{w.Ne(0), 1, 1, 1}, [4]int64{0, taps - 1 - back}) }
	y = c.Mul(x, weight(0))
	all = c.concat(all, c.ScaleBias(c.Cont(weight(0)), 0, 0), 1)
	for back := int64(1); back < taps; back++ {
		for _, rows := range gather(int(back)) {
			y = c.Add(y, c.Mul(c.GetRows(all, rows), weight(back)))
		}
	}
	return y
}

func (c *Context) composeConvolution(x, w *Tensor, s *Segments, t Type) *Tensor {
	if !c.composable("convolution", t, x) {
		return nil
	}
	x = c.unbroken(x)
	return c.convolved(x, x, w, func(back int) []*Tensor { return []*Tensor{s.earlier(c, back)} })
}

func (c *Context) composeConvolutionBack(dy, w *Tensor, s *Segments) *Tensor {
	if !c.composable("convolution_back", F32, dy) {
		return nil
	}
	dy = c.unbroken(dy)
	return c.convolved(dy, dy, w, func(back int) []*Tensor { return s.later(c, back) })
}
