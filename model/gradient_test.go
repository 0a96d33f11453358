package model

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// The engine's float32 sums of some hundred terms against float64.
const (
	tinyLossTolerance     = 2e-6 // relative
	tinyGradientTolerance = 1e-5 // of a vector's gradient, relative to its length
)

// TestGradients compares the loss and the gradient of every b and d with the naive model's.
func TestGradients(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			m := tiny(t, shape.TinyOptions)
			for _, m.options.Plan = range []Plan{PlanFactored, PlanMerged} {
				adapted(t, m, nil)
				checkGradients(t, m, randomBatch(1, m.Vocab, 5, 1, 4), 0)
			}
		})
	}
}

// TestGradientsOfSelections adapts some layers only, so that each path through a block is taken without the others.
func TestGradientsOfSelections(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Blocks: 3})
	b := randomBatch(2, m.Vocab, 3, 4)
	for _, target := range m.Base().Targets() {
		t.Run(target, func(t *testing.T) {
			adapted(t, m, func(c *vera.Config) { c.Targets, c.Rank = []string{target}, 7 })
			checkGradients(t, m, b, 0)
		})
	}
	t.Run("upper blocks", func(t *testing.T) {
		adapted(t, m, func(c *vera.Config) { c.Layers = []int{1, 2} })
		checkGradients(t, m, b, 0)
	})
	t.Run("the middle block", func(t *testing.T) {
		adapted(t, m, func(c *vera.Config) {
			c.Layers, c.Targets = []int{1}, []string{"attn_k", "attn_output", "ffn_up"}
		})
		checkGradients(t, m, b, 0)
	})
	t.Run("rank 1", func(t *testing.T) {
		adapted(t, m, func(c *vera.Config) { c.Rank = 1 })
		checkGradients(t, m, b, 0)
	})
	t.Run("rank above the width", func(t *testing.T) {
		adapted(t, m, func(c *vera.Config) { c.Rank = 70 })
		checkGradients(t, m, b, 0)
	})
}

// TestGradientsOfMethods takes LoRA and the paper's ablations of VeRA.
func TestGradientsOfMethods(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Blocks: 2, Type: bindings.Q4_1})
	lora := func(c *vera.Config) { *c = vera.LoRADefault(); c.Rank, c.Seed = 5, 3 }
	for _, c := range []struct {
		name   string
		change func(*vera.Config)
	}{
		{"lora", lora},
		{"lora of some layers", func(c *vera.Config) {
			lora(c)
			c.Targets = []string{"attn_k", "attn_v", "ffn_up"}
			c.Layers = []int{1}
		}},
		{"lora of ranks", func(c *vera.Config) { lora(c); ranksAndAlphas(c) }},
		{"lora of one layer", func(c *vera.Config) { lora(c); c.Targets = []string{"attn_q"}; c.Layers = []int{0} }},
		{"only b", func(c *vera.Config) { c.Only = "b" }},
		{"only d", func(c *vera.Config) { c.Only = "d" }},
		{"unique pairs", func(c *vera.Config) { c.UniquePairs = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, m.options.Plan = range []Plan{PlanFactored, PlanAuto, PlanMerged} {
				if m.options.Plan == PlanMerged && strings.HasPrefix(c.name, "lora") {
					continue // refused
				}
				a := adapted(t, m, c.change)
				if want := vera.TrainableCount(a.Config, m.Base()); len(a.Params) != want {
					t.Errorf("%d trained numbers, want %d", len(a.Params), want)
				}
				checkGradients(t, m, randomBatch(6, m.Vocab, 5, 3, 4), 0)
			}
		})
	}
	m.options.Plan = PlanAuto
	t.Run("lora with dropout", func(t *testing.T) {
		adapted(t, m, func(c *vera.Config) { lora(c); ranksAndAlphas(c); c.Dropout = 0.3 })
		b := randomBatch(3, m.Vocab, 5, 4)
		b.targets[4], b.targets[8] = 1, 2
		checkGradients(t, m, b, 11)
	})
	t.Run("lora merged", func(t *testing.T) {
		m.options.Plan = PlanMerged
		c := vera.LoRADefault()
		a, err := vera.New(c, m.Base())
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Attach(a); err == nil {
			t.Error("a LoRA takes the merged plan")
		}
	})
}

// ranksAndAlphas gives layers of a LoRA that share their input ranks and scales of their own.
func ranksAndAlphas(c *vera.Config) {
	c.RSLoRA = true
	c.Ranks = map[string]int{"blk.0.attn_q": 2, "blk.0.attn_v": 7, "blk.1.ffn_up": 1, "blk.1.ffn_down": 9}
	c.Alphas = map[string]float32{"blk.0.attn_k": 3, "blk.1.ffn_up": 5}
}

func TestGradientsWithDropout(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	adapted(t, m, func(c *vera.Config) { c.Dropout = 0.3 })
	b := randomBatch(3, m.Vocab, 5, 4)
	// else these rows would be left out, and the masks of those behind them would be others than the naive model's
	b.targets[4], b.targets[8] = 1, 2
	checkGradients(t, m, b, 11)

	_, first := b.gradient(t, m, 11)
	_, again := b.gradient(t, m, 11)
	sameBits(t, "the same seed", again, first)
	if _, other := b.gradient(t, m, 12); relativeL2(other, first) < 0.01 {
		t.Error("another seed gives the same gradients")
	}
	if sum, _ := b.gradient(t, m, 0); sum != b.loss(t, m) {
		t.Error("seed 0 does not switch dropout off")
	}
}

// checkGradients compares the engine's loss and the gradient of each vector and matrix of the adapter with the naive
// model's.
func checkGradients(t *testing.T, m *Model, b batch, seed uint64) {
	t.Helper()
	sum, grad := b.gradient(t, m, seed)
	n := newNaive(t, m)
	if seed != 0 {
		n.dropout(seed, len(b.tokens))
	}
	want := n.run(b)
	if !(math.Abs(sum-want.loss) <= tinyLossTolerance*want.loss) {
		t.Errorf("loss %.9g, want %.9g", sum, want.loss)
	}
	compareGradients(t, m.adapter.Adapter, grad, want.grad,
		bounds{gradient: tinyGradientTolerance, together: tinyGradientTolerance})
}

// compareGradients compares the gradients of each vector and matrix, relative to its length, and of all together.
func compareGradients(t *testing.T, a *vera.Adapter, got, want []float32, most bounds) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d gradients, want %d", len(got), len(want))
	}
	worst, at := 0.0, 0
	for p := range a.Trained {
		end := at + len(p.Values)
		e := relativeL2(got[at:end], want[at:end])
		if !(e <= most.gradient) {
			t.Errorf("%s, %s (%d numbers): relative error %.2g", p.Name(), p.Part, len(p.Values), e)
		}
		worst, at = max(worst, e), end
	}
	together := relativeL2(got, want)
	if !(together <= most.together) {
		t.Errorf("the whole gradient: relative error %.2g", together)
	}
	t.Logf("the worst gradient off by %.1e, all together by %.1e", worst, together)
}

// TestNaive holds the naive model's gradients to its own differences, along a random direction in each part of an
// adapter.
func TestNaive(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Width: 16, Hidden: 12})
	for _, c := range []vera.Config{vera.Default(), vera.LoRADefault()} {
		a := adapted(t, m, func(own *vera.Config) { *own = c; own.Rank, own.Dropout = 4, 0.2 })
		b, n := randomBatch(4, m.Vocab, 4, 3), newNaive(t, m)
		n.dropout(5, len(b.tokens))
		grad := n.run(b).grad
		for p := range a.Trained {
			kept := slices.Clone(p.Values)
			var losses [2]float64
			var ends [2][]float64
			for side := range losses {
				random := rand.New(rand.NewPCG(2, 9))
				for i, v := range kept {
					p.Values[i] = v + float32(2*side-1)*1e-4*float32(random.NormFloat64())
				}
				losses[side], ends[side] = n.run(b).loss, wide(p.Values)
			}
			copy(p.Values, kept)
			addScaled(ends[1], ends[0], -1)
			want := losses[1] - losses[0]
			if got := dot(wide(grad[:len(kept)]), ends[1]); !(math.Abs(got-want) <= 1e-5*math.Abs(want)) {
				t.Errorf("%s, %s: the loss changes by %.9g, by its gradient %.9g", p.Name(), p.Part, want, got)
			}
			grad = grad[len(kept):]
		}
	}
}
