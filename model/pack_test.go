package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// text makes a sample of these tokens; those from labelled on carry a label, the token itself + 1.
func text(labelled int, tokens ...int32) sample {
	s := sample{tokens: tokens}
	for i, t := range tokens {
		target := int32(-1)
		if i >= labelled {
			target = t + 1
		}
		s.targets = append(s.targets, target)
	}
	return s
}

// read gives the tokens that the last row of a segment sees.
func (p pack) read(i int32) []int32 {
	s := p.segments[i]
	own := p.tokens[s.start : s.start+s.length]
	if s.parent < 0 {
		return own
	}
	return slices.Concat(p.read(s.parent), own)
}

func TestPackSharesBeginnings(t *testing.T) {
	samples := []sample{
		text(8, 1, 2, 3, 4, 5, 6, 7, 8, 9),
		text(6, 1, 2, 3, 4, 5, 6, 70, 80),
		text(6, 1, 2, 3, 4, 50, 60, 70),
		text(2, 1, 2, 3), // too short a common beginning
		text(8, 1, 2, 3, 4, 5, 6, 7, 8, 10),
		text(6, 1, 2, 3, 4, 5, 6, 70, 80), // the same row again: its labels count twice
		text(0, 1, 2, 3, 4, 5, 6, 7),      // labels from the first token on: nothing to share
	}
	p := newPack(samples, true)
	// 1 2 3 4 is shared by five; 5 6 … are too few after it, except 5 6 7 8 of two.
	if p.rows() != 4+4+1+1+4+4+3+3+7 {
		t.Errorf("%d rows: %v", p.rows(), p.segments)
	}
	var wanted, got int
	for _, s := range samples {
		found := false
		for i := range p.segments {
			found = found || slices.Equal(p.read(int32(i)), s.tokens)
		}
		if !found {
			t.Errorf("no segment ends sample %v", s.tokens)
		}
		wanted += len(labelsOf(s))
	}
	if got = len(p.labels.rows); got != wanted {
		t.Errorf("%d labels of %d", got, wanted)
	}
	for i, s := range p.segments {
		if s.parent >= int32(i) || s.past != int32(len(p.read(int32(i))))-s.length || s.length < 1 {
			t.Errorf("segment %d: %+v", i, s)
		}
	}
	if alone := newPack(samples, false); len(alone.segments) != len(samples) || alone.rows() != 9+8+7+3+9+8+7 {
		t.Errorf("without sharing: %v", alone.segments)
	}
}

func labelsOf(s sample) (list []int32) {
	for _, t := range s.targets {
		if t >= 0 {
			list = append(list, t)
		}
	}
	return list
}

func TestPasses(t *testing.T) {
	long := text(0, make([]int32, passRows+1)...)
	half := text(0, make([]int32, passRows/2)...)
	var sizes []int
	for _, pass := range passes([]sample{half, half, half, long, half, half}) {
		sizes = append(sizes, len(pass))
	}
	if want := []int{2, 1, 1, 2}; !slices.Equal(sizes, want) {
		t.Errorf("passes of %v samples, want %v", sizes, want)
	}
}

// TestSharedBeginnings holds a batch whose samples begin alike to the same samples one by one.
func TestSharedBeginnings(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	for _, plan := range []Plan{PlanFactored, PlanMerged} {
		m.options.Plan = plan
		adapted(t, m, func(c *vera.Config) { c.Rank = 6 })
		random := rand.New(rand.NewPCG(1, 1))
		begin := make([]int32, 9)
		for i := range begin {
			begin[i] = int32(random.IntN(m.Vocab))
		}
		var all batch
		var alone float64
		grads := make([]float32, len(m.adapter.Params))
		for i, shared := range []int{9, 9, 5, 9, 0, 7} {
			own := randomBatch(uint64(i), m.Vocab, 6)
			one := batch{
				tokens:  slices.Concat(begin[:shared], own.tokens),
				targets: slices.Concat(slices.Repeat([]int32{-1}, shared), own.targets),
				lengths: []int{shared + 6},
			}
			sum, grad := one.gradient(t, m, 0)
			alone += sum
			for j, v := range grad {
				grads[j] += v
			}
			all.tokens, all.targets, all.lengths = append(all.tokens, one.tokens...),
				append(all.targets, one.targets...), append(all.lengths, one.lengths...)
		}
		samples, err := m.splitBatch(all.tokens, all.targets, all.lengths)
		if err != nil {
			t.Fatal(err)
		}
		if rows := newPack(samples, true).rows(); rows >= len(all.tokens) {
			t.Fatalf("%d rows for %d tokens: nothing was shared", rows, len(all.tokens))
		}
		sum, grad := all.gradient(t, m, 0)
		if !(relative(sum, alone) <= tinyLossTolerance) {
			t.Errorf("%s: loss %.9g together, %.9g alone", plan, sum, alone)
		}
		if e := relativeL2(grad, grads); !(e <= tinyGradientTolerance) {
			t.Errorf("%s: gradients differ by %.1e", plan, e)
		}
		if got := all.loss(t, m); !(relative(got, sum) <= tinyLossTolerance) {
			t.Errorf("%s: loss %.9g, %.9g with gradients", plan, got, sum)
		}
	}
}

// TestLosses holds the sums of samples that begin alike to those of each alone, in several passes and chunks of labels,
// and Loss to their total.
func TestLosses(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	adapted(t, m, nil)
	random := rand.New(rand.NewPCG(2, 2))
	begin := make([]int32, 30)
	for i := range begin {
		begin[i] = int32(random.IntN(m.Vocab))
	}
	var all batch
	var alone []float64
	for i := range 130 {
		own := randomBatch(uint64(i), m.Vocab, 1+random.IntN(20))
		if i%10 == 0 {
			own.targets = slices.Repeat([]int32{-1}, len(own.tokens)) // nothing is asked of this sample
		}
		one := batch{slices.Concat(begin, own.tokens), slices.Concat(slices.Repeat([]int32{-1}, len(begin)),
			own.targets), []int{len(begin) + len(own.tokens)}}
		alone = append(alone, one.loss(t, m))
		all.tokens, all.targets, all.lengths = append(all.tokens, one.tokens...), append(all.targets, one.targets...),
			append(all.lengths, one.lengths...)
	}
	if len(all.tokens) <= passRows || all.labels() <= m.tokenChunk() {
		t.Fatalf("%d tokens and %d labels fit one pass and one chunk", len(all.tokens), all.labels())
	}
	sums := make([]float64, len(all.lengths))
	sum, n, err := m.Losses(all.tokens, all.targets, all.lengths, sums)
	if err != nil {
		t.Fatal(err)
	}
	if loss := all.loss(t, m); sum != loss || n != all.labels() {
		t.Errorf("Losses sums to %.17g over %d labels, Loss is %.17g over %d", sum, n, loss, all.labels())
	}
	total := 0.0
	for i, s := range sums {
		if total += s; !(math.Abs(s-alone[i]) <= tinyLossTolerance*alone[i]) {
			t.Errorf("sample %d: %.9g in the batch, %.9g alone", i, s, alone[i])
		}
	}
	if !(relative(total, sum) <= 1e-14) {
		t.Errorf("the samples sum to %.17g, the batch to %.17g", total, sum)
	}
	_, _, err = m.Losses(all.tokens, all.targets, all.lengths, sums[1:])
	wantError(t, err, "losses", "room for 129 sums", "130 samples")
}

func relative(a, b float64) float64 { return max(a-b, b-a) / b }
