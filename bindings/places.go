package bindings

import (
	"math"
	"slices"
)

// Places are the rows of texts that grow, whose earlier tokens a cache holds.
type Places struct {
	rows   []int32 // of each row its text and its position there; Set takes what stands there then
	room   int     // tokens of a text that a cache holds, at most
	tensor *Tensor // [2, rows], int32: what the kernels take

	// What composed operations take: runs of rows of one text, as many in each of a group, and the first span tokens of
	// their texts.
	groups  []placeGroup
	span    int64
	writes  *Tensor // [rows]: the row of the cache that each becomes
	taps    map[int]*tapPlaces
	indices []placeIndex
}

// placeIndex is an input of indices, and what they are for the rows as they are.
type placeIndex struct {
	*Tensor
	of func() []int32
}

// placeGroup is texts that go on by equally many rows.
type placeGroup struct {
	first, each, texts int64
	index              *Tensor         // [span · texts]: rows of the cache
	states, begins     *Tensor         // [texts]: of statesOf
	masks              map[int]*Tensor // of each window, [span, each, 1, texts]: 0 where a row sees a token, else −∞
}

// spanStep is what a span is a multiple of, so that a graph serves for many tokens.
const spanStep = 64

// NewPlaces makes the inputs of a graph that tell its rows apart: rows has the text of each and its position there.
// Those of a text must follow each other. A cache has room tokens of each text.
func (c *Context) NewPlaces(rows []int32, room int) *Places {
	p := &Places{rows: rows, room: room, taps: map[int]*tapPlaces{}}
	n := int64(len(rows) / 2)
	if len(rows) == 0 || len(rows)%2 != 0 || room < 1 {
		c.fail("places", "%d numbers, room for %d", len(rows), room)
		return p
	}
	if c.composed == nil {
		p.tensor = c.NewTensor(I32, 2, n).Input()
		return p
	}
	for i := int64(0); i < n; {
		end := i + 1
		for end < n && rows[2*end] == rows[2*i] {
			end++
		}
		if last := len(p.groups) - 1; last >= 0 && p.groups[last].each == end-i {
			p.groups[last].texts++
		} else {
			p.groups = append(p.groups, placeGroup{first: i, each: end - i, texts: 1, masks: map[int]*Tensor{}})
		}
		i = end
	}
	p.span = p.spanOf(rows)
	p.writes = p.index(c, func() (list []int32) {
		for i := range n {
			list = append(list, p.rows[2*i]*int32(p.room)+p.rows[2*i+1])
		}
		return list
	})
	for i := range p.groups {
		g := &p.groups[i]
		g.index = p.index(c, func() (list []int32) {
			for t := range g.texts {
				last := g.first + (t+1)*g.each - 1
				text, end := p.rows[2*last], p.rows[2*last+1]
				for j := range int32(p.span) {
					list = append(list, text*int32(p.room)+min(j, end)) // what lies behind may be anything, NaN too
				}
			}
			return list
		})
	}
	return p
}

// index makes an input, of always as many indices.
func (p *Places) index(c *Context, of func() []int32) *Tensor {
	x := c.NewTensor(I32, int64(len(of()))).Input()
	p.indices = append(p.indices, placeIndex{x, of})
	return x
}

// spanOf is how many tokens of a text rows see at most, rounded up.
func (p *Places) spanOf(rows []int32) int64 {
	most := int32(0)
	for i := 1; i < len(rows); i += 2 {
		most = max(most, rows[i])
	}
	return min((int64(most)/spanStep+1)*spanStep, int64(p.room))
}

// Serves tells whether the graph's operations see far enough for these rows, one of each text as before.
func (p *Places) Serves(rows []int32) bool { return p.tensor != nil || p.spanOf(rows) <= p.span }

// maskOf is the input that tells which tokens the rows of a group see.
func (c *Context) maskOf(p *Places, g placeGroup, window int) *Tensor {
	if g.masks[window] == nil {
		g.masks[window] = c.NewTensor(F32, p.span, g.each, 1, g.texts).Input()
	}
	return g.masks[window]
}

// placesFit checks that there is a place for each column of x.
func (c *Context) placesFit(op string, p *Places, x *Tensor) bool {
	if p == nil || int64(len(p.rows)) != 2*x.Ne(1) {
		c.fail(op, "%s without a place for each column", x.describe())
		return false
	}
	return true
}

// holds tells whether x has the shape of a cache of these heads.
func (p *Places) holds(x *Tensor, h Heads) bool {
	if p.tensor == nil {
		return x.Ne(0) == int64(h.Dim*h.KV) && x.Ne(1)%int64(p.room) == 0
	}
	return x.Ne(0) == int64(cacheHead(h.Dim)*p.room) && p.room%CacheBlock == 0 && x.Ne(1)%int64(h.KV) == 0
}

// Set gives the inputs their values, once those that the graph uses have memory.
func (p *Places) Set() error {
	if p.tensor.placed() {
		return Set(p.tensor, p.rows)
	}
	for _, x := range p.indices {
		if x.placed() {
			if err := Set(x.Tensor, x.of()); err != nil {
				return err
			}
		}
	}
	for _, g := range p.groups {
		for window, mask := range g.masks {
			if err := Set(mask, p.masked(g, window)); err != nil {
				return err
			}
		}
	}
	return nil
}

// masked are a mask's values.
func (p *Places) masked(g placeGroup, window int) []float32 {
	mask := slices.Repeat([]float32{float32(math.Inf(-1))}, int(p.span*g.each*g.texts))
	for i := range g.each * g.texts {
		end := int64(p.rows[2*(g.first+i)+1]) + 1
		first := int64(0)
		if window > 0 {
			first = max(0, end-int64(window))
		}
		clear(mask[i*p.span+first : i*p.span+end])
	}
	return mask
}

// CacheShape is that of the keys, or the values, of texts with room tokens each in one block.
func (b *Backend) CacheShape(headDim, kvHeads, room, texts int) [2]int64 {
	if !b.Fused {
		return [2]int64{int64(headDim * kvHeads), int64(room * texts)}
	}
	return [2]int64{int64(cacheHead(headDim) * room), int64(texts * kvHeads)}
}

// composeAttentionCached gathers the tokens that each text's rows see; the cache has one in each row.
func (c *Context) composeAttentionCached(qkv, keys, values *Tensor, p *Places, h Heads, t Type) *Tensor {
	if !c.composable("attention_cached", t, qkv) {
		return nil
	}
	qkv = c.unbroken(qkv)
	q, kv := int64(h.Dim*h.Query), int64(h.Dim*h.KV)
	keys = c.SetRows(keys, c.Cont(c.part(qkv, q, kv)), p.writes)
	values = c.SetRows(values, c.Cont(c.part(qkv, q+kv, kv)), p.writes)
	var all []*Tensor
	for _, g := range p.groups {
		gathered := func(from *Tensor) *Tensor {
			return c.Reshape(c.GetRows(from, g.index), int64(h.Dim), int64(h.KV), p.span, g.texts)
		}
		k := c.Permute(gathered(keys), 0, 2, 1, 3)   // [dim, span, kv, texts]
		v := c.Permute(gathered(values), 1, 2, 0, 3) // [span, dim, kv, texts]
		own := c.Cont(c.View(qkv, [4]int64{q, g.each * g.texts, 1, 1}, [4]int64{0, g.first}))
		own = c.Permute(c.Reshape(own, int64(h.Dim), int64(h.Query), g.each, g.texts), 0, 2, 1, 3)
		scores, scale := c.capped(c.exactTimes(k, own), h) // [span, each, heads, texts]
		y := c.exactTimes(v, c.softMaxMasked(scores, c.maskOf(p, g, h.Window), h.Sinks, scale))
		all = append(all, c.Reshape(c.Cont(c.Permute(y, 0, 2, 1, 3)), q, g.each*g.texts))
	}
	return c.joined(all, 1)
}
