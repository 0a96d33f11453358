package mtbench

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Report is all that `veratune mtbench show` says of an evaluation.
type Report struct {
	Questions  int            `json:"questions"`
	Models     []string       `json:"models"`
	Answered   map[string]int `json:"answered"` // questions of each model
	Baseline   string         `json:"baseline"` // the model that others are compared with
	Categories []string       `json:"categories"`
	Judges     []JudgeReport  `json:"judges"`

	evaluation *Evaluation
}

// JudgeReport is what one judge says.
type JudgeReport struct {
	Judge    string        `json:"judge"`
	Scores   []ModelScores `json:"scores,omitempty"`           // best first; empty where the judge graded nothing
	Baseline []Comparison  `json:"against_baseline,omitempty"` // best first
	All      []Comparison  `json:"against_all,omitempty"`      // only where pairs without the baseline were judged
}

// ErrNotJudged says that a folder has no judgments.
var ErrNotJudged = errors.New("nothing has been judged yet")

// NewReport computes the scores of an evaluation. An empty judge stands for all of them, an empty baseline for the
// first model.
func NewReport(e *Evaluation, judge, baseline string) (*Report, error) {
	r := &Report{Questions: len(e.Questions), Models: models(e), Answered: map[string]int{},
		Categories: categories(e.Questions), evaluation: e}
	for model, answers := range e.Answers {
		r.Answered[model] = len(answers)
	}
	judges := slices.AppendSeq(slices.Collect(maps.Keys(e.Singles)), maps.Keys(e.Pairs))
	slices.Sort(judges)
	judges = slices.DeleteFunc(slices.Compact(judges), func(name string) bool {
		return len(e.Singles[name])+len(e.Pairs[name]) == 0
	})
	switch {
	case len(judges) == 0:
		return nil, ErrNotJudged
	case judge != "" && !slices.Contains(judges, judge):
		return nil, fmt.Errorf("no judgments of %q; there are some of %s", judge, strings.Join(judges, ", "))
	case judge != "":
		judges = []string{judge}
	}
	r.Baseline = cmp.Or(baseline, r.Models[0])
	if !slices.Contains(r.Models, r.Baseline) {
		return nil, fmt.Errorf("no model %q; there are %s", r.Baseline, strings.Join(r.Models, ", "))
	}
	for _, name := range judges {
		r.Judges = append(r.Judges, r.judge(name))
	}
	return r, nil
}

// models lists those that answered, then those that only judgments name.
func models(e *Evaluation) []string {
	more := map[string]bool{}
	for _, rows := range e.Singles {
		for _, s := range rows {
			more[s.Model] = true
		}
	}
	for _, rows := range e.Pairs {
		for _, p := range rows {
			more[p.Model1], more[p.Model2] = true, true
		}
	}
	list := slices.Clone(e.Models)
	for _, model := range slices.Sorted(maps.Keys(more)) {
		if !slices.Contains(list, model) {
			list = append(list, model)
		}
	}
	return list
}

// categories lists those that the questions have, in the order of Categories; others come after.
func categories(questions []Question) []string {
	var list, more []string
	has := map[string]bool{}
	for _, q := range questions {
		if !has[q.Category] && !slices.Contains(Categories, q.Category) {
			more = append(more, q.Category)
		}
		has[q.Category] = true
	}
	for _, c := range Categories {
		if has[c] {
			list = append(list, c)
		}
	}
	return append(list, more...)
}

func (r *Report) judge(name string) JudgeReport {
	e := r.evaluation
	j := JudgeReport{Judge: name}
	if len(e.Singles[name]) > 0 {
		j.Scores = r.scores(e.Singles[name])
	}
	pairs := e.Pairs[name]
	j.Baseline = comparisons(pairs, r.Baseline)
	if len(j.Baseline) > 0 {
		r.countUncompared(j.Baseline, pairs)
	}
	if slices.ContainsFunc(pairs, func(p Pair) bool { return p.Model1 != r.Baseline && p.Model2 != r.Baseline }) {
		j.All = comparisons(pairs, "")
	}
	return j
}

// scores is how the judge that wrote the rows grades each model.
func (r *Report) scores(rows []Single) []ModelScores {
	of := byModel(rows)
	category := map[int]string{}
	for _, q := range r.evaluation.Questions {
		category[q.ID] = q.Category
	}
	baseline := grades(of[r.Baseline])
	var list []ModelScores
	for _, model := range r.Models {
		rows := of[model]
		all := grades(rows)
		m := ModelScores{Model: model, Categories: map[string]Scores{}, Judgments: len(rows),
			Unscored: len(rows) - len(scored(rows))}
		m.Scores = scores(all, func(grade) bool { return true })
		for _, c := range r.Categories {
			m.Categories[c] = scores(all, func(g grade) bool { return category[g.question] == c })
		}
		var byQuestion clusters
		for _, g := range all {
			byQuestion.add(g.question, g.score)
		}
		m.Interval = byQuestion.interval()
		if model != r.Baseline {
			m.Difference = differenceTo(baseline, all)
		}
		m.Spread = spread(rows, all)
		m.Unjudged = r.countUngraded(model, rows)
		list = append(list, m)
	}
	slices.SortStableFunc(list, func(a, b ModelScores) int { return bestFirst(a.Overall, b.Overall) })
	return list
}

// countUngraded counts the turns that a model answered and no row grades.
func (r *Report) countUngraded(model string, rows []Single) int {
	graded := map[turnKey]bool{}
	for _, s := range rows {
		graded[turnKey{s.QuestionID, s.Turn}] = true
	}
	n := 0
	for _, a := range r.evaluation.Answers[model] {
		for t := range Turns {
			if !graded[turnKey{a.QuestionID, t + 1}] {
				n++
			}
		}
	}
	return n
}

// countUncompared counts for each model the turns that it and the baseline answered, and those of them that no row
// compares.
func (r *Report) countUncompared(list []Comparison, rows []Pair) {
	compared := map[duel]bool{}
	for i := range rows {
		m, _ := rows[i].duel()
		compared[m] = true
	}
	baseline := map[int]bool{}
	for _, a := range r.evaluation.Answers[r.Baseline] {
		baseline[a.QuestionID] = true
	}
	for i := range list {
		for _, a := range r.evaluation.Answers[list[i].Model] {
			for t := range Turns {
				m, _ := (&Pair{QuestionID: a.QuestionID, Turn: t + 1, Model1: list[i].Model, Model2: r.Baseline}).duel()
				if !baseline[a.QuestionID] {
					continue
				}
				list[i].Answered++
				if !compared[m] {
					list[i].Unjudged++
				}
			}
		}
	}
}

// Missing says in a sentence each what the scores of a judge leave out.
func (r *Report) Missing(j *JudgeReport) []string {
	var notes []string
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	for _, model := range r.Models {
		if n := r.Answered[model]; n < r.Questions {
			note("%s: %d of %d questions not answered", model, r.Questions-n, r.Questions)
		}
	}
	for _, m := range j.Scores {
		if m.Unscored > 0 {
			note("%s: %d of %d judgments without a score", m.Model, m.Unscored, m.Judgments)
		}
		if m.Unjudged > 0 {
			note("%s: %d of %d answers not judged", m.Model, m.Unjudged, r.Answered[m.Model]*Turns)
		}
	}
	for _, c := range j.Baseline {
		if c.Failed > 0 {
			note("%s against %s: %d of %d comparisons without a verdict", c.Model, r.Baseline, c.Failed, c.Judged)
		}
		if c.Unjudged > 0 {
			note("%s against %s: %d of %d turns not compared", c.Model, r.Baseline, c.Unjudged, c.Answered)
		}
	}
	for _, c := range j.All {
		if c.Failed > 0 {
			note("%s against all others: %d of %d comparisons without a verdict", c.Model, c.Failed, c.Judged)
		}
	}
	return notes
}
