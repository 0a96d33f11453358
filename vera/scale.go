package vera

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// rank is that of a layer.
func (c Config) rank(l Linear) int {
	if rank, ok := c.Ranks[l.Name()]; ok {
		return rank
	}
	return c.Rank
}

// alpha is that of a LoRA's layer.
func (c Config) alpha(l Linear) float32 {
	if alpha, ok := c.Alphas[l.Name()]; ok {
		return alpha
	}
	return c.Alpha
}

// scale is what a LoRA multiplies B A with: alpha/rank, or alpha/√rank.
func (c Config) scale(l Linear) float32 {
	if c.RSLoRA {
		return float32(float64(c.alpha(l)) / math.Sqrt(float64(c.rank(l))))
	}
	return c.alpha(l) / float32(c.rank(l))
}

// plainAlpha is the alpha of a LoRA's layer where its scale is alpha/rank, as in llama.cpp.
func (c Config) plainAlpha(l Linear) float32 {
	if c.RSLoRA {
		return float32(float64(c.alpha(l)) * math.Sqrt(float64(c.rank(l))))
	}
	return c.alpha(l)
}

// validateLayers checks what is given for single layers.
func (c Config) validateLayers(b Base) error {
	adapted := map[string]bool{}
	for _, l := range c.selected(b) {
		adapted[l.Name()] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Ranks)) {
		if rank := c.Ranks[name]; !adapted[name] || rank < 1 || rank > maxRank {
			return fmt.Errorf("rank %d of %s: must be from 1 to %d, of an adapted layer", rank, name, maxRank)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Alphas)) {
		if alpha := c.Alphas[name]; !adapted[name] || !(alpha > 0 && finite(alpha)) {
			return fmt.Errorf("alpha %v of %s: must be a number above 0, of an adapted layer", alpha, name)
		}
	}
	return nil
}

// shortened makes Rank the largest rank of a layer and Alpha one that some layer has, and lists only those layers that
// differ.
func (c Config) shortened(b Base) Config {
	if len(c.Ranks)+len(c.Alphas) == 0 {
		return c
	}
	long := c
	layers := c.selected(b)
	c.Rank, c.Ranks, c.Alphas = 0, nil, nil
	for _, l := range layers {
		c.Rank = max(c.Rank, long.rank(l))
	}
	if !slices.ContainsFunc(layers, func(l Linear) bool { return long.alpha(l) == long.Alpha }) {
		c.Alpha = long.alpha(layers[0])
	}
	for _, l := range layers {
		c.Ranks = set(c.Ranks, l.Name(), long.rank(l), c.Rank)
		c.Alphas = set(c.Alphas, l.Name(), long.alpha(l), c.Alpha)
	}
	return c
}

// set adds a value that is not the usual one to a map, which may be nil.
func set[T comparable](m map[string]T, name string, value, usual T) map[string]T {
	if value == usual {
		return m
	}
	if m == nil {
		m = map[string]T{}
	}
	m[name] = value
	return m
}
