package bindings

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// convolutionCase is a shape, and a pack of texts.
type convolutionCase struct {
	columns, taps int
	segments      [][4]int32
}

var convolutions = []convolutionCase{
	{columns: 1, taps: 2, segments: samples(1)},
	{columns: 7, taps: 3, segments: samples(1, 2, 9, 3)},
	{columns: 300, taps: 4, segments: samples(5, 1, 70)},
	{columns: 66, taps: 3, segments: tree([]int32{3, 1, 4, 1, 2, 5}, []int32{-1, 0, 0, 1, 1, -1})},
	{columns: 19, taps: 16, segments: tree([]int32{1, 1, 7, 1, 30}, []int32{-1, 0, 1, 1, -1})},
}

// want has y and the gradient of x in float64, text by text.
func (c convolutionCase) want(x, w, g []float32) (y, dx []float32) {
	n, k := c.columns, c.taps
	sums := [2][]float64{make([]float64, len(x)), make([]float64, len(x))}
	done := map[int]bool{}
	for _, rows := range (attentionCase{segments: c.segments}).paths() {
		for at, r := range rows {
			for back := 0; back < k && back <= at && !done[r]; back++ {
				from := rows[at-back]
				for i := range n {
					by := float64(w[i*k+k-1-back])
					sums[0][r*n+i] += by * float64(x[from*n+i])
					sums[1][from*n+i] += by * float64(g[r*n+i])
				}
			}
			done[r] = true
		}
	}
	for i := range x {
		y, dx = append(y, float32(sums[0][i])), append(dx, float32(sums[1][i]))
	}
	return y, dx
}

// TestConvolution compares with float64, of every instruction set, composed, and in bfloat16; other numbers of threads
// have the same bits.
func TestConvolution(t *testing.T) {
	one, three, composed := openCPU(t, 1), openCPU(t, 3), openComposed(t)
	for _, c := range convolutions {
		rows := attentionCase{segments: c.segments}.tokens()
		x, w, g := normal(1, c.columns*rows), normal(2, c.columns*c.taps), normal(3, c.columns*rows)
		y, dx := c.want(x, w, g)
		compute := func(backend *Backend, kind Type) [][]float32 {
			return computeAll(t, backend, func(b *bench) []*Tensor {
				n := int64(c.columns)
				weights, s := b.f(w, int64(c.taps), n), b.segments(c.segments)
				in, grad := b.Convert(b.f(x, n, int64(rows)), kind), b.Convert(b.f(g, n, int64(rows)), kind)
				return []*Tensor{b.Convert(b.Convolution(in, weights, s, kind), F32),
					b.ConvolutionBack(grad, weights, s)}
			})
		}
		check := func(what string, got [][]float32, most float64) {
			t.Helper()
			for i, want := range [][]float32{y, dx} {
				if e := offBy(got[i], want); !(e <= most) {
					t.Errorf("%v, %s: %s off by %.1e", c, what, []string{"y", "∂x"}[i], e)
				}
			}
		}
		check("composed", compute(composed, F32), 1e-6)
		everyISA(t, func(t *testing.T) {
			for kind, most := range map[Type]float64{F32: 1e-6, BF16: 1e-2} {
				got := compute(one, kind)
				check(kind.String(), got, most)
				for i, other := range compute(three, kind) {
					if !slices.Equal(other, got[i]) {
						t.Errorf("%v, %v: other bits on three threads", c, kind)
					}
				}
			}
		})
	}
}

// TestConvolutionCached: texts that come in pieces, among others, have the bits of those that come at once.
func TestConvolutionCached(t *testing.T) {
	cpu := openCPU(t, 2)
	everyISA(t, func(t *testing.T) { testConvolutionCached(t, cpu) })
	t.Run("composed", func(t *testing.T) { testConvolutionCached(t, openComposed(t)) })
}

func testConvolutionCached(t *testing.T, backend *Backend) {
	const columns, taps, length, texts = 66, 4, 11, 3
	x, w := normal(1, columns*length*texts), normal(2, columns*taps)
	state := slices.Repeat([]float32{float32(math.NaN())}, columns*(taps-1)*texts) // of texts before
	// pass computes tokens from to end of each text.
	pass := func(from, end int) (y [][]float32) {
		var in []float32
		var rows []int32
		for text := range texts {
			in = append(in, x[(text*length+from)*columns:(text*length+end)*columns]...)
			for p := from; p < end; p++ {
				rows = append(rows, int32(text), int32(p))
			}
		}
		n := int64(len(rows) / 2)
		got := computeAll(t, backend, func(b *bench) []*Tensor {
			kept := b.f(state, columns, (taps-1)*texts)
			y, after := b.ConvolutionCached(b.f(in, columns, n), b.f(w, taps, columns), kept, b.places(rows, length),
				F32)
			b.graph.Expand(after) // first, as it may be
			b.graph.Expand(y)
			return []*Tensor{y, b.Cont(kept)}
		})
		copy(state, got[1])
		return slices.Collect(slices.Chunk(got[0], columns*(end-from)))
	}
	pieces := make([][]float32, texts)
	for _, p := range [][2]int{{0, 1}, {1, 3}, {3, 4}, {4, length}} {
		for text, y := range pass(p[0], p[1]) {
			pieces[text] = append(pieces[text], y...)
		}
	}
	c := convolutionCase{columns, taps, samples(length, length, length)}
	want, _ := c.want(x, w, x)
	for text, y := range pass(0, length) {
		if !slices.Equal(y, pieces[text]) {
			t.Errorf("text %d: other bits in pieces", text)
		}
		if e := offBy(y, want[text*length*columns:][:len(y)]); !(e <= 1e-6) {
			t.Errorf("text %d: off by %.1e", text, e)
		}
	}
}

// TestConvolutionRefused asks for what does not fit.
func TestConvolutionRefused(t *testing.T) {
	for _, backend := range []*Backend{openCPU(t, 1), openComposed(t)} {
		c := backend.NewContext()
		x, w, s := c.NewTensor(F32, 8, 3), c.NewTensor(F32, 3, 8), c.NewSegments(samples(3))
		for i, build := range []func() *Tensor{
			func() *Tensor { return c.Convolution(x, c.NewTensor(F32, 3, 7), s, F32) },
			func() *Tensor { return c.Convolution(x, c.NewTensor(F32, 17, 8), s, F32) },
			func() *Tensor { return c.Convolution(x, c.NewTensor(F16, 3, 8), s, F32) },
			func() *Tensor { return c.Convolution(x, w, nil, F32) },
			func() *Tensor { return c.ConvolutionBack(x, w, nil) },
			func() *Tensor {
				y, _ := c.ConvolutionCached(x, w, c.NewTensor(F32, 8, 3), c.NewPlaces(make([]int32, 6), 9), F32)
				return y
			},
		} {
			if build() != nil {
				t.Error(fmt.Sprint(i), "is not refused")
			}
		}
		c.Close()
	}
}
