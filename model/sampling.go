package model

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling decides how the next token is chosen and when to stop.
type Sampling struct {
	MaxTokens   int     `json:"max_tokens"`
	Temperature float64 `json:"temperature"` // 0 takes the most likely token
	TopK        int     `json:"top_k"`       // that many most likely tokens; 0 is all
	// The fewest most likely tokens that have this probability together; 1 is all (Holtzman et al., arXiv 1904.09751).
	TopP float64 `json:"top_p"`
	// Tokens with at least this part of the greatest probability; 0 is all (Nguyen et al., arXiv 2407.01082).
	MinP float64 `json:"min_p"`
	// Divides positive logits of tokens that the text has, and multiplies negative ones; 1 is none (Keskar et al.,
	// arXiv 1909.05858).
	RepetitionPenalty float64 `json:"repetition_penalty"`
	Seed              uint64  `json:"seed"`
}

// DefaultSampling is greedy, up to 512 tokens.
func DefaultSampling() Sampling { return Sampling{MaxTokens: 512, TopP: 1, RepetitionPenalty: 1} }

// Validate says what is allowed where a value is not.
func (s Sampling) Validate() error {
	switch {
	case s.MaxTokens < 1:
		return fmt.Errorf("max-tokens %d: at least 1", s.MaxTokens)
	case !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0):
		return fmt.Errorf("temperature %g: 0 or more", s.Temperature)
	case s.TopK < 0:
		return fmt.Errorf("top-k %d: 0 or more", s.TopK)
	case !(s.TopP > 0 && s.TopP <= 1):
		return fmt.Errorf("top-p %g: more than 0, up to 1", s.TopP)
	case !(s.MinP >= 0 && s.MinP <= 1):
		return fmt.Errorf("min-p %g: from 0 to 1", s.MinP)
	case !(s.RepetitionPenalty > 0) || math.IsInf(s.RepetitionPenalty, 0):
		return fmt.Errorf("repetition-penalty %g: more than 0; 1 is none", s.RepetitionPenalty)
	}
	return nil
}

// choose picks the next token of a text by its logits, which it may change. Of equal logits the lower token counts, so
// that the order of sorting does not.
func (s Sampling) choose(logits []float32, text []int32, random *rand.Rand) (int32, error) {
	if s.RepetitionPenalty != 1 {
		s.penalise(logits, text)
	}
	best := 0
	for i, l := range logits {
		if math.IsNaN(float64(l)) {
			return 0, fmt.Errorf("the model computes NaN for token %d: the model file or the adapter is damaged", i)
		}
		if l > logits[best] {
			best = i
		}
	}
	if s.Temperature == 0 {
		return int32(best), nil
	}
	candidates := s.candidates(logits, float64(logits[best]))
	sum := 0.0
	for _, c := range candidates {
		sum += c.p
	}
	rest := random.Float64() * sum
	for _, c := range candidates {
		if rest -= c.p; rest < 0 {
			return c.token, nil
		}
	}
	return candidates[0].token, nil
}

func (s Sampling) penalise(logits []float32, text []int32) {
	seen := map[int32]bool{}
	for _, t := range text {
		if seen[t] || int(t) >= len(logits) {
			continue
		}
		seen[t] = true
		if l := &logits[t]; *l > 0 {
			*l = float32(float64(*l) / s.RepetitionPenalty)
		} else {
			*l = float32(float64(*l) * s.RepetitionPenalty)
		}
	}
}

type candidate struct {
	token int32
	p     float64 // beside 1 for the most likely token
}

// candidates are the tokens that may be drawn, the most likely first where the order matters. Top-k, top-p and min-p
// apply after the temperature, each to what the one before leaves.
func (s Sampling) candidates(logits []float32, best float64) []candidate {
	all := make([]candidate, 0, len(logits))
	total := 0.0
	for i, l := range logits {
		p := math.Exp((float64(l) - best) / s.Temperature)
		all = append(all, candidate{int32(i), p})
		total += p
	}
	if s.TopK == 0 && s.TopP == 1 {
		return slices.DeleteFunc(all, func(c candidate) bool { return c.p < s.MinP })
	}
	// Sorts the likely tokens alone, unless they are too few.
	for least := 1e-3; ; least /= 1e3 {
		likely := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.p < least })
		slices.SortFunc(likely, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.token, b.token))
		})
		if kept, enough := s.top(likely, total); enough || len(likely) == len(all) {
			return slices.DeleteFunc(kept, func(c candidate) bool { return c.p < s.MinP })
		}
	}
}

// top cuts the most likely candidates down to top-k and top-p, and tells whether they were enough for that. total is
// the sum of all p.
func (s Sampling) top(likely []candidate, total float64) (kept []candidate, enough bool) {
	enough = s.TopK == 0 || len(likely) >= s.TopK
	if s.TopK > 0 {
		likely, total = likely[:min(s.TopK, len(likely))], 0
		for _, c := range likely {
			total += c.p
		}
	}
	if s.TopP == 1 {
		return likely, enough
	}
	n, sum := 0, 0.0
	for sum < s.TopP*total && n < len(likely) {
		sum += likely[n].p
		n++
	}
	return likely[:n], enough && sum >= s.TopP*total
}

// logProbs is the log probability of a token by its logits, and the n most likely tokens; of equal ones, the lower
// first.
func logProbs(logits []float32, token int32, n int) (float32, []LogProb) {
	most := float64(slices.Max(logits))
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - most)
	}
	of := func(id int32) float32 { return float32(float64(logits[id]) - most - math.Log(sum)) }
	var top []LogProb
	for i := range logits {
		l := LogProb{int32(i), of(int32(i))}
		if len(top) == n && (n == 0 || l.LogProb <= top[n-1].LogProb) {
			continue
		}
		place, _ := slices.BinarySearchFunc(top, l, func(a, b LogProb) int {
			return cmp.Or(cmp.Compare(b.LogProb, a.LogProb), cmp.Compare(a.ID, b.ID))
		})
		if top = slices.Insert(top, place, l); len(top) > n {
			top = top[:n]
		}
	}
	return of(token), top
}
