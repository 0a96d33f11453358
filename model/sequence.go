package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// Sequence is a text that grows token by token; the keys and values of what it holds are kept.
type Sequence struct {
	m       *Model
	context *bindings.Context
	memory  *bindings.Buffer
	caches  []cache // one a block
	size    int
	past    int
}

// NewSequence makes an empty text with room for size tokens.
func (m *Model) NewSequence(size int) (*Sequence, error) {
	if size < 1 {
		return nil, fmt.Errorf("a sequence of %d tokens", size)
	}
	s := &Sequence{m: m, context: bindings.NewContext(2*len(m.blocks), 0), size: size}
	for range m.blocks {
		s.caches = append(s.caches, cache{
			k: s.context.NewTensor(bindings.F32, int64(m.HeadDim), int64(m.KVHeads), int64(size)),
			v: s.context.NewTensor(bindings.F32, int64(m.HeadDim), int64(m.KVHeads), int64(size)),
		})
	}
	var err error
	if s.memory, err = m.backend.Allocate(s.context); err != nil {
		s.Close()
		return nil, fmt.Errorf("memory of a text of %d tokens: %w", size, err)
	}
	return s, nil
}

// Close frees the memory. Closing twice is harmless.
func (s *Sequence) Close() {
	s.memory.Close()
	s.context.Close()
}

// Len is the number of tokens held.
func (s *Sequence) Len() int { return s.past }

// Append adds tokens and gives the logits after the last rows of them, row after row of Vocab numbers.
func (s *Sequence) Append(tokens []int32, rows int) ([]float32, error) {
	m := s.m
	switch {
	case len(tokens) == 0 || rows < 0 || rows > len(tokens):
		return nil, fmt.Errorf("append %d tokens with %d rows of logits", len(tokens), rows)
	case s.past+len(tokens) > s.size:
		return nil, fmt.Errorf("append %d tokens to %d: the sequence has room for %d", len(tokens), s.past, s.size)
	}
	for _, t := range tokens {
		if t < 0 || int(t) >= m.Vocab {
			return nil, fmt.Errorf("token %d: the model's vocabulary has %d tokens", t, m.Vocab)
		}
	}
	n := len(tokens)
	g := m.newGraph(n, len(m.blocks), 32)
	defer g.Close()
	positions := make([]int32, n)
	for i := range positions {
		positions[i] = int32(s.past + i)
	}
	g.rotation = g.rotations(positions)
	g.addFirst(positions)
	x := g.GetRows(m.embed, input(g, tokens, int64(n)))
	for i, b := range m.blocks {
		c := s.caches[i]
		c.past = s.past
		x, _ = g.forward(b, x, &c)
	}
	var logits *bindings.Tensor
	if rows > 0 && x != nil {
		last := g.View(x, [4]int64{x.Ne(0), int64(rows), 1, 1}, [4]int64{0, int64(n - rows)})
		logits = g.product(m.head, g.norm(last, m.outNorm), bindings.Product{}, bindings.F32).Output()
		x = logits
	}
	g.nodes.Expand(x)
	if err := g.run(); err != nil {
		return nil, err
	}
	s.past += n
	out := make([]float32, rows*m.Vocab)
	if rows == 0 {
		return nil, nil
	}
	return out, bindings.Get(logits, out)
}
