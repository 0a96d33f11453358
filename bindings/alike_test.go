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

// TestAlike: of a product that is asked for alike results, each token's are the same bits alone as among others, and those of the plain product but for rounding.
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
			product := func(alike bool, first, count int) []float32 {
				return onBackend(t, func(b *bench) []*Tensor {
					weight := b.NewTensor(kind, int64(k), int64(m)).Input()
					b.graph.Expand(weight)
					b.inputs = append(b.inputs, func() error { copy(weight.raw(), w.data); return nil })
					p := Product{In: b.f(in, int64(k)), Out: b.f(out, int64(m)), Acc: b.f(acc[first*m:(first+count)*m], int64(m), int64(count)), Alike: alike}
					return []*Tensor{b.Linear(weight, b.f(x[first*k:(first+count)*k], int64(k), int64(count)), p, F32)}
				})[0]
			}
			plain, all := product(false, 0, n), product(true, 0, n)
			if e := offBy(all, plain); !(e <= 2e-6) {
				t.Errorf("%v: off by %.1e from the plain product", kind, e)
			}
			for _, part := range [][2]int{{0, 1}, {7, 1}, {18, 1}, {3, 2}, {1, 5}, {0, 18}} {
				got := product(true, part[0], part[1])
				if !slices.Equal(got, all[part[0]*m:(part[0]+part[1])*m]) {
					t.Errorf("%v: tokens %v have other bits alone than among all", kind, part)
				}
			}
		}
	})
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

// TestAttentionCached lets texts grow in pieces and holds the result to Attention of the whole texts, and its bits to those of one piece. What lies in the cache
// beyond a text, and in other texts, is NaN.
func TestAttentionCached(t *testing.T) {
	everyISA(t, func(t *testing.T) {
		for _, a := range []attentionCase{{heads: 9, kv: 3, dim: 64}, {heads: 4, kv: 4, dim: 20}, {heads: 32, kv: 1, dim: 8}, {heads: 2, kv: 1, dim: 130}} {
			const n, room, text, texts = 150, 160, 1, 3
			w, size := a.width(), CacheHead(a.dim)*room
			qkv := normal(7, n*w)
			want := onBackend(t, func(b *bench) []*Tensor {
				return []*Tensor{b.Attention(b.f(qkv, int64(w), n), b.segments(samples(n)), a.heads, a.kv, a.dim, a.scale(), F32)}
			})[0]
			grown := func(pieces ...int) (out []float32) {
				nan := slices.Repeat([]float32{float32(math.NaN())}, size*texts*a.kv)
				keys, values := nan, nan
				at := 0
				for _, count := range pieces {
					parts := onBackend(t, func(b *bench) []*Tensor {
						k, v := b.f(keys, int64(size), int64(texts*a.kv)), b.f(values, int64(size), int64(texts*a.kv))
						var rows []int32
						for i := range count {
							rows = append(rows, text, int32(at+i))
						}
						y := b.AttentionCached(b.f(qkv[at*w:(at+count)*w], int64(w), int64(count)), k, v, b.i(rows, 2, int64(count)), a.heads, a.kv, a.dim, a.scale(), F32)
						return []*Tensor{y, k, v}
					})
					out, keys, values = append(out, parts[0]...), parts[1], parts[2]
					at += count
				}
				return out
			}
			name := fmt.Sprintf("%d heads, %d KV heads of %d", a.heads, a.kv, a.dim)
			whole := grown(n)
			if e := offBy(whole, want); !(e <= 1e-6) {
				t.Errorf("%s: off by %.1e from attention", name, e)
			}
			for _, pieces := range [][]int{{149, 1}, {1, 1, 1, 147}, {16, 17, 64, 50, 3}} {
				if got := grown(pieces...); !slices.Equal(got, whole) {
					t.Errorf("%s: pieces %v give other bits", name, pieces)
				}
			}
		}
	})
}

func TestAttentionCachedRefuses(t *testing.T) {
	backend := openCPU(t, 1)
	for name, shape := range map[string][4]int64{ // of qkv's width, the cache's width and columns, and rows
		"width":   {65, 16 * 16, 2, 2},
		"room":    {64, 16 * 17, 2, 2},
		"columns": {64, 16 * 16, 3, 2},
		"rows":    {64, 16 * 16, 2, 3},
	} {
		c := backend.NewContext(16, 4)
		k, v := c.NewTensor(F32, shape[1], shape[2]), c.NewTensor(F32, shape[1], shape[2])
		if c.AttentionCached(c.NewTensor(F32, shape[0], 2), k, v, c.NewTensor(I32, 2, shape[3]), 4, 2, 8, 1, F32) != nil || c.Err() == nil {
			t.Errorf("%s: taken", name)
		}
		c.Close()
	}
}
