package model

import (
	"math"

	"github.com/veratune/veratune/bindings"
)

// The head's product is cut into rows of the vocabulary and tokens, so that neither a float copy of the whole matrix nor all logits live at
// once.
const (
	vocabChunk = 8192
	tokenChunk = 256
)

// labels are the positions of a pack that carry a label, and the token that is to be predicted there.
type labels struct{ positions, tokens []int32 }

func labelled(targets []int32) (l labels) {
	for i, t := range targets {
		if t >= 0 {
			l.positions = append(l.positions, int32(i))
			l.tokens = append(l.tokens, t)
		}
	}
	return l
}

// headParts cuts the head [width, vocab] into runs of rows.
func (g *graph) headParts(f func(w *bindings.Tensor, start, n int64)) {
	for start := int64(0); start < int64(g.m.Vocab); start += vocabChunk {
		n := min(vocabChunk, int64(g.m.Vocab)-start)
		f(g.View(g.m.head, [4]int64{int64(g.m.Width), n, 1, 1}, [4]int64{0, start}), start, n)
	}
}

// logits is the head's product: h [width, n] gives [vocab, n].
func (g *graph) logits(h *bindings.Tensor) *bindings.Tensor {
	if h == nil {
		return nil
	}
	out := g.NewTensor(bindings.F32, int64(g.m.Vocab), h.Ne(1))
	g.headParts(func(w *bindings.Tensor, start, n int64) {
		g.nodes.Expand(g.Cpy(g.MulMat(g.weight(w), h), g.View(out, [4]int64{n, h.Ne(1), 1, 1}, [4]int64{start})))
	})
	return out
}

// crossEntropy is −log p of each label, [1, n], for the residual stream x [width, n] after the last block. With p = softmax(W h):
//
//	∂h = Wᵀ (p − onehot(label))
//
// dx, the gradient of x, is nil unless wanted.
func (g *graph) crossEntropy(x *bindings.Tensor, tokens []int32, wanted bool) (loss, dx *bindings.Tensor) {
	h := g.norm(x, g.m.outNorm)
	p := g.SoftMax(g.logits(h), 1)
	n, vocab := int64(len(tokens)), int64(g.m.Vocab)
	index := make([]int32, n)
	for i, t := range tokens {
		index[i] = int32(i)*int32(vocab) + t
	}
	each, at := g.Reshape(p, 1, vocab*n), input(g, index, n)
	label := g.GetRows(each, at)
	// The least positive float32 keeps a probability that has underflowed from becoming an infinite loss; a NaN stays one.
	loss = g.ScaleBias(g.Log(g.ScaleBias(label, 1, math.SmallestNonzeroFloat32)), -1, 0).Output()
	g.nodes.Expand(loss)
	if !wanted {
		return loss, nil
	}
	p = g.SetRows(each, g.ScaleBias(label, 1, -1), at)
	if p == nil {
		return loss, nil
	}
	p = g.Reshape(p, vocab, n)
	var dh *bindings.Tensor
	g.headParts(func(w *bindings.Tensor, start, rows int64) {
		dh = g.plus(dh, g.MulMat(g.weightT(w), g.Cont(g.View(p, [4]int64{rows, n, 1, 1}, [4]int64{start}))))
	})
	return loss, g.normBack(dh, x, g.m.outNorm)
}

// loss sums −log p over the labels, for the residual stream x [width, tokens] after the last block. Where dx is given, with the shape of x, it gets
// the gradient of the sum.
func (m *Model) loss(x kept, p pack, l labels, dx kept) (sum float64, err error) {
	if dx.bytes > 0 {
		if err := m.zero(dx); err != nil {
			return 0, err
		}
	}
	for start := 0; start < len(l.tokens); start += tokenChunk {
		end := min(start+tokenChunk, len(l.tokens))
		s, err := m.lossChunk(x, labels{l.positions[start:end], l.tokens[start:end]}, dx)
		if err != nil {
			return 0, err
		}
		sum += s
	}
	return sum, nil
}

func (m *Model) lossChunk(x kept, l labels, dx kept) (sum float64, err error) {
	g := m.newGraph(pack{}, 0, 64+16*(m.Vocab/vocabChunk+1))
	defer g.Close()
	n := int64(len(l.tokens))
	rows := input(g, l.positions, n)
	loss, dRows := g.crossEntropy(g.GetRows(m.tape.leaf(g, x), rows), l.tokens, dx.bytes > 0)
	if dx.bytes > 0 {
		g.nodes.Expand(g.SetRows(m.tape.leaf(g, dx), dRows, rows))
	}
	if err := g.run(); err != nil {
		return 0, err
	}
	each := make([]float32, n)
	if err := bindings.Get(loss, each); err != nil {
		return 0, err
	}
	for _, v := range each {
		sum += float64(v)
	}
	return sum, nil
}
