package train

import (
	"context"
	"errors"
	"time"
)

// Speed is how fast whole training steps were, and the memory of the process.
type Speed struct {
	Steps            int     `json:"steps"`   // measured
	Samples          int     `json:"samples"` // in them
	Tokens           int     `json:"tokens"`  // in them; none is padding
	Seconds          float64 `json:"seconds"`
	SamplesPerSecond float64 `json:"samples_per_s"`
	TokensPerSecond  float64 `json:"tokens_per_s"`
	PeakGiB          float64 `json:"peak_GiB"` // of the whole process, mapped files included
}

// Measure trains for an epoch without evaluating or saving anything and times the steps after the first, which still
// reads the model from its file; it calls begin before them.
func Measure(ctx context.Context, c Config, engine Engine, params []float32, from Source, begin func()) (Speed, error) {
	p := newBatching(c, from.Batches())
	if p.total < 2 {
		return Speed{}, errors.New("measuring takes two steps at least, and the first is not counted; use more rows " +
			"or a smaller accumulation")
	}
	t := newTrainer(engine, params, c, nil, soloGroup{})
	var s Speed
	var start time.Time
	for step := range p.total {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		if step == 1 {
			begin()
			start = time.Now()
		}
		b, err := p.load(from, c.Seed, step)
		if err != nil {
			return s, err
		}
		o, err := t.step(b, c.RateAt(step, p.total), false)
		if err != nil {
			return s, err
		}
		if step > 0 {
			s.Steps++
			s.Tokens += o.tokens
			s.Samples += len(b.lengths)
		}
	}
	s.Seconds = time.Since(start).Seconds()
	s.SamplesPerSecond, s.TokensPerSecond = float64(s.Samples)/s.Seconds, float64(s.Tokens)/s.Seconds
	s.PeakGiB = float64(peakMemory()) / (1 << 30)
	return s, nil
}
