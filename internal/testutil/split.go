package testutil

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// Split cuts a GGUF file into parts of so many tensors each, as llama.cpp's gguf-split does, in a folder that goes with
// the test, and returns their paths. With empty, the first part has metadata alone.
func Split(t testing.TB, path string, tensors int, empty bool) []string {
	t.Helper()
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	var parts [][]bindings.TensorInfo
	if empty {
		parts = append(parts, nil)
	}
	for rest := g.Tensors(); len(rest) > 0; rest = rest[min(tensors, len(rest)):] {
		parts = append(parts, rest[:min(tensors, len(rest))])
	}
	name := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(path), ".gguf"))
	var paths []string
	for i, part := range parts {
		split := map[string]any{"split.no": uint16(i), "split.count": uint16(len(parts)),
			"split.tensors.count": int32(len(g.Tensors()))}
		paths = append(paths, fmt.Sprintf("%s-%05d-of-%05d.gguf", name, i+1, len(parts)))
		WritePart(t, paths[i], g, i == 0, split, part)
	}
	return paths
}

// OpenGGUF opens a file until the test ends.
func OpenGGUF(t testing.TB, path string) *bindings.GGUF {
	t.Helper()
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// WritePart writes a file of some of another's tensors, of its metadata where they are wanted, and of what is said of
// the part.
func WritePart(t testing.TB, path string, of *bindings.GGUF, metadata bool, split map[string]any,
	tensors []bindings.TensorInfo) {
	t.Helper()
	w := bindings.NewGGUFWriter()
	defer w.Close()
	var errs []error
	if metadata {
		for _, key := range of.Keys() {
			errs = append(errs, w.Set(key, of.Value(key)))
		}
	}
	for key, value := range split {
		errs = append(errs, w.Set(key, value))
	}
	for _, x := range tensors {
		errs = append(errs, w.AddTensor(x.Name, x.Type, x.Shape, of.Data(x)))
	}
	if err := errors.Join(append(errs, w.WriteFile(path))...); err != nil {
		t.Fatal(err)
	}
}
