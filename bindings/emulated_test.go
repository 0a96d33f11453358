//go:build emulate

package bindings

import (
	"fmt"
	"slices"
	"testing"

	_ "github.com/veratune/veratune/ggml/cuda"
)

// TestEmulatedWays holds products for answers, as a device makes them of few rows and of many, to plain ones: Alike is
// as exact, Bytes rounds to 8 bits, or to bfloat16.
func TestEmulatedWays(t *testing.T) {
	t.Setenv("VERATUNE_EMULATE_WAYS", "1")
	defer useISA("")
	const k, m = 256, 67
	for _, kind := range []Type{F32, BF16, Q4_0, Q8_0, Q4_K, Q6_K} {
		w := numbersOf(t, matrix{"w", kind, k, m}, 1)
		for _, n := range []int{1, 3, 4, 8, 9, 40} {
			for _, scaled := range []bool{false, true} {
				for _, added := range []bool{false, true} {
					x, in, out, acc := normal(2, k*n), normal(3, k), normal(4, m), normal(5, m*n)
					product := func(isa string, way Way) []float32 {
						useISA(isa)
						return onBackend(t, func(b *bench) []*Tensor {
							weight := b.NewTensor(kind, k, m).Input()
							b.graph.Expand(weight)
							b.inputs = append(b.inputs, func() error { copy(weight.raw(), w.data); return nil })
							p := Product{Way: way}
							if scaled {
								p.In, p.Out = b.f(in, k), b.f(out, m)
							}
							if added {
								p.Acc = b.f(acc, m, int64(n))
							}
							return []*Tensor{b.Linear(weight, b.f(x, k, int64(n)), p, F32)}
						})[0]
					}
					want := product("portable", Plain)
					for way, tolerance := range map[Way]float64{Alike: 2e-6, Bytes: 2e-2} {
						name := fmt.Sprintf("%v, %d rows, scaled %v, added %v, way %d", kind, n, scaled, added, way)
						got := product("emulated", way)
						if e := offBy(got, want); !(e <= tolerance) {
							t.Errorf("%s: off by %.1e", name, e)
						}
						if way == Bytes && inBytes(kind) && slices.Equal(got, want) {
							t.Errorf("%s: nothing is rounded", name)
						}
					}
				}
			}
		}
	}
}
