package train

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Interval is the time between two evaluations, in steps or in epochs. One of them is 0; both are where there are no
// evaluations.
type Interval struct {
	Steps  int
	Epochs float64
}

// Set reads "50" as steps and "0.5epoch" as half an epoch.
func (i *Interval) Set(text string) error {
	number, epochs := strings.CutSuffix(text, "epoch")
	if !epochs {
		steps, err := strconv.Atoi(text)
		if err != nil || steps < 0 {
			return fmt.Errorf("%q: want steps, such as 50, or a part of an epoch, such as 0.5epoch", text)
		}
		*i = Interval{Steps: steps}
		return nil
	}
	part, err := strconv.ParseFloat(number, 64)
	if err != nil || !positive(part) {
		return fmt.Errorf("%q: want a part of an epoch, such as 0.5epoch", text)
	}
	*i = Interval{Epochs: part}
	return nil
}

// String is what Set reads.
func (i Interval) String() string {
	if i.Epochs != 0 {
		return strconv.FormatFloat(i.Epochs, 'g', -1, 64) + "epoch"
	}
	return strconv.Itoa(i.Steps)
}

// MarshalText makes an interval the same word in JSON.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// endsAt tells whether an interval ends with a step, counted from 1, in epochs of perEpoch steps. A part of an epoch
// ends with the nearest step.
func (i Interval) endsAt(step, perEpoch int) bool {
	if i.Epochs == 0 {
		return i.Steps > 0 && step > 0 && step%i.Steps == 0
	}
	every := i.Epochs * float64(perEpoch)
	n := math.Round(float64(step) / every)
	return n > 0 && int(math.Round(n*every)) == step
}
