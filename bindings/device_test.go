package bindings

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the tests find what `make vulkan` built. ggml takes a processor that computes Vulkan itself only where it is named.
func TestMain(m *testing.M) {
	folder, err := filepath.Abs("../bin")
	if err != nil {
		panic(err)
	}
	os.Setenv(LibraryPath, cmp.Or(os.Getenv(LibraryPath), folder))
	os.Setenv("GGML_VK_VISIBLE_DEVICES", cmp.Or(os.Getenv("GGML_VK_VISIBLE_DEVICES"), "0"))
	os.Exit(m.Run())
}

// openDevice opens a device that is not the CPU, and skips the test where there is none.
func openDevice(t testing.TB) *Backend {
	t.Helper()
	if os.Getenv("VERATUNE_TEST_VULKAN") == "" {
		t.Skip("takes minutes where a processor computes Vulkan: make test-vulkan runs it")
	}
	list, failed := Devices()
	for _, d := range list {
		if strings.HasPrefix(d.Name, "vulkan") {
			b, err := d.Open(1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(b.Close)
			return b
		}
	}
	t.Skipf("no Vulkan device (%v): `make vulkan` builds the backend, and Debian's mesa-vulkan-drivers compute it on the CPU", failed)
	return nil
}

// TestDevice holds what a device computes to the CPU's, each operation in its composed form.
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
		operations[kind.String()] = everyProduct(t, kind)
	}
	for name, build := range operations {
		want := computeAll(t, cpu, build)
		for i, got := range computeAll(t, device, build) {
			same(fmt.Sprintf("%s, operation %d", name, i), got, want[i])
		}
	}
	for _, a := range []attentionCase{
		{3, 1, 10, samples(5, 300, 70)}, {4, 2, 16, tree([]int32{9, 20, 5, 1, 70, 33, 200, 40, 3}, []int32{-1, 0, 1, 1, 0, -1, -1, 6, 6})},
	} {
		qkv, dout := normal(1, a.tokens()*a.width()), normal(2, a.tokens()*a.heads*a.dim)
		want, wantGrad := a.on(t, cpu, F32, qkv, dout)
		out, grad := a.on(t, device, F32, qkv, dout)
		same("attention", out, want)
		same("attention's gradient", grad, wantGrad)
	}
}
