package bindings

import "testing"

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
