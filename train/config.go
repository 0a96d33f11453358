package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Config decides how parameters are trained; the JSON keys are the words of the command line.
type Config struct {
	LR           float64  `json:"lr"` // highest learning rate, at the end of the warm-up
	Schedule     Schedule `json:"schedule"`
	WarmupRatio  float64  `json:"warmup_ratio"` // part of all steps in which the learning rate rises
	Accumulation int      `json:"accumulation"` // micro-batches in a step
	Epochs       float64  `json:"epochs"`
	Steps        int      `json:"steps"` // 0 trains for Epochs; otherwise for that many steps, whatever Epochs says
	WeightDecay  float64  `json:"weight_decay"`
	Beta1        float64  `json:"beta1"`
	Beta2        float64  `json:"beta2"`
	Eps          float64  `json:"eps"`
	Clip         float64  `json:"clip"` // largest L2 norm of a step's gradient, 0 for no limit
	Seed         uint64   `json:"seed"` // of dropout

	// between evaluations; 0 evaluates only before the first step and after the last
	EvalEvery Interval `json:"eval_every"`
	// evaluations in a row without a new lowest held-out loss that end the training; 0 never ends it
	Patience int `json:"patience"`
	// steps between checkpoints; 0 saves only after the last step and on an interruption
	SaveEvery int `json:"save_every"`
	Keep      int `json:"keep"` // newest checkpoints that are kept
}

// Default is the recipe of the VeRA paper's Table 9; what the table leaves out is as in PyTorch's AdamW, without weight
// decay.
func Default() Config {
	return Config{
		LR: 4e-3, Schedule: Cosine, WarmupRatio: 0.1, Accumulation: 4, Epochs: 1,
		Beta1: 0.9, Beta2: 0.999, Eps: 1e-8,
		EvalEvery: Interval{Steps: 50}, SaveEvery: 10, Keep: 2,
	}
}

// mostEpochs is more than anybody trains, and keeps the number of steps within what an int holds.
const mostEpochs = 1_000_000

// Validate returns an error that names the first value out of its range and says what is allowed.
func (c Config) Validate() error {
	switch {
	case !positive(c.LR):
		return fmt.Errorf("lr %v: want a number above 0", c.LR)
	case !slices.Contains(Schedules, c.Schedule):
		return fmt.Errorf("schedule %q: want one of %s", c.Schedule, names(Schedules))
	case !(c.WarmupRatio >= 0 && c.WarmupRatio <= 1):
		return fmt.Errorf("warmup-ratio %v: want a number from 0 to 1", c.WarmupRatio)
	case c.Accumulation < 1:
		return fmt.Errorf("accumulation %d: want at least 1 micro-batch", c.Accumulation)
	case !(c.Epochs > 0 && c.Epochs <= mostEpochs):
		return fmt.Errorf("epochs %v: want a number above 0, and %d at most, such as 3, or 0.5 for half of the rows",
			c.Epochs, mostEpochs)
	case c.Steps < 0:
		return fmt.Errorf("steps %d: want 0, for as many as the epochs have, or more", c.Steps)
	case !(c.WeightDecay >= 0 && c.WeightDecay*c.LR <= 1):
		return fmt.Errorf("weight-decay %v: want a number from 0 to 1/lr = %v", c.WeightDecay, 1/c.LR)
	case !(c.Beta1 >= 0 && c.Beta1 < 1):
		return fmt.Errorf("beta1 %v: want at least 0 and less than 1", c.Beta1)
	case !(c.Beta2 >= 0 && c.Beta2 < 1):
		return fmt.Errorf("beta2 %v: want at least 0 and less than 1", c.Beta2)
	case !positive(c.Eps) || float32(c.Eps) == 0:
		// The gradient of d is exactly 0 while b is 0, so that without eps the first update would be 0/0.
		return fmt.Errorf("eps %v: want a float32 number above 0", c.Eps)
	case c.Clip != 0 && !positive(c.Clip):
		return fmt.Errorf("clip %v: want 0, for no clipping, or a number above it", c.Clip)
	case c.Patience < 0:
		return fmt.Errorf("patience %d: want 0, for no early end, or more evaluations", c.Patience)
	case c.Patience > 0 && c.EvalEvery == Interval{}:
		return errors.New("patience: needs evaluations on the way; give eval-every")
	case c.SaveEvery < 0:
		return fmt.Errorf("save-every %d: want 0, for the end only, or more steps", c.SaveEvery)
	case c.Keep < 2:
		return fmt.Errorf("keep %d: want at least 2 checkpoints, so that one is left where the newest is bad", c.Keep)
	}
	return nil
}

func positive(v float64) bool { return v > 0 && !math.IsInf(v, 1) }

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func names[T ~string](list []T) string {
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
