package model

import (
	"math"

	"github.com/veratune/veratune/bindings"
)

// embeddings give every block n numbers of each token besides the residual stream: (√n · the token's row of the table +
// norm(projection of its embedding / √width)) / √2.
type embeddings struct {
	table      *bindings.Tensor // [n · blocks, vocab]
	projection *bindings.Tensor // [width, n · blocks]
	norm       *bindings.Tensor // [n]
}

// blockEmbedding adds a block's embedding to the residual stream x: x + norm(out (act(gate x) ⊙ embedding)). It is
// frozen.
type blockEmbedding struct {
	gate  *bindings.Tensor // [width, n]
	out   *bindings.Tensor // [n, width]
	after norm
}

func (l *loader) embeddings() *embeddings {
	m := l.m
	all := m.Embedding * m.Blocks
	return &embeddings{
		table:      l.tensor("per_layer_token_embd.weight", all, m.Vocab),
		projection: l.tensor("per_layer_model_proj.weight", m.Width, all),
		norm:       l.tensor("per_layer_proj_norm.weight", m.Embedding),
	}
}

// blockEmbedding loads a block's.
func (l *loader) blockEmbedding(name func(part string) string) *blockEmbedding {
	m := l.m
	return &blockEmbedding{
		gate:  l.tensor(name("inp_gate.weight"), m.Width, m.Embedding),
		out:   l.tensor(name("proj.weight"), m.Embedding, m.Width),
		after: l.norm(name("post_norm"), true),
	}
}

// embedBlocks computes the embeddings of all blocks, [n · blocks, rows], for tokens and the residual stream x before
// the first block.
func (g *graph) embedBlocks(tokens []int32, x *bindings.Tensor) *bindings.Tensor {
	e := g.m.embeddings
	if e == nil {
		return nil
	}
	rows := g.scaled(g.GetRows(e.table, input(g, tokens, int64(len(tokens)))),
		float32(math.Sqrt(float64(g.m.Embedding)/2)))
	y := g.joinEmbeddings(rows, x)
	if f := g.first; f != nil {
		y = f.into(y, f.joinEmbeddings(f.GetRows(rows, f.rowIndices), f.GetRows(x, f.rowIndices)))
	}
	g.giveEmbeddings(y)
	return y
}

func (g *graph) joinEmbeddings(rows, x *bindings.Tensor) *bindings.Tensor {
	if rows == nil || x == nil {
		return nil
	}
	m := g.m
	y := g.scaled(g.linear(m.embeddings.projection, g.rounded(x), bindings.Product{}, bindings.F32),
		float32(1/math.Sqrt(float64(m.Width))))
	y = g.Norm(g.Reshape(y, int64(m.Embedding), int64(m.Blocks)*x.Ne(1)), g.scaled(m.embeddings.norm, math.Sqrt2/2),
		m.NormEps, bindings.F32)
	return g.Add(g.Reshape(y, rows.Ne(0), rows.Ne(1)), rows)
}

// giveEmbeddings lets the graph's blocks take theirs.
func (g *graph) giveEmbeddings(all *bindings.Tensor) {
	g.embeddings = all
	if g.first != nil && all != nil {
		g.first.embeddings = g.GetRows(all, g.first.rowIndices)
	}
}

// embeddingAdded is x [width, rows] with the block's embedding. gates [2n, rows] are what the gate gives and the
// embedding, out what the norm takes; their first tokens are first's.
func (g *graph) embeddingAdded(b *block, x *bindings.Tensor, first acts) (y, gates, out *bindings.Tensor) {
	n := g.m.Embedding
	gates = g.NewTensor(bindings.F32, int64(2*n), int64(g.rows))
	g.nodes.Expand(g.linear(b.embedding.gate, g.rounded(x), bindings.Product{Into: g.columns(gates, 0, n)},
		bindings.F32))
	g.nodes.Expand(g.Cpy(g.columns(g.embeddings, n*b.groups[0].block, n), g.columns(gates, n, n)))
	gates = g.first.into(gates, first.gates)
	out = g.first.into(g.linear(b.embedding.out, g.Gated(gates, g.m.arch.act, g.kind), bindings.Product{},
		bindings.F32), first.outs[2])
	return g.Add(g.normed(out, b.embedding.after, bindings.F32), x), gates, out
}

// embeddingBack is the gradient of embeddingAdded's x for that of its result.
func (g *graph) embeddingBack(b *block, dy *bindings.Tensor, a acts) *bindings.Tensor {
	dhidden := g.LinearBack(b.embedding.out, g.rounded(g.normBack(dy, a.outs[2], b.embedding.after, nil)),
		bindings.Product{}, bindings.F32)
	dgates := g.GatedBack(dhidden, a.gates, g.m.arch.act, g.kind)
	return g.LinearBack(b.embedding.gate, g.columns(dgates, 0, g.m.Embedding), bindings.Product{Acc: dy}, bindings.F32)
}
