package mtbench

import (
	"slices"
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	again := graded("tuned", 1, 8, 6)
	for i := range again {
		again[i].Repeat = 1
	}
	e := &Evaluation{
		Questions: questions("math", "stem"),
		Models:    []string{"base", "tuned"},
		Answers: map[string][]Answer{
			"base":  {{QuestionID: 1, Choices: []Choice{{}}}, {QuestionID: 2, Choices: []Choice{{}}}},
			"tuned": {{QuestionID: 1, Choices: []Choice{{}}}, {QuestionID: 2, Choices: []Choice{{}}}},
		},
		Singles: map[string][]Single{
			"judge": slices.Concat(graded("base", 1, 4, 5), graded("base", 2, 6, -1), graded("tuned", 1, 8, 7), again),
			"other": graded("base", 1, 1, 1),
		},
		Pairs: map[string][]Pair{"judge": {compared(1, "tuned", "base", "model_1", "model_1"),
			compared(2, "tuned", "base", "model_1", "error")}},
	}
	var out strings.Builder
	if err := report(t, e, "").Print(&out); err != nil {
		t.Fatal(err)
	}
	const want = `judge judge, 2 questions

  model  turn 1  turn 2  overall  95% interval  to base   95% interval  math  stem  repeats  deviation  range
  tuned    7.25       –     7.25   6.50 … 8.00    +2.75  +1.50 … +4.00  8.00  6.50        2       0.35   0.50
  base     4.50    6.00     5.00   5.00 … 5.00                          5.00  5.00        1          –      –
deviation: standard, of the overall score between repeats; range: highest minus lowest score of an answer, mean of all

  against base  win  tie  loss  win rate  loss rate  ties as half  95% interval
  tuned           1    0     0    100.0%       0.0%        100.0%             –

tuned: 2 of 4 answers not judged
base: 1 of 4 judgments without a score
tuned against base: 1 of 2 comparisons without a verdict
tuned against base: 2 of 4 turns not compared

judge other, 2 questions

  model  turn 1  turn 2  overall  95% interval  to base  95% interval  math  stem
  base     1.00       –     1.00   1.00 … 1.00                         1.00  1.00
  tuned       –       –        –             –        –             –     –     –

base: 2 of 4 answers not judged
tuned: 4 of 4 answers not judged
`
	if out.String() != want {
		t.Errorf("\n%s\nwant\n%s", out.String(), want)
	}
}

// TestPrintIsPlain has names that would clear the screen, and that would break the table.
func TestPrintIsPlain(t *testing.T) {
	base, tuned, judge := "ba\x1b[2Jse", "tu\tned\n\u009b2J", "jud\x1b]0;x\age"
	e := &Evaluation{
		Questions: questions("wri\rting", "stem"),
		Models:    []string{base, tuned},
		Answers: map[string][]Answer{base: {{QuestionID: 1, Choices: []Choice{{}}}},
			tuned: {{QuestionID: 1, Choices: []Choice{{}}}}},
		Singles: map[string][]Single{judge: slices.Concat(graded(base, 1, 4, -1), graded(tuned, 1, 8, 7))},
		Pairs:   map[string][]Pair{judge: {compared(1, tuned, base, "model_1", "error")}},
	}
	var out strings.Builder
	if err := report(t, e, "").Print(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\r\a\t\u009b") {
		t.Errorf("%q", out.String())
	}
	for _, part := range []string{`judge jud\x1b]0;x\x07ge`, `  ba\x1b[2Jse `, `  tu\tned\n\u009b2J  `, `wri\x0dting`,
		"\n" + `ba\x1b[2Jse: 1 of 2`, `against ba\x1b[2Jse`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in %s", part, out.String())
		}
	}
}
