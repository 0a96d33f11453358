package bindings

import (
	"math"
	"testing"
)

// TestRounded compares products of operands that are rounded to integers with float64, whose operands are rounded in
// the same way: shapes, types, parts, and numbers that are not finite or tiny.
func TestRounded(t *testing.T) {
	var all []product
	add := func(p product) {
		p.op, p.way = "linear back", Rounded
		all = append(all, p)
	}
	for i, s := range []sizes{{k: 1, m: 1, n: 1}, {k: 130, m: 257, n: 193}, {k: 96, m: 192, n: 288},
		{k: 37, m: 2051, n: 29}, {k: 2051, m: 43, n: 29}, {k: 37, m: 43, n: 2051}, {k: 65, m: 64, n: 7},
		{k: 64, m: 127, n: 6}, {k: 16, m: 129, n: 5}} {
		place := around[i%len(around)]
		for _, kinds := range [][3]Type{{F32, F32, F32}, {BF16, F32, BF16}, {BF16, BF16, F32}} {
			add(product{w: kinds[0], x: kinds[1], y: kinds[2], k: s.k, m: s.m, n: s.n, before: place[0],
				after: place[1]})
		}
	}
	for kind := range typeCount {
		if kind.Dequantizes() {
			block := int(kind.BlockSize())
			add(product{w: kind, x: F32, y: F32, k: max(block*3, 320/block*block), m: 67, n: 13, with: "io", before: 1})
		}
	}
	for _, with := range []string{"i", "o", "a", "ioa", "iot", "ioat", "ioT"} {
		add(product{w: Q4_1, x: F32, y: F32, k: 96, m: 70, n: 7, with: with, before: 3, after: 3})
	}
	for _, kind := range []Type{F32, BF16} {
		for _, operand := range []string{"w", "g", "in", "out", "acc"} {
			for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Exp2(-120), math.Exp2(100)} {
				for _, tail := range []bool{false, true} {
					add(product{w: kind, x: kind, y: kind, k: 71, m: 131, n: 33, with: "ioa", poison: operand,
						value: float32(value), tail: tail})
				}
			}
		}
	}
	testProducts(t, all)
}

// TestRoundedThreads compares the bits that several threads give with those of one.
func TestRoundedThreads(t *testing.T) {
	p := product{op: "linear back", way: Rounded, w: F32, x: F32, y: F32, k: 330, m: 257, n: 193}
	one := map[string][]byte{}
	for _, threads := range []int{1, 2, 3} {
		backend := openCPU(t, threads)
		everyISA(t, func(t *testing.T) {
			y := p.compute(t, backend, p.fill(t))
			if threads == 1 {
				one[ISA()] = y
			} else if string(y) != string(one[ISA()]) {
				t.Errorf("other bits with %d threads than with one", threads)
			}
		})
		backend.Close()
	}
}
