// Package evaluate measures what a session's model and adapter are worth: the loss on rows, the accuracy on
// multiple-choice questions, and answers to and judgments of the questions of package mtbench.
//
// It must not print: how far the work is goes to callbacks.
package evaluate

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

// Engine is how a model computes that is measured: exactly, in float32, on the CPU.
func Engine() model.Options {
	o := model.Default()
	o.Compute = model.ComputeF32
	return o
}

// Loss is the mean loss of the responses of a data set.
type Loss struct {
	Loss       float64 `json:"loss"`       // mean −log p of a labelled token, natural logarithm
	Perplexity float64 `json:"perplexity"` // e^loss
	Rows       int     `json:"rows"`
	Labelled   int     `json:"labelled"` // tokens
}

// Progress is told how many items have been measured now, how many in all, and of how many; nil is told nothing.
type Progress func(now, done, total int)

// MeasureLoss computes the mean loss over a data set, batch samples at a time.
func MeasureLoss(ctx context.Context, s *session.Session, d *alpaca.Dataset, batch int, progress Progress) (
	Loss, error) {
	r := Loss{Rows: d.Len()}
	source := d.InOrder(batch)
	total := 0.0
	for i := range source.Batches() {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		tokens, targets, lengths, err := source.Batch(0, i)
		if err != nil {
			return r, err
		}
		sum, n, err := s.Loss(tokens, targets, lengths)
		if err != nil {
			return r, err
		}
		total += sum
		r.Labelled += n
		if progress != nil {
			progress(1, i+1, source.Batches())
		}
	}
	if r.Labelled == 0 {
		return r, errors.New("no row has a labelled token")
	}
	r.Loss = total / float64(r.Labelled)
	r.Perplexity = math.Exp(r.Loss)
	if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
		return r, fmt.Errorf("the loss is %v: the model file or the adapter is damaged", r.Loss)
	}
	return r, nil
}
