package model

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// Sampling decides how the next token is chosen and when to stop.
type Sampling struct {
	MaxTokens   int     `json:"max_tokens"`
	Temperature float64 `json:"temperature"` // 0 takes the most likely token
	TopP        float64 `json:"top_p"`       // smallest set of most likely tokens with this probability together; 1 is all
	Seed        uint64  `json:"seed"`
}

// DefaultSampling is greedy, up to 512 tokens.
func DefaultSampling() Sampling { return Sampling{MaxTokens: 512, TopP: 1} }

// Validate says what is allowed where a value is not.
func (s Sampling) Validate() error {
	switch {
	case s.MaxTokens < 1:
		return fmt.Errorf("max-tokens %d: at least 1", s.MaxTokens)
	case !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0):
		return fmt.Errorf("temperature %g: 0 or more", s.Temperature)
	case !(s.TopP > 0 && s.TopP <= 1):
		return fmt.Errorf("top-p %g: more than 0, up to 1", s.TopP)
	}
	return nil
}

// Generate continues a prompt token by token and gives each to emit, until emit returns false, MaxTokens are made, the model's context is full, or ctx is
// cancelled.
func (m *Model) Generate(ctx context.Context, prompt []int32, s Sampling, emit func(token int32) bool) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if len(prompt) == 0 || len(prompt) >= m.Context {
		return fmt.Errorf("a prompt of %d tokens: the model takes from 1 to %d", len(prompt), m.Context-1)
	}
	most := min(s.MaxTokens, m.Context-len(prompt))
	seq, err := m.NewSequence(len(prompt) + most)
	if err != nil {
		return err
	}
	defer seq.Close()
	random := rand.New(rand.NewPCG(s.Seed, 0))
	tokens := prompt
	for range most {
		if err := ctx.Err(); err != nil {
			return err
		}
		logits, err := seq.Append(tokens, 1)
		if err != nil {
			return err
		}
		next, err := s.choose(logits, random)
		if err != nil {
			return err
		}
		if !emit(next) {
			return nil
		}
		tokens = []int32{next}
	}
	return nil
}

// choose picks a token by its logit. Equal logits go to the lower token, so that a result does not depend on the order of sorting.
func (s Sampling) choose(logits []float32, random *rand.Rand) (int32, error) {
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
	type candidate struct {
		token int32
		p     float64
	}
	candidates := make([]candidate, 0, len(logits))
	total := 0.0
	for i, l := range logits {
		p := math.Exp(float64(l-logits[best]) / s.Temperature)
		candidates = append(candidates, candidate{int32(i), p})
		total += p
	}
	if s.TopP < 1 {
		slices.SortFunc(candidates, func(a, b candidate) int {
			return cmp.Or(cmp.Compare(b.p, a.p), cmp.Compare(a.token, b.token))
		})
		n, sum := 0, 0.0
		for sum < s.TopP*total && n < len(candidates) {
			sum += candidates[n].p
			n++
		}
		candidates, total = candidates[:n], sum
	}
	at := random.Float64() * total
	for _, c := range candidates {
		if at -= c.p; at < 0 {
			return c.token, nil
		}
	}
	return candidates[0].token, nil
}
