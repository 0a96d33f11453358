package model

import "github.com/veratune/veratune/bindings"

// tokenChunk is how many tokens' logits are computed at once: 64 MiB of them, since 512 tokens of a vocabulary of
// 262,144 would take more than everything else; but up to 128 tokens where those are a sixth of the model's file, since
// every chunk unpacks the head again.
func (m *Model) tokenChunk() int {
	fit := func(bytes int64) int { return int(bytes / bindings.F32.RowBytes(int64(m.Vocab)) / 32 * 32) }
	return max(32, min(512, fit(64<<20)), min(128, fit(m.file.Size()/6)))
}

// outNorm is the last norm, with the scale of the logits multiplied in.
func (g *graph) outNorm() norm {
	n := g.m.outNorm
	if n.bias != nil {
		n.bias = g.scaled(n.bias, g.m.scale.logits)
	}
	return norm{g.scaled(n.weight, g.m.scale.logits), n.bias}
}

// capped applies the model's soft cap to logits.
func (g *graph) capped(logits *bindings.Tensor) *bindings.Tensor {
	if g.m.scale.logitCap == 0 {
		return logits
	}
	return g.Capped(logits, g.m.scale.logitCap)
}

// crossEntropy is −log p of each label, [n], for the residual stream x [width, n] after the last block; and, where
// wanted, the gradient of x. With p = softmax(W h):
//
//	∂h = Wᵀ (p − onehot(label))
func (g *graph) crossEntropy(x *bindings.Tensor, tokens []int32, wanted bool) (loss, dx *bindings.Tensor) {
	g = g.withKind(g.m.backKind())
	labels := input(g, tokens, int64(len(tokens)))
	n := g.outNorm()
	logits := g.Linear(g.m.head, g.norm(x, n), bindings.Product{}, bindings.F32)
	loss = g.CrossEntropy(logits, labels, g.m.scale.logitCap)
	if loss != nil {
		g.nodes.Expand(loss.Output())
	}
	if !wanted {
		return loss, nil
	}
	dh := g.LinearBack(g.m.head, g.CrossEntropyBack(logits, labels, g.m.scale.logitCap, g.kind), bindings.Product{},
		bindings.F32)
	return loss, g.normBack(dh, x, n, nil)
}

// loss sums −log p over the labels, for the residual stream x [width, rows] after the last block. dx, of x's shape,
// gets the gradient of the sum, if given. sums, if given, get the loss of each sample added.
func (m *Model) loss(x kept, l labels, dx kept, sums []float64) (sum float64, err error) {
	if dx.bytes > 0 {
		if err := m.zero(dx); err != nil {
			return 0, err
		}
	}
	chunk := m.tokenChunk()
	for start := 0; start < len(l.tokens); start += chunk {
		end := min(start+chunk, len(l.tokens))
		s, err := m.lossChunk(x, labels{l.rows[start:end], l.tokens[start:end], l.samples[start:end]}, dx, sums)
		if err != nil {
			return 0, err
		}
		sum += s
	}
	return sum, nil
}

func (m *Model) lossChunk(x kept, l labels, dx kept, sums []float64) (sum float64, err error) {
	g := m.newGraph(0)
	defer g.Close()
	n := int64(len(l.tokens))
	rows := input(g, l.rows, n)
	loss, dRows := g.crossEntropy(g.GetRows(m.tape.leaf(g, x), rows), l.tokens, dx.bytes > 0)
	if dx.bytes > 0 {
		g.nodes.Expand(g.SetRows(m.tape.leaf(g, dx), dRows, rows))
	}
	if err := g.run(); err != nil || m.dryRun {
		return 0, err
	}
	each := make([]float32, n)
	if err := bindings.Get(loss, each); err != nil {
		return 0, err
	}
	for i, v := range each {
		sum += float64(v)
		if sums != nil {
			sums[l.samples[i]] += float64(v)
		}
	}
	return sum, nil
}
