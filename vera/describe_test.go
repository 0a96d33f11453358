package vera

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// TestDescribe holds Describe to what Summarize says, in all formats.
func TestDescribe(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	for name, path := range map[string]string{"native": save(t, a), "PEFT": savePEFT(t, a, true),
		"PEFT's own": withoutOwn(t, savePEFT(t, a, false)), "LoRA": loraFile(t, func(*bindings.GGUFWriter) {})} {
		want, err := Summarize(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Describe(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		slices.Sort(want.Targets)
		slices.Sort(got.Targets)
		if got.Method != want.Method || got.Rank != want.Rank || got.Base != want.Base ||
			!reflect.DeepEqual(got.Targets, want.Targets) || !reflect.DeepEqual(got.Facts, want.Facts) {
			t.Errorf("%s: %+v\nwant %+v", name, got, want)
		}
	}
	broken := filepath.Join(t.TempDir(), "broken.gguf")
	if err := os.WriteFile(broken, []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{broken, t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if s, err := Describe(path); err == nil {
			t.Errorf("%s: %+v", path, s)
		}
	}
}
