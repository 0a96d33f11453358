package mtbench

import (
	"cmp"
	"slices"
)

// Comparison is how often a model's answers were found better than another model's.
type Comparison struct {
	Model    string   `json:"model"`
	Win      int      `json:"win"`
	Tie      int      `json:"tie"`
	Loss     int      `json:"loss"`
	WinRate  Mean     `json:"win_rate"`
	LossRate Mean     `json:"loss_rate"`
	Adjusted Mean     `json:"win_rate_adjusted"` // a tie counts as half a win
	Interval Interval `json:"interval"`          // of Adjusted
	Judged   int      `json:"judgments"`
	Failed   int      `json:"undecided"` // judgments without a verdict, which count nowhere else
	Answered int      `json:"answered"`  // turns that both models answered; 0 against all others
	Unjudged int      `json:"unjudged"`  // those of them that have no judgment
}

// verdict is what both orders together say: 1 where model 1's answer is better, -1 where model 2's is, 0 where they are
// equal or the judge contradicts itself. ok is false where either order has no verdict.
func (p *Pair) verdict() (v int, ok bool) {
	switch {
	case p.G1Winner == "error" || p.G2Winner == "error":
		return 0, false
	case p.G1Winner == "tie" || p.G1Winner != p.G2Winner:
		return 0, true
	case p.G1Winner == "model_1":
		return 1, true
	}
	return -1, true
}

// duel is a turn of a question in which two models are compared; the models are in alphabetical order.
type duel struct {
	turnKey
	models [2]string
}

// duel gives what the pair compares, and whether model 2 is the first there.
func (p *Pair) duel() (m duel, swapped bool) {
	m = duel{turnKey{p.QuestionID, p.Turn}, [2]string{p.Model1, p.Model2}}
	if p.Model2 < p.Model1 {
		m.models = [2]string{p.Model2, p.Model1}
		return m, true
	}
	return m, false
}

// comparisons counts for each model how it fared against the baseline or, where baseline is empty, against every other
// model; the best comes first. Of repeats, the verdict that prevails counts: a win where there are more wins than
// losses.
func comparisons(rows []Pair, baseline string) []Comparison {
	counts := map[string]*Comparison{}
	points := map[string]*clusters{} // 1 for a win, half a one for a tie
	balance := map[duel]int{}
	var duels []duel
	for i := range rows {
		p := &rows[i]
		if baseline != "" && p.Model1 != baseline && p.Model2 != baseline {
			continue
		}
		v, ok := p.verdict()
		for _, model := range []string{p.Model1, p.Model2} {
			if counts[model] == nil {
				counts[model], points[model] = &Comparison{Model: model}, &clusters{}
			}
			counts[model].Judged++
			if !ok {
				counts[model].Failed++
			}
		}
		if !ok {
			continue
		}
		m, swapped := p.duel()
		if swapped {
			v = -v
		}
		if _, seen := balance[m]; !seen {
			duels = append(duels, m)
		}
		balance[m] += v
	}
	for _, m := range duels {
		for i, model := range m.models {
			v := cmp.Compare(balance[m], 0) * (1 - 2*i)
			counts[model].count(v)
			points[model].add(m.question, 0.5+0.5*float64(v))
		}
	}
	delete(counts, baseline)
	list := make([]Comparison, 0, len(counts))
	for model, c := range counts {
		n := Mean(c.Win + c.Tie + c.Loss)
		c.WinRate, c.LossRate = Mean(c.Win)/n, Mean(c.Loss)/n
		c.Adjusted, c.Interval = points[model].mean(), points[model].interval()
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Comparison) int {
		return cmp.Or(bestFirst(a.Adjusted, b.Adjusted), cmp.Compare(a.Model, b.Model))
	})
	return list
}

func (c *Comparison) count(verdict int) {
	switch verdict {
	case 1:
		c.Win++
	case 0:
		c.Tie++
	default:
		c.Loss++
	}
}

// bestFirst orders scores from high to low, unknown ones last.
func bestFirst(a, b Mean) int { return cmp.Compare(b, a) } // cmp takes NaN as the lowest of all numbers
