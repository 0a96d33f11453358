package mtbench

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/gonum/floats"
)

//go:embed report.html report.css report.js
var reportFiles embed.FS

var reportTemplate = template.Must(template.New("report.html").ParseFS(reportFiles, "report.html", "report.css",
	"report.js"))

// shades is how many colours report.css has for models.
const shades = 8

// page is what report.html shows.
type page struct {
	*Report
	Models    []pageModel
	Judges    []pageJudge
	Questions []pageQuestion
	Answered  string // when
	Judged    string
	Resamples int
}

type pageModel struct {
	Index  int
	Name   string
	Shade  int
	Chosen bool // to be shown when the page opens
}

type pageJudge struct {
	JudgeReport
	Radar    *radar
	Missing  []string
	Tables   []pageComparisons
	Repeated bool // has a spread
}

type pageComparisons struct {
	Title string
	Rows  []Comparison
}

type pageQuestion struct {
	ID       int
	Category string
	Apart    Mean // the best model's score minus the worst's, or what stands for it
	Turns    []pageTurn
}

type pageTurn struct {
	Number          int
	Text, Reference string
	Answers         []pageAnswer
	Pairs           []pagePair
}

type pageAnswer struct {
	Model     pageModel
	Missing   bool
	Text      string
	Marks     []pageMark
	Judgments []pageJudgment
}

// pageMark is the score that counts, the median of a judge's repeats.
type pageMark struct{ Judge, Score string }

// pageJudgment is what a judge said of an answer or of a pair, and what that means.
type pageJudgment struct{ Title, Words string }

type pagePair struct {
	Models [2]pageModel
	Title  string
	Orders [2]pageJudgment
}

// WriteHTML writes the report as one page, which holds all that it needs.
func (r *Report) WriteHTML(w io.Writer) error {
	var out bytes.Buffer
	if err := reportTemplate.Execute(&out, r.page()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err := out.WriteTo(w)
	return err
}

func (r *Report) page() *page {
	p := &page{Report: r, Resamples: resamples}
	for i, name := range r.Models {
		p.Models = append(p.Models, pageModel{Index: i, Name: name, Shade: i % shades, Chosen: i < 3})
	}
	for _, j := range r.Judges {
		view := pageJudge{JudgeReport: j, Radar: newRadar(r.Categories, p.Models, j.Scores), Missing: r.Missing(&j),
			Repeated: repeated(j.Scores)}
		if len(j.Baseline) > 0 {
			view.Tables = append(view.Tables, pageComparisons{"Against " + r.Baseline, j.Baseline})
		}
		if len(j.All) > 0 {
			view.Tables = append(view.Tables, pageComparisons{"Against all other models", j.All})
		}
		p.Judges = append(p.Judges, view)
	}
	p.Questions = r.pageQuestions(p.Models)
	p.Answered, p.Judged = r.dates()
	return p
}

// Of gives a model by its name.
func (p *page) Of(name string) pageModel {
	return p.Models[slices.IndexFunc(p.Models, func(m pageModel) bool { return m.Name == name })]
}

// Percent gives where a score lies on a scale from 0 to the best grade.
func (p *page) Percent(s Mean) float64 { return math.Round(float64(s)*1000/radarMax) / 10 }

// Span gives how long an interval is on that scale.
func (p *page) Span(i Interval) float64 { return p.Percent(i[1] - i[0]) }

// dates tells the days on which models answered and on which judges judged.
func (r *Report) dates() (answered, judged string) {
	var answers, judgments []float64
	for _, list := range r.evaluation.Answers {
		for _, a := range list {
			answers = append(answers, a.Time)
		}
	}
	for _, j := range r.Judges {
		for _, s := range r.evaluation.Singles[j.Judge] {
			judgments = append(judgments, s.Time)
		}
		for _, p := range r.evaluation.Pairs[j.Judge] {
			judgments = append(judgments, p.Time)
		}
	}
	return days(answers), days(judgments)
}

// days gives the first and the last day of times in seconds since 1970. Rows without a time do not count.
func days(times []float64) string {
	times = slices.DeleteFunc(times, func(t float64) bool { return t <= 0 })
	if len(times) == 0 {
		return ""
	}
	day := func(t float64) string { return time.Unix(int64(t), 0).UTC().Format(time.DateOnly) }
	first, last := day(floats.Min(times)), day(floats.Max(times))
	if first == last {
		return first
	}
	return first + " to " + last
}

// answerKey names an answer.
type answerKey struct {
	turnKey
	model string
}

// said is what judges said of each turn of a question.
type said struct {
	marks   map[answerKey][]pageMark
	singles map[answerKey][]pageJudgment
	pairs   map[turnKey][]pagePair
}

func (r *Report) said(models []pageModel) said {
	s := said{marks: map[answerKey][]pageMark{}, singles: map[answerKey][]pageJudgment{},
		pairs: map[turnKey][]pagePair{}}
	of := map[string]pageModel{}
	for _, m := range models {
		of[m.Name] = m
	}
	for _, j := range r.Judges {
		for model, rows := range byModel(r.evaluation.Singles[j.Judge]) {
			for _, g := range grades(rows) {
				at := answerKey{g.turnKey, model}
				s.marks[at] = append(s.marks[at], pageMark{j.Judge, mark(g.score)})
			}
		}
		singles := slices.Clone(r.evaluation.Singles[j.Judge])
		slices.SortStableFunc(singles, func(a, b Single) int { return cmp.Compare(a.Repeat, b.Repeat) })
		repeated := len(singles) > 0 && singles[len(singles)-1].Repeat > 0
		for _, row := range singles {
			at := answerKey{turnKey{row.QuestionID, row.Turn}, row.Model}
			score := "no score"
			if row.Score != -1 {
				score = mark(row.Score)
			}
			title := fmt.Sprintf("%s%s: %s", j.Judge, repeat(repeated, row.Repeat), score)
			s.singles[at] = append(s.singles[at], pageJudgment{title, row.Judgment})
		}
		pairs := slices.Clone(r.evaluation.Pairs[j.Judge])
		slices.SortStableFunc(pairs, func(a, b Pair) int { return cmp.Compare(a.Repeat, b.Repeat) })
		repeated = len(pairs) > 0 && pairs[len(pairs)-1].Repeat > 0
		for _, row := range pairs {
			at := turnKey{row.QuestionID, row.Turn}
			s.pairs[at] = append(s.pairs[at], pagePair{
				Models: [2]pageModel{of[row.Model1], of[row.Model2]},
				Title: fmt.Sprintf("%s%s, %s and %s: %s", j.Judge, repeat(repeated, row.Repeat), row.Model1,
					row.Model2, row.inWords()),
				Orders: [2]pageJudgment{
					{fmt.Sprintf("%s first: %s", row.Model1, row.winner(row.G1Winner)), row.G1Judgment},
					{fmt.Sprintf("%s first: %s", row.Model2, row.winner(row.G2Winner)), row.G2Judgment},
				},
			})
		}
	}
	return s
}

// mark gives a grade with as many decimals as it has.
func mark(score float64) string { return strconv.FormatFloat(score, 'f', -1, 64) }

func repeat(repeated bool, n int) string {
	if !repeated {
		return ""
	}
	return fmt.Sprintf(", repeat %d", n+1)
}

func (p *Pair) winner(field string) string {
	switch field {
	case "model_1":
		return p.Model1 + " wins"
	case "model_2":
		return p.Model2 + " wins"
	case "error":
		return "no verdict"
	}
	return "tie"
}

func (p *Pair) inWords() string {
	switch v, ok := p.verdict(); {
	case !ok:
		return "no verdict"
	case v != 0 || p.G1Winner == p.G2Winner:
		return p.winner(p.G1Winner)
	}
	return "tie, as the orders disagree"
}

func (r *Report) pageQuestions(models []pageModel) []pageQuestion {
	answers := map[string]map[int][]string{} // of each model to each question
	for model, list := range r.evaluation.Answers {
		answers[model] = map[int][]string{}
		for _, a := range list {
			if len(a.Choices) > 0 {
				answers[model][a.QuestionID] = a.Choices[0].Turns
			}
		}
	}
	said, apart := r.said(models), r.apart()
	var list []pageQuestion
	for _, q := range r.evaluation.Questions {
		view := pageQuestion{ID: q.ID, Category: q.Category, Apart: apart[q.ID]}
		for i, text := range q.Turns {
			at := turnKey{q.ID, i + 1}
			turn := pageTurn{Number: i + 1, Text: text, Pairs: said.pairs[at]}
			if i < len(q.Reference) {
				turn.Reference = q.Reference[i]
			}
			for _, m := range models {
				a := pageAnswer{Model: m, Missing: true, Marks: said.marks[answerKey{at, m.Name}],
					Judgments: said.singles[answerKey{at, m.Name}]}
				if turns := answers[m.Name][q.ID]; i < len(turns) {
					a.Missing, a.Text = false, strings.TrimSpace(turns[i])
				}
				turn.Answers = append(turn.Answers, a)
			}
			view.Turns = append(view.Turns, turn)
		}
		list = append(list, view)
	}
	return list
}

// apart gives for each question by how much the best model's mean score exceeds the worst's, averaged over the judges.
// Where nothing was graded, it is the number of comparisons that somebody won.
func (r *Report) apart() map[int]Mean {
	ranges, wins := map[int][]float64{}, map[int]Mean{}
	for _, j := range r.Judges {
		means := map[int][]float64{} // the models' to each question
		for _, rows := range byModel(r.evaluation.Singles[j.Judge]) {
			byQuestion := map[int][]float64{}
			for _, g := range grades(rows) {
				byQuestion[g.question] = append(byQuestion[g.question], g.score)
			}
			for question, scores := range byQuestion {
				means[question] = append(means[question], float64(mean(scores)))
			}
		}
		for question, scores := range means {
			ranges[question] = append(ranges[question], floats.Max(scores)-floats.Min(scores))
		}
		for _, p := range r.evaluation.Pairs[j.Judge] {
			if v, _ := p.verdict(); v != 0 {
				wins[p.QuestionID]++
			}
		}
	}
	for question, list := range ranges {
		wins[question] = mean(list)
	}
	return wins
}
