package bindings

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"
)

// mixture is two layers of experts, [in, mid] and [mid, out], of which each row uses some, and the gradients of x and
// of the logits. Expert 1 is used where all are.
type mixture struct {
	kind                              Type
	in, mid, out, experts, used, rows int
	first, second                     numbers
	x, g, logits, acc, accBack        []float32
}

func (m mixture) String() string {
	return fmt.Sprintf("%v [%d %d %d], %d of %d experts, %d rows", m.kind, m.in, m.mid, m.out, m.used,
		m.experts, m.rows)
}

func (m mixture) filled(t *testing.T) mixture {
	m.first, m.second = numbersOf(t, matrix{"first", m.kind, m.in, m.mid * m.experts}, 1),
		numbersOf(t, matrix{"second", m.kind, m.mid, m.out * m.experts}, 2)
	m.x, m.g, m.logits = normal(3, m.in*m.rows), normal(4, m.out*m.rows), normal(5, m.experts*m.rows)
	m.acc, m.accBack = normal(6, m.out*m.rows), normal(7, m.in*m.rows)
	for i := 1; i < len(m.logits); i += m.experts {
		m.logits[i] = -30
	}
	return m
}

// part is the mixture of some rows alone.
func (m mixture) part(first, rows int) mixture {
	for _, p := range []struct {
		values *[]float32
		width  int
	}{{&m.x, m.in}, {&m.g, m.out}, {&m.logits, m.experts}, {&m.acc, m.out}, {&m.accBack, m.in}} {
		*p.values = (*p.values)[first*p.width : (first+rows)*p.width]
	}
	m.rows = rows
	return m
}

// want has y, ∂x and ∂logits in float64.
func (m mixture) want() (all [3][]float64) {
	wide := func(values []float32) []float64 {
		out := make([]float64, len(values))
		for i, v := range values {
			out[i] = float64(v)
		}
		return out
	}
	first, second, x, g := wide(m.first.values), wide(m.second.values), wide(m.x), wide(m.g)
	all = [3][]float64{wide(m.acc), wide(m.accBack), make([]float64, len(m.logits))}
	for r := range m.rows {
		logits := m.logits[r*m.experts:][:m.experts]
		order := make([]int, m.experts)
		for e := range order {
			order[e] = e
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
		total, mean := 0.0, 0.0
		for _, e := range order[:m.used] {
			total += math.Exp(float64(logits[e]))
		}
		weight := func(e int) float64 { return math.Exp(float64(logits[e])) / total }
		dlogits := all[2][r*m.experts:][:m.experts]
		for _, e := range order[:m.used] {
			w1, w2 := first[e*m.in*m.mid:][:m.in*m.mid], second[e*m.mid*m.out:][:m.mid*m.out]
			h, dh := dots(x[r*m.in:][:m.in], w1, m.in), dots(g[r*m.out:][:m.out], turned(w2, m.mid), m.out)
			for i, v := range dots(h, w2, m.mid) {
				all[0][r*m.out+i] += weight(e) * v
			}
			for i, v := range dots(dh, turned(w1, m.in), m.mid) {
				all[1][r*m.in+i] += weight(e) * v
			}
			dlogits[e] = dots(h, dh, m.mid)[0]
			mean += weight(e) * dlogits[e]
		}
		for _, e := range order[:m.used] {
			dlogits[e] = weight(e) * (dlogits[e] - mean)
		}
	}
	return all
}

// compute has the same of a backend, with activations of type t.
func (m mixture) compute(t *testing.T, backend *Backend, kind Type, way Way) [][]float32 {
	return computeAll(t, backend, func(b *bench) []*Tensor {
		in, mid, out, experts, rows := int64(m.in), int64(m.mid), int64(m.out), int64(m.experts), int64(m.rows)
		weight := func(n numbers, in, out int64) *Tensor {
			w := b.NewTensor(m.kind, in, out, experts).Input()
			b.graph.Expand(w)
			b.inputs = append(b.inputs, func() error { return w.Upload(n.data) })
			return w
		}
		first, second := weight(m.first, in, mid), weight(m.second, mid, out)
		routes := b.Route(b.f(m.logits, experts, rows), m.used)
		slots := b.Slots(routes) * rows
		h := b.View(b.NewTensor(kind, mid+8, slots), [4]int64{mid, slots, 1, 1}, [4]int64{4})
		b.graph.Expand(b.EachExpert(first, b.Convert(b.f(m.x, in, rows), kind),
			Mixture{Routes: routes, Into: h, Way: way}, kind))
		y := b.SumExperts(second, b.Weigh(h, routes, kind),
			Mixture{Routes: routes, Acc: b.f(m.acc, out, rows), Way: way})
		dh := b.EachExpert(second, b.Convert(b.f(m.g, out, rows), kind), Mixture{Routes: routes, Back: true}, kind)
		dx := b.SumExperts(first, b.Weigh(dh, routes, kind), Mixture{Routes: routes, Acc: b.f(m.accBack, in, rows),
			Back: true})
		return []*Tensor{y, dx, b.RouteBack(dh, h, routes, m.experts)}
	})
}

var mixtures = []mixture{
	{kind: F32, in: 40, mid: 24, out: 33, experts: 5, used: 2, rows: 19},
	{kind: F32, in: 7, mid: 5, out: 3, experts: 3, used: 3, rows: 2},
	{kind: F16, in: 64, mid: 96, out: 64, experts: 9, used: 4, rows: 1},
	{kind: BF16, in: 30, mid: 70, out: 66, experts: 4, used: 1, rows: 70},
	{kind: Q4_0, in: 64, mid: 96, out: 65, experts: 4, used: 2, rows: 130},
	{kind: Q5_1, in: 96, mid: 32, out: 40, experts: 8, used: 3, rows: 2},
	{kind: Q8_0, in: 64, mid: 96, out: 64, experts: 5, used: 2, rows: 1},
	{kind: Q4_K, in: 256, mid: 256, out: 80, experts: 4, used: 2, rows: 21},
	{kind: MXFP4, in: 64, mid: 96, out: 65, experts: 4, used: 2, rows: 21},
	{kind: MXFP4, in: 64, mid: 32, out: 40, experts: 5, used: 3, rows: 1},
	{kind: F32, in: 1, mid: 40, out: 33, experts: 6, used: 2, rows: 7}, // as biases are
	{kind: Q6_K, in: 256, mid: 256, out: 70, experts: 4, used: 2, rows: 9},
}

// TestExperts compares forward and backward with float64, of every instruction set, composed, in bfloat16, and holds
// their bits to those of other numbers of threads.
func TestExperts(t *testing.T) {
	one, three, composed := openCPU(t, 1), openCPU(t, 3), openComposed(t)
	names := []string{"y", "∂x", "∂logits"}
	for _, m := range mixtures {
		m = m.filled(t)
		want := m.want()
		check := func(t *testing.T, what string, got [][]float32, most float64) {
			t.Helper()
			for i, name := range names {
				wide := make([]float32, len(want[i]))
				for j, v := range want[i] {
					wide[j] = float32(v)
				}
				if m.used == 1 && i == 2 { // the only expert weighs 1 in any case
					if slices.Max(got[i]) != 0 || slices.Min(got[i]) != 0 {
						t.Errorf("%v, %s: %s is not 0", m, what, name)
					}
				} else if e := offBy(got[i], wide); !(e <= most) {
					t.Errorf("%v, %s: %s off by %.1e", m, what, name, e)
				}
			}
		}
		check(t, "composed", m.compute(t, composed, F32, Plain), 2e-6)
		everyISA(t, func(t *testing.T) {
			for kind, most := range map[Type]float64{F32: 2e-6, BF16: 1e-2} {
				got := m.compute(t, one, kind, Plain)
				check(t, kind.String(), got, most)
				for i, other := range m.compute(t, three, kind, Plain) {
					if !slices.Equal(other, got[i]) {
						t.Errorf("%v, %v: %s has other bits on three threads", m, kind, names[i])
					}
				}
			}
		})
	}
}

// TestMXFP4 has every number of four bits with several scales, as the format's definition has them: a byte for the
// scale, then the low bits of numbers 0 to 15, and as the high ones numbers 16 to 31.
func TestMXFP4(t *testing.T) {
	magnitudes := []float64{0, 0.5, 1, 1.5, 2, 3, 4, 6}
	for _, scale := range []byte{0, 1, 2, 3, 100, 127, 130, 250} {
		block, want, got := []byte{scale}, make([]float32, 32), make([]float32, 32)
		for i := range 16 {
			high := (i*7 + 3) % 16
			block = append(block, byte(high<<4|i))
			for at, code := range map[int]int{i: i, 16 + i: high} {
				v := math.Ldexp(magnitudes[code%8], int(scale)-127)
				if code >= 8 {
					v = -v
				}
				want[at] = float32(v)
			}
		}
		if err := Dequantize(MXFP4, block, got); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("scale %d: %v, want %v", scale, got, want)
		}
	}
}

// TestExpertsAlike holds each row to its bits alone, as TestAlike does.
func TestExpertsAlike(t *testing.T) {
	backend := openCPU(t, 2)
	everyISA(t, func(t *testing.T) {
		for _, m := range mixtures {
			m = m.filled(t)
			for way, most := range map[Way]float64{Alike: 2e-6, Bytes: 3e-2} {
				all := m.compute(t, backend, F32, way)[0]
				want := m.want()[0]
				d, n := 0.0, 0.0
				for i, v := range want {
					d, n = d+math.Pow(float64(all[i])-v, 2), n+v*v
				}
				if e := math.Sqrt(d / n); !(e <= most) {
					t.Errorf("%v: off by %.1e in way %d", m, e, way)
				}
				for _, part := range [][2]int{{m.rows - 1, 1}, {m.rows / 2, 1}, {0, (m.rows + 1) / 2}} {
					if got := m.part(part[0], part[1]).compute(t, backend, F32, way)[0]; !slices.Equal(got,
						all[part[0]*m.out:(part[0]+part[1])*m.out]) {
						t.Errorf("%v: rows %v have other bits alone than among all in way %d", m, part, way)
					}
				}
			}
		}
	})
}

// TestExpertsRefused asks for what does not fit.
func TestExpertsRefused(t *testing.T) {
	for name, build := range map[string]func(c *Context, routes, w, x *Tensor) *Tensor{
		"too many": func(c *Context, _, _, _ *Tensor) *Tensor { return c.Route(c.NewTensor(F32, 4, 3), 5) },
		"another width": func(c *Context, r, w, _ *Tensor) *Tensor {
			return c.EachExpert(w, c.NewTensor(F32, 9, 3), Mixture{Routes: r}, F32)
		},
		"other rows": func(c *Context, r, w, _ *Tensor) *Tensor {
			return c.EachExpert(w, c.NewTensor(F32, 8, 2), Mixture{Routes: r}, F32)
		},
		"one row each": func(c *Context, r, w, x *Tensor) *Tensor { return c.SumExperts(w, x, Mixture{Routes: r}) },
		"no routes":    func(c *Context, _, w, x *Tensor) *Tensor { return c.EachExpert(w, x, Mixture{}, F32) },
		"to half": func(c *Context, r, w, x *Tensor) *Tensor {
			return c.EachExpert(w, x, Mixture{Routes: r}, F16)
		},
		"added to each": func(c *Context, r, w, x *Tensor) *Tensor {
			return c.EachExpert(w, x, Mixture{Routes: r, Acc: x}, F32)
		},
		"interleaved": func(c *Context, r, w, x *Tensor) *Tensor {
			return c.EachExpert(w, x, Mixture{Routes: r, Way: Interleaved}, F32)
		},
		"another place": func(c *Context, r, w, x *Tensor) *Tensor {
			return c.EachExpert(w, x, Mixture{Routes: r, Into: x}, F32)
		},
		"weights of none": func(c *Context, r, _, x *Tensor) *Tensor { return c.Weigh(x, r, F32) },
		"gradients":       func(c *Context, r, _, x *Tensor) *Tensor { return c.RouteBack(x, x, r, 4) },
	} {
		for _, backend := range []*Backend{openCPU(t, 1), openComposed(t)} {
			c := backend.NewContext()
			routes := c.Route(c.NewTensor(F32, 4, 3), 2)
			if y := build(c, routes, c.NewTensor(F32, 8, 6, 4), c.NewTensor(F32, 8, 3)); y != nil || c.Err() == nil {
				t.Errorf("%s is not refused by %s", name, backend.Name)
			}
			c.Close()
		}
	}
}
