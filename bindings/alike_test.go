package bindings

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// onBackend computes operations on two threads.
func onBackend(t *testing.T, build func(b *bench) []*Tensor) [][]float32 {
	t.Helper()
	return computeAll(t, openCPU(t, 2), build)
}

// TestAlike: of a product that is asked for alike results, each token's are the same bits alone as among others, and
// those of the plain product but for rounding. Where activations are rounded to bytes, that is the plain product of the
// rounded ones.
func TestAlike(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		for kind := range typeCount {
			if !kind.Dequantizes() {
				continue
			}
			block := int(kind.BlockSize())
			k, m := max(block*3, 320/block*block), 67
			if block == 1 {
				k = 321 // no whole number of vectors
			}
			const n = 19
			w := numbersOf(t, matrix{"w", kind, k, m}, 1)
			x, in, out, acc := normal(2, k*n), normal(3, k), normal(4, m), normal(5, m*n)
			x[2*k+5] *= 100 // leaves the rest of its block little
			clear(x[3*k : 3*k+40])
			product := func(way Way, in, x []float32, first, count int) []float32 {
				return onBackend(t, func(b *bench) []*Tensor {
					weight := b.NewTensor(kind, int64(k), int64(m)).Input()
					b.graph.Expand(weight)
					b.inputs = append(b.inputs, func() error { copy(weight.raw(), w.data); return nil })
					p := Product{Out: b.f(out, int64(m)), Acc: b.f(acc[first*m:(first+count)*m], int64(m),
						int64(count)), Way: way}
					if in != nil {
						p.In = b.f(in, int64(k))
					}
					return []*Tensor{b.Linear(weight, b.f(x[first*k:(first+count)*k], int64(k), int64(count)), p, F32)}
				})[0]
			}
			rounded := product(Plain, in, x, 0, n)
			if inBytes(kind) {
				rounded = product(Plain, nil, bytesOfRows(x, in), 0, n)
			}
			for way, want := range map[Way][]float32{Alike: product(Plain, in, x, 0, n), Bytes: rounded} {
				all := product(way, in, x, 0, n)
				if e := offBy(all, want); !(e <= 2e-6) {
					t.Errorf("%v: off by %.1e from the plain product in way %d", kind, e, way)
				}
				parts := [][2]int{{7, 1}, {1, 5}, {0, 1}, {18, 1}, {3, 2}, {0, 18}}
				if testing.Short() {
					parts = parts[:2]
				}
				for _, part := range parts {
					got := product(way, in, x, part[0], part[1])
					if !slices.Equal(got, all[part[0]*m:(part[0]+part[1])*m]) {
						t.Errorf("%v: tokens %v have other bits alone than among all in way %d", kind, part, way)
					}
				}
			}
		}
	})
}

// inBytes tells whether products with a type take activations as bytes.
func inBytes(kind Type) bool {
	return slices.Contains([]Type{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K}, kind)
}

// bytesOfRows are rows of x times in, rounded to 8 bits in blocks of 32.
func bytesOfRows(x, in []float32) []float32 {
	y := make([]float32, len(x))
	for i := range x {
		y[i] = x[i] * in[i%len(in)]
	}
	for block := range slices.Chunk(y, 32) {
		most := float32(0)
		for _, v := range block {
			most = max(most, v, -v)
		}
		if most == 0 {
			continue
		}
		for i, v := range block {
			block[i] = float32(math.RoundToEven(float64(v*(127/most)))) * (most / 127)
		}
	}
	return y
}

// TestInterleaved: a product with an interleaved matrix is that with the matrix as it was, to the bit.
func TestInterleaved(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		const k, rows, in, out = 96, 48, 64, 37 // of which a part is used
		w := numbersOf(t, matrix{"w", Q8_0, k, rows}, 1)
		for _, n := range []int{1, 2, 5, 8} {
			x := normal(2, in*n)
			product := func(way Way) []float32 {
				return onBackend(t, func(b *bench) []*Tensor {
					weight := b.NewTensor(Q8_0, k, rows).Input()
					b.graph.Expand(weight)
					b.inputs = append(b.inputs, func() error {
						copy(weight.raw(), w.data)
						if way == Interleaved {
							return weight.Interleave()
						}
						return nil
					})
					part := b.View(weight, [4]int64{in, out, 1, 1}, [4]int64{})
					return []*Tensor{b.Linear(part, b.f(x, in, int64(n)), Product{Way: way}, F32)}
				})[0]
			}
			if got, want := product(Interleaved), product(Bytes); !slices.Equal(got, want) {
				t.Errorf("%d tokens: off by %.1e", n, offBy(got, want))
			}
		}
	})
}

// TestSharedRows: what AddFactored adds to layers that share B is for each what Linear gives alone, to the bit.
func TestSharedRows(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		const in, out, layers = 64, 37, 3
		for _, n := range []int{1, 2, 7} {
			x, numbers, acc := normal(2, in*n), normal(3, layers*(in+out)), normal(4, out*layers*n)
			results := onBackend(t, func(raw *bench) []*Tensor {
				b := answering{raw, t}
				part := b.matrix(Q8_0, Interleaved, in, out, 1)
				vectors, rows := b.f(numbers, int64(len(numbers))), b.f(x, in, int64(n))
				together, more := b.f(acc, out*layers, int64(n)), b.f(acc, out*layers, int64(n))
				alone := b.NewTensor(F32, out*layers, int64(n))
				var list []Factored
				for l := range int64(layers) {
					list = append(list, Factored{B: part, Offset: l * (in + out), Column: l * out})
					view := func(first, width int64) *Tensor {
						return b.View(vectors, [4]int64{width, 1, 1, 1}, [4]int64{l*(in+out) + first})
					}
					place := func(x *Tensor) *Tensor {
						return b.View(x, [4]int64{out, int64(n), 1, 1}, [4]int64{l * out})
					}
					b.graph.Expand(b.Linear(part, rows, Product{In: view(out, in), Out: view(0, out), Acc: place(more),
						Into: place(alone), Way: Interleaved}, F32))
				}
				b.graph.Expand(b.AddFactored(list, together, rows, vectors, nil, Interleaved)...)
				return []*Tensor{together, alone}
			})
			if !slices.Equal(results[0], results[1]) {
				t.Errorf("%d tokens: off by %.1e", n, offBy(results[0], results[1]))
			}
		}
	})
}

// TestBytesPoison: what is not finite in an activation makes all of its token's results NaN, and no other's.
func TestBytesPoison(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		const k, m, n = 64, 20, 6
		w := numbersOf(t, matrix{"w", Q4_1, k, m}, 1)
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			x := normal(2, k*n)
			x[2*k+40] = float32(bad)
			got := onBackend(t, func(b *bench) []*Tensor {
				weight := b.NewTensor(Q4_1, k, m).Input()
				b.graph.Expand(weight)
				b.inputs = append(b.inputs, func() error { copy(weight.raw(), w.data); return nil })
				return []*Tensor{b.Linear(weight, b.f(x, k, n), Product{Way: Bytes}, F32)}
			})[0]
			for i, v := range got {
				if nan := v != v; nan != (i/m == 2) {
					t.Fatalf("%v: token %d is %v", bad, i/m, v)
				}
			}
		}
	})
}

func TestInterleaveRefuses(t *testing.T) {
	b := &bench{Context: NewContext(16)}
	defer b.Close()
	for name, x := range map[string]*Tensor{
		"type": b.NewTensor(F32, 32, 16), "rows": b.NewTensor(Q8_0, 32, 15), "memory": b.NewTensor(Q8_0, 32, 16),
	} {
		if x.Interleave() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// offBy is the norm of the difference beside that of want.
func offBy(got, want []float32) float64 {
	d, n := 0.0, 0.0
	for i := range want {
		d += math.Pow(float64(got[i])-float64(want[i]), 2)
		n += math.Pow(float64(want[i]), 2)
	}
	return math.Sqrt(d / n)
}

// TestAttentionCached lets texts grow in pieces and holds the result to Attention of the whole texts, and its bits to
// those of one piece. What lies in the cache beyond a text, and in other texts, is NaN.
func TestAttentionCached(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		for i, a := range []attentionCase{
			{heads: 9, kv: 3, dim: 64}, {heads: 4, kv: 4, dim: 20}, {heads: 32, kv: 1, dim: 8},
			{heads: 2, kv: 1, dim: 130}, {heads: 4, kv: 2, dim: 256, cap: 1},
			{heads: 4, kv: 2, dim: 64, window: 1}, {heads: 4, kv: 2, dim: 10, window: 7, cap: 3},
			{heads: 9, kv: 3, dim: 16, window: 50}, {heads: 2, kv: 2, dim: 8, window: 1000},
			{heads: 4, kv: 2, dim: 16, window: 50, sinks: true}, {heads: 9, kv: 3, dim: 20, sinks: true},
			{heads: 5, kv: 1, dim: 7}, {heads: 2, kv: 1, dim: 12, window: 300, sinks: true},
		} {
			const text, texts = 1, 3
			n, room := 150, 160
			if a.window == 300 {
				n, room = 600, 608 // more keys than CUDA's kernel has in a part
			}
			w, size := a.width(), cacheHead(a.dim)*room
			qkv := normal(7, n*w)
			want := onBackend(t, func(b *bench) []*Tensor {
				return []*Tensor{b.Attention(b.f(qkv, int64(w), int64(n)), b.segments(samples(n)), a.in(b), F32)}
			})[0]
			kind, tolerance := F32, 1e-6
			if i%2 == 1 {
				kind, tolerance = F16, 5e-4
			}
			grown := func(pieces ...int) (out []float32) {
				nan := slices.Repeat([]float32{float32(math.NaN())}, size*texts*a.kv)
				keys, values := nan, nan
				at := 0
				for _, count := range pieces {
					parts := onBackend(t, func(b *bench) []*Tensor {
						cache := func(held []float32) *Tensor {
							return b.Cpy(b.f(held, int64(size), int64(texts*a.kv)),
								b.NewTensor(kind, int64(size), int64(texts*a.kv)))
						}
						k, v := cache(keys), cache(values)
						var rows []int32
						for i := range count {
							rows = append(rows, text, int32(at+i))
						}
						y := b.AttentionCached(b.f(qkv[at*w:(at+count)*w], int64(w), int64(count)), k, v,
							b.places(rows, room), a.in(b), F32)
						all := b.i([]int32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}[:texts*a.kv], int64(texts*a.kv))
						b.graph.Expand(y)
						return []*Tensor{y, b.GetRows(k, all), b.GetRows(v, all)}
					})
					out, keys, values = append(out, parts[0]...), parts[1], parts[2]
					at += count
				}
				return out
			}
			name := fmt.Sprintf("%v in %v", a.of(), kind)
			whole := grown(n)
			if e := offBy(whole, want); !(e <= tolerance) {
				t.Errorf("%s: off by %.1e from attention", name, e)
			}
			for _, pieces := range [][]int{{n - 1, 1}, {1, 1, 1, n - 3}, {16, 17, 64, 50, n - 147}} {
				if got := grown(pieces...); !slices.Equal(got, whole) {
					t.Errorf("%s: pieces %v give other bits", name, pieces)
				}
			}
		}
	})
}

// TestAttentionCachedComposed lets three texts grow together, by as many rows each or not, and holds the composed form
// to Attention of the whole texts. What lies in the cache beyond a text is NaN.
func TestAttentionCachedComposed(t *testing.T) {
	backend := openComposed(t)
	for _, a := range []attentionCase{
		{heads: 9, kv: 3, dim: 64}, {heads: 4, kv: 4, dim: 20}, {heads: 8, kv: 1, dim: 8},
		{heads: 4, kv: 2, dim: 64, window: 1}, {heads: 4, kv: 2, dim: 10, window: 7, cap: 3},
		{heads: 4, kv: 2, dim: 16, window: 50, sinks: true},
	} {
		const room, texts = 176, 3
		lengths := []int{150, 70, 130}
		w, size := a.width(), a.kv*a.dim
		qkv := make([][]float32, texts)
		var want, got [texts][]float32
		for text, n := range lengths {
			qkv[text] = normal(uint64(text), n*w)
			want[text] = onBackend(t, func(b *bench) []*Tensor {
				x := b.f(qkv[text], int64(w), int64(n))
				return []*Tensor{b.Attention(x, b.segments(samples(n)), a.in(b), F32)}
			})[0]
		}
		keys := slices.Repeat([]float32{float32(math.NaN())}, size*room*texts)
		values := slices.Clone(keys)
		var at [texts]int
		for _, counts := range [][texts]int{{60, 60, 60}, {1, 1, 1}, {5, 5, 0}, {80, 1, 60}, {4, 3, 9}} {
			var rows []int32
			var x []float32
			for text, count := range counts {
				for i := range count {
					rows = append(rows, int32(text), int32(at[text]+i))
				}
				x = append(x, qkv[text][at[text]*w:(at[text]+count)*w]...)
			}
			out := computeAll(t, backend, func(b *bench) []*Tensor {
				k, v := b.f(keys, int64(size), room*texts), b.f(values, int64(size), room*texts)
				y := b.AttentionCached(b.f(x, int64(w), int64(len(rows)/2)), k, v, b.places(rows, room), a.in(b), F32)
				b.graph.Expand(y)
				return []*Tensor{y, b.Cont(k), b.Cont(v)}
			})
			keys, values = out[1], out[2]
			for text, count := range counts {
				n := count * a.heads * a.dim
				got[text], out[0] = append(got[text], out[0][:n]...), out[0][n:]
				at[text] += count
			}
		}
		for text := range texts {
			if e := offBy(got[text], want[text]); !(e <= 2e-6) {
				t.Errorf("%v: text %d off by %.1e", a.of(), text, e)
			}
		}
	}
}

func TestAttentionCachedRefuses(t *testing.T) {
	backend := openCPU(t, 1)
	for name, shape := range map[string][5]int64{ // of qkv's width, the cache's width and columns, rows and room
		"width":      {65, 16 * 16, 2, 2, 16},
		"room":       {64, 16 * 17, 2, 2, 17},
		"other room": {64, 16 * 16, 2, 2, 32},
		"columns":    {64, 16 * 16, 3, 2, 16},
		"rows":       {64, 16 * 16, 2, 3, 16},
	} {
		c := backend.NewContext()
		k, v := c.NewTensor(F32, shape[1], shape[2]), c.NewTensor(F32, shape[1], shape[2])
		if c.AttentionCached(c.NewTensor(F32, shape[0], 2), k, v, c.NewPlaces(make([]int32, 2*shape[3]), int(shape[4])),
			Heads{Query: 4, KV: 2, Dim: 8, Scale: 1}, F32) != nil || c.Err() == nil {
			t.Errorf("%s: taken", name)
		}
		c.Close()
	}
}
