package train

import "math"

// Schedule is the shape of the learning rate over a training, after the warm-up.
type Schedule string

// The schedules, as Hugging Face's get_*_schedule_with_warmup define them after the warm-up.
const (
	Cosine   Schedule = "cosine"   // half a cosine wave, down to 0
	Linear   Schedule = "linear"   // a straight line, down to 0
	Constant Schedule = "constant" // the highest learning rate throughout
)

// Schedules lists the values that Config.Schedule may have.
var Schedules = []Schedule{Cosine, Linear, Constant}

// Factor is the part of the highest learning rate that step, counted from 0, of total steps uses. In the first warmup
// steps it is (step+1)/warmup: Hugging Face's step/warmup would leave the first step without effect.
func (s Schedule) Factor(step, warmup, total int) float64 {
	if step < warmup {
		return float64(step+1) / float64(warmup)
	}
	progress := float64(step-warmup) / float64(max(1, total-warmup))
	switch s {
	case Cosine:
		return max(0, 0.5*(1+math.Cos(math.Pi*progress)))
	case Linear:
		return max(0, float64(total-step)/float64(max(1, total-warmup)))
	}
	return 1
}

// WarmupSteps is the number of warm-up steps among total, rounded up as Hugging Face's trainer does.
func (c Config) WarmupSteps(total int) int { return int(math.Ceil(float64(total) * c.WarmupRatio)) }

// RateAt is the learning rate of step, counted from 0, of total steps.
func (c Config) RateAt(step, total int) float64 {
	return c.LR * c.Schedule.Factor(step, c.WarmupSteps(total), total)
}
