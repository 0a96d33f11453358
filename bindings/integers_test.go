package bindings

import (
	"math"
	"testing"
)

// TestRounded compares products of operands that are rounded to integers with float64, whose operands are rounded in
// the same way: shapes, types, parts, and numbers that are not finite, tiny or huge.
func TestRounded(t *testing.T) {
	var all []product
	add := func(p product) {
		p.way = Rounded
		all = append(all, p)
	}
	for _, p := range every(sizes{1, 1, 1, 1}, sizes{130, 257, 193, 131}, sizes{96, 192, 288, 128},
		sizes{37, 2051, 29, 19}, sizes{2051, 43, 29, 19}, sizes{37, 43, 2051, 19}, sizes{37, 43, 29, 2051},
		sizes{65, 64, 7, 320}, sizes{64, 192, 250, 24}, sizes{64, 127, 6, 65}, sizes{16, 129, 5, 1}) {
		add(p)
	}
	for kind := range typeCount {
		if kind.Dequantizes() {
			block := int(kind.BlockSize())
			p := product{w: kind, x: F32, y: F32, k: max(block*3, 608/block*block), m: 67, n: 13, r: 11, with: "io",
				before: 1}
			for _, p.op = range []string{"linear", "linear back", "merge"} {
				add(p)
			}
		}
	}
	for _, with := range []string{"i", "o", "a", "ioa", "iot", "ioat", "ioT"} {
		add(product{op: "linear back", w: Q4_1, x: F32, y: F32, k: 96, m: 70, n: 7, with: with, before: 3, after: 3})
	}
	for _, op := range operations {
		for _, kind := range []Type{F32, BF16} {
			p := product{op: op, w: kind, x: kind, y: kind, a: kind, k: 71, m: 131, n: 33, r: 35, with: "ioa"}
			for _, m := range p.operands() {
				for _, value := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Exp2(-120),
					math.Exp2(100)} {
					for _, tail := range []bool{false, true} {
						p.poison, p.value, p.tail = m.name, float32(value), tail
						add(p)
					}
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
