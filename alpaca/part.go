package alpaca

import (
	"fmt"
	"strconv"
	"strings"
)

// Part is a file of rows, and how much of it an epoch sees: Weight times its rows. Over the epochs each of its rows
// comes equally often; with a Weight of 2, twice in each.
type Part struct {
	Path   string
	Weight float64
}

// ParsePart reads FILE or FILE:WEIGHT.
func ParsePart(s string) (Part, error) {
	p := Part{Path: s, Weight: 1}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if w, err := strconv.ParseFloat(s[i+1:], 64); err == nil {
			p = Part{Path: s[:i], Weight: w}
		}
	}
	if p.Path == "" {
		return p, fmt.Errorf("data %q: want FILE or FILE:WEIGHT", s)
	}
	if !(p.Weight > 0) || p.Weight > 1e6 {
		return p, fmt.Errorf("data %q: a weight is a number above 0, such as 0.5 for half of the rows in each epoch", s)
	}
	return p, nil
}

func (p Part) String() string {
	if p.Weight == 1 {
		return p.Path
	}
	return p.Path + ":" + strconv.FormatFloat(p.Weight, 'g', -1, 64)
}
