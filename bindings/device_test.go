package bindings

import (
	"cmp"
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

func TestDevice(t *testing.T) {
	b := openDevice(t)
	t.Logf("%+v", b.Device())
	x := normal(1, 100)
	got := computeAll(t, b, func(b *bench) []*Tensor { return []*Tensor{b.Add(b.f(x, 100), b.f(x, 100))} })[0]
	for i := range x {
		if got[i] != 2*x[i] {
			t.Fatalf("%g doubled is %g", x[i], got[i])
		}
	}
}
