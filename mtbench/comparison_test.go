package mtbench

import (
	"fmt"
	"slices"
	"testing"
)

// compared is a row for question n: who won with model 1's answer first, and with model 2's first.
func compared(n int, model1, model2, g1, g2 string) Pair {
	return Pair{QuestionID: n, Turn: 1, Model1: model1, Model2: model2, G1Winner: g1, G2Winner: g2}
}

// What FastChat's show_result.py prints for the same rows in the modes pairwise-baseline and pairwise-all, computed by
// hand.
func TestComparisons(t *testing.T) {
	mixed := []Pair{
		compared(1, "a", "base", "model_1", "model_1"), // a wins
		compared(2, "a", "base", "model_2", "model_2"), // a loses
		compared(3, "a", "base", "model_1", "model_2"), // the orders disagree
		compared(4, "a", "base", "tie", "tie"),
		compared(5, "a", "base", "tie", "model_1"),
		compared(6, "a", "base", "model_1", "tie"),
		compared(7, "a", "base", "error", "model_1"),
		compared(8, "a", "base", "model_1", "error"),
		compared(9, "a", "base", "error", "error"),
		compared(10, "a", "base", "model_1", "model_1"),
	}
	three := []Pair{
		compared(1, "a", "base", "model_1", "model_1"),
		compared(1, "base", "b", "model_1", "model_1"), // the baseline is model 1
		compared(2, "base", "b", "model_2", "model_2"),
		compared(3, "base", "b", "model_2", "model_2"),
		compared(1, "b", "a", "model_1", "model_1"),
		compared(2, "b", "a", "tie", "tie"),
	}
	for _, c := range []struct {
		name     string
		rows     []Pair
		baseline string
		want     []string // a model a line: win, tie, loss; win, loss and adjusted rate
	}{
		{"every outcome", mixed, "base", []string{"a 2 4 1; 28.6% 14.3% 57.1%"}},
		{"every outcome, all", mixed, "", []string{"a 2 4 1; 28.6% 14.3% 57.1%", "base 1 4 2; 14.3% 28.6% 42.9%"}},
		{"three models against one", three, "base",
			[]string{"a 1 0 0; 100.0% 0.0% 100.0%", "b 2 0 1; 66.7% 33.3% 66.7%"}},
		{"three models, all", three, "", []string{"b 3 1 1; 60.0% 20.0% 70.0%", "a 1 1 1; 33.3% 33.3% 50.0%",
			"base 1 0 3; 25.0% 75.0% 25.0%"}},
		{"both turns count", []Pair{compared(1, "a", "base", "tie", "tie"),
			{QuestionID: 1, Turn: 2, Model1: "a", Model2: "base", G1Winner: "model_1",
				G2Winner: "model_1"}}, "base", []string{"a 1 1 0; 50.0% 0.0% 75.0%"}},
		{"errors only", mixed[6:9], "base", []string{"a 0 0 0; – – –"}},
		{"the baseline is in no pair", three, "c", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, m := range comparisons(c.rows, c.baseline) {
				got = append(got, fmt.Sprintf("%s %d %d %d; %s %s %s", m.Model, m.Win, m.Tie, m.Loss,
					m.WinRate.Percent(), m.LossRate.Percent(), m.Adjusted.Percent()))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if c := comparisons(mixed, "base")[0]; c.Failed != 3 || c.Judged != 10 {
		t.Errorf("%d of %d without a verdict, want 3 of 10", c.Failed, c.Judged)
	}
}

// Of repeats the verdict that prevails counts, whichever model a row names first.
func TestComparisonsRepeated(t *testing.T) {
	rows := []Pair{
		compared(1, "a", "base", "model_1", "model_1"),
		compared(1, "base", "a", "model_2", "model_2"),
		compared(1, "a", "base", "model_2", "model_2"), // a wins 2 to 1
		compared(2, "a", "base", "model_1", "model_1"),
		compared(2, "a", "base", "model_2", "model_2"), // even
		compared(3, "a", "base", "error", "tie"),
		compared(3, "a", "base", "model_2", "model_2"), // loses
	}
	c := comparisons(rows, "base")[0]
	if c.Win != 1 || c.Tie != 1 || c.Loss != 1 || c.Judged != 7 || c.Failed != 1 {
		t.Errorf("%+v", c)
	}
}

func TestAllPairsOnlyWhereThereAreOthers(t *testing.T) {
	with := []Pair{compared(1, "a", "base", "tie", "tie"), compared(1, "a", "b", "tie", "tie")}
	for n, wantAll := range map[int]int{1: 0, 2: 3} {
		e := &Evaluation{Models: []string{"base"}, Pairs: map[string][]Pair{"judge": with[:n]}}
		j := report(t, e, "").Judges[0]
		if len(j.Baseline) != 1 || len(j.All) != wantAll || j.Scores != nil {
			t.Errorf("%d pairs: %+v", n, j)
		}
	}
}
