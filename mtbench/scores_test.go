package mtbench

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// graded gives the rows of one model: scores by turn, the first for question 1.
func graded(model string, turn int, scores ...float64) []Single {
	var rows []Single
	for i, s := range scores {
		rows = append(rows, Single{QuestionID: i + 1, Model: model, Turn: turn, Score: s})
	}
	return rows
}

func questions(categories ...string) []Question {
	var list []Question
	for i, c := range categories {
		list = append(list, Question{ID: i + 1, Category: c, Turns: []string{"first", "second"}})
	}
	return list
}

func report(t *testing.T, e *Evaluation, baseline string) *Report {
	t.Helper()
	r, err := NewReport(e, "", baseline)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What FastChat's show_result.py prints for the same rows in mode single, computed by hand.
func TestScores(t *testing.T) {
	for _, c := range []struct {
		name string
		rows []Single
		want []string // a model a line, best first: turn 1, turn 2, average
	}{
		{"one model", slices.Concat(graded("a", 1, 7, 8), graded("a", 2, 5, 6)), []string{"a 7.50 5.50 6.50"}},
		{"best first", slices.Concat(graded("a", 1, 3), graded("b", 1, 9), graded("c", 1, 6), graded("a", 2, 3),
			graded("b", 2, 8), graded("c", 2, 8)),
			[]string{"b 9.00 8.00 8.50", "c 6.00 8.00 7.00", "a 3.00 3.00 3.00"}},
		{"the average is over rows, not over turns", slices.Concat(graded("a", 1, 9, 9, 9), graded("a", 2, 1)),
			[]string{"a 9.00 1.00 7.00"}},
		{"no second turn", graded("a", 1, 2, 5), []string{"a 3.50 – 3.50"}},
		{"no first turn", graded("a", 2, 2, 5), []string{"a – 3.50 3.50"}},
		{"-1 is left out", slices.Concat(graded("a", 1, -1, 8, 6), graded("a", 2, 4, -1, -1)),
			[]string{"a 7.00 4.00 6.00"}},
		{"a turn of -1 only", slices.Concat(graded("a", 1, 8, 6), graded("a", 2, -1, -1)), []string{"a 7.00 – 7.00"}},
		{"-1 only comes last", slices.Concat(graded("a", 1, -1), graded("b", 1, 1)),
			[]string{"b 1.00 – 1.00", "a – – –"}},
		{"fractions", slices.Concat(graded("a", 1, 7.5, 8), graded("a", 2, 6.25, 6)), []string{"a 7.75 6.12 6.94"}},
		{"0 is a score", graded("a", 1, 0, 4), []string{"a 2.00 – 2.00"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := &Evaluation{Questions: questions("math", "stem", "stem"), Models: []string{"a"},
				Singles: map[string][]Single{"judge": c.rows}}
			var got []string
			for _, m := range report(t, e, "").Judges[0].Scores {
				got = append(got, fmt.Sprintf("%s %s %s %s", m.Model, m.Turns[0], m.Turns[1], m.Overall))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestCategories(t *testing.T) {
	e := &Evaluation{
		Questions: questions("stem", "puns", "math", "stem"),
		Models:    []string{"a"},
		Singles:   map[string][]Single{"judge": slices.Concat(graded("a", 1, 9, 4, 1, 6), graded("a", 2, 8, -1, 3, 7))},
	}
	r := report(t, e, "")
	if want := []string{"math", "stem", "puns"}; !slices.Equal(r.Categories, want) {
		t.Fatalf("categories %q, want %q", r.Categories, want)
	}
	m := r.Judges[0].Scores[0]
	for category, want := range map[string]string{"math": "1.00 3.00 2.00", "stem": "7.50 7.50 7.50",
		"puns": "4.00 – 4.00"} {
		s := m.Categories[category]
		if got := fmt.Sprintf("%s %s %s", s.Turns[0], s.Turns[1], s.Overall); got != want {
			t.Errorf("%s: %s, want %s", category, got, want)
		}
	}
}

func TestScoresOfRepeats(t *testing.T) {
	row := func(question, repeat int, score float64) Single {
		return Single{QuestionID: question, Model: "a", Turn: 1, Repeat: repeat, Score: score}
	}
	rows := []Single{
		row(1, 0, 9), row(1, 1, 2), row(1, 2, 8), // median 8, range 7
		row(2, 0, 4), row(2, 1, -1), row(2, 2, 7), // median 5.5, range 3
		row(3, 0, 5), row(3, 1, -1), row(3, 2, -1), // 5
		row(4, 0, -1), row(4, 1, -1), row(4, 2, -1),
	}
	m := report(t, &Evaluation{Singles: map[string][]Single{"judge": rows}}, "").Judges[0].Scores[0]
	if want := Mean(18.5 / 3); math.Abs(float64(m.Overall-want)) > 1e-12 {
		t.Errorf("overall %v, want %v", m.Overall, want)
	}
	if m.Judgments != 12 || m.Unscored != 6 {
		t.Errorf("%d of %d unscored, want 6 of 12", m.Unscored, m.Judgments)
	}
	// The repeats' overall scores are 6, 2 and 7.5, which are 5/6, -19/6 and 14/6 from their mean.
	if s := m.Spread; s == nil || s.Repeats != 3 || s.Range != 5 ||
		math.Abs(float64(s.Deviation)-math.Sqrt((25.+361+196)/36/2)) > 1e-12 {
		t.Errorf("spread %+v", s)
	}
	if once := report(t, &Evaluation{Singles: map[string][]Single{"judge": rows[:1]}},
		"").Judges[0].Scores[0]; once.Spread != nil {
		t.Errorf("one judgment has a spread: %+v", once.Spread)
	}
}

func TestMissing(t *testing.T) {
	answers := func(ids ...int) []Answer {
		var list []Answer
		for _, id := range ids {
			list = append(list, Answer{QuestionID: id, Choices: []Choice{{Turns: []string{"x", "y"}}}})
		}
		return list
	}
	e := &Evaluation{
		Questions: questions("math", "stem", "stem"),
		Answers:   map[string][]Answer{"base": answers(1, 2, 3), "tuned": answers(1, 2), "new": nil},
		Models:    []string{"base", "tuned", "new"},
		Singles: map[string][]Single{"judge": slices.Concat(graded("base", 1, 5, -1, 5), graded("base", 2, 5),
			graded("tuned", 1, -1, -1))},
		Pairs: map[string][]Pair{"judge": {
			{QuestionID: 1, Turn: 1, Model1: "tuned", Model2: "base", G1Winner: "error", G2Winner: "tie"},
			{QuestionID: 1, Turn: 2, Model1: "tuned", Model2: "base", G1Winner: "tie", G2Winner: "tie"},
			{QuestionID: 2, Turn: 1, Model1: "base", Model2: "tuned", G1Winner: "tie", G2Winner: "tie"},
		}},
	}
	r := report(t, e, "")
	want := []string{
		"tuned: 1 of 3 questions not answered",
		"new: 3 of 3 questions not answered",
		"base: 1 of 4 judgments without a score",
		"base: 2 of 6 answers not judged",
		"tuned: 2 of 2 judgments without a score",
		"tuned: 2 of 4 answers not judged",
		"tuned against base: 1 of 3 comparisons without a verdict",
		"tuned against base: 1 of 4 turns not compared",
	}
	if got := r.Missing(&r.Judges[0]); !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDifferenceIsPaired(t *testing.T) {
	// Question 3 has no score of the baseline; the other two gain 1 and 3.
	e := &Evaluation{Models: []string{"base", "tuned"}, Singles: map[string][]Single{
		"judge": slices.Concat(graded("base", 1, 2, 4, -1), graded("tuned", 1, 3, 7, 10)),
	}}
	scores := report(t, e, "").Judges[0].Scores
	if scores[0].Model != "tuned" || scores[1].Difference != nil {
		t.Fatalf("%+v", scores)
	}
	if d := scores[0].Difference; d.Mean != 2 || d.Interval != (Interval{1, 3}) {
		t.Errorf("difference %+v, want 2 from 1 to 3", d)
	}
}

func TestReportErrors(t *testing.T) {
	judged := &Evaluation{Models: []string{"base"}, Singles: map[string][]Single{"judge": graded("base", 1, 5),
		"other": graded("base", 1, 6)}}
	for _, c := range []struct {
		e               *Evaluation
		judge, baseline string
		says            string
	}{
		{&Evaluation{Models: []string{"base"}}, "", "", "nothing has been judged"},
		{&Evaluation{Singles: map[string][]Single{"judge": nil}}, "", "", "nothing has been judged"},
		{judged, "nobody", "", "judge, other"},
		{judged, "", "nothing", "there are base"},
	} {
		if _, err := NewReport(c.e, c.judge, c.baseline); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q, %q: %v, want %q", c.judge, c.baseline, err, c.says)
		}
	}
	if r, err := NewReport(judged, "other", "base"); err != nil || len(r.Judges) != 1 || r.Judges[0].Judge != "other" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestReportJSON(t *testing.T) {
	e := &Evaluation{Questions: questions("math"), Models: []string{"base", "tuned"},
		Singles: map[string][]Single{"judge": graded("base", 1, 5)}}
	text, err := json.Marshal(report(t, e, ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"overall":5`, `"turns":[5,null]`, `"overall":null`, `"interval":[null,null]`,
		`"baseline":"base"`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}
