package model

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// tinyTolerance is the rounding of float32 sums that are taken in another order, relative.
const tinyTolerance = 2e-6

func (m *Model) mustLogits(t *testing.T, tokens []int32) []float32 {
	t.Helper()
	logits, err := m.Logits(tokens, len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// TestLogits compares the logits of the base model and of an adapted one with the naive model's.
func TestLogits(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			m := tiny(t, shape.TinyOptions)
			b := randomBatch(1, m.Vocab, 9)
			for _, name := range []string{"base", "adapted"} {
				if name == "adapted" {
					adapted(t, m, nil)
				}
				want := newNaive(t, m).run(b)
				if e := relativeL2(m.mustLogits(t, b.tokens), want.logits); !(e <= tinyTolerance) {
					t.Errorf("%s: logits are off by %.1e", name, e)
				}
				if sum := b.loss(t, m); !(math.Abs(sum-want.loss) <= tinyLossTolerance*want.loss) {
					t.Errorf("%s: loss %.9g, want %.9g", name, sum, want.loss)
				}
			}
		})
	}
}

// TestZeroB holds an adapter with b = 0 to the base model, bit for bit, in every arithmetic.
func TestZeroB(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1})
	for _, compute := range []Compute{ComputeF32, ComputeBF16} {
		o := options()
		o.Compute = compute
		m := open(t, path, o)
		b := randomBatch(2, m.Vocab, 7, 5)
		loss, logits := b.loss(t, m), m.mustLogits(t, b.tokens)
		a := adapted(t, m, nil)
		if b.loss(t, m) == loss {
			t.Errorf("%s: an adapter with b ≠ 0 changes nothing", compute)
		}
		for _, l := range a.Layers {
			clear(l.LambdaB)
		}
		if err := m.Update(); err != nil {
			t.Fatal(err)
		}
		if got := b.loss(t, m); got != loss {
			t.Errorf("%s: loss %g with b = 0, %g without an adapter", compute, got, loss)
		}
		sameBits(t, string(compute)+": logits", m.mustLogits(t, b.tokens), logits)
		if err := m.Attach(nil); err != nil {
			t.Fatal(err)
		}
		if got := b.loss(t, m); got != loss {
			t.Errorf("%s: loss %g after the adapter was taken off, %g before it came", compute, got, loss)
		}
	}
}

// TestPacking holds four packed samples to the four alone.
func TestPacking(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Type: bindings.Q8_0})
	adapted(t, m, nil)
	b := randomBatch(3, m.Vocab, 6, 1, 11, 4)
	sum, grad := b.gradient(t, m, 0)
	if got := b.loss(t, m); got != sum {
		t.Errorf("Loss is %g, Gradients' loss %g", got, sum)
	}
	alone := make([]float32, len(grad))
	aloneSum := 0.0
	for i := range b.lengths {
		s, g := b.sample(i).gradient(t, m, 0)
		aloneSum += s
		for j, v := range g {
			alone[j] += v
		}
	}
	if !(math.Abs(sum-aloneSum) <= tinyTolerance*sum) {
		t.Errorf("loss %.9g packed, %.9g alone", sum, aloneSum)
	}
	if e := relativeL2(grad, alone); !(e <= tinyTolerance) {
		t.Errorf("gradients differ by %.1e", e)
	}

	// What stands in one sample must not reach another at all.
	other := batch{slices.Clone(b.tokens), slices.Clone(b.targets), b.lengths}
	for i := range b.lengths[0] {
		other.tokens[i] = (other.tokens[i] + 1) % int32(m.Vocab)
		other.targets[i] = -1
	}
	if got, want := other.loss(t, m), aloneSum-b.sample(0).loss(t, m); !(math.Abs(got-want) <= tinyTolerance*want) {
		t.Errorf("the loss of three samples is %.9g beside another first one, want %.9g", got, want)
	}
}

// TestLabels holds the loss to the labelled positions.
func TestLabels(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	adapted(t, m, nil)
	b := randomBatch(4, m.Vocab, 6, 5)
	sum := b.loss(t, m)
	each := 0.0
	for i, target := range b.targets {
		if target < 0 {
			continue
		}
		one := batch{b.tokens, slices.Repeat([]int32{-1}, len(b.tokens)), b.lengths}
		one.targets[i] = target
		each += one.loss(t, m)
	}
	if !(math.Abs(sum-each) <= tinyTolerance*sum) {
		t.Errorf("loss %.9g, label by label %.9g", sum, each)
	}
	for i := range b.targets {
		b.targets[i] = -100 // PyTorch's word for no label
	}
	sum, grad := b.gradient(t, m, 0)
	if sum != 0 || slices.ContainsFunc(grad, func(v float32) bool { return v != 0 }) {
		t.Errorf("without labels the loss is %g and the gradients are not 0", sum)
	}
}

// TestManyLabels crosses the limit at which the head is computed in parts.
func TestManyLabels(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Blocks: 1, Width: 8, Hidden: 8, Heads: 2, KVHeads: 1,
		Change: func(f *testutil.TinyFile) {
			embed := f.Tensor("token_embd.weight")
			embed.Shape[1] = 8292
			embed.Values = make([]float32, embed.Shape[0]*embed.Shape[1])
			for i := range embed.Values {
				embed.Values[i] = float32(math.Sin(float64(i)))
			}
		}})
	adapted(t, m, nil)
	checkGradients(t, m, randomBatch(5, m.Vocab, m.tokenChunk()+40, 170), 0)
}

// TestRepeated asks for the same bits again, also after larger and smaller batches have used the memory, and from
// another Model, with any number of threads.
func TestRepeated(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	m := open(t, path, options())
	adapted(t, m, nil)
	b := randomBatch(6, m.Vocab, 8, 3)
	sum, grad := b.gradient(t, m, 0)
	for _, lengths := range [][]int{{40, 20}, {1}, slices.Repeat([]int{1}, 70)} {
		randomBatch(7, m.Vocab, lengths...).gradient(t, m, 0)
		againSum, again := b.gradient(t, m, 0)
		if againSum != sum {
			t.Errorf("loss %g, before %g", againSum, sum)
		}
		sameBits(t, "gradients", again, grad)
	}
	o := options()
	o.Threads = 2
	for _, o := range []Options{options(), o} {
		fresh := open(t, path, o)
		adapted(t, fresh, nil)
		_, again := b.gradient(t, fresh, 0)
		sameBits(t, fmt.Sprintf("gradients of another model with %d threads", o.Threads), again, grad)
	}

	twice := slices.Clone(grad)
	if _, _, err := m.AddGradient(b.tokens, b.targets, b.lengths, 0, twice); err != nil {
		t.Fatal(err)
	}
	for i := range twice {
		if twice[i] != 2*grad[i] {
			t.Fatalf("gradient %d is not added: %g after %g", i, twice[i], grad[i])
		}
	}
}

// TestRecompute asks for the same bits however much of the forward pass is kept.
func TestRecompute(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1, Blocks: 3})
	var want []float32
	for _, c := range []struct {
		recompute Recompute
		free      int64 // memory in bytes, 0: as it is
	}{{RecomputeAll, 0}, {RecomputeNone, 0}, {RecomputeAuto, 0}, {RecomputeAuto, 1}, {RecomputeAuto, 256 << 10}} {
		o := options()
		o.Recompute = c.recompute
		m := open(t, path, o)
		m.free = c.free
		adapted(t, m, func(c *vera.Config) { c.Dropout = 0.1 })
		b := randomBatch(8, m.Vocab, 9, 12)
		samples, err := m.splitBatch(b.tokens, b.targets, b.lengths)
		if err != nil {
			t.Fatal(err)
		}
		if keep, err := m.blocksToKeep(newPack(samples, false)); err != nil {
			t.Fatal(err)
		} else if c.free > 1 && (keep == 0 || keep == m.Blocks) {
			t.Errorf("%d bytes do not make it keep some blocks: %d", c.free, keep)
		}
		_, grad := b.gradient(t, m, 21)
		if want == nil {
			want = grad
		}
		sameBits(t, string(c.recompute), grad, want)
	}
}

// TestCache holds texts that grow in pieces, beside each other, to the same texts at once, bit for bit: a row's result
// depends on nothing but its text.
func TestCache(t *testing.T) {
	for name, c := range map[string]struct {
		testutil.TinyOptions
		compute Compute
		rank    int
	}{
		"q4_1":       {testutil.TinyOptions{Type: bindings.Q4_1, RopeFactors: true}, ComputeF32, 8},
		"q8_0":       {testutil.TinyOptions{Type: bindings.Q8_0}, ComputeF32, 8},
		"f16":        {testutil.TinyOptions{Type: bindings.F16}, ComputeF32, 8},
		"q4_1 in q8": {testutil.TinyOptions{Type: bindings.Q4_1}, ComputeQ8, 32},
		"f16 in q8":  {testutil.TinyOptions{Type: bindings.F16}, ComputeQ8, 8},
		// MaxIn is whole blocks, the width isn't.
		"odd in q8": {testutil.TinyOptions{Width: 30, Hidden: 64, Heads: 3, KVHeads: 3, HeadDim: 10}, ComputeQ8, 32},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			o.Compute = c.compute
			m := open(t, testutil.TinyLlama(t, c.TinyOptions), o)
			adapted(t, m, func(v *vera.Config) { v.Rank = c.rank })
			tokens := randomBatch(9, m.Vocab, 40).tokens
			want := m.mustLogits(t, tokens)
			c := m.mustCache(t, 4, len(tokens))
			for _, pieces := range [][]int{slices.Repeat([]int{1}, 40), {5, 1, 34}, {1, 39}, {39, 1}, {17, 2, 3, 18}} {
				var got []float32
				for _, n := range pieces {
					past := len(c.Held(2))
					// Other texts are appended to beside it, and there is training in between.
					logits, err := c.Append(Addition{Text: 1, Tokens: tokens[past : past+1]},
						Addition{Text: 2, Tokens: tokens[past : past+n], Rows: n},
						Addition{Text: 0, Tokens: tokens[:2]})
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, logits...)
					c.Cut(0, 0)
					c.Cut(1, 7)
					if c := randomBatch(10, m.Vocab, 5); m.options.Compute == ComputeF32 {
						c.gradient(t, m, 0)
					}
				}
				sameBits(t, fmt.Sprint("pieces ", pieces), got, want)
				if _, err := c.Append(Addition{Text: 2, Tokens: slices.Repeat([]int32{1}, 9), Rows: 1}); err == nil {
					t.Error("a full text takes more tokens")
				}
				c.Cut(2, 0)
			}
		})
	}
}

// TestCacheForgets: with another adapter, nothing that was computed before is used.
func TestCacheForgets(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Type: bindings.Q4_0})
	tokens := randomBatch(9, m.Vocab, 6).tokens
	c := m.mustCache(t, 1, 6)
	step := func() []float32 {
		for _, n := range tokens[:5] {
			if _, err := c.Append(Addition{Tokens: []int32{n}, Rows: 1}); err != nil {
				t.Fatal(err)
			}
		}
		logits, err := c.Append(Addition{Tokens: tokens[5:], Rows: 1})
		if err != nil {
			t.Fatal(err)
		}
		return logits
	}
	base := step()
	adapted(t, m, nil)
	want := m.mustLogits(t, tokens)
	sameBits(t, "adapted", step(), want[5*m.Vocab:])
	if err := m.Attach(nil); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "base again", step(), base)
}

func (m *Model) mustCache(t *testing.T, texts, room int) *Cache {
	t.Helper()
	c, err := m.NewCache(texts, room)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestBF16 bounds what rounding to 8 bits of mantissa costs.
func TestBF16(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1})
	exact := open(t, path, options())
	o := options()
	o.Compute = ComputeBF16
	rounded := open(t, path, o)
	b := randomBatch(11, exact.Vocab, 12, 9)
	adapted(t, exact, nil)
	adapted(t, rounded, nil)
	sum, grad := b.gradient(t, exact, 0)
	roundedSum, roundedGrad := b.gradient(t, rounded, 0)
	labels := float64(b.labels())
	if off := math.Abs(sum-roundedSum) / labels; !(off <= 1e-2) || off == 0 {
		t.Errorf("mean loss %.6f in bf16, %.6f in f32", roundedSum/labels, sum/labels)
	}
	e := relativeL2(roundedGrad, grad)
	if !(e <= 5e-2) || e == 0 {
		t.Errorf("gradients in bf16 are off by %.1e", e)
	}
	t.Logf("mean loss off by %.1e, gradients by %.1e", math.Abs(sum-roundedSum)/labels, e)
}

// TestQ8 bounds what rounding to blocks of 8 bits costs in generation, and with it what the pair's rounding does: of
// rank 32 it is rounded, of rank 8 it isn't.
func TestQ8(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1})
	exact := open(t, path, options())
	o := options()
	o.Compute = ComputeQ8
	rounded := open(t, path, o)
	tokens := randomBatch(11, exact.Vocab, 21).tokens
	base := exact.mustLogits(t, tokens)
	for _, rank := range []int{8, 32} {
		adapted(t, exact, func(c *vera.Config) { c.Rank = rank })
		a := adapted(t, rounded, func(c *vera.Config) { c.Rank = rank })
		want := exact.mustLogits(t, tokens)
		e, effect := relativeL2(rounded.mustLogits(t, tokens), want), relativeL2(base, want)
		if !(e <= 3e-2) || e == 0 || effect < 10*e {
			t.Errorf("rank %d: logits are off by %.1e, and the adapter changes them by %.1e", rank, e, effect)
		}
		if way := rounded.blocks[0].groups[0].adapter.way; (way == bindings.Interleaved) != (rank == 32) {
			t.Errorf("rank %d: the pair is multiplied in way %d", rank, way)
		}
		for _, l := range a.Layers {
			clear(l.LambdaB)
		}
		if err := rounded.Update(); err != nil {
			t.Fatal(err)
		}
		zero := rounded.mustLogits(t, tokens)
		if err := rounded.Attach(nil); err != nil {
			t.Fatal(err)
		}
		sameBits(t, "b = 0", zero, rounded.mustLogits(t, tokens))
	}
	b := randomBatch(12, rounded.Vocab, 6)
	if _, _, err := rounded.Loss(b.tokens, b.targets, b.lengths); err == nil {
		t.Error("a loss in q8")
	}
}

// TestNaN lets a NaN through to the loss, where training looks for it.
func TestNaN(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	a := adapted(t, m, nil)
	a.Layers[3].LambdaD[0] = float32(math.NaN())
	if err := m.Update(); err != nil {
		t.Fatal(err)
	}
	b := randomBatch(12, m.Vocab, 6)
	if sum := b.loss(t, m); !math.IsNaN(sum) {
		t.Errorf("loss %g, want NaN", sum)
	}
	if sum, _ := b.gradient(t, m, 0); !math.IsNaN(sum) {
		t.Errorf("loss %g with gradients, want NaN", sum)
	}
}

// TestTrainableCount holds the real model to the paper's formula: out + rank of every layer.
func TestTrainableCount(t *testing.T) {
	m := open(t, testutil.SmolLM2(t), options())
	for rank, want := range map[int]int{1024: 370560, 64: 168960} {
		c := vera.Default()
		c.Rank = rank
		if n := vera.TrainableCount(c, m.Base()); n != want {
			t.Errorf("rank %d: %d trained numbers, want %d", rank, n, want)
		}
	}
}
