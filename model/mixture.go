package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/x448/float16"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// Placed is an adapter among others of a model: rows of many adapters are computed together. VeRA's vectors are held in
// 16 bits, beside those of all adapters that have the same pair.
type Placed struct {
	mixture *mixture
	slot    int32
	bytes   int64
}

// Bytes is the memory that the adapter takes beside its pair.
func (p *Placed) Bytes() int64 { return p.bytes }

// mixture is a pair with the vectors of all adapters that have it; or one adapter whose layers have matrices of their
// own.
type mixture struct {
	like    mixtureKey
	number  int // from 1 on, in the order of their making
	groups  map[*group]*groupAdapter
	context *bindings.Context
	memory  *bindings.Buffer
	placed  []*Placed // by slot; nil where one is free

	vectors *bindings.Tensor // of a single adapter, float32; else nil
	// [vectors of an adapter, slots], float16: b and d of each layer, at its offset. nil for a single adapter.
	table        *bindings.Tensor
	tableContext *bindings.Context
	tableMemory  *bindings.Buffer
}

// mixtureKey is what adapters have in common that are computed with one pair.
type mixtureKey struct {
	pair   string // its digest
	layers string // that are adapted
	own    int    // of an adapter that shares no pair, a number of its own
}

// Place puts an adapter of the model beside those of the cache that have its pair.
func (c *Cache) Place(a *vera.Adapter) (*Placed, error) {
	m := c.m
	if m.inTurn() {
		return nil, errors.New("several adapters: the device's memory does not hold the whole model; have a larger " +
			"--memory, a smaller model, or the CPU")
	}
	groups, err := m.adaptedGroups(a)
	if err != nil {
		return nil, err
	}
	if a.Pair == nil {
		x, err := c.newMixture(mixtureKey{own: c.made + 1}, a, groups)
		if err != nil {
			return nil, err
		}
		x.placed = []*Placed{{mixture: x, bytes: x.memory.Size()}}
		return x.placed[0], nil
	}
	vectors, err := halves(groups)
	if err != nil {
		return nil, err
	}
	key := mixtureKey{pair: a.Pair.SHA256(), layers: fmt.Sprint(a.Targets, a.Config.Layers)}
	x := c.mixtures[key]
	if x == nil {
		if x, err = c.newMixture(key, a, groups); err != nil {
			return nil, err
		}
	}
	p, err := x.add(c, vectors)
	if err != nil {
		c.closeIfEmpty(x)
		return nil, err
	}
	return p, nil
}

// halves lists the vectors of an adapter in the order of a table's row, rounded to 16 bits.
func halves(groups []adaptedGroup) (list []float32, err error) {
	for _, gr := range groups {
		for _, l := range gr.layers {
			vectors := slices.Concat(l.of.LambdaB, l.of.LambdaD)
			for i, v := range vectors {
				if math.IsInf(float64(float16.Fromfloat32(v).Float32()), 0) {
					return nil, fmt.Errorf("%s: number %d of b and d is %g, and 16 bits hold up to 65504: the adapter "+
						"is damaged, or serve its LoRA export", l.of.Name(), i, v)
				}
			}
			list = append(list, vectors...)
		}
	}
	return list, nil
}

// rounded16 are an adapter's vectors as mixtures hold them, so that it answers the same alone and among others.
func rounded16(values []float32) []float32 {
	list := slices.Clone(values)
	for i, v := range list {
		if r := float16.Fromfloat32(v).Float32(); !math.IsInf(float64(r), 0) {
			list[i] = r
		}
	}
	return list
}

// newMixture makes the matrices of an adapter; those of a shared pair are without vectors yet.
func (c *Cache) newMixture(key mixtureKey, a *vera.Adapter, groups []adaptedGroup) (x *mixture, err error) {
	m := c.m
	c.made++
	x = &mixture{like: key, number: c.made, groups: map[*group]*groupAdapter{},
		context: bindings.NewContext(16 + 16*len(a.Layers))}
	made := x
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	p := &placing{m: m, a: a, c: x.context}
	if a.Pair == nil {
		p.params = x.context.NewTensor(bindings.F32, parameterCount(a))
	}
	p.makePairs(groups)
	if x.memory, err = m.backend.Allocate(x.context); err != nil {
		return nil, err
	}
	for _, gr := range groups {
		x.groups[gr.group] = p.group(gr)
	}
	if err := x.context.Err(); err != nil {
		return nil, err
	}
	for _, set := range p.sets {
		if err := set(); err != nil {
			return nil, err
		}
	}
	if p.params != nil {
		x.vectors = p.params
		var all []float32
		for _, n := range p.parameters {
			all = append(all, n.values...)
		}
		if err := bindings.Set(p.params, all); err != nil {
			return nil, err
		}
	}
	c.mixtures[key] = x
	return x, nil
}

// add gives vectors a free slot. The table doubles where there is none; the system gives its memory as it is used.
func (x *mixture) add(c *Cache, vectors []float32) (*Placed, error) {
	slot := slices.Index(x.placed, nil)
	if slot < 0 {
		slot = len(x.placed)
		if err := x.grow(c, int64(len(vectors)), int64(max(16, 2*slot))); err != nil {
			return nil, err
		}
	}
	g := c.m.newGraph(0)
	defer g.Close()
	n := int64(len(vectors))
	to := g.View(x.table, [4]int64{n, 1, 1, 1}, [4]int64{0, int64(slot)})
	g.nodes.Expand(g.Cpy(input(g, vectors, n), to))
	if err := g.run(); err != nil {
		return nil, err
	}
	x.placed[slot] = &Placed{mixture: x, slot: int32(slot), bytes: 2 * n}
	return x.placed[slot], nil
}

// grow makes room for more adapters.
func (x *mixture) grow(c *Cache, numbers, slots int64) error {
	context := bindings.NewContext(4)
	table := context.NewTensor(bindings.F16, numbers, slots)
	memory, err := c.m.backend.Allocate(context)
	if err == nil && x.table != nil {
		err = c.m.copyTable(x.table, table)
	}
	if err != nil {
		memory.Close()
		context.Close()
		return err
	}
	c.forgetSteps() // they read the table
	x.closeTable()
	x.table, x.tableContext, x.tableMemory = table, context, memory
	x.placed = append(x.placed, make([]*Placed, int(slots)-len(x.placed))...)
	return nil
}

// copyTable copies a table into the first rows of a larger one.
func (m *Model) copyTable(from, to *bindings.Tensor) error {
	g := m.newGraph(0)
	defer g.Close()
	g.nodes.Expand(g.Cpy(from, g.View(to, from.Shape(), [4]int64{})))
	return g.run()
}

// Remove frees what an adapter takes. Texts of it are forgotten.
func (c *Cache) Remove(p *Placed) {
	for i, of := range c.adapters {
		if of == p {
			c.Cut(i, 0)
			c.adapters[i] = nil
		}
	}
	x := p.mixture
	x.placed[p.slot] = nil
	c.closeIfEmpty(x)
}

func (c *Cache) closeIfEmpty(x *mixture) {
	if slices.ContainsFunc(x.placed, func(p *Placed) bool { return p != nil }) {
		return
	}
	c.forgetSteps()
	delete(c.mixtures, x.like)
	x.close()
}

func (x *mixture) close() {
	x.closeTable()
	x.memory.Close()
	x.context.Close()
	bindings.ReturnMemory()
}

func (x *mixture) closeTable() {
	x.tableMemory.Close()
	if x.tableContext != nil {
		x.tableContext.Close()
	}
}

// share is consecutive rows of a graph whose adapters have one pair.
type share struct {
	groups   map[*group]*groupAdapter // nil for rows without an adapter
	first, n int
	vectors  *bindings.Tensor // float32 [·] of one adapter, or a table of float16 [·, ·]
	slots    *bindings.Tensor // [n], int32, with a table
}

// sharesOf divides rows by their adapters' pairs.
func (g *graph) sharesOf(adapters []*Placed, slots []int32) (list []share) {
	for start := 0; start < len(adapters); {
		x, end := mixtureOf(adapters[start]), start+1
		for end < len(adapters) && mixtureOf(adapters[end]) == x {
			end++
		}
		s := share{first: start, n: end - start}
		if x != nil {
			s.groups, s.vectors = x.groups, x.vectors
			if x.table != nil {
				s.vectors, s.slots = x.table, input(g, slots[start:end], int64(s.n))
			}
		}
		list = append(list, s)
		start = end
	}
	return list
}

func slotsOf(adapters []*Placed) []int32 {
	slots := make([]int32, len(adapters))
	for i, p := range adapters {
		if p != nil {
			slots[i] = p.slot
		}
	}
	return slots
}

func mixtureOf(p *Placed) *mixture {
	if p == nil {
		return nil
	}
	return p.mixture
}

// answerProducts is products in a way in which no row's result depends on the others, [out, rows] in float32. All rows
// have the attached adapter, or each its own.
func (g *graph) answerProducts(x *bindings.Tensor, gr *group, acc *bindings.Tensor) *bindings.Tensor {
	shares := g.shares
	if len(shares) == 0 && gr.adapter != nil {
		shares = []share{{groups: map[*group]*groupAdapter{gr: gr.adapter}, n: int(x.Ne(1)),
			vectors: g.m.adapter.params}}
	}
	y := g.NewTensor(bindings.F32, int64(gr.out), x.Ne(1))
	var parts []bindings.Part
	gr.each(nil, func(l *linear, _ layerAdapter, start int) {
		parts = append(parts, bindings.Part{W: l.w, Way: g.way, Column: int64(start), Rows: x.Ne(1)})
	})
	ranks := int64(0)
	for _, s := range shares {
		if ad := s.groups[gr]; ad != nil {
			parts = append(parts, bindings.Part{W: ad.matrixA, Way: ad.wayIn(g), Second: true, First: int64(s.first),
				Rows: int64(s.n)})
			ranks = max(ranks, ad.matrixA.Ne(1))
		}
	}
	var u *bindings.Tensor // A x of every row that has an adapter
	if ranks > 0 {
		u = g.NewTensor(bindings.F32, ranks, x.Ne(1))
	}
	for some := range slices.Chunk(parts, bindings.MostParts) {
		g.nodes.Expand(g.Linears(some, x, y, u, acc)...)
	}
	for _, s := range shares {
		ad := s.groups[gr]
		if ad == nil {
			continue
		}
		var layers []bindings.Factored
		gr.each(ad, func(_ *linear, a layerAdapter, start int) {
			if a.vectors != nil {
				layers = append(layers, bindings.Factored{B: a.vectors.B, Offset: a.offset, Column: int64(start),
					Rank: int64(a.firstRank)})
			}
		})
		rowsOf := func(t *bindings.Tensor) *bindings.Tensor {
			return g.View(t, [4]int64{t.Ne(0), int64(s.n), 1, 1}, [4]int64{0, int64(s.first)})
		}
		for some := range slices.Chunk(layers, bindings.MostParts) {
			g.nodes.Expand(g.AddFactored(some, rowsOf(y), rowsOf(u), s.vectors, s.slots, ad.wayIn(g))...)
		}
	}
	return y
}
