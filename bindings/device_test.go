package bindings

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestMain lets the tests find what `make vulkan` built. ggml takes a processor that computes Vulkan itself only where
// it is named.
func TestMain(m *testing.M) {
	folder, err := filepath.Abs("../bin")
	if err != nil {
		panic(err)
	}
	os.Setenv(LibraryPath, cmp.Or(os.Getenv(LibraryPath), folder))
	os.Setenv("GGML_VK_VISIBLE_DEVICES", cmp.Or(os.Getenv("GGML_VK_VISIBLE_DEVICES"), "0"))
	os.Exit(m.Run())
}

// openDevice opens the device that VERATUNE_TEST_DEVICE names, and skips the test where it names none.
func openDevice(t testing.TB) *Backend {
	t.Helper()
	name := os.Getenv("VERATUNE_TEST_DEVICE")
	if name == "" {
		t.Skip("VERATUNE_TEST_DEVICE, such as cuda0, names the device to test; make test-vulkan and test-cuda set it")
	}
	return openNamed(t, name)
}

func openNamed(t testing.TB, name string) *Backend {
	t.Helper()
	d, err := FindDevice(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// TestDevice holds what a device computes to the CPU's composed form, in float32.
func TestDevice(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes where a processor computes Vulkan")
	}
	device, cpu := openDevice(t), openComposed(t)
	same := func(what string, got, want []float32) {
		t.Helper()
		// Both sides sum in float32, in different orders, and a device's exponential and roots are its own.
		if e := offBy(got, want); !(e <= 2e-5) {
			t.Errorf("%s: off by %.1e", what, e)
		}
	}
	operations := map[string]func(b *bench) []*Tensor{"rows": everyRow}
	for _, kind := range []Type{F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K} {
		operations[kind.String()], operations[kind.String()+", few columns"] = everyProduct(t, kind, 13),
			everyProduct(t, kind, 3)
	}
	for name, build := range operations {
		want := computeAll(t, cpu, build)
		for i, got := range computeAll(t, device, build) {
			same(fmt.Sprintf("%s, operation %d", name, i), got, want[i])
		}
	}
	for _, a := range []attentionCase{
		{3, 1, 10, samples(5, 300, 70), 0, 0, false},
		{4, 2, 16, tree([]int32{9, 20, 5, 1, 70, 33, 200, 40, 3}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6}), 0, 0, false},
		{4, 2, 16, tree([]int32{9, 20, 5, 1, 70, 33, 200, 40, 3}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6}), 45, 2, false},
		{2, 1, 256, samples(100), 30, 0, false},
	} {
		qkv, dout := normal(1, a.tokens()*a.width()), normal(2, a.tokens()*a.heads*a.dim)
		want, wantGrad := a.on(t, cpu, F32, qkv, dout)
		out, grad := a.on(t, device, F32, qkv, dout)
		same("attention", out, want)
		same("attention's gradient", grad, wantGrad)
	}
}

// TestDeviceHalves holds what a device with kernels of its own computes in bfloat16 to float32.
func TestDeviceHalves(t *testing.T) {
	device, cpu := openDevice(t), openCPU(t, 1)
	if !device.Fused {
		t.Skip("this device computes in float32 alone")
	}
	const k, m, n, rank, heads, kvHeads, dim = 512, 96, 70, 64, 4, 2, 32
	rounded := func(b *bench, seed uint64, ne ...int64) *Tensor {
		size := int64(1)
		for _, n := range ne {
			size *= n
		}
		return b.Convert(b.f(normal(seed, int(size)), ne...), BF16)
	}
	for _, kind := range []Type{F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K} {
		data := numbersOf(t, matrix{"w", kind, k, m}, 1).data
		build := func(b *bench) []*Tensor {
			w, x, g, small := b.raw(data, kind, k, m), rounded(b, 2, k, n), rounded(b, 3, m, n), rounded(b, 4, rank, n)
			v := Vectors{A: b.f(normal(5, k*rank), k, rank), B: b.f(normal(6, rank*m), rank, m),
				LambdaB: b.f(normal(7, m), m), LambdaD: b.f(normal(8, rank), rank)}
			both, labels := rounded(b, 9, 2*m, n), make([]int32, n)
			results := []*Tensor{
				b.Linear(w, x, Product{}, F32), b.Convert(b.Linear(w, x, Product{}, BF16), F32),
				b.Linear(v.B, small, Product{In: v.LambdaD, Out: v.LambdaB, Acc: b.f(normal(12, m*n), m, n)}, F32),
				b.LinearBack(w, g, Product{}, F32), b.LinearBack(v.B, g, Product{In: v.LambdaB, Out: v.LambdaD}, F32),
				b.WeightGradient(g, x, F32, Plain),
				b.Convert(b.Merge(b.Convert(b.f(normal(13, k*m), k, m), BF16), w, &v, Plain),
					F32),
				b.MergedGradient(b.WeightGradient(g, x, BF16, Plain), v, Plain), b.FactoredGradient(g, small, v, Plain),
				b.GatedBack(g, both, SiLU, F32), b.Convert(b.Gated(both, SiLU, BF16), F32),
				b.Convert(b.CrossEntropyBack(b.f(normal(14, m*n), m, n), b.i(labels, n), 0, BF16), F32),
			}
			s := b.segments([][4]int32{{0, 40, -1, 0}, {40, 30, 0, 40}})
			qkv := rounded(b, 15, dim*(heads+2*kvHeads), n)
			h := Heads{Query: heads, KV: kvHeads, Dim: dim, Scale: 0.2}
			return append(results, b.Convert(b.Attention(qkv, s, h, BF16), F32),
				b.AttentionBack(rounded(b, 16, dim*heads, n), qkv, s, h))
		}
		want := computeAll(t, cpu, build)
		for i, got := range computeAll(t, device, build) {
			// Matrices and results are rounded to 8 bits.
			if e := offBy(got, want[i]); !(e <= 8e-3) {
				t.Errorf("%v, operation %d: off by %.1e", kind, i, e)
			}
		}
	}
}
