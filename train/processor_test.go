package train

import (
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

var writeProcessor = flag.Bool("write-processor", false, "write testdata/processor.json, which other processors meet")

// processorResults are those of one processor: losses of a training, and logits with activations as bytes.
type processorResults struct {
	ISA    string    `json:"isa"`
	Losses []float64 `json:"losses"`
	Logits []float32 `json:"logits"`
}

// TestProcessors trains a tiny model and computes its logits in q8, and compares both with what an x86 processor gave:
// losses but for the rounding of float32, logits within 1e-3.
func TestProcessors(t *testing.T) {
	const path = "testdata/processor.json"
	got := processorResults{ISA: bindings.ISA()}
	tiny := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1})
	random := rand.New(rand.NewPCG(1, 1))
	open := func(compute model.Compute) (*model.Model, *vera.Adapter) {
		o := model.Default()
		o.Threads, o.Compute = 1, compute
		m, err := model.Open(tiny, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.Close)
		c := vera.Default()
		c.Rank = 32
		a, err := vera.New(c, m.Base())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range a.Layers {
			for i := range l.LambdaB {
				l.LambdaB[i] = random.Float32() - 0.5
			}
		}
		if err := m.Attach(a); err != nil {
			t.Fatal(err)
		}
		return m, a
	}
	m, a := open(model.ComputeF32)
	trainer := newTrainer(m, a.Params, unclipped(), nil, soloGroup{})
	for range 8 {
		var b batch
		for _, n := range []int{21, 5, 34} {
			for range n {
				b.tokens = append(b.tokens, random.Int32N(int32(m.Vocab)))
				b.targets = append(b.targets, random.Int32N(int32(m.Vocab)))
			}
			b.lengths = append(b.lengths, n)
		}
		o, err := trainer.step(b, 1e-3, false)
		if err != nil {
			t.Fatal(err)
		}
		got.Losses = append(got.Losses, o.loss)
	}
	q8, _ := open(model.ComputeQ8)
	var tokens []int32
	for range 15 {
		tokens = append(tokens, random.Int32N(int32(m.Vocab)))
	}
	var err error
	if got.Logits, err = q8.Logits(tokens, 2); err != nil {
		t.Fatal(err)
	}
	if *writeProcessor {
		data, err := json.Marshal(got)
		if err == nil {
			err = os.WriteFile(path, append(data, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	var want processorResults
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	worstLoss, worstLogit := 0.0, 0.0
	for i, loss := range want.Losses {
		worstLoss = max(worstLoss, math.Abs(got.Losses[i]-loss)/loss)
	}
	for i, logit := range want.Logits {
		worstLogit = max(worstLogit, math.Abs(float64(got.Logits[i]-logit)))
	}
	if !(worstLoss <= 1e-6) || !(worstLogit <= 1e-3) {
		t.Errorf("%s is off by %.1e in a loss and by %.1e in a logit in q8 from %s", got.ISA, worstLoss, worstLogit,
			want.ISA)
	}
	t.Logf("%s is off by %.1e in a loss and by %.1e in a logit in q8 from %s", got.ISA, worstLoss, worstLogit, want.ISA)
}
