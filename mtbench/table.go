package mtbench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Print writes the scores as tables, those of each judge by themselves.
func (r *Report) Print(w io.Writer) error {
	var out strings.Builder
	for i := range r.Judges {
		if i > 0 {
			out.WriteByte('\n')
		}
		r.printJudge(&out, &r.Judges[i])
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (r *Report) printJudge(out *strings.Builder, j *JudgeReport) {
	fmt.Fprintf(out, "judge %s, %d questions\n", inLine(j.Judge), r.Questions)
	if len(j.Scores) > 0 {
		out.WriteByte('\n')
		writeTable(out, r.scoreRows(j.Scores))
		if repeated(j.Scores) {
			out.WriteString("deviation: standard, of the overall score between repeats; range: highest " +
				"minus lowest score of an answer, mean of all\n")
		}
	}
	if len(j.Baseline) > 0 {
		out.WriteByte('\n')
		writeTable(out, comparisonRows("against "+r.Baseline, j.Baseline))
	}
	if len(j.All) > 0 {
		out.WriteByte('\n')
		writeTable(out, comparisonRows("against all others", j.All))
	}
	if notes := r.Missing(j); len(notes) > 0 {
		out.WriteByte('\n')
		for _, note := range notes {
			fmt.Fprintln(out, inLine(note))
		}
	}
}

// writeTable writes rows with aligned columns: the first to the left, numbers to the right.
func writeTable(w io.Writer, rows [][]string) {
	widths := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	longest := 0
	for _, row := range rows {
		for i := range row {
			row[i] = inLine(row[i])
		}
		longest = max(longest, len([]rune(row[0])))
	}
	for _, row := range rows {
		name := row[0] + strings.Repeat(" ", longest-len([]rune(row[0])))
		fmt.Fprintf(widths, "%s\t%s\t\n", name, strings.Join(row[1:], "\t"))
	}
	widths.Flush()
}

func (r *Report) scoreRows(list []ModelScores) [][]string {
	head := []string{"model", "turn 1", "turn 2", "overall", "95% interval"}
	if len(list) > 1 {
		head = append(head, "to "+r.Baseline, "95% interval")
	}
	head = append(head, r.Categories...)
	if repeated(list) {
		head = append(head, "repeats", "deviation", "range")
	}
	rows := [][]string{head}
	for _, m := range list {
		row := []string{m.Model, m.Turns[0].String(), m.Turns[1].String(), m.Overall.String(), m.Interval.String()}
		switch {
		case m.Difference != nil:
			row = append(row, m.Difference.Mean.Signed(), m.Difference.Interval.Signed())
		case len(list) > 1:
			row = append(row, "", "")
		}
		for _, c := range r.Categories {
			row = append(row, m.Categories[c].Overall.String())
		}
		if s := m.Spread; s != nil {
			row = append(row, fmt.Sprint(s.Repeats), s.Deviation.String(), s.Range.String())
		} else if repeated(list) {
			row = append(row, "1", "–", "–")
		}
		rows = append(rows, row)
	}
	return rows
}

func comparisonRows(title string, list []Comparison) [][]string {
	rows := [][]string{{title, "win", "tie", "loss", "win rate", "loss rate", "ties as half", "95% interval"}}
	for _, c := range list {
		rows = append(rows, []string{c.Model, fmt.Sprint(c.Win), fmt.Sprint(c.Tie), fmt.Sprint(c.Loss),
			c.WinRate.Percent(), c.LossRate.Percent(),
			c.Adjusted.Percent(), c.Interval.Percent()})
	}
	return rows
}
