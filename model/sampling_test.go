package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
)

// shares is a straightforward reference: the probability with which each token is drawn.
func (s Sampling) shares(logits []float32, text []int32) []float64 {
	n := len(logits)
	l := make([]float64, n)
	for i, v := range logits {
		l[i] = float64(v)
		if slices.Contains(text, int32(i)) {
			if l[i] > 0 {
				l[i] = float64(float32(l[i] / s.RepetitionPenalty))
			} else {
				l[i] = float64(float32(l[i] * s.RepetitionPenalty))
			}
		}
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(a, b int) bool { return l[order[a]] > l[order[b]] })
	shares := make([]float64, n)
	if s.Temperature == 0 {
		shares[order[0]] = 1
		return shares
	}
	if s.TopK > 0 {
		order = order[:min(n, s.TopK)]
	}
	normalise := func() {
		sum := 0.0
		for _, i := range order {
			sum += math.Exp((l[i] - l[order[0]]) / s.Temperature)
		}
		clear(shares)
		for _, i := range order {
			shares[i] = math.Exp((l[i]-l[order[0]])/s.Temperature) / sum
		}
	}
	normalise()
	if s.TopP < 1 {
		sum := 0.0
		for k, i := range order {
			if sum += shares[i]; sum >= s.TopP {
				order = order[:k+1]
				break
			}
		}
		normalise()
	}
	order = slices.DeleteFunc(slices.Clone(order), func(i int) bool { return shares[i] < s.MinP*shares[order[0]] })
	normalise()
	return shares
}

// samplings are of every kind, alone and together.
func samplings() (list []Sampling) {
	for _, s := range []Sampling{
		{}, {Temperature: 1}, {Temperature: 0.3}, {Temperature: 3},
		{Temperature: 1, TopK: 1}, {Temperature: 1, TopK: 5}, {Temperature: 1, TopK: 1000},
		{Temperature: 1, TopP: 0.5}, {Temperature: 1, TopP: 0.99}, {Temperature: 1, TopP: 1e-9},
		{Temperature: 2, TopP: 0.999999},
		{Temperature: 1, MinP: 0.1}, {Temperature: 1, MinP: 1},
		{RepetitionPenalty: 1.3}, {Temperature: 0.7, RepetitionPenalty: 2}, {Temperature: 1, RepetitionPenalty: 0.5},
		{Temperature: 0.8, TopK: 20, TopP: 0.9, MinP: 0.05, RepetitionPenalty: 1.1},
	} {
		if s.TopP == 0 {
			s.TopP = 1
		}
		if s.RepetitionPenalty == 0 {
			s.RepetitionPenalty = 1
		}
		s.MaxTokens = 1
		list = append(list, s)
	}
	return list
}

// TestSampling draws many tokens by random logits: none that the reference rules out, and each of the others as often
// as the reference says.
func TestSampling(t *testing.T) {
	const draws = 4000
	random := rand.New(rand.NewPCG(11, 12))
	for _, s := range samplings() {
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			for _, deviation := range []float64{0.5, 3, 30} {
				logits := make([]float32, 60)
				for i := range logits {
					logits[i] = float32(deviation * random.NormFloat64())
				}
				text := []int32{3, 8, 3, 59, 20, 3}
				want, counts := s.shares(logits, text), make([]int, len(logits))
				generator := rand.New(rand.NewPCG(s.Seed, 0))
				for range draws {
					token, err := s.choose(slices.Clone(logits), text, generator)
					if err != nil {
						t.Fatal(err)
					}
					counts[token]++
				}
				chi, cells, rare, rareShare := 0.0, 0, 0, 0.0
				for i, n := range counts {
					switch e := draws * want[i]; {
					case want[i] == 0 && n > 0:
						t.Errorf("deviation %g: token %d, which is ruled out, is drawn %d times", deviation, i, n)
					case e < 5:
						rare, rareShare = rare+n, rareShare+e
					default:
						chi += (float64(n) - e) * (float64(n) - e) / e
						cells++
					}
				}
				// A χ² of k degrees of freedom has mean k and variance 2k; five deviations are never met with by chance
				// in so few tests.
				if limit := float64(cells) + 5*math.Sqrt(2*float64(cells)) + 5; chi > limit ||
					math.Abs(float64(rare)-rareShare) > 5*math.Sqrt(rareShare)+5 {
					t.Errorf("deviation %g: χ² %.1f over %d tokens, rare ones %d times where %.1f is expected",
						deviation, chi, cells, rare, rareShare)
				}
			}
		})
	}
}

// TestTies takes the lowest of equal tokens, at top-k and top-p too.
func TestTies(t *testing.T) {
	logits := []float32{1, 2, 2, 1, 2, 2}
	for _, c := range []struct {
		s    Sampling
		want []int32
	}{
		{Sampling{TopP: 1}, []int32{1}},
		{Sampling{Temperature: 1, TopK: 1, TopP: 1}, []int32{1}},
		{Sampling{Temperature: 1, TopK: 3, TopP: 1}, []int32{1, 2, 4}},
		{Sampling{Temperature: 1, TopP: 0.3}, []int32{1, 2}},
		{Sampling{Temperature: 1, TopP: 1, MinP: 1}, []int32{1, 2, 4, 5}},
	} {
		c.s.RepetitionPenalty = 1
		random, drawn := rand.New(rand.NewPCG(1, 1)), map[int32]bool{}
		for range 500 {
			token, err := c.s.choose(slices.Clone(logits), nil, random)
			if err != nil {
				t.Fatal(err)
			}
			drawn[token] = true
		}
		for i := range int32(len(logits)) {
			if drawn[i] != slices.Contains(c.want, i) {
				t.Errorf("%+v: drawn %v, want %v", c.s, drawn, c.want)
				break
			}
		}
	}
}

// TestSeed draws the same again with the same seed, and something else with another.
func TestSeed(t *testing.T) {
	logits := make([]float32, 1000)
	s := Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1}
	draw := func(seed uint64) (tokens []int32) {
		random := rand.New(rand.NewPCG(seed, 0))
		for range 5 {
			token, err := s.choose(slices.Clone(logits), nil, random)
			if err != nil {
				t.Fatal(err)
			}
			tokens = append(tokens, token)
		}
		return tokens
	}
	if a, b, c := draw(1), draw(1), draw(2); !slices.Equal(a, b) || slices.Equal(a, c) {
		t.Errorf("seed 1 draws %d and %d, seed 2 %d", a, b, c)
	}
}

func TestOddLogits(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, temperature := range []float64{0, 1} {
		s := Sampling{Temperature: temperature, TopP: 1, RepetitionPenalty: 1}
		for _, logits := range [][]float32{{nan, 1, 2}, {1, 2, nan}, {nan}} {
			if token, err := s.choose(logits, nil, rand.New(rand.NewPCG(1, 1))); err == nil ||
				!strings.Contains(err.Error(), "NaN") {
				t.Errorf("temperature %g, %v: token %d, %v", temperature, logits, token, err)
			}
		}
		for _, s := range []Sampling{s, {Temperature: temperature, TopK: 3, TopP: 0.999999, RepetitionPenalty: 1}} {
			if token, err := s.choose([]float32{-inf, -inf, -800, -inf}, nil, rand.New(rand.NewPCG(1, 1))); err !=
				nil || token != 2 {
				t.Errorf("%+v: token %d, %v, of which only 2 is possible", s, token, err)
			}
		}
	}
}
