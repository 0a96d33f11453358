package train

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// Tolerances against PEFT's float32 training. Two float32 runs part slowly: Adam's first updates are of the size of the
// learning rate however small a gradient is, so that a rounding error can turn the sign of one.
const (
	earlySteps     = 20
	earlyTolerance = 2e-3 // of the loss of each of the first steps, and of the held-out loss before training
	lateTolerance  = 1e-2 // of those after them
	// of integers, which may be bytes: a step's loss, of a few hundred tokens, and the held-out loss, of many
	roundedTolerance, roundedHeldOut = 3e-2, 2e-3
)

// peftSample is a text in PEFT's form: the label at i is predicted from i-1, -100 is none.
type peftSample struct {
	IDs    []int32 `json:"ids"`
	Labels []int32 `json:"labels"`
}

// peftCurve is a training that PEFT made.
type peftCurve struct {
	Rank       int     `json:"rank"`
	EvalBefore float64 `json:"eval_before"`
	EvalAfter  float64 `json:"eval_after"`
	Steps      []struct {
		Loss     float64 `json:"loss"`
		LR       float64 `json:"lr"`
		Labelled int     `json:"resp_tokens"`
	} `json:"steps"`
	Batches [][]peftSample `json:"batches"`
	HeldOut []peftSample   `json:"held_out"`
}

func readCurve(t *testing.T, folder string) peftCurve {
	t.Helper()
	var c peftCurve
	for _, name := range []string{"curve.json", "batches.json"} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if len(c.Steps) == 0 || len(c.Steps) != len(c.Batches) || len(c.HeldOut) == 0 {
		t.Fatalf("%d steps, %d batches, %d held-out samples", len(c.Steps), len(c.Batches), len(c.HeldOut))
	}
	return c
}

// packed puts samples end to end.
func packed(samples ...peftSample) batch {
	var b batch
	for _, s := range samples {
		b.tokens = append(b.tokens, s.IDs...)
		for _, label := range append(s.Labels[1:len(s.Labels):len(s.Labels)], -1) {
			b.targets = append(b.targets, max(label, -1))
		}
		b.lengths = append(b.lengths, len(s.IDs))
	}
	return b
}

// TestPEFTCurve makes the training steps that PEFT made, on its batches and with its learning rates, and compares the
// losses.
func TestPEFTCurve(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	for _, folder := range testutil.Folders(t, "VERATUNE_CURVES", "refs/peft-curve-*") {
		for _, compute := range []model.Compute{model.ComputeF32, model.ComputeInt} {
			t.Run(filepath.Base(folder)+" "+string(compute), func(t *testing.T) {
				replay(t, readCurve(t, folder), compute)
			})
		}
	}
}

// openSmolLM2 opens the real model with a new adapter of that rank.
func openSmolLM2(t *testing.T, compute model.Compute, rank int) (*model.Model, *vera.Adapter) {
	t.Helper()
	options := model.Default()
	options.Compute = compute
	m, err := model.Open(testutil.SmolLM2(t), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	config := vera.Default()
	config.Rank = rank
	adapter, err := vera.New(config, m.Base())
	if err == nil {
		err = m.Attach(adapter)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m, adapter
}

// heldOut is the mean loss of the held-out samples.
func (c peftCurve) heldOut(t *testing.T, m *model.Model) float64 {
	t.Helper()
	var sum float64
	var labelled int
	for _, sample := range c.HeldOut {
		b := packed(sample)
		s, n, err := m.Loss(b.tokens, b.targets, b.lengths)
		if err != nil {
			t.Fatal(err)
		}
		sum, labelled = sum+s, labelled+n
	}
	return sum / float64(labelled)
}

// TestPEFTHeldOut measures the held-out loss before training with bfloat16 products: within 2e-3 of PEFT's in float32.
// It takes many tokens to see that: rounding moves each token's by 1e-2.
func TestPEFTHeldOut(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, folder := range testutil.Folders(t, "VERATUNE_CURVES", "refs/peft-curve-*") {
		c := readCurve(t, folder)
		m, _ := openSmolLM2(t, model.ComputeBF16, c.Rank)
		loss := c.heldOut(t, m)
		if !(math.Abs(loss-c.EvalBefore) <= 2e-3) {
			t.Errorf("%s: held-out loss %.5f, PEFT's %.5f", filepath.Base(folder), loss, c.EvalBefore)
		}
		t.Logf("%s: held-out loss %.5f, PEFT's %.5f", filepath.Base(folder), loss, c.EvalBefore)
	}
}

func replay(t *testing.T, c peftCurve, compute model.Compute) {
	first, next, end := earlyTolerance, lateTolerance, lateTolerance
	if compute == model.ComputeInt {
		first, next, end = roundedTolerance, roundedTolerance, roundedHeldOut
	}
	m, adapter := openSmolLM2(t, compute, c.Rank)
	check := func(what string, got, want, tolerance float64) {
		t.Helper()
		if !(math.Abs(got-want) <= tolerance) {
			t.Errorf("%s is %.5f, PEFT's %.5f: further apart than %g", what, got, want, tolerance)
		}
	}

	before := c.heldOut(t, m)
	check("held-out loss before", before, c.EvalBefore, earlyTolerance)
	tr := newTrainer(m, adapter.Params, unclipped(), nil, soloGroup{})
	var early, late float64
	for i, s := range c.Steps {
		o, err := tr.step(packed(c.Batches[i]...), s.LR, false)
		if err != nil {
			t.Fatal(err)
		}
		if s.Labelled > 0 && o.labelled != s.Labelled {
			t.Fatalf("step %d: %d labelled tokens, PEFT counted %d", i, o.labelled, s.Labelled)
		}
		tolerance, worst := next, &late
		if i < earlySteps {
			tolerance, worst = first, &early
		}
		*worst = max(*worst, math.Abs(o.loss-s.Loss))
		check("loss of a step", o.loss, s.Loss, tolerance)
	}
	after := c.heldOut(t, m)
	check("held-out loss after", after, c.EvalAfter, end)
	t.Logf("largest difference %.1e in the first %d steps, %.1e after; held out %.4f to %.4f, PEFT's %.4f to %.4f",
		early, earlySteps, late, before, after, c.EvalBefore, c.EvalAfter)
}
