package model

import (
	"errors"
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// Loss sums −log p (natural logarithm) over the labelled positions of packed samples and counts them. Sample i is the next lengths[i] tokens;
// targets[i] is the token to be predicted after position i, or −1 where nothing is asked. Samples do not see each other.
func (m *Model) Loss(tokens, targets []int32, lengths []int) (sum float64, n int, err error) {
	l, err := m.check(tokens, targets, lengths)
	if err != nil || len(l.tokens) == 0 {
		return 0, 0, err
	}
	p := newPack(lengths)
	if err := m.tape.reserve(2*m.streamBytes(p), 2); err != nil {
		return 0, 0, err
	}
	x, err := m.embedding(tokens, p)
	if err != nil {
		return 0, 0, err
	}
	// Two places take turns: a block reads one and writes the other.
	var other kept
	for _, b := range m.blocks {
		y, _, err := m.blockForward(b, p, x, other, 0, false)
		if err != nil {
			return 0, 0, err
		}
		x, other = y, x
	}
	sum, err = m.loss(x, p, l, kept{})
	return sum, len(l.tokens), err
}

// Gradients is Loss, and adds the gradient of the sum for every number of the attached adapter's Params to grad. seed decides the
// dropout masks; 0 is none.
func (m *Model) Gradients(tokens, targets []int32, lengths []int, seed uint64, grad []float32) (sum float64, n int, err error) {
	switch {
	case m.adapter == nil:
		return 0, 0, errors.New("gradients: no adapter is attached")
	case len(grad) != len(m.adapter.Params):
		return 0, 0, fmt.Errorf("gradients: room for %d numbers, the adapter has %d", len(grad), len(m.adapter.Params))
	case m.options.Compute == ComputeQ8:
		return 0, 0, errors.New("gradients: compute q8 rounds activations to 8 bits and is not for training; use f32 or bf16")
	}
	l, err := m.check(tokens, targets, lengths)
	if err != nil || len(l.tokens) == 0 {
		return 0, 0, err
	}
	p := newPack(lengths)
	keep, err := m.plan(p)
	if err != nil {
		return 0, 0, err
	}

	// Forward: every block's input is kept, and of the last keep blocks also what their backward pass needs.
	xs := make([]kept, len(m.blocks)+1)
	saved := make([][]kept, len(m.blocks))
	if xs[0], err = m.embedding(tokens, p); err != nil {
		return 0, 0, err
	}
	for i, b := range m.blocks {
		if xs[i+1], saved[i], err = m.blockForward(b, p, xs[i], kept{}, seed, i >= len(m.blocks)-keep); err != nil {
			return 0, 0, err
		}
	}

	// Backward: a block's gradient takes the place of the block's result, which nothing needs any more.
	if err := m.adapter.grads.Zero(); err != nil {
		return 0, 0, err
	}
	last := len(m.blocks)
	dy, err := m.spare(xs[last])
	if err != nil {
		return 0, 0, err
	}
	if sum, err = m.loss(xs[last], p, l, dy); err != nil {
		return 0, 0, err
	}
	for i := last - 1; i >= m.adapter.lowest; i-- {
		if err = m.blockBackward(m.blocks[i], p, dy, xs[i], xs[i+1], saved[i], seed, i > m.adapter.lowest); err != nil {
			return 0, 0, err
		}
		dy = xs[i+1]
	}
	return sum, len(l.tokens), m.addGradients(grad)
}

// check refuses what ggml would abort on.
func (m *Model) check(tokens, targets []int32, lengths []int) (labels, error) {
	total := 0
	for i, n := range lengths {
		if n < 1 {
			return labels{}, fmt.Errorf("sample %d of the batch has %d tokens", i, n)
		}
		if n > len(tokens)-total {
			return labels{}, fmt.Errorf("sample %d of the batch has %d tokens, %d are left", i, n, len(tokens)-total)
		}
		total += n
	}
	if total != len(tokens) || total != len(targets) || total == 0 {
		return labels{}, fmt.Errorf("a batch of %d tokens and %d targets in samples of %d", len(tokens), len(targets), total)
	}
	for i, t := range tokens {
		if t < 0 || int(t) >= m.Vocab || int(targets[i]) >= m.Vocab {
			return labels{}, fmt.Errorf("token %d, target %d: the model's vocabulary has %d tokens", t, targets[i], m.Vocab)
		}
	}
	return labelled(targets), nil
}

// streamBytes is the size of the residual stream, [width, tokens] in float32.
func (m *Model) streamBytes(p pack) int64 { return 4 * int64(m.Width) * int64(p.tokens) }

// embedding looks the tokens up: [width, tokens].
func (m *Model) embedding(tokens []int32, p pack) (kept, error) {
	g := m.newGraph(p, 0, 4)
	defer g.Close()
	x, err := m.tape.keep(g, g.GetRows(m.embed, input(g, tokens, int64(len(tokens)))))
	if err != nil {
		return kept{}, err
	}
	return x, g.run()
}

// blockForward computes one block. Its result goes to place, or to a new place where that is none.
func (m *Model) blockForward(b *block, p pack, x, place kept, seed uint64, save bool) (y kept, saved []kept, err error) {
	g := m.newGraph(p, 1, 8)
	defer g.Close()
	g.seed = seed
	g.positions(0)
	result, a := g.forward(b, m.tape.leaf(g, x), nil)
	if place.bytes > 0 {
		y, err = place, m.tape.keepAt(g, result, place)
	} else {
		y, err = m.tape.keep(g, result)
	}
	if err != nil {
		return kept{}, nil, err
	}
	if save {
		for _, t := range a.tensors() {
			k, err := m.tape.keep(g, *t)
			if err != nil {
				return kept{}, nil, err
			}
			saved = append(saved, k)
		}
	}
	return y, saved, g.run()
}

// blockBackward adds the gradients of one block's vectors and, where needInput, writes that of its input to dx. What was not saved is
// computed again from x.
func (m *Model) blockBackward(b *block, p pack, dy, x, dx kept, saved []kept, seed uint64, needInput bool) error {
	g := m.newGraph(p, 1, 64)
	defer g.Close()
	g.seed = seed
	g.positions(0)
	input := m.tape.leaf(g, x)
	var a acts
	if saved == nil {
		_, a = g.forward(b, input, nil)
	} else {
		for i, t := range a.tensors() {
			*t = m.tape.leaf(g, saved[i])
		}
	}
	result := g.backward(b, m.tape.leaf(g, dy), input, a, needInput)
	if result != nil {
		if err := m.tape.keepAt(g, result, dx); err != nil {
			return err
		}
	}
	return g.run()
}

// spare is a new place for a tensor like k.
func (m *Model) spare(k kept) (kept, error) {
	g := m.newGraph(pack{}, 0, 1)
	defer g.Close()
	x := g.NewTensor(k.kind, k.shape[:]...)
	offset, err := m.tape.buffer.Place(x)
	return kept{k.kind, k.shape, offset, k.bytes}, err
}

func (m *Model) addGradients(grad []float32) error {
	add := make([]float32, len(grad))
	if err := bindings.Get(m.adapter.grads, add); err != nil {
		return err
	}
	for i, v := range add {
		grad[i] += v
	}
	return nil
}
