package bindings

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
)

// attentionCase is a shape and a pack of segments: first token, length, parent, past.
type attentionCase struct {
	heads, kv, dim int
	segments       [][4]int32
	window         int
	cap            float32
	sinks          bool
}

// samples packs samples that share nothing.
func samples(lengths ...int) (segments [][4]int32) {
	first := 0
	for _, n := range lengths {
		segments = append(segments, [4]int32{int32(first), int32(n), -1, 0})
		first += n
	}
	return segments
}

// tree packs segments of those lengths under those parents.
func tree(lengths, parents []int32) (segments [][4]int32) {
	first := int32(0)
	for i, n := range lengths {
		past := int32(0)
		for p := parents[i]; p >= 0; p = parents[p] {
			past += lengths[p]
		}
		segments = append(segments, [4]int32{first, n, parents[i], past})
		first += n
	}
	return segments
}

func (a attentionCase) tokens() (n int) {
	for _, s := range a.segments {
		n += int(s[1])
	}
	return n
}

func (a attentionCase) of() Heads {
	return Heads{Query: a.heads, KV: a.kv, Dim: a.dim, Scale: float32(1 / math.Sqrt(float64(a.dim))), Window: a.window,
		Cap: a.cap}
}

// in has the sinks, too.
func (a attentionCase) in(b *bench) Heads {
	h := a.of()
	if a.sinks {
		h.Sinks = b.f(a.sink(), int64(a.heads))
	}
	return h
}

// sink is that of each head: the first ones are far below all scores, and far above.
func (a attentionCase) sink() []float32 {
	sinks := normal(3, a.heads)
	copy(sinks, []float32{-40, 2, 30})
	return sinks
}

func (a attentionCase) width() int { return a.dim * (a.heads + 2*a.kv) }

// paths are the rows of every sample: of each segment without children and its ancestors, from the root.
func (a attentionCase) paths() (paths [][]int) {
	for i, s := range a.segments {
		if slices.ContainsFunc(a.segments, func(c [4]int32) bool { return c[2] == int32(i) }) {
			continue
		}
		rows := make([]int, s[3]+s[1])
		for p := int32(i); p >= 0; p = a.segments[p][2] {
			for j := range a.segments[p][1] {
				rows[a.segments[p][3]+j] = int(a.segments[p][0] + j)
			}
		}
		paths = append(paths, rows)
	}
	return paths
}

// fused computes attention and its gradient of activations of one type with our kernels.
func (a attentionCase) fused(t testing.TB, threads int, kind Type, qkv, dout []float32) (out, grad []float32) {
	t.Helper()
	backend, err := NewCPU(threads)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	return a.on(t, backend, kind, qkv, dout)
}

// on computes them on a backend. Rows of qkv lie further apart than they are wide.
func (a attentionCase) on(t testing.TB, backend *Backend, kind Type, qkv, dout []float32) (out, grad []float32) {
	t.Helper()
	c := backend.NewContext()
	defer c.Close()
	b := &bench{Context: c, graph: c.NewGraph()}
	const apart = 3
	n, w := a.tokens(), a.width()
	wide := make([]float32, n*(w+apart))
	for i := range n {
		copy(wide[i*(w+apart):], qkv[i*w:(i+1)*w])
	}
	x := c.View(c.Cast(b.f(wide, int64(w+apart), int64(n)), kind), [4]int64{int64(w), int64(n), 1, 1}, [4]int64{})
	g := c.Cast(b.f(dout, int64(a.dim*a.heads), int64(n)), kind)
	segments := b.segments(a.segments)
	h := a.in(b)
	y := c.Convert(c.Attention(x, segments, h, kind), F32).Output()
	dx := c.AttentionBack(g, x, segments, h).Output()
	b.graph.Expand(y)
	b.graph.Expand(dx)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	defer b.run(t, backend).Close()
	out, grad = make([]float32, len(dout)), make([]float32, len(qkv))
	if err := errors.Join(Get(y, out), Get(dx, grad)); err != nil {
		t.Fatal(err)
	}
	return out, grad
}

// segments makes the inputs for a pack.
func (b *bench) segments(runs [][4]int32) *Segments {
	s := b.NewSegments(runs)
	b.inputs = append(b.inputs, s.Set)
	return s
}

// places makes the inputs for rows of texts that grow.
func (b *bench) places(rows []int32, room int) *Places {
	p := b.NewPlaces(rows, room)
	b.inputs = append(b.inputs, p.Set)
	return p
}

// composed is the composed form, sample by sample, each with its own copy of what it shares: a shared row's gradient is
// the sum of its copies', of which the first alone has the gradient dout.
func (a attentionCase) composed(t testing.TB, qkv, dout []float32) (out, grad []float32) {
	backend := openComposed(t)
	out, grad = make([]float32, len(dout)), make([]float32, len(qkv))
	w, o, seen := a.width(), a.dim*a.heads, map[int]bool{}
	for _, rows := range a.paths() {
		x, g := make([]float32, len(rows)*w), make([]float32, len(rows)*o)
		for i, r := range rows {
			copy(x[i*w:], qkv[r*w:(r+1)*w])
			if !seen[r] {
				copy(g[i*o:], dout[r*o:(r+1)*o])
			}
			seen[r] = true
		}
		y, dx := attentionCase{a.heads, a.kv, a.dim, samples(len(rows)), a.window, a.cap, a.sinks}.on(t,
			backend, F32, x, g)
		for i, r := range rows {
			copy(out[r*o:(r+1)*o], y[i*o:])
			for j := range w {
				grad[r*w+j] += dx[i*w+j]
			}
		}
	}
	return out, grad
}

// exact is attention and its gradient in float64, token by token.
func (a attentionCase) exact(qkv, dout []float32) (out, grad []float32) {
	w, o, h := a.width(), a.dim*a.heads, a.of()
	sums, grads := make([]float64, len(dout)), make([]float64, len(qkv))
	dot := func(x, y []float32) (s float64) {
		for i := range x {
			s += float64(x[i]) * float64(y[i])
		}
		return s
	}
	add := func(to []float64, by float64, x []float32) {
		for i := range x {
			to[i] += by * float64(x[i])
		}
	}
	seen := map[int]bool{}
	for _, rows := range a.paths() {
		for position, i := range rows {
			if seen[i] {
				continue
			}
			seen[i] = true
			keys := rows[:position+1]
			if a.window > 0 && a.window < len(keys) {
				keys = keys[len(keys)-a.window:]
			}
			for head := range a.heads {
				q := i*w + head*a.dim
				// of the key or the value of token j
				at := func(j, part int) int { return j*w + (part*a.kv+a.heads+head/(a.heads/a.kv))*a.dim }
				to, g := i*o+head*a.dim, dout[i*o+head*a.dim:][:a.dim]
				p, dp, slopes := make([]float64, len(keys)), make([]float64, len(keys)), make([]float64, len(keys))
				all, mean := 0.0, 0.0
				if a.sinks {
					all = math.Exp(float64(a.sink()[head]))
				}
				for n, j := range keys {
					s := float64(h.Scale) * dot(qkv[q:q+a.dim], qkv[at(j, 0):][:a.dim])
					slopes[n] = 1
					if limit := float64(a.cap); limit > 0 {
						slopes[n] = 1 / math.Pow(math.Cosh(s/limit), 2)
						s = limit * math.Tanh(s/limit)
					}
					p[n] = math.Exp(s)
					all += p[n]
				}
				for n, j := range keys {
					p[n] /= all
					dp[n] = dot(g, qkv[at(j, 1):][:a.dim])
					mean += p[n] * dp[n]
				}
				for n, j := range keys {
					ds := float64(h.Scale) * p[n] * (dp[n] - mean) * slopes[n]
					add(sums[to:to+a.dim], p[n], qkv[at(j, 1):][:a.dim])
					add(grads[at(j, 1):], p[n], g)
					add(grads[q:], ds, qkv[at(j, 0):][:a.dim])
					add(grads[at(j, 0):], ds, qkv[q:q+a.dim])
				}
			}
		}
	}
	narrow := func(x []float64) []float32 {
		y := make([]float32, len(x))
		for i := range x {
			y[i] = float32(x[i])
		}
		return y
	}
	return narrow(sums), narrow(grads)
}

// parts cuts the rows of qkv into queries, keys and values.
func (a attentionCase) parts(qkv []float32) map[string][]float32 {
	parts := map[string][]float32{}
	for i := range a.tokens() {
		row, q, k := qkv[i*a.width():(i+1)*a.width()], a.heads*a.dim, (a.heads+a.kv)*a.dim
		parts["queries"] = append(parts["queries"], row[:q]...)
		parts["keys"] = append(parts["keys"], row[q:k]...)
		parts["values"] = append(parts["values"], row[k:]...)
	}
	return parts
}

// alike compares by the length of the difference. Gradients of a single token's query and key are 0.
func alike(t *testing.T, what string, got, want []float32) {
	t.Helper()
	var off, all float64
	for i := range want {
		off += math.Pow(float64(got[i])-float64(want[i]), 2)
		all += math.Pow(float64(want[i]), 2)
	}
	// Both sides sum in float32, in different orders.
	if !(math.Sqrt(off) <= 2e-6*math.Sqrt(all)) {
		t.Errorf("%s: off by %.2g of %.3g", what, math.Sqrt(off), math.Sqrt(all))
	}
}

// roundedTo is values after a trip through a type.
func roundedTo(t testing.TB, kind Type, values []float32) []float32 {
	data, err := Quantize(kind, values, int64(len(values)))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(values))
	if err := Dequantize(kind, data, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// instructionSets are all there are, of x86 and of Arm from the least to the best.
var instructionSets = []string{
	"portable", "avx2", "avx512", "avx512bf16", "amx", "neon", "dotprod", "i8mm", "bf16", "emulated",
}

// TestISA: the best instruction set is in use, which VERATUNE_TEST_ISA may name.
func TestISA(t *testing.T) {
	defer useISA("")
	best := ISA()
	if want := os.Getenv("VERATUNE_TEST_ISA"); want != "" && best != want {
		t.Errorf("%s is in use, want %s", best, want)
	}
	for _, isa := range slices.Backward(instructionSets[:len(instructionSets)-1]) {
		if useISA(isa) {
			if isa != best && os.Getenv("VERATUNE_ISA") == "" {
				t.Errorf("%s is in use where there is %s", best, isa)
			}
			return
		}
	}
	t.Error("none of the instruction sets is there")
}

// everyISA runs a test with every instruction set that the processor has.
func everyISA(t *testing.T, test func(t *testing.T)) {
	defer useISA("")
	for _, isa := range instructionSets {
		if useISA(isa) {
			t.Run(isa, test)
		}
	}
}

func TestAttention(t *testing.T) {
	odd := samples(1, 2, 5, 17, 63, 64, 65, 130)
	// Two levels under the first segment, a sample beside it, and many short children, whose gradients are summed in
	// several families.
	two := tree([]int32{9, 20, 5, 1, 70, 33, 40, 3, 2, 4, 5, 6, 7, 8}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6, 6,
		6, 6, 6, 6})
	cases := []attentionCase{
		{1, 1, 8, samples(1), 0, 0, false}, {3, 1, 10, samples(1), 0, 0, false}, {2, 2, 16, samples(7), 0, 0, false},
		{9, 3, 64, samples(150), 0, 0, false},
		{1, 1, 8, odd, 0, 0, false}, {3, 1, 10, odd, 0, 0, false}, {4, 2, 16, odd, 0, 0, false},
		{9, 3, 24, odd, 0, 0, false}, {4, 2, 64, odd, 0, 0, false}, {3, 1, 128, odd, 0, 0, false},
		{9, 1, 300, samples(20, 3), 0, 0, false},
		{1, 1, 16, two, 0, 0, false}, {3, 1, 24, two, 0, 0, false}, {4, 2, 10, two, 0, 0, false},
		{9, 3, 64, two, 0, 0, false}, {2, 2, 128, two, 0, 0, false}, {40, 1, 8, two, 0, 0, false},
	}
	for _, a := range cases {
		for _, kind := range []Type{F32, BF16} {
			qkv, dout := roundedTo(t, kind, normal(1, a.tokens()*a.width())),
				roundedTo(t, kind, normal(2, a.tokens()*a.heads*a.dim))
			want, wantGrad := a.composed(t, qkv, dout)
			if kind == F32 && len(a.segments) > 1 {
				out, grad := a.on(t, openComposed(t), F32, qkv, dout)
				alike(t, "composed as one pack", out, want)
				alike(t, "its gradient", grad, wantGrad)
			}
			t.Run(fmt.Sprintf("%v/%d of %d on %d/%d segments", kind, a.heads, a.dim, a.kv, len(a.segments)),
				func(t *testing.T) {
					everyISA(t, func(t *testing.T) {
						out, grad := a.fused(t, 1, kind, qkv, dout)
						if kind == F32 {
							alike(t, "result", out, want)
						} else if exact, _ := a.fused(t, 1, F32, qkv, dout); !slices.Equal(out,
							roundedTo(t, BF16, exact)) {
							t.Errorf("the result is not the float32 one rounded")
						}
						wants := a.parts(wantGrad)
						for what, got := range a.parts(grad) {
							alike(t, what, got, wants[what])
						}
						for threads := 2; threads <= 3; threads++ {
							more, moreGrad := a.fused(t, threads, kind, qkv, dout)
							if !slices.Equal(more, out) || !slices.Equal(moreGrad, grad) {
								t.Errorf("%d threads give other bits", threads)
							}
						}
					})
				})
		}
	}
}

// TestAttentionLimits has windows shorter than a block of keys and longer ones, through the ancestors of segments and
// longer than any text, and capped scores.
func TestAttentionLimits(t *testing.T) {
	odd := samples(1, 17, 64, 150)
	two := tree([]int32{9, 20, 5, 1, 70, 33, 40, 3, 2, 90}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6, 6})
	for _, a := range []attentionCase{
		{3, 1, 10, odd, 1, 0, false}, {3, 1, 10, two, 1, 0, false}, {4, 2, 16, odd, 7, 0, false},
		{4, 2, 16, two, 7, 2, false}, {1, 1, 8, odd, 50, 0, false}, {2, 2, 16, two, 25, 0.5, false},
		{9, 3, 64, two, 31, 0, false},
		{1, 1, 7, samples(400), 100, 0, false}, {40, 1, 8, two, 20, 0, false}, {3, 1, 24, two, 1000, 50, false},
		{2, 1, 256, two, 33, 1, false}, {2, 1, 255, odd, 0, 0.1, false}, {1, 1, 256, samples(70), 0, 0, false},
		{4, 2, 16, odd, 0, 0, true}, {9, 3, 24, two, 0, 0, true}, {4, 1, 10, two, 7, 0, true},
		{3, 1, 64, odd, 50, 2, true}, {8, 2, 32, samples(1, 2, 400), 100, 0, true},
	} {
		t.Run(fmt.Sprintf("%d of %d on %d, %d segments, window %d, cap %g, sinks %v", a.heads, a.dim, a.kv,
			len(a.segments), a.window, a.cap, a.sinks), func(t *testing.T) {
			qkv, dout := normal(1, a.tokens()*a.width()), normal(2, a.tokens()*a.heads*a.dim)
			want, wantGrad := a.exact(qkv, dout)
			check := func(t *testing.T, out, grad []float32) {
				t.Helper()
				alike(t, "result", out, want)
				wants := a.parts(wantGrad)
				for what, got := range a.parts(grad) {
					if what == "values" || a.window != 1 {
						alike(t, what, got, wants[what])
					} else if slices.ContainsFunc(got, func(x float32) bool { return !(math.Abs(float64(x)) < 1e-6) }) {
						t.Errorf("%s: a gradient where one token is seen", what)
					}
				}
			}
			t.Run("composed", func(t *testing.T) {
				out, grad := a.on(t, openComposed(t), F32, qkv, dout)
				check(t, out, grad)
			})
			everyISA(t, func(t *testing.T) {
				out, grad := a.fused(t, 1, F32, qkv, dout)
				check(t, out, grad)
				more, moreGrad := a.fused(t, 2, F32, qkv, dout)
				if !slices.Equal(more, out) || !slices.Equal(moreGrad, grad) {
					t.Errorf("2 threads give other bits")
				}
			})
		})
	}
}

// TestAttentionWindowPoison has NaN for the first key and value of a text: what is a block of queries and a vector of
// keys behind their window does not touch them.
func TestAttentionWindowPoison(t *testing.T) {
	a := attentionCase{2, 1, 16, tree([]int32{100, 300}, []int32{-1, 0}), 40, 5, false}
	w, o, first := a.width(), a.heads*a.dim, a.window+64/a.heads+16
	everyISA(t, func(t *testing.T) {
		qkv, dout := normal(1, a.tokens()*w), normal(2, a.tokens()*o)
		clean, cleanGrad := a.fused(t, 1, F32, qkv, dout)
		for i := o; i < w; i++ {
			qkv[i] = float32(math.NaN())
		}
		out, grad := a.fused(t, 1, F32, qkv, dout)
		if finite(out[:w]) || finite(grad[:w]) || !slices.Equal(out[first*o:], clean[first*o:]) ||
			!slices.Equal(grad[2*first*w:], cleanGrad[2*first*w:]) {
			t.Error("NaN is lost, or leaks")
		}
	})
}

// TestAttentionExact holds the gradient that kernels are tested against to differences of the losses beside.
func TestAttentionExact(t *testing.T) {
	a := attentionCase{4, 2, 6, tree([]int32{4, 5, 3}, []int32{-1, 0, 0}), 5, 1.5, true}
	qkv, dout := normal(1, a.tokens()*a.width()), normal(2, a.tokens()*a.heads*a.dim)
	loss := func() (s float64) {
		out, _ := a.exact(qkv, dout)
		for i := range out {
			s += float64(out[i]) * float64(dout[i])
		}
		return s
	}
	_, grad := a.exact(qkv, dout)
	differences := make([]float32, len(qkv))
	for i, x := range qkv {
		const step = 1.0 / 128
		qkv[i] = x + step
		above, up := loss(), float64(qkv[i])
		qkv[i] = x - step
		differences[i] = float32((above - loss()) / (up - float64(qkv[i])))
		qkv[i] = x
	}
	if e := offBy(grad, differences); !(e <= 2e-4) {
		t.Errorf("off by %.1e", e)
	}
}

// TestAttentionLargeScores has scores of 6400 or −6400, whose exponentials are no numbers: all keys count the same.
func TestAttentionLargeScores(t *testing.T) {
	a := attentionCase{1, 1, 16, samples(70), 0, 0, false}
	for _, key := range []float32{40, -40} {
		qkv, dout := normal(1, a.tokens()*a.width()), normal(2, a.tokens()*a.dim)
		for i := range qkv {
			switch i % a.width() / a.dim {
			case 0:
				qkv[i] = 40
			case 1:
				qkv[i] = key
			}
		}
		want, _ := a.composed(t, qkv, dout)
		everyISA(t, func(t *testing.T) {
			out, grad := a.fused(t, 1, F32, qkv, dout)
			alike(t, "result", out, want)
			if !finite(grad) {
				t.Error("the gradient is not finite")
			}
		})
	}
}

// TestAttentionPoison puts a NaN or an infinity into one token: every token that doesn't see it and isn't seen by what
// does comes out as without it.
func TestAttentionPoison(t *testing.T) {
	a := attentionCase{4, 2, 24, tree([]int32{30, 9, 20, 25, 7}, []int32{-1, 0, 0, -1, 2}), 0, 0, false}
	w, o := a.width(), a.heads*a.dim
	everyISA(t, func(t *testing.T) {
		qkv, dout := normal(1, a.tokens()*w), normal(2, a.tokens()*o)
		clean, cleanGrad := a.fused(t, 2, F32, qkv, dout)
		for _, poison := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			for i, s := range a.segments {
				// the query, the key, the value
				for _, at := range []int{0, a.heads * a.dim, (a.heads + a.kv) * a.dim} {
					poisoned := slices.Clone(qkv)
					poisoned[(int(s[0])+2)*w+at] = poison
					out, grad := a.fused(t, 2, F32, poisoned, dout)
					last := int(s[0] + s[1] - 1)
					bad := last
					if at == 0 {
						bad = int(s[0]) + 2
					}
					if finite(out[bad*o:][:o]) && poison != poison {
						t.Errorf("NaN in segment %d number %d does not come out", i, at)
					}
					if finite(grad[bad*w:][:w]) {
						t.Errorf("%v in segment %d number %d does not come out in the gradient", poison, i, at)
					}
					for j, s := range a.segments {
						from, to := int(s[0]), int(s[0]+s[1])
						if !a.above(i, j) && !slices.Equal(out[from*o:to*o], clean[from*o:to*o]) {
							t.Errorf("%v in segment %d number %d leaks into segment %d", poison, i, at, j)
						}
						if !a.related(i, j) && !slices.Equal(grad[from*w:to*w], cleanGrad[from*w:to*w]) {
							t.Errorf("%v in segment %d number %d leaks into the gradient of segment %d",
								poison, i, at, j)
						}
					}
				}
			}
		}
	})
}

// above tells whether segment i is j or an ancestor of j.
func (a attentionCase) above(i, j int) bool {
	for p := int32(j); p >= 0; p = a.segments[p][2] {
		if int(p) == i {
			return true
		}
	}
	return false
}

// related tells whether some segment sees both i and j.
func (a attentionCase) related(i, j int) bool {
	for k := range a.segments {
		if a.above(i, k) && a.above(j, k) {
			return true
		}
	}
	return false
}

func finite(values []float32) bool {
	return !slices.ContainsFunc(values, func(v float32) bool { return v-v != 0 })
}

func TestAttentionRefuses(t *testing.T) {
	backend, err := NewCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	for name, build := range map[string]func(c *Context, f func(kind Type, ne ...int64) *Tensor) *Tensor{
		"heads that don't divide": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*7, 3), c.NewSegments(samples(3)), Heads{Query: 3, KV: 2, Dim: 8, Scale: 1}, F32)
		},
		"no heads": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*2, 3), c.NewSegments(samples(3)), Heads{Query: 0, KV: 1, Dim: 8, Scale: 1}, F32)
		},
		"another width": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*5, 3), c.NewSegments(samples(3)), Heads{Query: 4, KV: 2, Dim: 8, Scale: 1}, F32)
		},
		"float16": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F16, 8*4, 3), c.NewSegments(samples(3)), Heads{Query: 2, KV: 1, Dim: 8, Scale: 1}, F32)
		},
		"a result of float16": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*4, 3), c.NewSegments(samples(3)), Heads{Query: 2, KV: 1, Dim: 8, Scale: 1}, F16)
		},
		"a window below 0": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*4, 3), c.NewSegments(samples(3)), Heads{Query: 2, KV: 1, Dim: 8, Scale: 1,
				Window: -1}, F32)
		},
		"a cap below 0": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*4, 3), c.NewSegments(samples(3)), Heads{Query: 2, KV: 1, Dim: 8, Scale: 1,
				Cap: -1}, F32)
		},
		"sinks of other heads": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*4, 3), c.NewSegments(samples(3)), Heads{Query: 2, KV: 1, Dim: 8, Scale: 1,
				Sinks: f(F32, 3)}, F32)
		},
		"no segments": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.Attention(f(F32, 8*4, 3), nil, Heads{Query: 2, KV: 1, Dim: 8, Scale: 1}, F32)
		},
		"a gradient of other tokens": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.AttentionBack(f(F32, 8*2, 4), f(F32, 8*4, 3), c.NewSegments(samples(3)),
				Heads{Query: 2, KV: 1, Dim: 8, Scale: 1})
		},
		"a gradient of another width": func(c *Context, f func(Type, ...int64) *Tensor) *Tensor {
			return c.AttentionBack(f(F32, 8*4, 3), f(F32, 8*4, 3), c.NewSegments(samples(3)),
				Heads{Query: 2, KV: 1, Dim: 8, Scale: 1})
		},
	} {
		c := backend.NewContext()
		if build(c, c.NewTensor) != nil || c.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		c.Close()
	}
}

// leaf makes a matrix of that type with memory of its own.
func leaf(b *testing.B, c *Context, be *Backend, t Type, values []float32, ne ...int64) *Tensor {
	x := c.NewTensor(t, ne...)
	buf, err := be.NewBuffer(x.Bytes() + 256)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := buf.Place(x); err != nil {
		b.Fatal(err)
	}
	q, err := Quantize(t, values, ne[0])
	if err != nil {
		b.Fatal(err)
	}
	copy(x.raw(), q)
	return x
}

func BenchmarkAttention(b *testing.B) {
	lengths := []int{40, 63, 81, 95, 110, 124, 137, 150, 171, 190, 215, 240, 283, 330, 402, 500}
	backend, err := NewCPU(2)
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	shared := tree([]int32{40, 60, 80, 100, 120, 60, 80, 100, 120}, []int32{-1, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, a := range []attentionCase{
		{9, 3, 64, samples(lengths...), 0, 0, false}, {32, 32, 128, samples(lengths...), 0, 0, false},
		{9, 3, 64, samples(100), 0, 0, false}, {9, 3, 64, samples(2000), 0, 0, false}, {9, 3, 64, shared, 0, 0, false},
		{4, 1, 256, samples(4000), 0, 0, false}, {4, 1, 256, samples(4000), 512, 0, false},
		{8, 4, 256, samples(lengths...), 0, 0, false}, {8, 4, 256, samples(lengths...), 0, 50, false},
	} {
		for _, op := range []string{"forward", "back"} {
			b.Run(fmt.Sprintf("%s/%d of %d on %d/%d segments/%d tokens/window %d/cap %g", op, a.heads, a.dim, a.kv,
				len(a.segments), a.tokens(), a.window, a.cap), func(b *testing.B) {
				a.benchmark(b, backend, op == "back")
			})
		}
	}
}

func (a attentionCase) benchmark(b *testing.B, backend *Backend, back bool) {
	c := backend.NewContext()
	defer c.Close()
	n, scores, operations := int64(a.tokens()), 0, 4
	qkv := leaf(b, c, backend, F32, normal(1, a.tokens()*a.width()), int64(a.width()), n)
	dout := leaf(b, c, backend, F32, normal(2, a.tokens()*a.heads*a.dim), int64(a.heads*a.dim), n)
	segments := c.NewSegments(a.segments)
	for _, s := range a.segments {
		for i := range s[1] {
			seen := int(s[3] + i + 1)
			if a.window > 0 {
				seen = min(seen, a.window)
			}
			scores += seen * a.heads
		}
	}
	y := c.Attention(qkv, segments, a.of(), F32)
	if back {
		y, operations = c.AttentionBack(dout, qkv, segments, a.of()), 10
	}
	graph, alloc := c.NewGraph(), backend.NewAllocator()
	defer alloc.Close()
	graph.Expand(y)
	if err := alloc.Allocate(graph); err != nil {
		b.Fatal(err, c.Err())
	}
	if err := segments.Set(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if err := backend.Compute(graph); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(operations*a.dim*scores)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
