package bindings

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// deltaCase is a delta net's shape and a pack of segments. harsh is what a and b are multiplied with.
type deltaCase struct {
	DeltaHeads
	segments [][4]int32
	harsh    float32
}

func (d deltaCase) String() string {
	return fmt.Sprintf("%d of %d on %d of %d, %d segments, gates × %g", d.Values, d.DimV, d.Keys, d.DimK,
		len(d.segments), d.harsh)
}

type deltaInputs struct{ qkv, a, b, decay, bias, dy []float32 }

func (d deltaCase) filled() deltaInputs {
	n := attentionCase{segments: d.segments}.tokens()
	in := deltaInputs{normal(1, n*int(d.width())), normal(2, n*d.Values), normal(3, n*d.Values), normal(4, d.Values),
		normal(5, d.Values), normal(6, n*int(d.out()))}
	for i := range in.a {
		in.a[i] *= d.harsh
		in.b[i] *= d.harsh
	}
	for i, x := range in.decay {
		in.decay[i] = float32(-math.Exp(float64(x)))
	}
	return in
}

var deltaResults = []string{"y", "∂qkv", "∂a", "∂b"}

// want is the recurrence and its derivatives in float64, token by token.
func (d deltaCase) want(in deltaInputs) [][]float32 {
	dk, dv := d.DimK, d.DimV
	n := len(in.a) / d.Values
	all := [][]float64{make([]float64, len(in.dy)), make([]float64, len(in.qkv)), make([]float64, len(in.a)),
		make([]float64, len(in.b))}
	sigma := func(x float32) float64 { return 1 / (1 + math.Exp(-float64(x))) }
	width := int(d.width())
	normed := func(x []float32, by float64) (y []float64, s float64) {
		for _, v := range x {
			s += float64(v) * float64(v)
		}
		s = 1 / math.Sqrt(s+float64(d.Eps))
		for _, v := range x {
			y = append(y, float64(v)*s*by)
		}
		return y, s
	}
	normBack := func(to []float64, g, x []float64, s, by float64) { // x is normed, times by
		along := 0.0
		for i := range x {
			along += g[i] * by * x[i] / by
		}
		for i := range x {
			to[i] += s * (g[i]*by - along*x[i]/by)
		}
	}
	for head := range d.Values {
		key := head % d.Keys
		states, before := make([][]float64, n), make([]int, n) // after each token; the token before it, or −1
		q, k, w := make([][]float64, n), make([][]float64, n), make([][]float64, n)
		qs, ks := make([]float64, n), make([]float64, n)
		scale := 1 / math.Sqrt(float64(dk))
		decayed := func(t int) (s []float64, e float64) { // e^g S
			x := float64(in.a[t*d.Values+head]) + float64(in.bias[head])
			e = math.Exp(float64(in.decay[head]) * (math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))))
			s = make([]float64, dk*dv)
			if before[t] >= 0 {
				for i, v := range states[before[t]] {
					s[i] = e * v
				}
			}
			return s, e
		}
		last := make([]int, len(d.segments))
		for i, run := range d.segments {
			previous := -1
			if run[2] >= 0 {
				previous = last[run[2]]
			}
			for t := int(run[0]); t < int(run[0]+run[1]); t++ {
				before[t] = previous
				previous = t
				row := in.qkv[t*width:][:width]
				q[t], qs[t] = normed(row[key*dk:][:dk], scale)
				k[t], ks[t] = normed(row[(d.Keys+key)*dk:][:dk], 1)
				s, _ := decayed(t)
				w[t] = make([]float64, dv)
				beta := sigma(in.b[t*d.Values+head])
				for c := range dv {
					w[t][c] = float64(row[2*d.Keys*dk+head*dv+c])
					for r := range dk {
						w[t][c] -= s[r*dv+c] * k[t][r]
					}
					for r := range dk {
						s[r*dv+c] += beta * k[t][r] * w[t][c]
						all[0][t*int(d.out())+head*dv+c] += s[r*dv+c] * q[t][r]
					}
				}
				states[t] = s
			}
			last[i] = previous
		}
		grads := make([][]float64, n)
		for t := n - 1; t >= 0; t-- {
			g := grads[t]
			if g == nil {
				g = make([]float64, dk*dv)
			}
			dy := in.dy[t*int(d.out())+head*dv:][:dv]
			dq, dkey := make([]float64, dk), make([]float64, dk)
			s, e := decayed(t)
			beta := sigma(in.b[t*d.Values+head])
			dbeta, dg := 0.0, 0.0
			for c := range dv {
				dw := 0.0
				for r := range dk {
					g[r*dv+c] += q[t][r] * float64(dy[c])
					dq[r] += states[t][r*dv+c] * float64(dy[c])
					dw += beta * k[t][r] * g[r*dv+c]
					dkey[r] += beta * g[r*dv+c] * w[t][c]
					dbeta += k[t][r] * g[r*dv+c] * w[t][c]
				}
				all[1][t*width+2*d.Keys*dk+head*dv+c] = dw
				for r := range dk {
					dkey[r] -= s[r*dv+c] * dw
					g[r*dv+c] -= k[t][r] * dw
					dg += g[r*dv+c] * s[r*dv+c]
					g[r*dv+c] *= e
				}
			}
			normBack(all[1][t*width+key*dk:][:dk], dq, q[t], qs[t], scale)
			normBack(all[1][t*width+(d.Keys+key)*dk:][:dk], dkey, k[t], ks[t], 1)
			at := t*d.Values + head
			all[2][at] = dg * float64(in.decay[head]) * sigma(in.a[at]+in.bias[head])
			all[3][at] = dbeta * beta * (1 - beta)
			if p := before[t]; p >= 0 {
				if grads[p] == nil {
					grads[p] = make([]float64, dk*dv)
				}
				for i := range g {
					grads[p][i] += g[i]
				}
			}
			states[t] = nil
		}
	}
	out := make([][]float32, len(all))
	for i, values := range all {
		out[i] = make([]float32, len(values))
		for j, v := range values {
			out[i][j] = float32(v)
		}
	}
	return out
}

// tensors makes the inputs, of a type.
func (d deltaCase) tensors(b *bench, in deltaInputs, kind Type) Delta {
	n := int64(len(in.a) / d.Values)
	typed := func(values []float32, ne0 int64) *Tensor { return b.Cast(b.f(values, ne0, n), kind) }
	return Delta{typed(in.qkv, d.width()), typed(in.a, int64(d.Values)), typed(in.b, int64(d.Values)),
		b.f(in.decay, int64(d.Values)), b.f(in.bias, int64(d.Values))}
}

func (d deltaCase) compute(t *testing.T, backend *Backend, in deltaInputs, kind Type) [][]float32 {
	return computeAll(t, backend, func(b *bench) []*Tensor {
		net, s := d.tensors(b, in, kind), b.segments(d.segments)
		y := b.Convert(b.DeltaNet(net, s, d.DeltaHeads, kind), F32)
		qkv, da, db := b.DeltaNetBack(b.Cast(b.f(in.dy, d.out(), y.Ne(1)), kind), net, s, d.DeltaHeads)
		return []*Tensor{y, b.Cont(qkv), b.Cont(da), b.Cont(db)}
	})
}

func deltaCases() []deltaCase {
	two := tree([]int32{9, 20, 5, 70, 70, 33, 130, 3, 64, 4}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6, 8})
	return []deltaCase{
		{DeltaHeads{1, 1, 16, 16, 1e-6}, samples(1), 1},
		{DeltaHeads{2, 4, 16, 24, 1e-6}, samples(1, 2, 17, 63, 64, 65, 130), 1},
		{DeltaHeads{2, 2, 20, 10, 1e-6}, samples(200), 1},
		{DeltaHeads{1, 3, 32, 64, 1e-3}, two, 1},
		{DeltaHeads{1, 2, 128, 128, 1e-6}, samples(129, 3), 1},
		{DeltaHeads{1, 1, 256, 192, 1e-6}, samples(66), 1},
		{DeltaHeads{1, 2, 32, 32, 1e-6}, two, 30},
		{DeltaHeads{1, 2, 32, 32, 1e-6}, samples(150), 1000},
	}
}

// TestDelta compares the fused and the composed form, forward and backward, with the recurrence in float64, and holds
// bits to those of other numbers of threads.
func TestDelta(t *testing.T) {
	one, three, composed := openCPU(t, 1), openCPU(t, 3), openComposed(t)
	for _, d := range deltaCases() {
		t.Run(d.String(), func(t *testing.T) {
			in := d.filled()
			want, rounded := d.want(in), in
			for _, values := range []*[]float32{&rounded.qkv, &rounded.a, &rounded.b, &rounded.dy} {
				*values = roundedTo(t, BF16, *values)
			}
			check := func(t *testing.T, got [][]float32, most float64) {
				t.Helper()
				for i, name := range deltaResults {
					if slices.ContainsFunc(got[i], func(x float32) bool {
						return x != x || math.IsInf(float64(x), 0)
					}) {
						t.Errorf("%s has what is no number", name)
					} else if slices.ContainsFunc(want[i], func(x float32) bool { return x != 0 }) {
						if e := offBy(got[i], want[i]); !(e <= most) {
							t.Errorf("%s off by %.1e", name, e)
						}
					} else if slices.ContainsFunc(got[i], func(x float32) bool { return math.Abs(float64(x)) > 1e-6 }) {
						t.Errorf("%s is not 0", name)
					}
				}
			}
			t.Run("composed", func(t *testing.T) {
				most := 5e-6
				if d.harsh > 1 { // it sums exponents in float32
					most = 2e-2
				}
				check(t, d.compute(t, composed, in, F32), most)
			})
			everyISA(t, func(t *testing.T) {
				got := d.compute(t, one, in, F32)
				check(t, got, 5e-6)
				// Of rounded inputs the same is made, and the result is rounded.
				exact := d.compute(t, one, rounded, F32)
				exact[0] = roundedTo(t, BF16, exact[0])
				for i, half := range d.compute(t, one, rounded, BF16) {
					if !slices.Equal(half, exact[i]) {
						t.Errorf("%s has other bits of bfloat16", deltaResults[i])
					}
				}
				for i, other := range d.compute(t, three, in, F32) {
					if !slices.Equal(other, got[i]) {
						t.Errorf("%s has other bits on three threads", deltaResults[i])
					}
				}
			})
		})
	}
}

// TestDeltaCached lets texts grow in pieces, side by side, and holds the result to that of whole texts, and its bits to
// those of one piece, but for the composed form, whose bits depend on the pieces. What lies in the states before is
// NaN.
func TestDeltaCached(t *testing.T) {
	cpu := openCPU(t, 2)
	everyISA(t, func(t *testing.T) { testDeltaCached(t, cpu) })
	t.Run("composed", func(t *testing.T) { testDeltaCached(t, openComposed(t)) })
}

func testDeltaCached(t *testing.T, backend *Backend) {
	for _, h := range []DeltaHeads{{1, 2, 16, 16, 1e-6}, {2, 4, 20, 10, 1e-6}, {1, 2, 128, 128, 1e-6}} {
		d := deltaCase{h, samples(90, 70), 1}
		in := d.filled()
		want := d.want(in)[0]
		run := func(pieces ...int) []float32 {
			states := slices.Repeat([]float32{float32(math.NaN())}, 2*h.DimK*int(h.out()))
			got := make([]float32, len(want))
			for p, start := 0, 0; p < len(pieces); p++ {
				end := start + pieces[p]
				var part deltaInputs
				var rows []int32
				var tokens []int
				for text, run := range d.segments {
					for i := start; i < min(end, int(run[1])); i++ {
						at := int(run[0]) + i
						tokens, rows = append(tokens, at), append(rows, int32(text), int32(i))
						part.qkv = append(part.qkv, in.qkv[at*int(h.width()):][:h.width()]...)
						part.a, part.b = append(part.a, in.a[at*h.Values:][:h.Values]...),
							append(part.b, in.b[at*h.Values:][:h.Values]...)
					}
				}
				part.decay, part.bias = in.decay, in.bias
				all := computeAll(t, backend, func(b *bench) []*Tensor {
					s := b.f(states, int64(h.DimK)*h.out(), 2)
					y, kept := b.DeltaNetCached(d.tensors(b, part, F32), s, b.places(rows, 1<<20), h, F32)
					b.graph.Expand(kept)
					return []*Tensor{y, b.Cont(s)}
				})
				for i, at := range tokens {
					copy(got[at*int(h.out()):][:h.out()], all[0][i*int(h.out()):])
				}
				states, start = all[1], end
			}
			return got
		}
		whole := run(90)
		if e := offBy(whole, want); !(e <= 2e-6) {
			t.Errorf("%+v: off by %.1e", h, e)
		}
		pieces := run(1, 1, 30, 40, 18)
		if e := offBy(pieces, want); backend.Fused && !slices.Equal(pieces, whole) || !(e <= 2e-6) {
			t.Errorf("%+v: other bits in pieces, off by %.1e", h, e)
		}
	}
}

// TestGatedNorm compares with float64; the gradients with differences of it.
func TestGatedNorm(t *testing.T) {
	const eps = 1e-3
	one, composed := openCPU(t, 1), openComposed(t)
	for _, shape := range [][3]int{{16, 3, 5}, {37, 2, 4}, {128, 4, 3}} {
		dim, heads, rows := shape[0], shape[1], shape[2]
		n := dim * heads
		x, z, w, dy := normal(1, n*rows), normal(2, n*rows), normal(3, dim), normal(4, n*rows)
		want := [][]float32{make([]float32, n*rows), make([]float32, n*rows), make([]float32, n*rows)}
		for h := 0; h < n*rows; h += dim {
			squares, along := 0.0, 0.0
			for i := range dim {
				squares += float64(x[h+i]) * float64(x[h+i])
			}
			s := 1 / math.Sqrt(squares/float64(dim)+eps)
			g := make([]float64, dim)
			for i := range dim {
				sig := 1 / (1 + math.Exp(-float64(z[h+i])))
				y := float64(x[h+i]) * s * float64(w[i])
				want[0][h+i] = float32(y * float64(z[h+i]) * sig)
				want[2][h+i] = float32(float64(dy[h+i]) * y * sig * (1 + float64(z[h+i])*(1-sig)))
				g[i] = float64(dy[h+i]) * float64(z[h+i]) * sig * float64(w[i])
				along += g[i] * float64(x[h+i])
			}
			for i := range dim {
				want[1][h+i] = float32(s * (g[i] - s*s*along/float64(dim)*float64(x[h+i])))
			}
		}
		check := func(t *testing.T, backend *Backend, kind Type, most float64) {
			t.Helper()
			got := computeAll(t, backend, func(b *bench) []*Tensor {
				of := func(v []float32) *Tensor { return b.Cast(b.f(v, int64(n), int64(rows)), kind) }
				y := b.GatedNorm(of(x), of(z), b.f(w, int64(dim)), eps, kind)
				dx, dz := b.GatedNormBack(of(dy), of(x), of(z), b.f(w, int64(dim)), eps, kind)
				return []*Tensor{b.Convert(y, F32), b.Convert(dx, F32), b.Convert(dz, F32)}
			})
			for i, name := range []string{"y", "∂x", "∂z"} {
				if e := offBy(got[i], want[i]); !(e <= most) {
					t.Errorf("%v, %v: %s off by %.1e", shape, kind, name, e)
				}
			}
		}
		check(t, composed, F32, 1e-6)
		everyISA(t, func(t *testing.T) {
			check(t, one, F32, 1e-6)
			check(t, one, BF16, 1e-2)
		})
	}
}

// TestDeltaRefused asks for what does not fit.
func TestDeltaRefused(t *testing.T) {
	h := DeltaHeads{2, 4, 8, 6, 1e-6}
	for name, change := range map[string]func(c *Context, d *Delta, h *DeltaHeads){
		"another width":  func(c *Context, d *Delta, _ *DeltaHeads) { d.QKV = c.NewTensor(F32, h.width()+1, 5) },
		"other rows":     func(c *Context, d *Delta, _ *DeltaHeads) { d.A = c.NewTensor(F32, 4, 4) },
		"no decay":       func(_ *Context, d *Delta, _ *DeltaHeads) { d.Decay = nil },
		"a short bias":   func(c *Context, d *Delta, _ *DeltaHeads) { d.Bias = c.NewTensor(F32, 3) },
		"uneven heads":   func(_ *Context, _ *Delta, h *DeltaHeads) { h.Keys = 3 },
		"a negative eps": func(_ *Context, _ *Delta, h *DeltaHeads) { h.Eps = -1 },
	} {
		for _, backend := range []*Backend{openCPU(t, 1), openComposed(t)} {
			c := backend.NewContext()
			of := h
			d := Delta{c.NewTensor(F32, h.width(), 5), c.NewTensor(F32, 4, 5), c.NewTensor(F32, 4, 5),
				c.NewTensor(F32, 4), c.NewTensor(F32, 4)}
			change(c, &d, &of)
			if y := c.DeltaNet(d, c.NewSegments(samples(5)), of, F32); y != nil || c.Err() == nil {
				t.Errorf("%s is not refused by %s", name, backend.Name)
			}
			c.Close()
		}
	}
}
