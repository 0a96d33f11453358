package model

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/veratune/veratune/bindings"
)

// graph is one ggml graph under construction: operations on the rows of one pack.
type graph struct {
	*bindings.Context
	m           *Model
	kind        bindings.Type // type of the activations that products take
	nodes       *bindings.Graph
	rows        int
	rotations   []*bindings.Tensor // of the model's rotaries, [rotated numbers, rows]: m·cos and m·sin for each pair
	temperature *bindings.Tensor   // [1, rows]: multiplier of a row's scores; nil for none
	segments    *bindings.Segments
	embeddings  *bindings.Tensor // of the blocks, [·, rows]; nil without
	// By block: keys and values that other blocks take, [·, rows], and the sums of their gradients.
	shared, sharedGrads map[int]*bindings.Tensor
	inputs              *[]func() error // set the input tensors, once the graph has memory
	first               *firstRows      // nil where no row needs it
	useMerged           bool            // groups that have a merged matrix multiply with it
	seed                uint64          // of the dropout masks; 0 for no dropout
	way                 bindings.Way    // of products
	shares              []share         // of the rows, where each has an adapter of its own
	alloc               *bindings.Allocator
}

// newGraph makes a graph on that many rows.
func (m *Model) newGraph(rows int) *graph {
	c := m.backend.NewContext()
	return &graph{Context: c, m: m, kind: m.kind(), nodes: c.NewGraph(), rows: rows, inputs: new([]func() error),
		alloc:  m.alloc,
		shared: map[int]*bindings.Tensor{}, sharedGrads: map[int]*bindings.Tensor{}}
}

// input makes a tensor that gets its values once the graph has memory.
func input[T float32 | int32](g *graph, values []T, ne ...int64) *bindings.Tensor {
	t := bindings.F32
	if _, ok := any(values).([]int32); ok {
		t = bindings.I32
	}
	x := g.NewTensor(t, ne...).Input()
	g.nodes.Expand(x) // gives it memory even if no operation uses it
	*g.inputs = append(*g.inputs, func() error { return bindings.Set(x, values) })
	return x
}

// pack makes the input that holds the segments of a pass.
func (g *graph) pack(runs [][4]int32) *bindings.Segments {
	s := g.NewSegments(runs)
	*g.inputs = append(*g.inputs, s.Set)
	return s
}

// rotationRows index a table of rotations that has all rows as short texts rotate, then all as long texts do.
func rotationRows(long []bool) []int32 {
	list := make([]int32, len(long))
	for i, l := range long {
		list[i] = int32(i)
		if l {
			list[i] += int32(len(long))
		}
	}
	return list
}

// rotationTables gives the rotations at these positions, one table for each of the model's rotaries. turns are
// rotationRows, for models in which long texts have factors of their own.
func (g *graph) rotationTables(positions, turns []int32) (list []*bindings.Tensor) {
	n := int64(len(positions))
	for _, r := range g.m.rotaries {
		factors := r.factors
		if r.computed != nil {
			factors = input(g, r.computed, int64(len(r.computed)))
		}
		table := g.table(positions, factors, r.Rope)
		if r.longFactors != nil {
			both := g.NewTensor(bindings.F32, int64(r.Dims), 2*n)
			for i, t := range []*bindings.Tensor{table, g.table(positions, r.longFactors, r.Rope)} {
				g.nodes.Expand(g.Cpy(t, g.View(both, [4]int64{int64(r.Dims), n, 1, 1}, [4]int64{0, int64(i) * n})))
			}
			table = g.GetRows(both, input(g, turns, n))
		}
		list = append(list, table)
	}
	return list
}

// temperatureOf gives the multipliers of the scores at these positions; nil without temperature.
func (g *graph) temperatureOf(positions []int32) *bindings.Tensor {
	if g.m.temperature.scale == 0 {
		return nil
	}
	values := make([]float32, len(positions))
	x := g.NewTensor(bindings.F32, 1, int64(len(values))).Input()
	g.nodes.Expand(x)
	*g.inputs = append(*g.inputs, func() error {
		for i, p := range positions {
			values[i] = g.m.temperature.factor(p)
		}
		return bindings.Set(x, values)
	})
	return x
}

// table is ggml's own rotation of (1, 0) in every pair, with all of its scalings: [rotated numbers, rows].
func (g *graph) table(positions []int32, factors *bindings.Tensor, r bindings.Rope) *bindings.Tensor {
	n := len(positions)
	pairs := make([]float32, n*r.Dims)
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = 1
	}
	ones := input(g, pairs, int64(r.Dims), 1, int64(n))
	return g.Reshape(g.Rope(ones, input(g, positions, int64(n)), factors, r), int64(r.Dims), int64(n))
}

// run gives the graph memory, sets its inputs and computes it. In a dry run it only measures.
func (g *graph) run() error {
	if err := g.allocate(); err != nil || g.m.dryRun {
		return err
	}
	return g.compute()
}

// runBlock is run for the graph of one block, whose weights it loads; meanwhile the weights of block next are copied.
func (g *graph) runBlock(b *block, next int) error {
	if !g.m.dryRun {
		if err := g.m.weights.use(b.groups[0].block, next); err != nil {
			return err
		}
	}
	return g.run()
}

func (g *graph) allocate() error {
	if err := g.Err(); err != nil {
		return err
	}
	if g.m.probe != nil {
		g.m.probe.note(g.m.backend, g.nodes)
		return nil
	}
	if missing := g.m.backend.Lacks(g.nodes); len(missing) > 0 {
		return fmt.Errorf("device %s lacks %s; take another, such as --device cpu", g.m.backend.Name,
			strings.Join(missing, ", "))
	}
	if g.m.dryRun {
		g.m.workBytes, g.m.largest = max(g.m.workBytes, g.alloc.Measure(g.nodes)), g.m.largest.Max(g.Largest())
		return nil
	}
	return g.alloc.Allocate(g.nodes)
}

// compute sets the inputs to what their slices hold now, and computes the graph. It may be called again.
func (g *graph) compute() error {
	for _, set := range *g.inputs {
		if err := set(); err != nil {
			return err
		}
	}
	g.m.products.Add(g.Work())
	return g.m.backend.Compute(g.nodes)
}

// kind is the type of the activations that products take forwards. It is float32 where rounding would change a choice:
//
// With experts: a row's choice between two that are nearly equal would often change, and the whole row with it. On a
// tiny model of two blocks that changes the gradient by up to 0.13; rounding elsewhere changes it by 0.01.
// With unscaled scores: their softmax is nearly a choice. The gradient of a tiny Gemma 4 of six blocks would change by
// 0.5.
// Before a delta net: its result is normed, however small. The gradient of a tiny Qwen 3.5 of four blocks would change
// by 0.11, and by 0.007 with only the backward pass rounded.
func (m *Model) kind() bindings.Type {
	if m.chooses() {
		return bindings.F32
	}
	return m.backKind()
}

func (m *Model) chooses() bool {
	return m.Experts > 0 || m.arch.unscaledScores || m.arch.mixer == deltaNet
}

// kindOf is the type of a group's input forwards. A short convolution multiplies three numbers, so its input is not
// rounded: the gradient of a tiny LFM2 would change by up to 0.03, and by 0.02 as it is.
func (m *Model) kindOf(gr *group) bindings.Type {
	if m.exact(gr) {
		return bindings.F32
	}
	return m.backKind()
}

// exact tells whether a group's layers round nothing forwards.
func (m *Model) exact(gr *group) bool { return m.chooses() || m.convolves(gr) }

func (m *Model) convolves(gr *group) bool {
	return gr.index == 0 && m.mixers[gr.block] == shortConvolution
}

// backKind is the type in products that choose nothing: the backward pass and the head. Composed products round
// activations themselves.
func (m *Model) backKind() bindings.Type {
	c := m.options.Compute
	if c == ComputeBF16 && m.backend.Fused || c == ComputeInt && bindings.FastBF16() {
		return bindings.BF16
	}
	return bindings.F32
}

// withKind is the graph with products that take activations of that type.
func (g *graph) withKind(kind bindings.Type) *graph {
	other := *g
	other.kind = kind
	return &other
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
func (g *graph) embedded(tokens, positions []int32) *bindings.Tensor {
	x := g.scaled(g.GetRows(g.m.embed, input(g, tokens, int64(len(tokens)))), g.m.scale.embedding)
	if g.m.positions == nil {
		return x
	}
	return g.Add(x, g.GetRows(g.m.positions, input(g, positions, int64(len(positions)))))
}

// columns views numbers start to start+n of every column of x [·, rows].
func (g *graph) columns(x *bindings.Tensor, start, n int) *bindings.Tensor {
	if x == nil {
		return nil
	}
	return g.View(x, [4]int64{int64(n), x.Ne(1), 1, 1}, [4]int64{int64(start)})
}

// concatColumns joins parts [·, rows], float32, column by column.
func (g *graph) concatColumns(parts ...*bindings.Tensor) *bindings.Tensor {
	n := 0
	for _, p := range parts {
		if p == nil {
			return nil
		}
		n += int(p.Ne(0))
	}
	all := g.NewTensor(bindings.F32, int64(n), parts[0].Ne(1))
	offset := 0
	for _, p := range parts {
		g.nodes.Expand(g.Cpy(p, g.columns(all, offset, int(p.Ne(0)))))
		offset += int(p.Ne(0))
	}
	return all
}

// dropoutMask is 0 with probability p and 1/(1−p) otherwise, [n, rows]. It depends on the seed, the block and the group
// alone.
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
