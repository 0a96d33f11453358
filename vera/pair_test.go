package vera

import (
	"math"
	"math/big"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mathext/prng"
)

// The C++ standard demands this value of every mt19937 that was seeded with its default, as init_genrand does.
func TestGeneratorIsTheReference(t *testing.T) {
	mt := prng.NewMT19937()
	mt.Seed(5489)
	first := mt.Uint32()
	for range 9998 {
		mt.Uint32()
	}
	if last := mt.Uint32(); first != 3499211612 || last != 4123659995 {
		t.Errorf("first word %d, ten thousandth %d; want 3499211612 and 4123659995", first, last)
	}
}

// Every value must be what a fused multiply-add in float32 gives, computed here in 200 bits and rounded once.
func TestKaimingUniformIsFused(t *testing.T) {
	exact := func(v float32) *big.Float { return new(big.Float).SetPrec(200).SetFloat64(float64(v)) }
	for _, fanIn := range []int{1, 3, 64, 192, 576, 1024, 11008} {
		const rows = 60
		bound := float32(math.Sqrt(3) * (math.Sqrt(2) / math.Sqrt(float64(fanIn))))
		width := exact(bound - -bound)
		mt := prng.NewMT19937()
		mt.Seed(11)
		for i, got := range NewPair(KaimingUniform, 11, rows, fanIn, 1).A {
			u := exact(float32(mt.Uint32()&(1<<24-1)) * (1.0 / (1 << 24)))
			want, _ := u.Mul(u, width).Sub(u, exact(bound)).Float32()
			if got != want {
				t.Fatalf("fan_in %d, value %d: %v, want %v", fanIn, i, got, want)
			}
		}
	}
}

func TestPairIsFixedBySeed(t *testing.T) {
	for _, test := range []struct {
		init   Init
		sha256 string
	}{
		// A change of these digests makes every adapter of that init unreadable.
		{KaimingUniform, "fd4273842f8f46ed382e8c3b1ad9d8b647900b141a29ada863fe3b3df7c55ad8"},
		{KaimingNormal, "ae18f4308b0dcb419fdef581e2c8a8444687b81adac13034b5a3a3384c793cac"},
		{Uniform, "186dab9d2fc72b3a073e531bac0f53b9d9c1f7829a8eeb8233bbd5321514e629"},
	} {
		p := NewPair(test.init, 5, 32, 300, 200)
		if got := p.SHA256(); got != test.sha256 {
			t.Errorf("%s: SHA-256 %s, want %s", test.init, got, test.sha256)
		}
		if NewPair(test.init, 6, 32, 300, 200).SHA256() == p.SHA256() {
			t.Errorf("%s: two seeds give one pair", test.init)
		}
	}
	p := NewPair(Uniform, 5, 32, 300, 200)
	p.Rank, p.MaxIn = 300, 32
	if p.SHA256() == NewPair(Uniform, 5, 32, 300, 200).SHA256() {
		t.Error("the digest does not cover the shape")
	}
}

// Mean and deviation of 60,000 values: five standard errors of the mean are 2% of a deviation, of the deviation at most
// 1.5%.
func TestPairDistribution(t *testing.T) {
	const rank, maxIn, maxOut = 200, 300, 300
	bound := func(fanIn int) float64 { return math.Sqrt(6 / float64(fanIn)) }
	for _, test := range []struct {
		init      Init
		mean      float64
		deviation func(fanIn int) float64
		lo, hi    func(fanIn int) float64
	}{
		{KaimingUniform, 0, func(n int) float64 { return bound(n) / math.Sqrt(3) }, func(n int) float64 {
			return -bound(n)
		}, bound},
		{KaimingNormal, 0, func(n int) float64 { return math.Sqrt(2 / float64(n)) }, func(int) float64 {
			return -1
		}, func(int) float64 { return 1 }},
		{Uniform, 0.05, func(int) float64 { return 0.1 / math.Sqrt(12) }, func(int) float64 {
			return 0
		}, func(int) float64 { return 0.1 }},
	} {
		p := NewPair(test.init, 3, rank, maxIn, maxOut)
		for name, m := range map[string]struct {
			values []float32
			fanIn  int
		}{"A": {p.A, maxIn}, "B": {p.B, rank}} {
			var sum, squares float64
			for _, v := range m.values {
				sum += float64(v)
				squares += (float64(v) - test.mean) * (float64(v) - test.mean)
			}
			n, want := float64(len(m.values)), test.deviation(m.fanIn)
			if mean := sum / n; math.Abs(mean-test.mean) > 0.02*want {
				t.Errorf("%s %s: mean %v, want %v", test.init, name, mean, test.mean)
			}
			if got := math.Sqrt(squares / n); math.Abs(got/want-1) > 0.015 {
				t.Errorf("%s %s: deviation %v, want %v", test.init, name, got, want)
			}
			// The bounds are rounded to float32.
			const slack = 1e-6
			if lo, hi := float64(slices.Min(m.values)), float64(slices.Max(m.values)); lo < test.lo(m.fanIn)-slack ||
				hi > test.hi(m.fanIn)+slack {
				t.Errorf("%s %s: from %v to %v", test.init, name, lo, hi)
			}
		}
	}
}

func BenchmarkNewPair7B(b *testing.B) {
	for b.Loop() {
		NewPair(KaimingUniform, 0, 1024, 11008, 11008)
	}
}

// TestPairsAreShared: adapters of one seed have one pair, equal to the one that each would draw; a few are kept.
func TestPairsAreShared(t *testing.T) {
	base := toy()
	base.Pairs = new(Pairs)
	pair := func(seed uint32) *Pair {
		c := Default()
		c.Rank, c.Seed = 8, seed
		a, err := New(c, base)
		if err != nil {
			t.Fatal(err)
		}
		return a.Pair
	}
	first := pair(1)
	own := NewPair(KaimingUniform, 1, first.Rank, first.MaxIn, first.MaxOut)
	if pair(1) != first || first.SHA256() != own.SHA256() || !slices.Equal(first.B, own.B) {
		t.Error("the pair is drawn anew, or another")
	}
	for seed := range uint32(keptPairs) {
		if pair(seed+2) == first {
			t.Error("two seeds share a pair")
		}
	}
	if again := pair(1); again == first || again.SHA256() != own.SHA256() {
		t.Error("a pair is kept that was not asked for lately, or not drawn as before")
	}
}
