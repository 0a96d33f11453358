package model

import (
	"math/rand/v2"

	"github.com/veratune/veratune/bindings"
)

// graph is one ggml graph under construction: operations that follow each other on one set of packed samples.
type graph struct {
	*bindings.Context
	m      *Model
	nodes  *bindings.Graph
	pack   pack
	pos    *bindings.Tensor // [tokens], int32: each token's place in its sample
	inputs []func() error   // to be run once the graph has memory
	seed   uint64           // of the dropout masks; 0 is no dropout
}

// pack tells how samples lie end to end: sample i is the tokens from starts[i] to starts[i]+lengths[i].
type pack struct {
	tokens          int
	starts, lengths []int
}

func newPack(lengths []int) pack {
	p := pack{lengths: lengths}
	for _, n := range lengths {
		p.starts = append(p.starts, p.tokens)
		p.tokens += n
	}
	return p
}

// blockNodes bounds the operations of one block, forward and backward, without and with each sample's attention.
const blockNodes, sampleNodes = 400, 80

// newGraph makes a graph with room for that many blocks and some operations more.
func (m *Model) newGraph(p pack, blocks, more int) *graph {
	n := blocks*(blockNodes+sampleNodes*len(p.lengths)) + more + 16
	c := bindings.NewContext(n, n)
	return &graph{Context: c, m: m, nodes: c.NewGraph(n), pack: p}
}

// input makes a tensor that gets its values once the graph has memory.
func input[T float32 | int32](g *graph, values []T, ne ...int64) *bindings.Tensor {
	t := bindings.F32
	if _, ok := any(values).([]int32); ok {
		t = bindings.I32
	}
	x := g.NewTensor(t, ne...).Input()
	g.nodes.Expand(x) // it has memory even if no operation comes to use it
	g.inputs = append(g.inputs, func() error { return bindings.Set(x, values) })
	return x
}

// positions makes the positions of the pack, each sample's shifted by past.
func (g *graph) positions(past int) {
	pos := make([]int32, 0, g.pack.tokens)
	for _, n := range g.pack.lengths {
		for i := range n {
			pos = append(pos, int32(past+i))
		}
	}
	g.pos = input(g, pos, int64(len(pos)))
}

// run gives the graph memory, sets its inputs and computes it.
func (g *graph) run() error {
	if err := g.Err(); err != nil {
		return err
	}
	if err := g.m.alloc.Allocate(g.nodes); err != nil {
		return err
	}
	for _, set := range g.inputs {
		if err := set(); err != nil {
			return err
		}
	}
	return g.m.backend.Compute(g.nodes)
}

// weight is the matrix w [in, out] as the products take it.
func (g *graph) weight(w *bindings.Tensor) *bindings.Tensor {
	if w == nil || g.m.options.Compute == ComputeQ8 {
		return w
	}
	return g.rounded(g.float(w))
}

// weightT is the matrix w [in, out] transposed, [out, in], as the products take it.
func (g *graph) weightT(w *bindings.Tensor) *bindings.Tensor {
	t := g.Transpose(g.float(w))
	if g.m.options.Compute == ComputeBF16 {
		return g.Cast(t, bindings.BF16)
	}
	return g.Cont(t)
}

// float dequantises w [in, out] row by row.
func (g *graph) float(w *bindings.Tensor) *bindings.Tensor {
	if w == nil || w.Type() == bindings.F32 {
		return w
	}
	return g.GetRows(w, g.View(g.m.iota, [4]int64{w.Ne(1), 1, 1, 1}, [4]int64{}))
}

func (g *graph) rounded(w *bindings.Tensor) *bindings.Tensor {
	if g.m.options.Compute == ComputeBF16 {
		return g.Cast(w, bindings.BF16)
	}
	return w
}

// norm is x / rms(x) ⊙ w, for x [width, tokens].
func (g *graph) norm(x, w *bindings.Tensor) *bindings.Tensor {
	return g.Mul(g.RMSNorm(x, g.m.NormEps), w)
}

func (g *graph) normBack(dy, x, w *bindings.Tensor) *bindings.Tensor {
	return g.RMSNormBack(g.Mul(dy, w), x, g.m.NormEps)
}

// dropoutMask is 0 with probability p and else 1/(1−p), [n, tokens], a function of the seed, the block and the group alone.
func (g *graph) dropoutMask(block, group, n int, p float32) *bindings.Tensor {
	mask := make([]float32, n*g.pack.tokens)
	random := rand.New(rand.NewPCG(g.seed, uint64(block)<<8|uint64(group)))
	for i := range mask {
		if random.Float32() >= p {
			mask[i] = 1 / (1 - p)
		}
	}
	return input(g, mask, int64(n), int64(g.pack.tokens))
}
