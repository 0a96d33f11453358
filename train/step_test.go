package train

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
)

func unclipped() Config {
	c := Default()
	c.Clip = 0
	return c
}

// 16 samples at once and 4 × 4 accumulated give the same gradient, though the micro-batches have different numbers of
// labels.
func TestAccumulationDoesNotChangeTheGradient(t *testing.T) {
	gradient := func(size int) ([]float32, outcome) {
		source := fakeSource{samples: 16, batch: size, seed: 3}
		b, _ := newBatching(Config{Accumulation: 16, Epochs: 1}, source.Batches()).load(source, 0, 0)
		for i := range b.lengths {
			if i%5 == 0 {
				b.targets[3*i+1] = -1
			}
		}
		engine := &leastSquares{params: make([]float32, parameters)}
		engine.Update()
		tr := newTrainer(engine, engine.params, unclipped(), nil, soloGroup{})
		o, err := tr.step(b, 0.1, false)
		if err != nil {
			t.Fatal(err)
		}
		return tr.optimizer.(*hostOptimizer).grad, o
	}
	whole, wanted := gradient(16)
	if wanted.labelled != 28 || wanted.tokens != 48 {
		t.Errorf("%d labelled of %d tokens, want 28 of 48", wanted.labelled, wanted.tokens)
	}
	for _, size := range []int{1, 4, 7} {
		if parts, got := gradient(size); !slices.Equal(parts, whole) || !reflect.DeepEqual(got, wanted) {
			t.Errorf("micro-batches of %d give %v and %+v, one batch %v and %+v", size, parts, got, whole, wanted)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ limit, scale float64 }{{0, 1}, {13.5, 1}, {13, 0.999999923}, {1, 0.076923071}} {
		if scale := clipping(13, c.limit); math.Abs(scale-c.scale) > 1e-9 {
			t.Errorf("limit %v: scale %v, want %v", c.limit, scale, c.scale)
		}
	}
	engine := &leastSquares{params: make([]float32, 3)}
	o := newOptimizer(engine, engine.params, unclipped(), soloGroup{}).(*hostOptimizer)
	copy(o.grad, []float32{6, 8, 24})
	if norm, err := o.takeMean(2); norm != 13 || err != nil {
		t.Errorf("norm %v, %v", norm, err)
	}
	if err := o.update(0.1, clipping(13, 1)); err != nil {
		t.Error(err)
	}
	compare(t, "clipped", o.grad, []uint32{0x3e6c4ec4, 0x3e9d89d8, 0x3f6c4ec4}) // torch.nn.utils.clip_grad_norm_
	if norm := l2Norm([]float32{float32(math.Inf(1)), 1}); !math.IsInf(norm, 1) {
		t.Errorf("norm %v of an infinite gradient", norm)
	}
	if norm := l2Norm([]float32{3e38, 3e38}); math.IsInf(norm, 0) {
		t.Error("the norm of finite gradients overflows")
	}
}

func TestDivergenceLeavesParametersAndMoments(t *testing.T) {
	source := fakeSource{samples: 4, batch: 2}
	for name, spoil := range map[string]func(*leastSquares){
		"loss":     func(e *leastSquares) { e.nan = 1 },
		"gradient": func(e *leastSquares) { e.nanGrad = 1 },
	} {
		engine := &leastSquares{params: []float32{1, 2, 3, 4, 5, 6}}
		engine.Update()
		spoil(engine)
		tr := newTrainer(engine, engine.params, unclipped(), nil, soloGroup{})
		b, _ := newBatching(Config{Accumulation: 2, Epochs: 1}, 2).load(source, 0, 0)
		_, err := tr.step(b, 0.1, false)
		if !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: got %v", name, err)
		}
		if o := tr.optimizer.(*hostOptimizer); !slices.Equal(tr.params, []float32{1, 2, 3, 4, 5, 6}) ||
			o.Updates != 0 || o.M[0] != 0 {
			t.Errorf("%s: the parameters or the moments moved", name)
		}
	}
}

func TestStepWithoutLabels(t *testing.T) {
	engine := &leastSquares{params: make([]float32, parameters)}
	engine.Update()
	tr := newTrainer(engine, engine.params, unclipped(), nil, soloGroup{})
	if _, err := tr.step(batch{tokens: []int32{1}, targets: []int32{-1}, lengths: []int{1}}, 0.1, false); err == nil {
		t.Error("a step without a labelled token divides by 0")
	}
}

// Every epoch uses each micro-batch once, and the last step of an epoch is smaller where the accumulation does not
// divide it.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ batches, accumulation, epochs, total int }{{11, 2, 2, 12}, {8, 4, 3, 6}, {1, 4, 2, 2},
		{3, 1, 1, 3}} {
		p := newBatching(Config{Accumulation: c.accumulation, Epochs: float64(c.epochs)}, c.batches)
		if p.total != c.total {
			t.Errorf("%+v: %d steps", c, p.total)
		}
		seen := map[[2]int]int{}
		for step := range p.total {
			epoch, first, end := p.batchesOf(step)
			if first >= end || end-first > c.accumulation {
				t.Errorf("%+v: step %d has micro-batches %d to %d", c, step, first, end)
			}
			for i := first; i < end; i++ {
				seen[[2]int{epoch, i}]++
			}
		}
		for epoch := range c.epochs {
			for i := range c.batches {
				if seen[[2]int{epoch, i}] != 1 {
					t.Errorf("%+v: micro-batch %d of epoch %d is used %d times", c, i, epoch, seen[[2]int{epoch, i}])
				}
			}
		}
		if got := p.epochs(p.total); got != float64(c.epochs) {
			t.Errorf("%+v: the last step ends epoch %v", c, got)
		}
	}
	if p := newBatching(Config{Accumulation: 2, Epochs: 1, Steps: 100}, 5); p.total != 100 {
		t.Errorf("steps is not followed: %d", p.total)
	}
}

func TestDropoutSeedsDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	for seed := range uint64(3) {
		for step := range 50 {
			seen[dropoutSeed(seed, step)] = true
		}
	}
	if len(seen) != 3*50 {
		t.Errorf("%d different seeds of %d", len(seen), 3*50)
	}
}

// A part of an epoch ends with the step in which it is over.
func TestPartsOfEpochs(t *testing.T) {
	for _, c := range []struct {
		epochs  float64
		batches int
		total   int
	}{{0.5, 10, 5}, {0.5, 3, 2}, {1.5, 10, 15}, {1.1, 10, 11}, {2, 7, 14}, {0.001, 10, 1}, {0.1, 30, 3}, {0.7, 10, 7},
		{2.3, 100, 230}, {3.0000001, 10, 31}} {
		if p := newBatching(Config{Accumulation: 1, Epochs: c.epochs}, c.batches); p.total != c.total {
			t.Errorf("%v epochs of %d steps: %d, want %d", c.epochs, c.batches, p.total, c.total)
		}
	}
}
