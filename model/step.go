package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// Loss sums −log p (natural logarithm) over the labelled positions of samples and counts them. Sample i is the next
// lengths[i] tokens; targets[i] is the token to be predicted after position i, or −1 for none. Samples do not see each
// other.
func (m *Model) Loss(tokens, targets []int32, lengths []int) (sum float64, n int, err error) {
	return m.Losses(tokens, targets, lengths, nil)
}

// Losses is Loss, and adds each sample's sum to sums, unless that is nil.
func (m *Model) Losses(tokens, targets []int32, lengths []int, sums []float64) (sum float64, n int, err error) {
	if sums != nil && len(sums) != len(lengths) {
		return 0, 0, fmt.Errorf("losses: room for %d sums, the batch has %d samples", len(sums), len(lengths))
	}
	samples, err := m.splitBatch(tokens, targets, lengths)
	if err != nil {
		return 0, 0, err
	}
	all := passes(samples)
	if err := m.placeWeights(all, m.lossMemory); err != nil {
		return 0, 0, err
	}
	if err := m.merge(); err != nil {
		return 0, 0, err
	}
	for _, pass := range all {
		p := newPack(pass, true)
		s, err := m.lossOf(p, sums)
		if err != nil {
			return 0, 0, err
		}
		sum, n = sum+s, n+len(p.labels.rows)
	}
	return sum, n, nil
}

func (m *Model) lossOf(p pack, sums []float64) (float64, error) {
	if len(p.labels.rows) == 0 {
		return 0, nil
	}
	if err := m.tape.reserve(2*m.streamBytes(p)+m.tableBytes(p), 2+m.tableCount()); err != nil {
		return 0, fmt.Errorf("%w; use a smaller batch, or a smaller --max-length", err)
	}
	x, err := m.begin(&p)
	if err != nil {
		return 0, err
	}
	// A block reads one of two places and writes the other.
	var other kept
	for _, b := range m.blocks {
		y, _, err := m.blockForward(b, p, x, other, 0, false)
		if err != nil {
			return 0, err
		}
		x, other = y, x
	}
	return m.loss(x, p.labels, kept{}, sums)
}

// AddGradient is Loss, and adds the gradient of the sum by the attached adapter's Params to grad. seed decides the
// dropout masks; 0 is none.
func (m *Model) AddGradient(tokens, targets []int32, lengths []int, seed uint64, grad []float32) (sum float64, n int,
	err error) {
	if m.adapter != nil && len(grad) != len(m.adapter.Params) {
		return 0, 0, fmt.Errorf("gradients: room for %d numbers, the adapter has %d", len(grad), len(m.adapter.Params))
	}
	if sum, n, err = m.ComputeGradient(tokens, targets, lengths, seed); err != nil {
		return 0, 0, err
	}
	return sum, n, m.adapter.each(m.adapter.grads, func(offset int, values []float32) {
		for i, g := range values {
			grad[offset+i] += g
		}
	})
}

// ComputeGradient is AddGradient, but the gradient stays where it is computed and replaces the one before.
func (m *Model) ComputeGradient(tokens, targets []int32, lengths []int, seed uint64) (sum float64, n int, err error) {
	if m.adapter == nil {
		return 0, 0, errors.New("gradients: no adapter is attached")
	}
	samples, err := m.splitBatch(tokens, targets, lengths)
	if err != nil {
		return 0, 0, err
	}
	if m.adapter.Dropout == 0 {
		seed = 0
	}
	all := passes(samples)
	if err := m.placeWeights(all, m.gradientMemory); err != nil {
		return 0, 0, err
	}
	if err := errors.Join(m.merge(), m.adapter.grads.Zero()); err != nil {
		return 0, 0, err
	}
	for i, pass := range all {
		p := newPack(pass, seed == 0) // with dropout, equal tokens of two samples do not come out equal
		if seed != 0 && i > 0 {
			seed++
		}
		keep, err := m.blocksToKeep(p)
		if err != nil {
			return 0, 0, err
		}
		s, err := m.passGradient(p, keep, seed)
		if err != nil {
			return 0, 0, err
		}
		sum, n = sum+s, n+len(p.labels.rows)
	}
	return sum, n, nil
}

// passGradient adds the gradient of one pass to the adapter's. The last keep blocks keep what their backward pass
// needs.
func (m *Model) passGradient(p pack, keep int, seed uint64) (sum float64, err error) {
	if len(p.labels.rows) == 0 {
		return 0, nil
	}
	if err := m.reserveTape(p, keep); err != nil {
		return 0, err
	}

	// Forward: every block's input is kept.
	xs := make([]kept, len(m.blocks)+1)
	saved := make([][]kept, len(m.blocks))
	if xs[0], err = m.begin(&p); err != nil {
		return 0, err
	}
	if err := m.shareGradients(&p); err != nil {
		return 0, err
	}
	for i, b := range m.blocks {
		if !m.isComputed(i) {
			xs[i+1] = xs[i]
			continue
		}
		if xs[i+1], saved[i], err = m.blockForward(b, p, xs[i], kept{}, seed, i >= len(m.blocks)-keep); err != nil {
			return 0, err
		}
	}

	// Backward: a block's gradient overwrites the block's result, which nothing needs any more.
	last := len(m.blocks)
	dy, err := m.newPlace(xs[last])
	if err != nil {
		return 0, err
	}
	if sum, err = m.loss(xs[last], p.labels, dy, nil); err != nil {
		return 0, err
	}
	for i := last - 1; i >= m.adapter.lowest; i-- {
		if !m.isComputed(i) {
			continue
		}
		if err = m.blockBackward(m.blocks[i], p, dy, xs[i], xs[i+1], saved[i], seed, i > m.adapter.lowest); err != nil {
			return 0, err
		}
		dy = xs[i+1]
	}
	return sum, nil
}

// isComputed tells whether block i is computed. A dry run needs only the last block and, from the lowest adapted one
// on, the first of each shape.
func (m *Model) isComputed(i int) bool {
	if !m.dryRun || i == len(m.blocks)-1 {
		return true
	}
	lowest := m.adapter.lowest
	return i >= lowest && !slices.ContainsFunc(m.blocks[lowest:i], func(b *block) bool {
		return b.shape == m.blocks[i].shape
	})
}

// splitBatch checks a batch, since ggml would abort on a wrong one, and splits it into samples. Tokens after a sample's
// last label are left out: no result depends on them.
func (m *Model) splitBatch(tokens, targets []int32, lengths []int) ([]sample, error) {
	if m.options.Compute == ComputeQ8 {
		return nil, errors.New("compute q8 is for generation; losses and gradients take f32, bf16 or int")
	}
	var samples []sample
	total := 0
	for i, n := range lengths {
		if n < 1 {
			return nil, fmt.Errorf("sample %d of the batch has %d tokens", i, n)
		}
		if n > len(tokens)-total {
			return nil, fmt.Errorf("sample %d of the batch has %d tokens, %d are left", i, n, len(tokens)-total)
		}
		total += n
	}
	if total != len(tokens) || total != len(targets) || total == 0 {
		return nil, fmt.Errorf("a batch of %d tokens and %d targets in samples of %d", len(tokens), len(targets), total)
	}
	for i, t := range tokens {
		if t < 0 || int(t) >= m.Vocab || int(targets[i]) >= m.Vocab {
			return nil, fmt.Errorf("token %d, target %d: the model's vocabulary has %d tokens", t, targets[i], m.Vocab)
		}
	}
	for i, n := range lengths {
		if err := m.checkLength(n); err != nil {
			return nil, fmt.Errorf("sample %d of the batch: %w", i, err)
		}
		used := n
		for used > 0 && targets[used-1] < 0 {
			used--
		}
		if used > 0 {
			samples = append(samples, sample{tokens[:used], targets[:used], int32(i), m.isLong(n)})
		}
		tokens, targets = tokens[n:], targets[n:]
	}
	return samples, nil
}

// checkLength refuses a text of n tokens that is longer than the model's learned positions.
func (m *Model) checkLength(n int) error {
	if m.positions != nil && n > m.Context {
		return fmt.Errorf("a text of %d tokens, and the model has embeddings of %d positions: shorten it, with "+
			"--max-length %d for example", n, m.Context, m.Context)
	}
	return nil
}

// isLong tells whether a text of n tokens is rotated by the factors for long ones.
func (m *Model) isLong(n int) bool {
	return n > m.Rope.OrigContext && slices.ContainsFunc(m.rotaries, func(r rotary) bool {
		return r.longFactors != nil
	})
}

// streamBytes is the size of the residual stream, [width, rows] in float32.
func (m *Model) streamBytes(p pack) int64 { return 4 * int64(m.Width) * int64(p.rows()) }

// tableBytes is the size of what blocks share besides the residual stream, in float32: the tables of rotation, each
// [rotated numbers, rows], the blocks' embeddings, and shared keys and values.
func (m *Model) tableBytes(p pack) (n int64) {
	for _, r := range m.rotaries {
		n += 4 * int64(r.Dims) * int64(p.rows())
	}
	return n + 4*int64(m.Embedding*m.Blocks)*int64(p.rows()) + m.sharedBytes(p)
}

// tableCount is the number of these tables.
func (m *Model) tableCount() int { return len(m.rotaries) + 1 + len(m.kvSources()) }

// sharedBytes is the size of the keys and values that several blocks take.
func (m *Model) sharedBytes(p pack) (n int64) {
	for _, b := range m.kvSources() {
		n += 4 * int64(b.keyValues()) * int64(p.rows())
	}
	return n
}

// placeShared makes room for keys and values, or their gradients, that blocks from the lowest on share with others.
func (m *Model) placeShared(p *pack, lowest int) (map[int]kept, error) {
	places := map[int]kept{}
	for _, b := range m.kvSources() {
		i := b.groups[0].block
		if i < lowest {
			continue
		}
		var err error
		width, rows := int64(b.keyValues()), int64(p.rows())
		if places[i], err = m.newPlace(kept{kind: bindings.F32, shape: [4]int64{width, rows, 1, 1},
			bytes: 4 * width * rows}); err != nil {
			return nil, err
		}
	}
	return places, nil
}

// shareGradients makes room for the gradients of shared keys and values, of the blocks that are trained, and sets them
// to 0.
func (m *Model) shareGradients(p *pack) (err error) {
	if p.sharedGrads, err = m.placeShared(p, m.adapter.lowest); err != nil {
		return err
	}
	for _, k := range p.sharedGrads {
		if err := m.zero(k); err != nil {
			return err
		}
	}
	return nil
}

// begin looks up the tokens' embeddings, [width, rows], and computes the rotations and embeddings that all blocks
// share.
func (m *Model) begin(p *pack) (kept, error) {
	g := m.newGraph(p.rows())
	defer g.Close()
	if m.embeddings != nil {
		g.addFirst(p.positions)
	}
	stream := g.embedded(p.tokens, p.positions)
	x, err := m.tape.keep(g, stream)
	if err != nil {
		return kept{}, err
	}
	if p.embeddings, err = m.tape.keep(g, g.embedBlocks(p.tokens, stream)); err != nil {
		return kept{}, err
	}
	if p.shared, err = m.placeShared(p, 0); err != nil {
		return kept{}, err
	}
	for _, table := range g.rotationTables(p.positions, rotationRows(p.long)) {
		k, err := m.tape.keep(g, table)
		if err != nil {
			return kept{}, err
		}
		p.rotations = append(p.rotations, k)
	}
	return x, g.run()
}

// passGraph makes a graph for one block of a pass.
func (m *Model) passGraph(p pack, seed uint64) *graph {
	g := m.newGraph(p.rows())
	g.seed, g.useMerged = seed, p.growing == nil
	for i, r := range m.rotaries {
		if p.rotations == nil { // the pass is not computed
			g.rotations = append(g.rotations, g.NewTensor(bindings.F32, int64(r.Dims), int64(p.rows())))
		} else {
			g.rotations = append(g.rotations, m.tape.leaf(g, p.rotations[i]))
		}
	}
	if p.growing != nil {
		g.way = m.answeringWay()
	} else {
		runs := make([][4]int32, len(p.segments))
		for i, s := range p.segments {
			runs[i] = [4]int32{s.start, s.length, s.parent, s.past}
		}
		g.segments = g.pack(runs)
	}
	g.temperature = g.temperatureOf(p.positions)
	g.addFirst(p.positions)
	m.giveTables(g, p)
	return g
}

// giveTables gives a block's graph the blocks' embeddings, and shared keys and values with their gradients.
func (m *Model) giveTables(g *graph, p pack) {
	if p.shared == nil { // the pass is not computed
		if m.Embedding > 0 {
			g.giveEmbeddings(g.NewTensor(bindings.F32, int64(m.Embedding*m.Blocks), int64(p.rows())))
		}
		for _, b := range m.kvSources() {
			g.share(b.groups[0].block, g.NewTensor(bindings.F32, int64(b.keyValues()), int64(p.rows())))
		}
		return
	}
	g.giveEmbeddings(m.tape.leaf(g, p.embeddings))
	for i, k := range p.shared {
		g.share(i, m.tape.leaf(g, k))
	}
	for i, k := range p.sharedGrads {
		g.sharedGrads[i] = m.tape.leaf(g, k)
	}
}

// blockForward computes one block. Its result goes to place, or to a new place where that is zero.
func (m *Model) blockForward(b *block, p pack, x, place kept, seed uint64, save bool) (y kept, saved []kept,
	err error) {
	g := m.passGraph(p, seed)
	defer g.Close()
	result, a := g.forward(b, m.tape.leaf(g, x), p.growing.cached(g, b))
	if save {
		for _, t := range a.tensors() {
			k, err := m.tape.keep(g, *t)
			if err != nil {
				return kept{}, nil, err
			}
			saved = append(saved, k)
		}
	}
	if b.sharesKV {
		if err := m.tape.keepAt(g, g.Cont(g.shared[b.groups[0].block]), p.shared[b.groups[0].block]); err != nil {
			return kept{}, nil, err
		}
	}
	if place.bytes > 0 {
		y, err = place, m.tape.keepAt(g, result, place)
	} else {
		y, err = m.tape.keep(g, result)
	}
	if err != nil {
		return kept{}, nil, err
	}
	return y, saved, g.runBlock(b, b.groups[0].block+1)
}

// blockBackward adds the gradients of one block's vectors and, where needInput is set, writes that of its input to dx.
// What was not saved is computed again from x.
func (m *Model) blockBackward(b *block, p pack, dy, x, dx kept, saved []kept, seed uint64, needInput bool) error {
	g := m.passGraph(p, seed)
	defer g.Close()
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
	next := b.groups[0].block - 1
	if !needInput {
		next = 0 // of the next pass
	}
	return g.runBlock(b, next)
}

// newPlace is a new place on the tape for a tensor like k.
func (m *Model) newPlace(k kept) (kept, error) {
	g := m.newGraph(0)
	defer g.Close()
	x := g.NewTensor(k.kind, k.shape[:]...)
	offset, err := m.tape.buffer.Place(x)
	return kept{k.kind, k.shape, offset, k.bytes}, err
}
