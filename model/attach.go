package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// attached is an adapter on the backend: its random matrices and its vectors.
type attached struct {
	*vera.Adapter
	context *bindings.Context
	memory  *bindings.Buffer
	numbers []numbers
	// of all numbers in order, with zeros behind: those that are not trained get no gradient that is used
	params, grads *bindings.Tensor
	moments       *moments // nil but with an AdamW
	lowest        int      // the lowest adapted block; gradients need not go below it
	merged        *bindings.Context
	mergedMemory  *bindings.Buffer
	stale         bool  // the merged matrices are not of the present numbers
	interleaved   bool  // the pair is laid out for products with bytes
	held          int64 // memory of the process when the adapter was attached, for plans
}

// numbers is a vector or matrix of a layer that training may change.
type numbers struct {
	values []float32
	at     int // in the adapter's Params, or -1
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
			gr.merged, gr.shared, gr.down, gr.sharedDown, gr.gradDown = nil, nil, nil, false, nil
			for _, l := range gr.layers {
				l.vectors, l.rank, l.down, l.grads, l.gradRows = nil, 0, 0, nil, nil
			}
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
	a := &attached{Adapter: adapter, lowest: m.Blocks}
	groups, err := a.groups(m)
	if err != nil {
		return err
	}
	a.context = bindings.NewContext(16 + 16*len(adapter.Layers))
	m.adapter = a
	p := &placing{m: m, a: a, c: a.context}
	n := (a.size() + gradientRow - 1) / gradientRow * gradientRow
	a.params, a.grads = p.c.NewTensor(bindings.F32, n), p.c.NewTensor(bindings.F32, n)
	p.makePairs(groups)
	if m.asked == nil {
		if a.memory, err = m.backend.Allocate(p.c); err != nil {
			return err
		}
	}
	for _, gr := range groups {
		p.group(gr)
	}
	if err := p.c.Err(); err != nil || m.asked != nil {
		a.stale = true
		return err
	}
	for _, set := range p.sets {
		if err := set(); err != nil {
			return err
		}
	}
	if a.held, err = held(); err != nil {
		return err
	}
	return m.Update()
}

// adaptedLayer is a layer of a group with its part of the adapter.
type adaptedLayer struct {
	*linear
	of *vera.Layer
}

// adaptedGroup is a group of which layers are adapted.
type adaptedGroup struct {
	*group
	layers []adaptedLayer
}

// groups finds what the adapter adapts.
func (a *attached) groups(m *Model) (list []adaptedGroup, err error) {
	n := 0
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			ad := adaptedGroup{group: gr}
			for _, l := range gr.layers {
				layer := a.Layer(l.block, l.target)
				if layer == nil {
					continue
				}
				if layer.In != l.in || layer.Out != l.out {
					return nil, fmt.Errorf("%s is %d × %d in the adapter, %d × %d in the model", layer.Name(),
						layer.Out, layer.In, l.out, l.in)
				}
				ad.layers = append(ad.layers, adaptedLayer{l, layer})
				a.lowest = min(a.lowest, l.block)
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

// size counts all numbers: every layer's b and d, and a LoRA's matrices.
func (a *attached) size() (n int64) {
	for _, l := range a.Layers {
		n += int64(len(l.LambdaB) + len(l.LambdaD))
		if a.Method == vera.MethodLoRA {
			n += int64(len(l.Pair.A) + len(l.Pair.B))
		}
	}
	return n
}

// placing gives an adapter's matrices and vectors their tensors.
type placing struct {
	m    *Model
	a    *attached
	c    *bindings.Context
	at   int64          // of params
	sets []func() error // to be run once the tensors have memory

	// of a shared pair, in each order that layers see: A [in, rank] and B [rank, out]
	downs, ups map[vera.Order]*bindings.Tensor
	down       map[*group]*bindings.Tensor // of pairs that are the layers' own
	rows       map[*linear]*bindings.Tensor
}

// makePairs makes room for the matrices that are not trained.
func (p *placing) makePairs(groups []adaptedGroup) {
	rank, a := int64(p.a.Rank), p.a
	switch {
	case a.Method == vera.MethodLoRA:
	case a.Pair != nil:
		a.interleaved = p.inBytes(groups)
		place := func(t bindings.Type, all map[vera.Order]vera.Matrix) map[vera.Order]*bindings.Tensor {
			placed := map[vera.Order]*bindings.Tensor{}
			for o, x := range all {
				placed[o] = p.matrix(t, x.Values, x.Width)
			}
			return placed
		}
		down, up := a.Ordered()
		p.downs, p.ups = place(p.m.kind(), down), place(bindings.F32, up)
	default:
		p.down, p.rows = map[*group]*bindings.Tensor{}, map[*linear]*bindings.Tensor{}
		for _, gr := range groups {
			down := p.c.NewTensor(p.m.kind(), int64(gr.in), rank*int64(len(gr.layers)))
			var all []float32
			for _, l := range gr.layers {
				all = append(all, a.Columns(l.of)...)
				rows, values := p.c.NewTensor(bindings.F32, rank, int64(l.out)), a.Rows(l.of)
				p.rows[l.linear] = rows
				p.sets = append(p.sets, func() error { return bindings.Set(rows, values) })
			}
			p.down[gr.group] = down
			p.sets = append(p.sets, func() error { return p.m.copyInto(down, all) })
		}
	}
}

// inBytes tells whether the shared pair is rounded to blocks of 8-bit numbers, for generation: all that is read of its
// rows must be whole blocks.
func (p *placing) inBytes(groups []adaptedGroup) bool {
	parts := func(n int) bool { return int64(n)%bindings.Q8_0.BlockSize() != 0 }
	return p.m.options.Compute == ComputeQ8 && !parts(p.a.MaxIn) && !parts(p.a.Rank) &&
		!slices.ContainsFunc(groups, func(gr adaptedGroup) bool { return parts(gr.in) })
}

// matrix places values of the shared pair in rows of some width, on the CPU with a gap behind each: rows that lie a
// power of two apart would meet in the same sets of the cache. A pair in bytes lies interleaved instead.
func (p *placing) matrix(t bindings.Type, values []float32, width int) *bindings.Tensor {
	if p.a.interleaved {
		return p.interleaved(values, width)
	}
	gap := 16
	if p.m.store != nil {
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

// interleaved places values in rows of some width, rounded to 8 bits; what is missing of the last strip are zeros.
func (p *placing) interleaved(values []float32, width int) *bindings.Tensor {
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

// part is the next numbers of a tensor as a matrix, or as a vector where columns is 1.
func (p *placing) part(of *bindings.Tensor, width, columns int64) *bindings.Tensor {
	x := p.c.View(of, [4]int64{width * columns, 1, 1, 1}, [4]int64{p.at})
	if columns > 1 && x != nil {
		x = p.c.Reshape(x, width, columns)
	}
	return x
}

// take gives numbers the next place in params, and their gradients that in grads.
func (p *placing) take(width, columns int64, parts ...[]float32) (x, grad *bindings.Tensor) {
	x, grad = p.part(p.a.params, width, columns), p.part(p.a.grads, width, columns)
	p.at += width * columns
	for _, values := range parts {
		p.a.numbers = append(p.a.numbers, numbers{values, p.a.Offset(values)})
	}
	return x, grad
}

// group gives a group and its layers their tensors. A LoRA's A of all layers come first, so that they are one matrix.
func (p *placing) group(gr adaptedGroup) {
	in := int64(gr.in)
	gr.sharedDown = p.downs != nil || len(gr.layers) == 1
	switch {
	case p.a.Method == vera.MethodLoRA:
		var downs [][]float32
		ranks := 0
		for _, l := range gr.layers {
			downs, ranks = append(downs, l.of.Pair.A), ranks+l.of.Rank()
		}
		gr.down, gr.gradDown = p.take(in, int64(ranks), downs...)
	case p.downs != nil:
		_, columns := p.a.Base.Orders(gr.layers[0].target) // of all of the group: they share their input
		gr.down = p.c.View(p.downs[columns], [4]int64{in, int64(p.a.Rank), 1, 1}, [4]int64{})
	default:
		gr.down = p.down[gr.group]
	}
	first, next := p.at, 0
	for _, l := range gr.layers {
		l.rank = l.of.Rank()
		if p.downs == nil {
			l.down, next = next, next+l.rank
		}
		out, rank := int64(l.out), int64(l.rank)
		v := &bindings.Vectors{A: p.c.View(gr.down, [4]int64{in, rank, 1, 1}, [4]int64{0, int64(l.down)})}
		switch {
		case p.a.Method == vera.MethodLoRA:
			v.B, l.gradRows = p.take(rank, out, l.of.Pair.B)
		case p.downs == nil:
			v.B = p.rows[l.linear]
		default:
			rows, _ := p.a.Base.Orders(l.target)
			v.B = p.c.View(p.ups[rows], [4]int64{rank, out, 1, 1}, [4]int64{})
		}
		l.grads = p.part(p.a.grads, out+rank, 1)
		v.LambdaB, _ = p.take(out, 1, l.of.LambdaB)
		v.LambdaD, _ = p.take(rank, 1, l.of.LambdaD)
		l.vectors = v
	}
	if p.a.interleaved && len(gr.layers) == len(gr.group.layers) {
		p.share(gr, first)
	}
}

// share makes one of the vectors of all layers of a group, from `first` of params on, where they see the same rows of
// B.
func (p *placing) share(gr adaptedGroup, first int64) {
	out, rank, n := int64(gr.layers[0].out), int64(p.a.Rank), int64(len(gr.layers))
	order, _ := p.a.Base.Orders(gr.layers[0].target)
	for _, l := range gr.layers {
		if own, _ := p.a.Base.Orders(l.target); n == 1 || int64(l.out) != out || own != order {
			return
		}
	}
	all := p.c.Reshape(p.c.View(p.a.params, [4]int64{(out + rank) * n, 1, 1, 1}, [4]int64{first}), out+rank, n)
	gr.group.shared = &bindings.Vectors{
		B:       gr.layers[0].vectors.B,
		LambdaB: p.c.View(all, [4]int64{out, n, 1, 1}, [4]int64{}),
		LambdaD: p.c.View(all, [4]int64{rank, n, 1, 1}, [4]int64{out}),
	}
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

// Update reads the attached adapter's numbers again, after an optimiser step.
func (m *Model) Update() error {
	a := m.adapter
	if a == nil {
		return errors.New("update: no adapter is attached")
	}
	a.stale = true
	all := make([]float32, 0, a.params.Ne(0))
	for _, n := range a.numbers {
		all = append(all, n.values...)
	}
	return bindings.Set(a.params, append(all, make([]float32, int(a.params.Ne(0))-len(all))...))
}
