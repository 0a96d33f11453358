package train

import (
	"math"
	"testing"
)

// After the warm-up, the factors are those of transformers' get_cosine_schedule_with_warmup, get_linear_… and
// get_constant_….
func TestSchedules(t *testing.T) {
	third := 1.0 / 3
	for _, c := range []struct {
		schedule Schedule
		ratio    float64
		total    int
		want     []float64
	}{
		{Cosine, 0.1, 10, []float64{1, 1, 0.9698463103929542, 0.883022221559489, 0.75, 0.5868240888334653,
			0.41317591116653485, 0.2500000000000001, 0.11697777844051105, 0.03015368960704584, 0}},
		{Linear, 0.1, 10, []float64{1, 1, 0.8888888888888888, 0.7777777777777778, 0.6666666666666666,
			0.5555555555555556, 0.4444444444444444, 0.3333333333333333, 0.2222222222222222, 0.1111111111111111, 0}},
		{Constant, 0.1, 10, []float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{Cosine, 0.3, 7, []float64{third, 2 * third, 1, 1, 0.8535533905932737, 0.5, 0.14644660940672627, 0}},
		{Linear, 0.3, 7, []float64{third, 2 * third, 1, 1, 0.75, 0.5, 0.25, 0}},
		{Cosine, 0, 5, []float64{1, 0.9045084971874737, 0.6545084971874737, 0.34549150281252633,
			0.09549150281252633, 0}},
		{Linear, 0, 5, []float64{1, 0.8, 0.6, 0.4, 0.2, 0}},
		{Constant, 1, 3, []float64{third, 2 * third, 1, 1}},
		{Cosine, 0.1, 1, []float64{1}},
	} {
		config := Config{LR: 2, Schedule: c.schedule, WarmupRatio: c.ratio}
		for step, want := range c.want {
			// Cosines of two libraries differ in the last place.
			if got := config.RateAt(step, c.total) / 2; math.Abs(got-want) > 1e-15 {
				t.Errorf("%s with warm-up ratio %v, step %d of %d: %v, want %v", c.schedule, c.ratio, step,
					c.total, got, want)
			}
		}
	}
}

func TestWarmupStepsRoundUp(t *testing.T) {
	for _, c := range []struct {
		ratio       float64
		total, want int
	}{{0.1, 946, 95}, {0.1, 30, 3}, {0.1, 1, 1}, {0, 1000, 0}, {1, 7, 7}} {
		if got := (Config{WarmupRatio: c.ratio}).WarmupSteps(c.total); got != c.want {
			t.Errorf("ratio %v of %d steps: %d, want %d", c.ratio, c.total, got, c.want)
		}
	}
}

// Every step of every training moves something.
func TestNoStepIsWithoutEffect(t *testing.T) {
	for _, schedule := range Schedules {
		for _, ratio := range []float64{0, 0.05, 0.1, 0.5, 1} {
			for _, total := range []int{1, 2, 3, 10, 11, 100} {
				c := Config{LR: 1, Schedule: schedule, WarmupRatio: ratio}
				for step := range total {
					if rate := c.RateAt(step, total); !(rate > 0 && rate <= 1) {
						t.Errorf("%s, warm-up ratio %v: step %d of %d has the rate %v", schedule, ratio, step,
							total, rate)
					}
				}
			}
		}
	}
}
