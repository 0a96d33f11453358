package model

import (
	"fmt"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// Cache holds the tokens of several texts that grow, with their keys and values in every block.
type Cache struct {
	m       *Model
	context *bindings.Context
	memory  *bindings.Buffer
	// Of each block, [head · room, texts · KV heads]. Blocks that share keys and values have the same; nil without
	// attention.
	keys, values []*bindings.Tensor
	last         []*bindings.Tensor // of blocks with a convolution, [width, (taps − 1) · texts]: its last inputs
	states       []*bindings.Tensor // of blocks with a delta net, [numbers, texts]
	room         int                // tokens of a text
	texts        [][]int32
	long         []bool    // whether each text is rotated as a long one
	attachment   int       // the model's, when keys and values were computed
	adapters     []*Placed // of each text; nil for the attached one, or none
	mixtures     map[mixtureKey]*mixture
	made         int     // mixtures so far
	steps        []*pass // graphs of one token for each of some texts, the last used first
}

// mostSteps bounds the graphs that are kept: they differ in the number of rows of each pair.
const mostSteps = 32

// Addition continues a text by at least one token. Logits are wanted after the last Rows of them. A text that goes on
// with another adapter is computed again. Additions whose adapters have one pair are best next to each other.
type Addition struct {
	Text    int
	Tokens  []int32
	Rows    int
	Adapter *Placed // of this cache; nil for the attached one, or none
}

// NewCache makes room for some texts of so many tokens each. The system gives the memory as it is used. It fails where
// the device lacks an operation, or memory.
func (m *Model) NewCache(texts, room int) (*Cache, error) {
	c, err := m.newCache(texts, room)
	if err != nil {
		return nil, err
	}
	if err := c.placeWeights(); err != nil {
		c.Close()
		return nil, fmt.Errorf("answers, %d texts of %d tokens at a time: %w", texts, c.room, err)
	}
	return c, nil
}

// newCache is NewCache wherever the weights lie.
func (m *Model) newCache(texts, room int) (*Cache, error) {
	if texts < 1 || texts > 1<<10 || room < 1 || room > 1<<22 {
		return nil, fmt.Errorf("a cache of %d texts of %d tokens: from 1 to %d, and from 1 to %d", texts, room,
			1<<10, 1<<22)
	}
	room = (room + bindings.CacheBlock - 1) / bindings.CacheBlock * bindings.CacheBlock
	c := &Cache{m: m, context: bindings.NewContext(2 * len(m.blocks)), room: room, texts: make([][]int32, texts),
		long: make([]bool, texts), attachment: m.attachment, adapters: make([]*Placed, texts),
		mixtures: map[mixtureKey]*mixture{}}
	kind := bindings.F32
	if m.options.Compute == ComputeQ8 || m.options.Compute == ComputeBF16 && !m.backend.Host {
		kind = bindings.F16
	}
	for _, b := range m.blocks {
		var keys, values, last, states *bindings.Tensor
		switch {
		case b.mixer == deltaNet:
			last = c.context.NewTensor(bindings.F32, int64(m.deltaQKV()), int64((m.Taps-1)*texts))
			states = c.context.NewTensor(bindings.F32, int64(m.Delta.DimK*m.deltaOut()), int64(texts))
		case b.mixer == shortConvolution:
			last = c.context.NewTensor(bindings.F32, int64(m.Width), int64((m.Taps-1)*texts))
		case b.kvFrom >= 0:
			keys, values = c.keys[b.kvFrom], c.values[b.kvFrom]
		default:
			shape := m.backend.CacheShape(b.headDim, b.kvHeads, room, texts)
			keys, values = c.context.NewTensor(kind, shape[:]...), c.context.NewTensor(kind, shape[:]...)
		}
		c.keys, c.values, c.last, c.states = append(c.keys, keys), append(c.values, values), append(c.last, last),
			append(c.states, states)
	}
	var err error
	if c.memory, err = m.backend.Allocate(c.context); err != nil {
		c.Close()
		return nil, fmt.Errorf("keys and values of %d texts of %d tokens: %w", texts, room, fewer(err))
	}
	return c, nil
}

// Close gives the memory back to the system. Closing twice is harmless.
func (c *Cache) Close() {
	c.forgetSteps()
	for _, x := range c.mixtures {
		x.close()
	}
	c.memory.Close()
	c.context.Close()
	bindings.ReturnMemory()
}

func (c *Cache) forgetSteps() {
	for _, p := range c.steps {
		p.close()
	}
	c.steps = nil
}

// Held gives the tokens of a text.
func (c *Cache) Held(text int) []int32 { return c.texts[text] }

// Cut makes a text forget all but its first n tokens; all of them where blocks keep a state that cannot be rewound.
func (c *Cache) Cut(text, n int) { c.texts[text] = c.texts[text][:c.reusable(text, n)] }

// reusable is how many of a text's first n tokens remain after Cut.
func (c *Cache) reusable(text, n int) int {
	if n < len(c.texts[text]) && c.m.recurrent() {
		return 0
	}
	return min(n, len(c.texts[text]))
}

// cacheRows bounds the tokens that are computed together, and so the memory.
const cacheRows = 512

// Append continues texts, each at most once, and gives the logits that are wanted: row after row of Vocab numbers, one
// addition after the other. A text's result does not depend on the others, nor, in float32, on the pieces in which its
// tokens come. After an error the texts hold what they held before, or nothing.
func (c *Cache) Append(adds ...Addition) ([]float32, error) {
	adds = slices.Clone(adds)
	if c.attachment != c.m.attachment {
		c.forgetSteps() // another adapter gives other keys and values
		for i := range c.texts {
			c.Cut(i, 0)
		}
		c.attachment = c.m.attachment
	}
	var all rows
	for i, a := range adds {
		if err := c.check(adds[:i], a); err != nil {
			return nil, err
		}
		// A text that becomes long, or no longer is, rotates differently.
		past := len(c.texts[a.Text])
		long := c.m.isLong(past + len(a.Tokens))
		if past > 0 && (long != c.long[a.Text] || a.Adapter != c.adapters[a.Text]) {
			a.Tokens, past = slices.Concat(c.texts[a.Text], a.Tokens), 0
			adds[i].Tokens = a.Tokens
			c.Cut(a.Text, 0)
		}
		all.add(a, past, long)
		c.long[a.Text], c.adapters[a.Text] = long, a.Adapter
	}
	logits := make([]float32, 0, all.wanted*c.m.Vocab)
	for start := 0; start < len(all.tokens); start += cacheRows {
		var err error
		if logits, err = c.compute(all.part(start, min(start+cacheRows, len(all.tokens))), logits); err != nil {
			err = fewer(err)
			for _, a := range adds {
				if c.m.recurrent() { // states may have gone on
					c.Cut(a.Text, 0)
				}
			}
			return nil, err
		}
	}
	for _, a := range adds {
		c.texts[a.Text] = append(c.texts[a.Text], a.Tokens...)
	}
	return logits, nil
}

func (c *Cache) check(before []Addition, a Addition) error {
	switch {
	case a.Text < 0 || a.Text >= len(c.texts):
		return fmt.Errorf("text %d of %d", a.Text, len(c.texts))
	case len(a.Tokens) == 0 || a.Rows < 0 || a.Rows > len(a.Tokens):
		return fmt.Errorf("append %d tokens with %d rows of logits", len(a.Tokens), a.Rows)
	case len(c.texts[a.Text])+len(a.Tokens) > c.room:
		return fmt.Errorf("append %d tokens to %d: a text has room for %d", len(a.Tokens), len(c.texts[a.Text]), c.room)
	}
	if err := c.m.checkLength(len(c.texts[a.Text]) + len(a.Tokens)); err != nil {
		return err
	}
	for _, b := range before {
		if b.Text == a.Text {
			return fmt.Errorf("text %d is appended to twice", a.Text)
		}
	}
	for _, t := range a.Tokens {
		if t < 0 || int(t) >= c.m.Vocab {
			return fmt.Errorf("token %d: the model's vocabulary has %d tokens", t, c.m.Vocab)
		}
	}
	return nil
}

// rows are tokens that are computed together.
type rows struct {
	tokens, positions []int32
	places            []int32 // text and position of each
	long              []bool  // whether its text is long
	adapters          []*Placed
	slots             []int32 // of them
	rotationRows      []int32 // for graph.rotationTables; of a pass alone
	logits            []bool  // whether they are wanted after it
	wanted            int     // how many are
}

func (r *rows) add(a Addition, past int, long bool) {
	for i, t := range a.Tokens {
		r.tokens = append(r.tokens, t)
		r.positions = append(r.positions, int32(past+i))
		r.places = append(r.places, int32(a.Text), int32(past+i))
		r.long = append(r.long, long)
		r.adapters = append(r.adapters, a.Adapter)
		r.logits = append(r.logits, i >= len(a.Tokens)-a.Rows)
	}
	r.wanted += a.Rows
}

func (r *rows) part(start, end int) rows {
	p := rows{tokens: r.tokens[start:end], positions: r.positions[start:end], places: r.places[2*start : 2*end],
		long: r.long[start:end], adapters: r.adapters[start:end], logits: r.logits[start:end]}
	for _, wanted := range p.logits {
		if wanted {
			p.wanted++
		}
	}
	return p
}

// isOneEach tells whether the rows are one more token for each of some texts; the graph of such rows is kept.
func (r *rows) isOneEach() bool {
	for i, p := range r.positions {
		if p == 0 || i > 0 && r.places[2*i] == r.places[2*i-2] {
			return false
		}
	}
	return r.wanted == len(r.tokens)
}

// pass is a graph that computes rows.
type pass struct {
	*graph
	rows
	at     *bindings.Places
	result *bindings.Tensor // logits, [vocabulary, wanted]; without them the residual stream
}

// isLike tells whether a steady pass has rows of the same pairs.
func (p *pass) isLike(r rows) bool {
	return len(p.tokens) == len(r.tokens) &&
		slices.EqualFunc(p.rows.adapters, r.adapters, func(a, b *Placed) bool { return mixtureOf(a) == mixtureOf(b) })
}

// step gives the pass for one more token of each of some texts, with memory.
func (c *Cache) step(r rows) (*pass, error) {
	if i := slices.IndexFunc(c.steps, func(p *pass) bool { return p.isLike(r) }); i >= 0 {
		p := c.steps[i]
		c.steps = slices.Delete(c.steps, i, i+1)
		if p.at.Serves(r.places) {
			c.steps = slices.Insert(c.steps, 0, p)
			return p, nil
		}
		p.close()
	}
	p := c.pass(r)
	p.alloc = c.m.backend.NewAllocator()
	if err := p.allocate(); err != nil {
		p.close()
		return nil, err
	}
	if c.steps = slices.Insert(c.steps, 0, p); len(c.steps) > mostSteps {
		c.steps[mostSteps].close()
		c.steps = c.steps[:mostSteps]
	}
	return p, nil
}

// compute appends the wanted logits of some rows.
func (c *Cache) compute(r rows, logits []float32) ([]float32, error) {
	if c.m.inTurn() {
		return c.computeInTurn(r, logits)
	}
	var p *pass
	var err error
	if r.isOneEach() {
		p, err = c.step(r)
	} else {
		p = c.pass(r)
		defer p.graph.Close()
		err = p.allocate()
	}
	if err != nil {
		return nil, err
	}
	copy(p.tokens, r.tokens)
	copy(p.positions, r.positions)
	copy(p.places, r.places)
	copy(p.slots, slotsOf(r.adapters))
	copy(p.rotationRows, rotationRows(r.long))
	if err := p.compute(); err != nil {
		return nil, err
	}
	return c.taken(p.result, r, logits)
}

// taken appends the wanted logits of some rows, which have been computed.
func (c *Cache) taken(result *bindings.Tensor, r rows, logits []float32) ([]float32, error) {
	n := len(logits)
	logits = logits[:n+r.wanted*c.m.Vocab]
	if r.wanted == 0 {
		return logits, nil
	}
	return logits, bindings.Get(result, logits[n:])
}

// pass makes a graph for rows like these. Its inputs are copies, which later rows overwrite.
func (c *Cache) pass(like rows) *pass {
	m, n := c.m, len(like.tokens)
	p := &pass{graph: m.newGraph(n), rows: rows{
		tokens: slices.Clone(like.tokens), positions: slices.Clone(like.positions), places: slices.Clone(like.places),
		rotationRows: rotationRows(like.long), adapters: slices.Clone(like.adapters), slots: slotsOf(like.adapters),
	}}
	g := p.graph
	g.way = m.answeringWay()
	g.rotations = g.rotationTables(p.positions, p.rotationRows)
	g.temperature = g.temperatureOf(p.positions)
	g.addFirst(p.positions)
	if slices.ContainsFunc(p.rows.adapters, func(a *Placed) bool { return a != nil }) {
		g.shares = g.sharesOf(p.rows.adapters, p.slots)
	}
	places := g.NewPlaces(p.places, c.room)
	*g.inputs = append(*g.inputs, places.Set)
	p.at = places
	x := g.embedded(p.tokens, p.positions)
	g.embedBlocks(p.tokens, x)
	for i, b := range m.blocks {
		x, _ = g.forward(b, x, c.of(i, places))
	}
	if like.wanted > 0 {
		x = g.wantedLogits(x, like)
	}
	if x != nil {
		p.result = x.Output()
	}
	g.nodes.Expand(p.result)
	return p
}

// of is block i's part of the cache.
func (c *Cache) of(i int, places *bindings.Places) *cached {
	return &cached{c.keys[i], c.values[i], c.last[i], c.states[i], places}
}

// answeringWay is the way of the products of answers.
func (m *Model) answeringWay() bindings.Way {
	if m.options.Compute == ComputeQ8 {
		return bindings.Bytes
	}
	return bindings.Alike
}

// wantedLogits are the logits after the rows that want them, [vocabulary, wanted], for the result x of the last block.
func (g *graph) wantedLogits(x *bindings.Tensor, r rows) *bindings.Tensor {
	if x == nil {
		return nil
	}
	if r.wanted < len(r.tokens) {
		var list []int32
		for i, wanted := range r.logits {
			if wanted {
				list = append(list, int32(i))
			}
		}
		x = g.GetRows(x, input(g, list, int64(len(list))))
	}
	return g.capped(g.linear(g.m.head, g.norm(x, g.outNorm()), bindings.Product{}, bindings.F32))
}

func (p *pass) close() {
	p.alloc.Close()
	p.graph.Close()
}

// Logits computes the logits after the last rows of a text's tokens, row after row of Vocab numbers.
func (m *Model) Logits(tokens []int32, rows int) ([]float32, error) {
	c, err := m.NewCache(1, max(1, len(tokens)))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Append(Addition{Tokens: tokens, Rows: rows})
}
