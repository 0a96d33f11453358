package evaluate

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/session"
)

// Choices is how well multiple-choice questions are answered. The names in JSON are those of EleutherAI's
// lm-evaluation-harness.
type Choices struct {
	// part of the questions whose right choice has the highest log p
	Acc             float64    `json:"acc"`
	AccInterval     [2]float64 `json:"acc_interval"`      // 95%
	AccNorm         float64    `json:"acc_norm"`          // the same by log p per byte of the choice's text
	AccNormInterval [2]float64 `json:"acc_norm_interval"` // 95%
	Chance          float64    `json:"chance"`            // accuracy of guessing
	LogP            float64    `json:"log_p"`             // mean of the right choices, natural logarithm
	Questions       int        `json:"questions"`
}

// MeasureChoices grades a model's choices by log p; batch questions are computed together, so that what their prompts
// have in common is computed once.
func MeasureChoices(ctx context.Context, s *session.Session, questions []alpaca.Question, batch int,
	progress Progress) (Choices, error) {
	logP, err := choices(ctx, s, questions, batch, progress)
	if err != nil {
		return Choices{}, err
	}
	return grade(questions, logP), nil
}

// choices gives log p of every choice of every question.
func choices(ctx context.Context, s *session.Session, questions []alpaca.Question, batch int, progress Progress) (
	all [][]float64, err error) {
	for some := range slices.Chunk(questions, batch) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		tokens, targets, lengths := alpaca.Batch(some)
		sums := make([]float64, len(lengths))
		if _, _, err := s.Losses(tokens, targets, lengths, sums); err != nil {
			return nil, err
		}
		for i, sum := range sums {
			if math.IsNaN(sum) || math.IsInf(sum, 0) {
				return nil, fmt.Errorf("the loss of a choice is %v: the model file or the adapter is damaged", sum)
			}
			sums[i] = -sum
		}
		for _, q := range some {
			n := len(q.Choices)
			all, sums = append(all, sums[:n]), sums[n:]
		}
		if progress != nil {
			progress(len(some), len(all), len(questions))
		}
	}
	return all, nil
}

// grade compares log p of the choices. A right choice must be more likely than every other one: it does not win a tie.
func grade(questions []alpaca.Question, logP [][]float64) Choices {
	r := Choices{Questions: len(questions)}
	right, rightNorm := 0, 0
	for i, q := range questions {
		perByte := make([]float64, len(q.Choices))
		for j, p := range logP[i] {
			perByte[j] = p / float64(q.Bytes[j])
		}
		if wins(logP[i], q.Answer) {
			right++
		}
		if wins(perByte, q.Answer) {
			rightNorm++
		}
		r.Chance += 1 / float64(len(q.Choices))
		r.LogP += logP[i][q.Answer]
	}
	n := float64(r.Questions)
	r.Chance, r.LogP = r.Chance/n, r.LogP/n
	r.Acc, r.AccInterval = proportion(right, r.Questions)
	r.AccNorm, r.AccNormInterval = proportion(rightNorm, r.Questions)
	return r
}

func wins(scores []float64, i int) bool {
	for j, s := range scores {
		if j != i && s >= scores[i] {
			return false
		}
	}
	return true
}

// proportion is k/n with Wilson's 95% interval, which unlike the standard error is right for few questions and near 0
// and 1, too.
func proportion(k, n int) (p float64, interval [2]float64) {
	const z = 1.959964 // 97.5% quantile of the normal distribution
	count := float64(n)
	p = float64(k) / count
	centre := p + z*z/(2*count)
	half := z * math.Sqrt(p*(1-p)/count+z*z/(4*count*count))
	scale := 1 + z*z/count
	return p, [2]float64{max(0, (centre-half)/scale), min(1, (centre+half)/scale)}
}
