package model

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// graph is one ggml graph under construction: operations that follow each other on the rows of one pack.
type graph struct {
	*bindings.Context
	m        *Model
	kind     bindings.Type // of the activations that products take
	nodes    *bindings.Graph
	rows     int
	rotation *bindings.Tensor // [rotated numbers, rows]: m·cos, m·sin for each pair
	segments *bindings.Segments
	inputs   *[]func() error // to be run once the graph has memory
	first    *firstRows      // nil where no row needs it
	merging  bool            // groups with a merged matrix multiply with that
	seed     uint64          // of the dropout masks; 0 is no dropout
	way      bindings.Way    // of products
	alloc    *bindings.Allocator
}

// blockNodes bounds the operations of one block, forward and backward. Composed of ggml's they are more, and attention's are so many for each piece of a pack, of
// which there is one for every 128 rows at most, and for each KV head in the worst case.
const (
	blockNodes    = 208
	composedNodes = 1200
	pieceNodes    = 80
)

// newGraph makes a graph on that many rows, with room for some blocks and some operations more.
func (m *Model) newGraph(rows, blocks, more int) *graph {
	n := blocks*blockNodes + more + 16
	if m.backend.Composed() {
		n = blocks*(composedNodes+(rows/128+1)*m.KVHeads*pieceNodes) + 4*more + 64
	}
	c := m.backend.NewContext()
	return &graph{Context: c, m: m, kind: m.kind(), nodes: c.NewGraph(), rows: rows, inputs: new([]func() error), alloc: m.alloc}
}

// input makes a tensor that gets its values once the graph has memory.
func input[T float32 | int32](g *graph, values []T, ne ...int64) *bindings.Tensor {
	t := bindings.F32
	if _, ok := any(values).([]int32); ok {
		t = bindings.I32
	}
	x := g.NewTensor(t, ne...).Input()
	g.nodes.Expand(x) // it has memory even if no operation comes to use it
	*g.inputs = append(*g.inputs, func() error { return bindings.Set(x, values) })
	return x
}

// pack gives the inputs that tell the runs of a pass's rows.
func (g *graph) pack(runs [][4]int32) *bindings.Segments {
	s := g.NewSegments(runs)
	*g.inputs = append(*g.inputs, s.Set)
	return s
}

// rotations gives the table of rotary embedding for rows at these positions: ggml's own rotation of (1, 0) in every pair, so that all of its scalings hold.
func (g *graph) rotations(positions []int32) *bindings.Tensor {
	n, dims := len(positions), g.m.Rope.Dims
	pairs := make([]float32, n*dims)
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = 1
	}
	ones := input(g, pairs, int64(dims), 1, int64(n))
	table := g.Rope(ones, input(g, positions, int64(n)), g.m.ropeFactors, g.m.Rope)
	if table == nil {
		return nil
	}
	return g.Reshape(table, int64(dims), int64(n))
}

// run gives the graph memory, sets its inputs and computes it; nothing but the first in a dry run.
func (g *graph) run() error {
	if err := g.allocate(); err != nil || g.m.dry {
		return err
	}
	return g.compute()
}

// runBlock is run for a graph of one block, whose weights it needs; after it comes the block next.
func (g *graph) runBlock(b *block, next int) error {
	if !g.m.dry {
		if err := g.m.store.use(b.groups[0].block, next); err != nil {
			return err
		}
	}
	return g.run()
}

func (g *graph) allocate() error {
	if err := g.Err(); err != nil {
		return err
	}
	if missing := g.m.backend.Lacks(g.nodes); len(missing) > 0 {
		return fmt.Errorf("device %s lacks %s; train on another, such as --device cpu", g.m.backend.Device().Name, strings.Join(missing, ", "))
	}
	if g.m.dry {
		g.m.work = max(g.m.work, g.alloc.Measure(g.nodes))
		return nil
	}
	return g.alloc.Allocate(g.nodes)
}

// compute sets the inputs to the present values of the slices that they were made of, and computes the graph, any number of times.
func (g *graph) compute() error {
	for _, set := range *g.inputs {
		if err := set(); err != nil {
			return err
		}
	}
	return g.m.backend.Compute(g.nodes)
}

// kind is the type of the activations that products take. Composed ones round them themselves.
func (m *Model) kind() bindings.Type {
	if m.options.Compute == ComputeBF16 && !m.backend.Composed() {
		return bindings.BF16
	}
	return bindings.F32
}

// rounded is x as products take it.
func (g *graph) rounded(x *bindings.Tensor) *bindings.Tensor { return g.as(x, g.kind) }

// as is x of type t.
func (g *graph) as(x *bindings.Tensor, t bindings.Type) *bindings.Tensor {
	if x == nil || x.Type() == t {
		return x
	}
	return g.Convert(x, t)
}

// scaled is s · x.
func (g *graph) scaled(x *bindings.Tensor, s float32) *bindings.Tensor {
	if s == 1 {
		return x
	}
	return g.ScaleBias(x, s, 0)
}

// embedded is the residual stream before the first block, [width, tokens].
func (g *graph) embedded(tokens []int32) *bindings.Tensor {
	return g.scaled(g.GetRows(g.m.embed, input(g, tokens, int64(len(tokens)))), g.m.scale.embedding)
}

// norm is x / rms(x) ⊙ w as products take it, for x [width, rows].
func (g *graph) norm(x, w *bindings.Tensor) *bindings.Tensor {
	return g.Norm(x, w, g.m.NormEps, g.kind)
}

// columns are the rows start to start+n of every column of x [·, rows].
func (g *graph) columns(x *bindings.Tensor, start, n int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.View(x, [4]int64{int64(n), x.Ne(1), 1, 1}, [4]int64{int64(start)})
}

// dropoutMask is 0 with probability p and else 1/(1−p), [n, rows], a function of the seed, the block and the group alone.
func (g *graph) dropoutMask(block, group, n int, p float32) *bindings.Tensor {
	mask := make([]float32, n*g.rows)
	random := rand.New(rand.NewPCG(g.seed, uint64(block)<<8|uint64(group)))
	for i := range mask {
		if random.Float32() >= p {
			mask[i] = 1 / (1 - p)
		}
	}
	return input(g, mask, int64(n), int64(g.rows))
}
