package model

import "github.com/veratune/veratune/bindings"

// firstRows computes the first token of every sample of a bfloat16 pass in float32 too, and puts these results in place
// of the rounded ones.
//
// The residual stream of a Llama's first token has numbers hundreds of times larger than other tokens', and all tokens
// attend to it (Sun et al., "Massive Activations in Large Language Models", arXiv 2402.17762). So its rounding errors
// reach every token: on SmolLM2, rounding the products' inputs changes the gradient by 3.5e-2, and by 1.1e-2 if the
// first rows are left exact. The first token sees only itself, so the cost is one row a sample.
type firstRows struct {
	graph                       // of the same context and nodes, in float32
	rowIndices *bindings.Tensor // their rows in the pass, int32
}

// addFirst computes the rows at position 0 exactly. Nothing is added in float32, nor with dropout, whose mask depends
// on the row.
func (g *graph) addFirst(positions []int32) {
	if g.kind != bindings.BF16 || g.seed != 0 {
		return
	}
	var rows []int32
	var runs [][4]int32
	for i, p := range positions {
		if p == 0 {
			runs = append(runs, [4]int32{int32(len(rows)), 1, -1, 0})
			rows = append(rows, int32(i))
		}
	}
	if len(rows) == 0 {
		return
	}
	f := &firstRows{graph: *g, rowIndices: input(g, rows, int64(len(rows)))}
	f.kind, f.rows, f.first = bindings.F32, len(rows), nil
	f.segments = g.pack(runs)
	f.rotations, f.shared, f.temperature = nil, map[int]*bindings.Tensor{}, nil // no temperature at position 0
	for _, table := range g.rotations {
		f.rotations = append(f.rotations, f.GetRows(table, f.rowIndices))
	}
	g.first = f
}

// forward is the block's forward pass of the first tokens alone.
func (f *firstRows) forward(b *block, x *bindings.Tensor) (y *bindings.Tensor, a acts) {
	if f == nil {
		return nil, a
	}
	return f.graph.forward(b, f.GetRows(x, f.rowIndices), nil)
}

// into writes the first tokens' part into x, in place.
func (f *firstRows) into(x, part *bindings.Tensor) *bindings.Tensor {
	if f != nil {
		f.nodes.Expand(f.SetRows(x, part, f.rowIndices))
	}
	return x
}
