package model

import (
	"errors"
	"fmt"
	"syscall"
)

// growing is the rows of a pass that continue texts of a cache, for graphs of one block each.
type growing struct {
	cache  *Cache
	places []int32
}

// cached is what a graph of block b takes of the cache; nil without one.
func (r *growing) cached(g *graph, b *block) *cached {
	if r == nil {
		return nil
	}
	places := g.NewPlaces(r.places, r.cache.room)
	*g.inputs = append(*g.inputs, places.Set)
	return r.cache.of(b.groups[0].block, places)
}

// inTurn tells whether two blocks' weights are on the device at a time.
func (m *Model) inTurn() bool {
	_, ok := m.weights.(*streamed)
	return ok
}

// computeInTurn is compute with two blocks' weights on the device at a time: each block has a graph of its own, and
// the tape holds what goes from one to the next.
func (c *Cache) computeInTurn(r rows, logits []float32) ([]float32, error) {
	m := c.m
	p := pack{tokens: r.tokens, positions: r.positions, long: r.long, growing: &growing{c, r.places}}
	if err := m.tape.reserve(2*m.streamBytes(p)+m.tableBytes(p), 2+m.tableCount()); err != nil {
		return nil, err
	}
	x, err := m.begin(&p)
	if err != nil {
		return nil, err
	}
	var other kept
	for _, b := range m.blocks {
		y, _, err := m.blockForward(b, p, x, other, 0, false)
		if err != nil {
			return nil, err
		}
		x, other = y, x
	}
	if r.wanted == 0 {
		return logits, nil
	}
	g := m.newGraph(p.rows())
	defer g.Close()
	g.way = m.answeringWay()
	result := g.wantedLogits(m.tape.leaf(g, x), r)
	if result != nil {
		g.nodes.Expand(result.Output())
	}
	if err := g.run(); err != nil {
		return nil, err
	}
	return c.taken(result, r, logits)
}

// fewer adds to the error of memory that was refused what helps.
func fewer(err error) error {
	if errors.Is(err, syscall.ENOMEM) {
		return fmt.Errorf("%w; have fewer texts answered at a time, or shorter ones", err)
	}
	return err
}

// answersMemory is what answers take besides weights and adapter: held for keys and values and the graph of one more
// token for each text, and at work in the pass of a prompt.
type answersMemory struct{ held, work int64 }

// measure measures what the texts take with prompts of so many tokens. It fails where the device lacks an operation.
func (c *Cache) measure(prompt int) (n answersMemory, err error) {
	prompt = min(prompt, c.room)
	var step, last rows
	for text := range c.texts {
		step.add(Addition{Text: text, Tokens: make([]int32, 1), Rows: 1}, c.room-1, false)
	}
	part := min(prompt, cacheRows)
	last.add(Addition{Tokens: make([]int32, part), Rows: 1}, prompt-part, false)
	measure := func(r rows) (int64, error) {
		return c.m.measureGraphs(func() error {
			p := c.pass(r)
			defer p.graph.Close()
			return p.allocate()
		})
	}
	if n.held, err = measure(step); err != nil {
		return n, err
	}
	n.held += c.memory.Size()
	n.work, err = measure(last)
	return n, err
}

// placeWeights decides where weights lie, if that is not decided yet, by what the texts take besides them.
func (c *Cache) placeWeights() error {
	m := c.m
	if m.backend.Host {
		return nil
	}
	n, err := c.measure(c.room)
	if err != nil {
		return err
	}
	s, ok := m.weights.(*streamed)
	if !ok || s.settled {
		return nil
	}
	return m.settleWeights(s, m.heldMemory()+n.held+n.work+m.scratchMemory(), "they need",
		"fewer texts at a time, or shorter ones")
}

// PlanAnswers has plans of memory count, from now on, what Serve takes between the passes of a training: so many texts
// of so many tokens each, with prompts of up to so many. It fails where the device lacks an operation or memory.
func (m *Model) PlanAnswers(texts, room, prompt int) error {
	c, err := m.newCache(texts, room)
	if err != nil {
		return err
	}
	defer c.Close()
	m.answers, err = c.measure(prompt)
	return err
}
