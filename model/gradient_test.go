package model

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// The engine's float32 sums of some hundred terms against float64. Central differences of the float64 model with the step 1e-4 add less than 1e-8. What is
// measured is at most a third of these.
const (
	tinyLossTolerance     = 2e-6 // relative
	tinyGradientTolerance = 1e-5 // of a vector's gradient, relative to its length
	differenceStep        = 1e-4
)

// TestGradients compares the loss with the naive model's, and the gradient of every b and d with its central differences along random directions.
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
		adapted(t, m, func(c *vera.Config) { c.Layers, c.Targets = []int{1}, []string{"attn_k", "attn_output", "ffn_up"} })
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
		{"lora of some layers", func(c *vera.Config) { lora(c); c.Targets = []string{"attn_k", "attn_v", "ffn_up"}; c.Layers = []int{1} }},
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
	b.targets[4], b.targets[8] = 1, 2 // else these rows would be left out, and the masks of those behind them would be others than the naive model's
	checkGradients(t, m, b, 11)

	_, first := b.gradients(t, m, 11)
	_, again := b.gradients(t, m, 11)
	sameBits(t, "the same seed", again, first)
	if _, other := b.gradients(t, m, 12); relativeL2(other, first) < 0.01 {
		t.Error("another seed gives the same gradients")
	}
	if sum, _ := b.gradients(t, m, 0); sum != b.loss(t, m) {
		t.Error("seed 0 does not switch dropout off")
	}
}

// checkGradients compares the engine's loss and gradients on a batch with the naive model's.
func checkGradients(t *testing.T, m *Model, b batch, seed uint64) {
	t.Helper()
	sum, grad := b.gradients(t, m, seed)
	n := newNaive(t, m)
	if seed != 0 {
		n.dropout(seed, len(b.tokens))
	}
	if want := n.loss(b); !(math.Abs(sum-want) <= tinyLossTolerance*want) {
		t.Errorf("loss %.9g, want %.9g", sum, want)
	}
	random, worst, at := rand.New(rand.NewPCG(seed, 9)), 0.0, 0
	check := func(what string, size int) {
		t.Helper()
		got := wide(grad[at : at+size])
		length := math.Sqrt(dot(got, got))
		for range 2 {
			direction := make([]float64, size)
			for i := range direction {
				direction[i] = random.NormFloat64()
			}
			scale := 1 / math.Sqrt(dot(direction, direction))
			for i := range direction {
				direction[i] *= scale
			}
			want := n.difference(b, n.params[at:at+size], direction)
			off := math.Abs(dot(got, direction)-want) / length
			if !(off <= tinyGradientTolerance) {
				t.Errorf("%s: derivative %.7g, want %.7g; off by %.1e of the gradient", what, dot(got, direction), want, off)
			}
			worst = max(worst, off)
		}
		at += size
	}
	for _, l := range n.adapter.Layers {
		names, parts := trained(n.adapter, l)
		for i, name := range names {
			check(name, len(parts[i]))
		}
	}
	if at != len(grad) {
		t.Errorf("%d of %d gradients compared", at, len(grad))
	}
	t.Logf("worst error of a derivative: %.1e of its gradient", worst)
}

// difference is the derivative of the loss along a direction of some of the parameters.
func (n *naive) difference(b batch, params, direction []float64) float64 {
	kept := append([]float64(nil), params...)
	at := func(step float64) float64 {
		for i, v := range direction {
			params[i] = kept[i] + step*v
		}
		return n.loss(b)
	}
	d := (at(differenceStep) - at(-differenceStep)) / (2 * differenceStep)
	copy(params, kept)
	return d
}

// TestEveryGradient compares each single number's gradient, where random directions could hide an exchange of two small ones.
func TestEveryGradient(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{Width: 16, Hidden: 12, Blocks: 2})
	a := adapted(t, m, func(c *vera.Config) { c.Rank = 4 })
	b := randomBatch(4, m.Vocab, 4, 3)
	_, grad := b.gradients(t, m, 0)
	n := newNaive(t, m)
	want := make([]float32, len(grad))
	for i := range want {
		want[i] = float32(n.difference(b, n.params[i:i+1], []float64{1}))
	}
	at := 0
	check := func(what string, size int) {
		if e := relativeL2(grad[at:at+size], want[at:at+size]); !(e <= tinyGradientTolerance) {
			t.Errorf("%s: relative error %.1e", what, e)
		}
		at += size
	}
	for _, l := range a.Layers {
		check(l.Name()+" b", len(l.B))
		check(l.Name()+" d", len(l.D))
	}
}
