package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/session"
)

// dataCheck holds the options of the data check command.
type dataCheck struct {
	*engine
	data   alpaca.Options
	strict bool
	asJSON bool
}

func dataCommand() *cli.Command {
	return &cli.Command{Name: "data", Usage: "look after instruction data",
		Subcommands: []*cli.Command{dataCheckCommand(), dataShowCommand(), dataConvertCommand()}}
}

func dataCheckCommand() *cli.Command {
	d := &dataCheck{engine: newTrainer(), data: alpaca.Default()}
	return &cli.Command{
		Name: "check",
		Usage: "say what training on files of rows would be like: unusable, cut and repeated rows, lengths, " +
			"control tokens in texts",
		ArgsUsage: "FILE…",
		Flags: append(append([]cli.Flag{d.modelFlag(), d.preTokenizerFlag()}, sampleFlags(&d.data)...),
			&cli.BoolFlag{Name: "strict", Usage: "exit with 1 where anything is found", Destination: &d.strict},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object; it names every row with a finding",
				Destination: &d.asJSON},
		),
		Action: func(c *cli.Context) error {
			if err := validate(d.validate(), d.data.Validate()); err != nil {
				return err
			}
			files, err := rowFiles(c)
			if err != nil {
				return err
			}
			return d.run(c, files)
		},
	}
}

func (d *dataCheck) run(c *cli.Context, files []string) error {
	s, err := session.Open(d.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	line := terminal.NewLine(c.App.ErrWriter)
	d.data.Context, d.data.Progress = c.Context, reading(line)
	check, err := alpaca.NewCheck(files, s.Tokenizer, d.data)
	line.End()
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.ErrWriter, s.Describe(check.Form, d.data.Form))
	if d.asJSON {
		err = json.NewEncoder(c.App.Writer).Encode(check)
	} else {
		err = printCheck(c.App.Writer, check)
	}
	if err == nil && d.strict && !check.Clean() {
		err = errors.New("data check: the rows are not clean, and --strict is set")
	}
	return err
}

func printCheck(w io.Writer, c *alpaca.Check) error {
	t := newTable(w)
	kinds := []string{}
	for _, kind := range slices.Sorted(maps.Keys(c.Kinds)) {
		kinds = append(kinds, fmt.Sprintf("%d of kind %s", c.Kinds[kind], kind))
	}
	t.row("rows", "%d: %s", c.Rows, strings.Join(append(kinds, fmt.Sprintf("%d unusable", len(c.Unusable))), ", "))
	t.row("template", "%s", c.Form.Describe())
	q := c.Quantiles
	t.row("tokens", "%d in all, %.1f a row, %.1f%% of them of responses", c.Tokens, q.Mean,
		100*float64(c.Labelled)/float64(max(1, c.Tokens)))
	t.row("of a row", "least %d, 5%% %d, 25%% %d, median %d, 75%% %d, 95%% %d, 99%% %d, most %d", q.Min, q.P5, q.P25,
		q.Median, q.P75, q.P95, q.P99, q.Max)
	most := 1
	for _, b := range c.Histogram {
		most = max(most, b.Rows)
	}
	for _, b := range c.Histogram {
		t.row("", "%6d to %-6d %s %d", b.From, b.To, strings.Repeat("█", (b.Rows*40+most-1)/most), b.Rows)
	}
	findings(t, "unusable", fmt.Sprintf("they are left out; %d have an empty answer", c.EmptyAnswers), c.Unusable)
	findings(t, "cut", fmt.Sprintf("longer than --max-length %d; the end of their response is not trained on",
		c.MaxLength), c.Cut)
	findings(t, "duplicates", "rows that are there before", c.Duplicates)
	findings(t, "conflicts", "rows whose prompt is there before, with another answer", c.Conflicts)
	if len(c.Controls) == 0 {
		t.row("control tokens", "none in the texts")
	}
	for i, control := range c.Controls {
		name := ""
		if i == 0 {
			name = "control tokens"
		}
		t.row(name, "%q is in the texts of %d rows, first %v; it stays text there, and is not read as the token",
			control.Token, control.Rows, control.First)
	}
	return t.Flush()
}

// findings prints the first few rows of a kind of finding.
func findings(t table, name, meaning string, list []alpaca.Finding) {
	const shown = 5
	if len(list) == 0 {
		t.row(name, "0")
		return
	}
	t.row(name, "%d: %s", len(list), meaning)
	for i, f := range list {
		if i == shown {
			t.row("", "… and %d more; --json lists all", len(list)-shown)
			break
		}
		detail := f.Reason
		if f.Before != nil {
			detail = "as " + f.Before.String()
		}
		t.row("", "%v: %s", f.Place, detail)
	}
}
