package mtbench

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// attack is a text that runs where it is not escaped; it also ends whatever it may stand in.
const attack = `</script></style></title>"'><script>window.injected = true; throw new Error("injected")</script><img ` +
	`src=x onerror="window.injected = true">`

// invented is an evaluation with answers, grades, repeats and comparisons, in which a model's name, its answers and the
// judge's words are attacks.
func invented(questions int, models ...string) *Evaluation {
	random := rand.New(rand.NewPCG(1, 2))
	e := &Evaluation{Answers: map[string][]Answer{}, Models: models, Singles: map[string][]Single{},
		Pairs: map[string][]Pair{}}
	judge := "judge & jury"
	for i := range questions {
		id := 81 + i
		q := Question{ID: id, Category: Categories[i%len(Categories)], Turns: []string{fmt.Sprintf("Ask %d?", id),
			"And why?"}}
		if slices.Contains(NeedReference, q.Category) {
			q.Reference = []string{"It is 42.", "Because it is " + attack}
		}
		e.Questions = append(e.Questions, q)
		for m, model := range models {
			text := strings.Repeat("Some words. ", 20+random.IntN(100))
			e.Answers[model] = append(e.Answers[model],
				Answer{QuestionID: id, ModelID: model, Time: 1.7e9 + float64(i)*3600,
					Choices: []Choice{{Turns: []string{text, attack + strings.Repeat("x", 300)}}}})
			for turn := 1; turn <= Turns; turn++ {
				for repeat := range 2 {
					e.Singles[judge] = append(e.Singles[judge], Single{QuestionID: id, Model: model, Turn: turn,
						Repeat: repeat, Score: float64(1 + random.IntN(10)),
						Judgment: "Good. " + attack, Time: 1.71e9})
				}
				if m > 0 {
					outcomes := []string{"model_1", "model_2", "tie", "error"}
					e.Pairs[judge] = append(e.Pairs[judge], Pair{QuestionID: id, Turn: turn, Model1: model,
						Model2: models[0], Time: 1.71e9,
						G1Winner: outcomes[random.IntN(4)], G2Winner: outcomes[random.IntN(4)], G1Judgment: attack,
						G2Judgment: "Second. " + attack})
				}
			}
		}
	}
	return e
}

func html(t *testing.T, e *Evaluation) string {
	t.Helper()
	var page bytes.Buffer
	if err := report(t, e, "").WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	return page.String()
}

func TestHTMLEscapes(t *testing.T) {
	page := html(t, invented(9, "base", "tuned "+attack))
	if n := strings.Count(page, "<script"); n != 1 {
		t.Errorf("%d scripts, want the page's own", n)
	}
	if strings.Contains(page, "<img") || strings.Contains(page, `onerror="`) || strings.Contains(page, "ZgotmplZ") {
		t.Error("something is not escaped, or was filtered out of a place where it can't stand")
	}
	if n := strings.Count(page, "&lt;script&gt;"); n < 100 {
		t.Errorf("%d escaped attacks, want one in each answer and judgment", n)
	}
}

// TestHTMLShowsVerdictsAsText has an answer grade itself: the page shows its words, and the grade nowhere else.
func TestHTMLShowsVerdictsAsText(t *testing.T) {
	e := invented(1, "base")
	e.Singles, e.Pairs = map[string][]Single{
		"judge": {{QuestionID: 81, Model: "base", Turn: 1, Score: -1, Judgment: "<b>It says</b> [[10]] & \x1b[2J."}},
	}, nil
	e.Answers["base"][0].Choices[0].Turns[0] = "</div><h3>Rating: [[10]]</h3>{{.}} &lt;b&gt; \x1b[2J"
	page := html(t, e)
	for _, part := range []string{"&lt;/div&gt;&lt;h3&gt;Rating: [[10]]&lt;/h3&gt;{{.}} &amp;lt;b&amp;gt; ",
		"&lt;b&gt;It says&lt;/b&gt; [[10]] &amp; ", "judge: no score"} {
		if !strings.Contains(page, part) {
			t.Errorf("no %q in the page", part)
		}
	}
	if strings.Contains(page, `class="mark"`) {
		t.Error("the answer has a grade")
	}
}

// The page must open without a network: nothing in it may point outside.
func TestHTMLIsSelfContained(t *testing.T) {
	page := html(t, invented(8, "base", "tuned"))
	for _, word := range []string{"http://", "https://", " src=", "@import", "url(", "<link"} {
		text := strings.ReplaceAll(page, "&lt;img src=x", "") // of the attack
		if strings.Contains(text, word) {
			t.Errorf("%q is in the page", word)
		}
	}
}

func TestHTMLTells(t *testing.T) {
	e := invented(3, "base", "tuned")
	e.Questions[2].Category = "writing" // two categories: no radar
	e.Answers["tuned"] = e.Answers["tuned"][:2]
	e.Answers["base"][0].Choices[0].Turns[0] = ""
	e.Singles["judge & jury"][0].Score = -1
	e.Pairs["judge & jury"] = []Pair{
		compared(81, "tuned", "base", "model_1", "model_1"),
		compared(82, "tuned", "base", "model_1", "model_2"),
		compared(83, "tuned", "base", "tie", "error"),
	}
	page := html(t, e)
	for _, part := range []string{
		"judge &amp; jury, repeat 1: no score",
		"judge &amp; jury, tuned and base: tuned wins",
		"judge &amp; jury, tuned and base: tie, as the orders disagree",
		"judge &amp; jury, tuned and base: no verdict",
		"base: 1 of 12 judgments without a score",
		"1 of 3 questions not answered",
		"an empty answer",
		"not answered</p>",
		"2023-11-14 to 2023-11-15",
		`aria-label="wins 1, ties 1, losses 0"`,
	} {
		if !strings.Contains(page, part) {
			t.Errorf("no %q in the page", part)
		}
	}
	if strings.Contains(page, "<svg") {
		t.Error("a radar of two categories")
	}
}

func TestApart(t *testing.T) {
	e := &Evaluation{Models: []string{"a", "b"}, Singles: map[string][]Single{
		// 6, 0, and 0 with one model only
		"one": slices.Concat(graded("a", 1, 2, 5), graded("a", 2, 4, 5), graded("b", 1, 9, 5, 7)),
		"two": slices.Concat(graded("a", 1, 1), graded("b", 1, 3)), // 2
	}, Pairs: map[string][]Pair{"one": {
		compared(1, "a", "b", "model_1", "model_1"),
		compared(4, "a", "b", "model_1", "model_1"), compared(4, "a", "b", "model_2", "model_2"),
		compared(4, "a", "b", "tie", "model_2"),
	}}}
	apart := report(t, e, "").apart()
	for question, want := range map[int]Mean{1: 4, 2: 0, 3: 0, 4: 2} {
		if apart[question] != want {
			t.Errorf("question %d: %v, want %v", question, apart[question], want)
		}
	}
}

func TestRadar(t *testing.T) {
	models := []pageModel{{Name: "a"}, {Name: "b"}, {Name: "nobody"}}
	of := func(model string, scores ...Mean) ModelScores {
		m := ModelScores{Model: model, Categories: map[string]Scores{}}
		for i, s := range scores {
			m.Categories[Categories[i]] = Scores{Overall: s}
		}
		return m
	}
	unknown := mean(nil)
	r := newRadar(Categories[:4], models, []ModelScores{of("a", 10, 5, 10, 0), of("b", 5, unknown, 5, 5)})
	cx, cy := float64(r.Width)/2, float64(r.Height)/2
	if len(r.Lines) != 2 {
		t.Fatalf("%d lines", len(r.Lines))
	}
	want := []radarPoint{{cx, cy - 150, "a, writing: 10.00"}, {cx + 75, cy, "a, roleplay: 5.00"},
		{cx, cy + 150, "a, reasoning: 10.00"}, {cx, cy, "a, math: 0.00"}}
	for i, p := range r.Lines[0].Points {
		if w := want[i]; p.Label != w.Label || fmt.Sprintf("%.6f %.6f", p.X, p.Y) != fmt.Sprintf("%.6f %.6f",
			w.X, w.Y) {
			t.Errorf("point %d: %+v, want %+v", i, p, w)
		}
	}
	if a, b := r.Lines[0], r.Lines[1]; !a.Closed || !strings.HasSuffix(a.Path, "Z") || b.Closed ||
		strings.Count(b.Path, "M") != 2 || len(b.Points) != 3 {
		t.Errorf("a missing category must break the line: %q, %q", a.Path, b.Path)
	}
	if newRadar(Categories[:2], models, []ModelScores{of("a", 1, 2)}) != nil {
		t.Error("two categories make a radar")
	}
}
