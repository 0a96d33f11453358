package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// attached is an adapter on the backend: its random matrices and its trained vectors.
type attached struct {
	*vera.Adapter
	context    *bindings.Context
	memory     *bindings.Buffer
	parameters []parameter
	// All vectors in order, then zeros. Vectors that are frozen are among them; their gradients are not used.
	params, grads *bindings.Tensor
	moments       *moments // nil unless there is a DeviceAdamW
	lowest        int      // the lowest adapted block; gradients need not go below it
	merged        *bindings.Context
	mergedMemory  *bindings.Buffer
	stale         bool  // the merged matrices are older than the vectors
	held          int64 // memory of the process when the adapter was attached, for estimates
}

// parameter is a vector or matrix of a layer that training may change.
type parameter struct {
	values []float32
	offset int // in the adapter's Params; -1 where it is frozen
}

// Attach makes an adapter part of the model; nil takes it off again. The adapter must be of this model.
func (m *Model) Attach(a *vera.Adapter) error {
	m.detach()
	m.attachment++
	if a == nil {
		return nil
	}
	if err := m.attach(a); err != nil {
		m.detach()
		return fmt.Errorf("attach the adapter: %w", err)
	}
	return nil
}

func (m *Model) detach() {
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			gr.merged, gr.adapter = nil, nil
		}
	}
	if m.adapter != nil {
		m.adapter.moments.close()
		m.adapter.memory.Close()
		m.adapter.context.Close()
		m.adapter.mergedMemory.Close()
		if m.adapter.merged != nil {
			m.adapter.merged.Close()
		}
		m.adapter = nil
	}
}

func (m *Model) attach(adapter *vera.Adapter) error {
	if adapter.Method == vera.MethodLoRA && m.options.Plan == PlanMerged {
		return errors.New("plan merged: is for VeRA; a LoRA is computed factored")
	}
	groups, err := m.adaptedGroups(adapter)
	if err != nil {
		return err
	}
	a := &attached{Adapter: adapter, lowest: groups[0].block,
		context: bindings.NewContext(16 + 16*len(adapter.Layers))}
	m.adapter = a
	n := (parameterCount(adapter) + gradientRow - 1) / gradientRow * gradientRow
	a.params, a.grads = a.context.NewTensor(bindings.F32, n), a.context.NewTensor(bindings.F32, n)
	p := &placing{m: m, a: adapter, c: a.context, params: a.params, grads: a.grads}
	p.makePairs(groups)
	if m.probe == nil {
		if a.memory, err = m.backend.Allocate(p.c); err != nil {
			return err
		}
	}
	for _, gr := range groups {
		gr.adapter = p.group(gr)
	}
	a.parameters = p.parameters
	if err := p.c.Err(); err != nil || m.probe != nil {
		a.stale = true
		return err
	}
	for _, set := range p.sets {
		if err := set(); err != nil {
			return err
		}
	}
	a.held = residentMemory()
	return m.Update()
}

// adaptedLayer is a layer of the model with its layer of the adapter.
type adaptedLayer struct {
	*linear
	index int // in the group
	of    *vera.Layer
}

// adaptedGroup is a group with those of its layers that are adapted.
type adaptedGroup struct {
	*group
	layers []adaptedLayer
}

// adaptedGroups matches an adapter's layers with the model's, in the order of blocks.
func (m *Model) adaptedGroups(a *vera.Adapter) (list []adaptedGroup, err error) {
	type seat struct {
		block  int
		target string
	}
	n, layers := 0, map[seat]*vera.Layer{}
	for i, l := range a.Layers {
		layers[seat{l.Block, l.Target}] = &a.Layers[i]
	}
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			ad := adaptedGroup{group: gr}
			for i, l := range gr.layers {
				layer := layers[seat{l.block, l.target}]
				if layer == nil {
					continue
				}
				if layer.In != l.in || layer.Out != l.out {
					return nil, fmt.Errorf("%s is %d × %d in the adapter, %d × %d in the model", layer.Name(),
						layer.Out, layer.In, l.out, l.in)
				}
				ad.layers = append(ad.layers, adaptedLayer{l, i, layer})
			}
			if len(ad.layers) > 0 {
				list = append(list, ad)
				n += len(ad.layers)
			}
		}
	}
	if n != len(a.Layers) {
		return nil, fmt.Errorf("the adapter has %d layers, the model %d of them", len(a.Layers), n)
	}
	return list, nil
}

// parameterCount counts b and d of every layer, and a LoRA's matrices.
func parameterCount(a *vera.Adapter) (n int64) {
	for _, l := range a.Layers {
		n += int64(len(l.LambdaB) + len(l.LambdaD))
		if a.Method == vera.MethodLoRA {
			n += int64(len(l.Pair.A) + len(l.Pair.B))
		}
	}
	return n
}

// placing makes the tensors of an adapter's matrices and vectors.
type placing struct {
	m             *Model
	a             *vera.Adapter
	c             *bindings.Context
	params, grads *bindings.Tensor // nil where vectors stand in a table, and where nothing is trained
	parameters    []parameter
	offset        int64          // next free place in params
	interleaved   bool           // the pair is packed for 8-bit products
	sets          []func() error // fill the tensors, once they have memory

	// Of a shared pair, in each order of rows or columns that layers need: A [in, rank] and B [rank, out].
	sharedA, sharedB map[vera.Order]*bindings.Tensor
	parts            map[partOfA]*bindings.Tensor // of A, where they are matrices of their own
	groupA           map[*group]*bindings.Tensor  // of pairs that layers have of their own
	layerB           map[*linear]*bindings.Tensor
}

// makePairs makes the tensors of the matrices that are not trained.
func (p *placing) makePairs(groups []adaptedGroup) {
	rank, a := int64(p.a.Rank), p.a
	switch {
	case a.Method == vera.MethodLoRA:
	case a.Pair != nil:
		down, up := a.Ordered()
		kindA, kindB := p.m.kind(), bindings.F32
		if p.quantizesPair(groups) {
			kindA, kindB, p.interleaved = bindings.Q8_0, bindings.Q8_0, p.m.backend.Host
		}
		place := func(t bindings.Type, all map[vera.Order]vera.Matrix) map[vera.Order]*bindings.Tensor {
			placed := map[vera.Order]*bindings.Tensor{}
			for o, x := range all {
				placed[o] = p.matrix(t, x.Values, x.Width)
			}
			return placed
		}
		p.sharedA, p.sharedB = place(kindA, down), place(kindB, up)
		if kindA == bindings.Q8_0 && !p.m.backend.Fused {
			p.copyParts(groups, down)
		}
	default:
		p.groupA, p.layerB = map[*group]*bindings.Tensor{}, map[*linear]*bindings.Tensor{}
		for _, gr := range groups {
			down := p.c.NewTensor(p.m.kind(), int64(gr.in), rank*int64(len(gr.layers)))
			var all []float32
			for _, l := range gr.layers {
				all = append(all, a.Columns(l.of)...)
				rows, values := p.c.NewTensor(bindings.F32, rank, int64(l.out)), a.Rows(l.of)
				p.layerB[l.linear] = rows
				p.sets = append(p.sets, func() error { return bindings.Set(rows, values) })
			}
			p.groupA[gr.group] = down
			p.sets = append(p.sets, func() error { return p.m.copyInto(down, all) })
		}
	}
}

// partOfA is the first columns of A in an order.
type partOfA struct {
	vera.Order
	columns int
}

// copyParts makes matrices of their own of the parts of A that layers take: composed products of bytes take no matrix
// with gaps.
func (p *placing) copyParts(groups []adaptedGroup, down map[vera.Order]vera.Matrix) {
	p.parts = map[partOfA]*bindings.Tensor{}
	for _, gr := range groups {
		_, order := p.a.Base.Orders(gr.layers[0].target)
		all, key := down[order], partOfA{order, gr.in}
		if p.parts[key] != nil || gr.in == all.Width {
			continue
		}
		var values []float32
		for row := range slices.Chunk(all.Values, all.Width) {
			values = append(values, row[:gr.in]...)
		}
		p.parts[key] = p.matrix(bindings.Q8_0, values, gr.in)
	}
}

// quantizesPair tells whether the shared pair is rounded to 8 bits, for generation. Every part of its rows that a layer
// takes must be whole blocks.
func (p *placing) quantizesPair(groups []adaptedGroup) bool {
	parts := func(n int) bool { return int64(n)%bindings.Q8_0.BlockSize() != 0 }
	return p.m.options.Compute == ComputeQ8 && !parts(p.a.MaxIn) && !parts(p.a.Rank) &&
		!slices.ContainsFunc(groups, func(gr adaptedGroup) bool { return parts(gr.in) })
}

// matrix places a matrix of the shared pair, given in rows of some width; a pair that is rounded to 8 bits is
// interleaved. On the CPU, rows have gaps between them: rows whose distance is a power of two would meet in the same
// sets of the cache.
func (p *placing) matrix(t bindings.Type, values []float32, width int) *bindings.Tensor {
	if p.interleaved {
		return p.interleavedMatrix(values, width)
	}
	gap := 16
	if !p.m.backend.Host {
		gap = 0 // composed products would copy a matrix with gaps
	}
	rows := len(values) / width
	whole := p.c.NewTensor(t, int64(width+gap), int64(rows))
	p.sets = append(p.sets, func() error {
		spread := make([]float32, rows*(width+gap))
		for i := range rows {
			copy(spread[i*(width+gap):], values[i*width:(i+1)*width])
		}
		return p.m.copyInto(whole, spread)
	})
	return p.c.View(whole, [4]int64{int64(width), int64(rows), 1, 1}, [4]int64{})
}

// interleavedMatrix places a matrix rounded to 8 bits and packed; zeros fill the last strip.
func (p *placing) interleavedMatrix(values []float32, width int) *bindings.Tensor {
	rows := len(values) / width
	whole := (rows + bindings.InterleavedRows - 1) / bindings.InterleavedRows * bindings.InterleavedRows
	x := p.c.NewTensor(bindings.Q8_0, int64(width), int64(whole))
	p.sets = append(p.sets, func() error {
		if err := p.m.copyInto(x, append(slices.Clone(values), make([]float32, (whole-rows)*width)...)); err != nil {
			return err
		}
		return x.Interleave()
	})
	return x
}

// part views the numbers of `of` from the next offset on as a matrix, or as a vector where columns is 1.
func (p *placing) part(of *bindings.Tensor, width, columns int64) *bindings.Tensor {
	if of == nil {
		return nil
	}
	x := p.c.View(of, [4]int64{width * columns, 1, 1, 1}, [4]int64{p.offset})
	if columns > 1 && x != nil {
		x = p.c.Reshape(x, width, columns)
	}
	return x
}

// take gives parameters the next place in params, and their gradients the same in grads.
func (p *placing) take(width, columns int64, parts ...[]float32) (x, grad *bindings.Tensor) {
	x, grad = p.part(p.params, width, columns), p.part(p.grads, width, columns)
	p.offset += width * columns
	for _, values := range parts {
		p.parameters = append(p.parameters, parameter{values, p.a.Offset(values)})
	}
	return x, grad
}

// group makes the tensors of a group and its layers. Of a LoRA, A of all layers comes first, so that it is one matrix.
func (p *placing) group(gr adaptedGroup) *groupAdapter {
	in := int64(gr.in)
	ad := &groupAdapter{layers: make([]layerAdapter, len(gr.group.layers)),
		sharesA: p.sharedA != nil || len(gr.layers) == 1}
	if p.interleaved {
		ad.way = bindings.Interleaved
	}
	switch {
	case p.a.Method == vera.MethodLoRA:
		var downs [][]float32
		ranks := 0
		for _, l := range gr.layers {
			downs, ranks = append(downs, l.of.Pair.A), ranks+l.of.Rank()
		}
		ad.matrixA, ad.gradA = p.take(in, int64(ranks), downs...)
	case p.sharedA != nil:
		_, columns := p.a.Base.Orders(gr.layers[0].target) // the group shares its input, so one order holds for all
		if ad.matrixA = p.parts[partOfA{columns, gr.in}]; ad.matrixA == nil {
			ad.matrixA = p.c.View(p.sharedA[columns], [4]int64{in, int64(p.a.Rank), 1, 1}, [4]int64{})
		}
	default:
		ad.matrixA = p.groupA[gr.group]
	}
	next := 0
	for _, l := range gr.layers {
		to := &ad.layers[l.index]
		to.rank = l.of.Rank()
		if p.sharedA == nil {
			to.firstRank, next = next, next+to.rank
		}
		out, rank := int64(l.out), int64(to.rank)
		v := &bindings.Vectors{A: p.c.View(ad.matrixA, [4]int64{in, rank, 1, 1}, [4]int64{0, int64(to.firstRank)})}
		switch {
		case p.a.Method == vera.MethodLoRA:
			v.B, to.gradB = p.take(rank, out, l.of.Pair.B)
		case p.sharedA == nil:
			v.B = p.layerB[l.linear]
		default:
			rows, _ := p.a.Base.Orders(l.target)
			v.B = p.c.View(p.sharedB[rows], [4]int64{rank, out, 1, 1}, [4]int64{})
		}
		to.grads, to.offset = p.part(p.grads, out+rank, 1), p.offset
		v.LambdaB, _ = p.take(out, 1, l.of.LambdaB)
		v.LambdaD, _ = p.take(rank, 1, l.of.LambdaD)
		to.vectors = v
	}
	return ad
}

// copyInto copies values into a matrix of float32, bfloat16 or q8_0.
func (m *Model) copyInto(t *bindings.Tensor, values []float32) error {
	if t.Type() == bindings.F32 {
		return bindings.Set(t, values)
	}
	g := m.newGraph(0)
	defer g.Close()
	g.nodes.Expand(g.Cpy(input(g, values, t.Ne(0), t.Ne(1)), t))
	return g.run()
}

// Update copies the attached adapter's Params to the backend again, after an optimiser step.
func (m *Model) Update() error {
	a := m.adapter
	if a == nil {
		return errors.New("update: no adapter is attached")
	}
	a.stale = true
	all := make([]float32, 0, a.params.Ne(0))
	for _, n := range a.parameters {
		values := n.values
		if m.options.Compute == ComputeQ8 && a.Pair != nil {
			values = rounded16(values)
		}
		all = append(all, values...)
	}
	return bindings.Set(a.params, append(all, make([]float32, int(a.params.Ne(0))-len(all))...))
}
