package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// batch is the samples of all micro-batches of a step end to end, and the seed of its dropout.
type batch struct {
	tokens, targets []int32
	lengths         []int
	seed            uint64
}

// trainer holds what one training step needs.
type trainer struct {
	engine    Engine
	params    []float32 // as the optimizer last fetched them
	optimizer optimizer
	clip      float64
	parts     []Part
	group     Group

	asked  func() requests // of this process, so far
	agreed requests        // of the group, in its newest sum
}

func newTrainer(engine Engine, params []float32, c Config, parts []Part, group Group) *trainer {
	return &trainer{engine: engine, params: params, optimizer: newOptimizer(engine, params, c, group), clip: c.Clip,
		parts: parts, group: group}
}

// outcome is what was measured of a step.
type outcome struct {
	loss      float64   // mean over the labelled tokens, before the update
	norm      float64   // L2 norm of the gradient, before clipping
	gradNorms []float64 // of the parts, before clipping, where they are asked for
	norms     *Norms    // with those after the update
	tokens    int
	labelled  int
}

// step is one training step: gradient and update. After ErrDiverged the parameters are unchanged.
func (t *trainer) step(b batch, lr float64, norms bool) (outcome, error) {
	o, err := t.meanGradient(b, norms)
	if err == nil {
		err = t.update(&o, lr)
	}
	return o, err
}

// meanGradient computes the gradient of the mean loss over the labelled tokens of a step's micro-batches. It changes
// nothing that a checkpoint holds.
func (t *trainer) meanGradient(b batch, norms bool) (outcome, error) {
	o := outcome{tokens: len(b.tokens)}
	var err error
	if o.loss, o.labelled, err = t.summedGradient(b); err != nil {
		return o, err
	}
	if o.labelled == 0 {
		return o, errors.New("none of its tokens carries a label")
	}
	o.loss /= float64(o.labelled)
	if o.norm, err = t.optimizer.takeMean(o.labelled); err != nil {
		return o, err
	}
	switch {
	case !finite(o.loss):
		return o, fmt.Errorf("%w: the loss is %v", ErrDiverged, o.loss)
	case !finite(o.norm):
		return o, fmt.Errorf("%w: the norm of the gradient is %v", ErrDiverged, o.norm)
	}
	if !norms {
		return o, nil
	}
	grad, err := t.optimizer.fetchGradient()
	if err == nil {
		o.gradNorms = partNorms(grad, t.parts)
	}
	return o, err
}

// update changes the parameters by the gradient, and measures their norms where the gradient's were measured.
func (t *trainer) update(o *outcome, lr float64) error {
	if err := t.optimizer.update(lr, clipping(o.norm, t.clip)); err != nil || o.gradNorms == nil {
		return err
	}
	_, _, err := t.optimizer.fetch()
	o.norms = newNorms(t.parts, o.gradNorms, partNorms(t.params, t.parts))
	return err
}

// summedGradient computes the gradient of the summed loss over all samples of a step, in all processes of the group
// together.
func (t *trainer) summedGradient(b batch) (loss float64, n int, err error) {
	loss, n, err = t.optimizer.computeGradient(b.share(t.group.Rank(), t.group.Size()))
	if err != nil || t.group.Size() == 1 {
		return loss, n, err
	}
	grad, err := t.optimizer.fetchGradient()
	if err != nil {
		return 0, 0, err
	}
	return t.sum(loss, n, grad)
}

// share gives the samples that one of several processes computes: from the longest on, each goes to the process with
// the fewest tokens so far. Each process has a dropout seed of its own.
func (b batch) share(rank, size int) batch {
	if size == 1 {
		return b
	}
	order := make([]int, len(b.lengths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return b.lengths[j] - b.lengths[i] })
	taker, tokens := make([]int, len(b.lengths)), make([]int, size)
	for _, i := range order {
		to := slices.Index(tokens, slices.Min(tokens))
		taker[i] = to
		tokens[to] += b.lengths[i]
	}
	local := batch{seed: mix(b.seed + uint64(rank))}
	offset := 0
	for i, length := range b.lengths {
		if taker[i] == rank {
			local.tokens = append(local.tokens, b.tokens[offset:offset+length]...)
			local.targets = append(local.targets, b.targets[offset:offset+length]...)
			local.lengths = append(local.lengths, length)
		}
		offset += length
	}
	return local
}

// batching says which micro-batches make up a step. An epoch's last step is smaller where the accumulation does not
// divide the epoch.
type batching struct {
	batches      int // in an epoch
	accumulation int
	total        int // steps of the training
}

func newBatching(c Config, batches int) batching {
	p := batching{batches: batches, accumulation: c.Accumulation, total: c.Steps}
	if p.total == 0 {
		// Rounded up, as Hugging Face's trainer does; less 1e-12, since 1.1 times 10 is a little above 11 in binary.
		p.total = max(1, int(math.Ceil(c.Epochs*float64(p.perEpoch())*(1-1e-12))))
	}
	return p
}

func (p batching) perEpoch() int { return (p.batches + p.accumulation - 1) / p.accumulation }

// batchesOf gives the micro-batches of a step, counted from 0: first to end-1 of an epoch.
func (p batching) batchesOf(step int) (epoch, first, end int) {
	epoch = step / p.perEpoch()
	first = step % p.perEpoch() * p.accumulation
	return epoch, first, min(first+p.accumulation, p.batches)
}

// epochs is how often the data has been seen after so many steps.
func (p batching) epochs(steps int) float64 {
	epoch, first, _ := p.batchesOf(steps)
	return float64(epoch) + float64(first)/float64(p.batches)
}

// load gives the samples of a step.
func (p batching) load(from Source, seed uint64, step int) (batch, error) {
	epoch, first, end := p.batchesOf(step)
	b := batch{seed: dropoutSeed(seed, step)}
	for i := first; i < end; i++ {
		tokens, targets, lengths, err := from.Batch(epoch, i)
		if err != nil {
			return b, err
		}
		b.tokens, b.targets, b.lengths = append(b.tokens, tokens...), append(b.targets, targets...),
			append(b.lengths, lengths...)
	}
	return b, nil
}

// LargestStep gives the samples of the training's step with the most tokens.
func (c Config) LargestStep(from Source) (tokens, targets []int32, lengths []int, err error) {
	p := newBatching(c, from.Batches())
	largest, most := 0, 0
	for step := range p.total {
		n := 0
		epoch, first, end := p.batchesOf(step)
		for i := first; i < end; i++ {
			n += from.Tokens(epoch, i)
		}
		if n > most {
			largest, most = step, n
		}
	}
	b, err := p.load(from, c.Seed, largest)
	return b.tokens, b.targets, b.lengths, err
}

// dropoutSeed mixes the run's seed with the step, so that the random state of a checkpoint is the step alone.
func dropoutSeed(seed uint64, step int) uint64 { return mix(mix(seed) + uint64(step)) }

// mix is one output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) from the state x, a bijection.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
