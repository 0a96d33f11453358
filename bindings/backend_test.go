package bindings

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// A graph with as many nodes and leaves as the one before is not taken for the same.
func TestAllocateGraphsOfOneSize(t *testing.T) {
	backend, err := NewCPU(1)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	alloc := backend.NewAllocator()
	defer alloc.Close()
	for _, first := range []bool{false, true} {
		c := NewContext(16)
		defer c.Close()
		placed, free := c.NewTensor(F32, 4), c.NewTensor(F32, 4)
		buffer, err := backend.NewBuffer(64)
		if err != nil {
			t.Fatal(err)
		}
		defer buffer.Close()
		if _, err := buffer.Place(placed); err != nil {
			t.Fatal(err)
		}
		graph, inner := c.NewGraph(), c.Mul(free, free)
		if first { // its leaf then comes before the other
			graph.Expand(inner)
		}
		graph.Expand(c.Add(placed, inner))
		if err := alloc.Allocate(graph); err != nil {
			t.Fatal(err)
		}
		if err := Set(free, []float32{1, 2, 3, 4}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestErrorsBelongToTheirCalls fails with a message in one goroutine, and takes that of others and of later calls,
// which have none.
func TestErrorsBelongToTheirCalls(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.gguf")
	if err := os.WriteFile(broken, []byte("not a model"), 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				_, err := OpenLlamaVocab(broken)
				if err == nil || strings.Contains(err.Error(), "does not read its tokenizer") {
					t.Errorf("%v, want llama.cpp's own words", err)
				}
			}
		})
		all.Go(func() {
			for range 1000 {
				done := attend()
				runtime.Gosched()
				if got := takeError("none"); got != "none" {
					t.Errorf("%q of another call", got)
				}
				done()
			}
		})
	}
	all.Wait()
}
