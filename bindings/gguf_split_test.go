package bindings_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// TestSplitGGUF opens the parts of a file by each of their names, finds in them what the whole has, and puts them
// together again.
func TestSplitGGUF(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{OwnHead: true, Type: bindings.Q4_0})
	whole := testutil.OpenGGUF(t, path)
	for _, c := range []struct {
		tensors int
		empty   bool
	}{{8, false}, {1, false}, {20, true}, {100, true}} {
		paths := testutil.Split(t, path, c.tensors, c.empty)
		for _, named := range []string{paths[0], paths[len(paths)/2], paths[len(paths)-1]} {
			g := testutil.OpenGGUF(t, named)
			if g.Path() != named || !slices.Equal(g.Paths(), paths) || g.Size() < whole.Size() {
				t.Errorf("%s: %s of %v, %d bytes", named, g.Path(), g.Paths(), g.Size())
			}
			if name, _ := g.String("general.name"); name != "tiny random Llama" {
				t.Errorf("%s: general.name is %q", named, name)
			}
			for i, want := range whole.Tensors() {
				got := g.Tensors()[i]
				if found, ok := g.Tensor(want.Name); !ok || got.Name != found.Name || got.Name != want.Name ||
					got.Type != want.Type || !slices.Equal(got.Shape, want.Shape) ||
					!bytes.Equal(g.Data(got), whole.Data(want)) {
					t.Errorf("%s: tensor %d is %v, want %v, or has other data", named, i, got, want)
				}
			}
			w, err := g.Copy()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			again := filepath.Join(t.TempDir(), "again.gguf")
			if err := w.WriteFile(again); err != nil {
				t.Fatal(err)
			}
			sameData(t, testutil.OpenGGUF(t, again), whole)
		}
		if list, ok := testutil.OpenGGUF(t, paths[len(paths)-1]).Texts("tokenizer.ggml.tokens"); !ok ||
			len(list) != 300 {
			t.Errorf("%d tokens", len(list))
		}
	}
}

// sameData holds a file in one piece to another with the same metadata and tensors, in whatever order the metadata are.
func sameData(t *testing.T, got, want *bindings.GGUF) {
	t.Helper()
	if a, b := slices.Sorted(slices.Values(got.Keys())),
		slices.Sorted(slices.Values(want.Keys())); !slices.Equal(a, b) {
		t.Errorf("keys %v, want %v", a, b)
	}
	for i, x := range want.Tensors() {
		if y := got.Tensors()[i]; x.Name != y.Name || !bytes.Equal(want.Data(x), got.Data(y)) {
			t.Errorf("tensor %s is %s, or has other data", x.Name, y.Name)
		}
	}
}

// TestBrokenSplit breaks one of four parts, and wants an error that names it, whichever part is opened.
func TestBrokenSplit(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	whole := testutil.OpenGGUF(t, path)
	tensors := whole.Tensors()
	part := func(no, count any, tensors []bindings.TensorInfo) func(*testing.T, []string) {
		return func(t *testing.T, paths []string) {
			testutil.WritePart(t, paths[2], whole, false, map[string]any{"split.no": no, "split.count": count,
				"split.tensors.count": int32(20)}, tensors)
		}
	}
	third := tensors[12:18]
	for name, c := range map[string]struct {
		broken func(*testing.T, []string)
		want   []string
	}{
		"missing": {func(t *testing.T, paths []string) {
			if err := os.Remove(paths[2]); err != nil {
				t.Fatal(err)
			}
		}, []string{"00003-of-00004.gguf", "part 3 of 4", "missing"}},
		"cut": {func(t *testing.T, paths []string) {
			cut(t, paths[2])
		}, []string{"00003-of-00004.gguf", "truncated"}},
		"of another count":  {part(uint16(2), uint16(5), third), []string{"00003-of-00004.gguf", "of 5"}},
		"another part":      {part(uint16(1), uint16(4), third), []string{"00003-of-00004.gguf", "part 2 of 4"}},
		"no part at all":    {part("2", uint16(1), third), []string{"00003-of-00004.gguf"}},
		"numbers of a kind": {part(uint32(2), uint32(4), third), []string{"00003-of-00004.gguf", "uint16"}},
		"a number too high": {part(uint16(4), uint16(4), third), []string{"00003-of-00004.gguf", "split.no"}},
		"a tensor twice": {part(uint16(2), uint16(4), append(slices.Clone(third[1:]), tensors[0])),
			[]string{"00003-of-00004.gguf", tensors[0].Name}},
		"a tensor less": {part(uint16(2), uint16(4), third[1:]),
			[]string{"19 tensors", "split.tensors.count is 20"}},
	} {
		t.Run(name, func(t *testing.T) {
			paths := testutil.Split(t, path, 6, false)
			c.broken(t, paths)
			for _, named := range paths {
				if name == "no part at all" && named == paths[2] {
					continue // then it is a whole file, of a few tensors
				}
				g, err := bindings.OpenGGUF(named)
				if err == nil {
					g.Close()
				}
				for _, want := range c.want {
					if err == nil || !strings.Contains(err.Error(), want) &&
						!(named == paths[2] && strings.Contains(err.Error(), paths[2])) {
						t.Errorf("%s: error %v, without %q", named, err, want)
					}
				}
			}
		})
	}
	t.Run("another name", func(t *testing.T) {
		for _, base := range []string{"model.gguf", "tiny-00002-of-00004.gguf", "tiny-00001-of-00005.gguf",
			"tiny-1-of-4.gguf"} {
			paths := testutil.Split(t, path, 6, false)
			renamed := filepath.Join(t.TempDir(), base)
			if err := os.Rename(paths[0], renamed); err != nil {
				t.Fatal(err)
			}
			if _, err := bindings.OpenGGUF(renamed); err == nil || !strings.Contains(err.Error(), renamed) ||
				!strings.Contains(err.Error(), "NAME-00001-of-00004.gguf") {
				t.Errorf("%s: error %v", base, err)
			}
		}
	})
}

func cut(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-1000); err != nil {
		t.Fatal(err)
	}
}
