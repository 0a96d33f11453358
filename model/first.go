package model

import "github.com/veratune/veratune/bindings"

// firstRows computes the first token of every sample of a bfloat16 pass in float32 as well, and puts these results in
// the place of the rounded ones.
//
// The residual stream of a Llama's first token holds numbers hundreds of times larger than those of the others, and all
// tokens attend to it (Sun et al., "Massive Activations in Large Language Models", arXiv 2402.17762). Its rounding
// errors reach every other token: on SmolLM2, the inputs of the products rounded in all rows but that one change the
// gradient by 1.1e-2, in all rows by 3.5e-2. It sees itself alone, so that it is a row's work.
type firstRows struct {
	graph                  // of the same context and nodes, in float32
	at    *bindings.Tensor // their rows in the pass, int32
}

// addFirst makes the rows at position 0 of a pass exact; there is nothing to do in float32, or where dropout decides
// what a row sees.
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
	f := &firstRows{graph: *g, at: input(g, rows, int64(len(rows)))}
	f.kind, f.rows, f.first = bindings.F32, len(rows), nil
	f.segments = g.pack(runs)
	f.rotations, f.shared, f.warmth = nil, map[int]*bindings.Tensor{}, nil // no temperature at position 0
	for _, table := range g.rotations {
		f.rotations = append(f.rotations, f.GetRows(table, f.at))
	}
	g.first = f
}

// forward is the block's forward pass of the first tokens alone.
func (f *firstRows) forward(b *block, x *bindings.Tensor) (y *bindings.Tensor, a acts) {
	if f == nil {
		return nil, a
	}
	return f.graph.forward(b, f.GetRows(x, f.at), nil)
}

// into writes the first tokens' part into x, which holds it from there on.
func (f *firstRows) into(x, part *bindings.Tensor) *bindings.Tensor {
	if f != nil {
		f.nodes.Expand(f.SetRows(x, part, f.at))
	}
	return x
}
