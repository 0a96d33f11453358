package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/veratune/veratune/vera"
)

// printNorms shows the norms of an adapter's layers: a line for each kind of layer, in it a bar for each block. All
// bars of a chart have one scale, from 0.
func printNorms(w io.Writer, layers []vera.LayerNorms) error {
	first, last := 0, 0
	var targets []string
	for _, l := range layers {
		last = max(last, l.Block)
		if !slices.Contains(targets, l.Target) {
			targets = append(targets, l.Target)
		}
	}
	slices.SortStableFunc(targets, func(x, y string) int {
		return slices.Index(vera.Targets, x) - slices.Index(vera.Targets, y)
	})
	var out strings.Builder
	for _, part := range slices.Sorted(maps.Keys(layers[0].Norms)) {
		highest := 0.0
		for _, l := range layers {
			highest = max(highest, l.Norms[part])
		}
		fmt.Fprintf(&out, "\n‖%s‖ of blocks %d to %d; █ is %.4g\n", part, first, last, highest)
		for _, target := range targets {
			bars := []rune(strings.Repeat(" ", last+1))
			low, high := math.Inf(1), 0.0
			for _, l := range layers {
				if l.Target == target {
					n := l.Norms[part]
					bars[max(l.Block, 0)] = bar(n, highest)
					low, high = min(low, n), max(high, n)
				}
			}
			fmt.Fprintf(&out, "%-12s %s  %.4g to %.4g\n", target, string(bars), low, high)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// bar is a block whose eighths are those of value to highest, rounded up; a dot for 0.
func bar(value, highest float64) rune {
	if value == 0 {
		return '·'
	}
	return []rune("▁▂▃▄▅▆▇█")[min(max(int(math.Ceil(value/highest*8)), 1), 8)-1]
}
