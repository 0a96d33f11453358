package mtbench

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Mean is a mean of grades from 1 to 10, of their differences, or of outcomes, which makes a share of 1. It is NaN, and
// null in JSON, where nothing was measured.
type Mean float64

// Known reports whether anything was measured.
func (m Mean) Known() bool { return !math.IsNaN(float64(m)) }

// MarshalJSON writes a number or null.
func (m Mean) MarshalJSON() ([]byte, error) {
	if !m.Known() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(m))
}

// Scores are means over answers, an answer being what a model said to one turn of one question.
type Scores struct {
	Turns [Turns]Mean `json:"turns"`
	// over the answers to both turns, as FastChat has it: a turn with fewer scores weighs less
	Overall Mean `json:"overall"`
}

// ModelScores is how one judge grades one model. Judgments without a score are left out of all means.
type ModelScores struct {
	Model string `json:"model"`
	Scores
	Interval   Interval          `json:"interval"`             // of Overall
	Difference *Difference       `json:"difference,omitempty"` // nil for the baseline
	Categories map[string]Scores `json:"categories"`
	Spread     *Spread           `json:"spread,omitempty"` // nil where nothing was judged twice
	Judgments  int               `json:"judgments"`
	Unscored   int               `json:"unscored"` // judgments without a score
	Unjudged   int               `json:"unjudged"` // answers without a judgment
}

// Difference is the mean by which a model's scores exceed the baseline's, over the answers for which both have a score.
type Difference struct {
	Mean     Mean     `json:"mean"`
	Interval Interval `json:"interval"`
}

// Spread tells how far apart the repeats of a judge are.
type Spread struct {
	Repeats   int  `json:"repeats"`
	Deviation Mean `json:"deviation"` // sample standard deviation of the overall score between repeats
	// highest minus lowest score of an answer, mean over the answers that have two scores or more
	Range Mean `json:"range"`
}

// turnKey is a turn of a question.
type turnKey struct{ question, turn int }

// grade is the score of an answer: the median over its repeats.
type grade struct {
	turnKey
	score   float64
	repeats []float64 // in ascending order
}

// scored drops the judgments without a score.
func scored(rows []Single) []Single {
	return slices.DeleteFunc(slices.Clone(rows), func(s Single) bool { return s.Score == -1 })
}

func byModel(rows []Single) map[string][]Single {
	of := map[string][]Single{}
	for _, s := range rows {
		of[s.Model] = append(of[s.Model], s)
	}
	return of
}

// grades gives the answers that have a score, ordered by question and turn. The rows are of one model.
func grades(rows []Single) []grade {
	sorted := scored(rows)
	slices.SortFunc(sorted, func(a, b Single) int {
		return cmp.Or(cmp.Compare(a.QuestionID, b.QuestionID), cmp.Compare(a.Turn, b.Turn),
			cmp.Compare(a.Score, b.Score))
	})
	var list []grade
	for _, s := range sorted {
		this := turnKey{s.QuestionID, s.Turn}
		if n := len(list); n == 0 || list[n-1].turnKey != this {
			list = append(list, grade{turnKey: this})
		}
		g := &list[len(list)-1]
		g.repeats = append(g.repeats, s.Score)
	}
	for i := range list {
		list[i].score = median(list[i].repeats)
	}
	return list
}

// median takes values in ascending order.
func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// mean is NaN where there are no values.
func mean(values []float64) Mean { return Mean(stat.Mean(values, nil)) }

// scores averages the grades that belong.
func scores(list []grade, belongs func(g grade) bool) Scores {
	var turns [Turns][]float64
	var all []float64
	for _, g := range list {
		if !belongs(g) {
			continue
		}
		all = append(all, g.score)
		if 1 <= g.turn && g.turn <= Turns {
			turns[g.turn-1] = append(turns[g.turn-1], g.score)
		}
	}
	s := Scores{Overall: mean(all)}
	for t := range turns {
		s.Turns[t] = mean(turns[t])
	}
	return s
}

// differenceTo compares a model with the baseline on the answers that both have a score for.
func differenceTo(baseline, model []grade) *Difference {
	other := map[turnKey]float64{}
	for _, g := range baseline {
		other[g.turnKey] = g.score
	}
	var byQuestion clusters
	for _, g := range model {
		if score, ok := other[g.turnKey]; ok {
			byQuestion.add(g.question, g.score-score)
		}
	}
	return &Difference{Mean: byQuestion.mean(), Interval: byQuestion.interval()}
}

// repeated reports whether anything was judged twice.
func repeated(list []ModelScores) bool {
	return slices.ContainsFunc(list, func(m ModelScores) bool { return m.Spread != nil })
}

// spread is nil where there is one repeat only.
func spread(rows []Single, list []grade) *Spread {
	byRepeat := map[int][]float64{}
	for _, s := range scored(rows) {
		byRepeat[s.Repeat] = append(byRepeat[s.Repeat], s.Score)
	}
	if len(byRepeat) < 2 {
		return nil
	}
	var overall, ranges []float64
	for _, scores := range byRepeat {
		overall = append(overall, stat.Mean(scores, nil))
	}
	slices.Sort(overall) // the last bits of a sum depend on its order, that of the map changes
	for _, g := range list {
		if len(g.repeats) > 1 {
			ranges = append(ranges, floats.Max(g.repeats)-floats.Min(g.repeats))
		}
	}
	return &Spread{Repeats: len(byRepeat), Deviation: Mean(stat.StdDev(overall, nil)), Range: mean(ranges)}
}
