package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/train"
)

func compareCommand() *cli.Command {
	var asJSON bool
	var plot output
	return &cli.Command{
		Name:        "compare",
		Usage:       "set runs side by side: how they differ, what came out, and what it took",
		Description: "A folder of runs or a sweep stands for the runs in it.",
		ArgsUsage:   "RUN…",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "plot", Usage: "draw the losses of all runs into `FILE`, which ends in .svg or .png",
				Destination: &plot.path},
			plot.overwriteFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array of all that is known of each run",
				Destination: &asJSON},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError{errors.New("compare takes two run folders or more, or a folder of runs")}
			}
			if plot.path != "" {
				if _, err := train.PlotFormat(plot.path); err != nil {
					return usageError{err}
				}
			}
			folders, err := runFolders(c)
			if err != nil {
				return err
			}
			if len(folders) < 2 {
				return usageError{fmt.Errorf("compare takes two run folders or more, and only %s is named", folders[0])}
			}
			if err := plot.check(c); err != nil {
				return err
			}
			return compare(c.App.Writer, folders, plot, asJSON)
		},
	}
}

func compare(w io.Writer, folders []string, plot output, asJSON bool) error {
	runs := make([]*train.Report, len(folders))
	for i, path := range folders {
		var err error
		if runs[i], err = train.ReadRun(path); err != nil {
			return err
		}
	}
	if plot.path != "" {
		picture, err := train.Plot(plot.path, runs)
		if err == nil {
			err = plot.write(picture)
		}
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(runs)
	}
	return printRuns(w, runs, terminal.Width(w))
}

// compared is a line of the comparison, with a cell for each run.
type compared struct {
	name  string
	cells []string
}

// comparedLines are the settings in which runs differ, and then what was measured.
func comparedLines(runs []*train.Report) (list []compared) {
	add := func(name string, value func(r *train.Report) string) {
		l := compared{name: name}
		for _, r := range runs {
			l.cells = append(l.cells, value(r))
		}
		if strings.Join(l.cells, "") != "" {
			list = append(list, l)
		}
	}
	add("run", func(r *train.Report) string { return r.Folder })
	for _, d := range train.Differences(runs) {
		list = append(list, compared{d.Name, d.Values})
	}
	add("adapter", func(r *train.Report) string {
		return ifAny(r.Trained, fmt.Sprintf("%s, %d numbers, %.2f MB", r.Method, r.Trained, float64(r.Bytes)/1e6))
	})
	add("steps", func(r *train.Report) string {
		if !r.Finished {
			return fmt.Sprintf("%d, unfinished", r.Steps)
		}
		return fmt.Sprint(r.Steps)
	})
	add("training loss", func(r *train.Report) string {
		if r.Loss == nil {
			return ""
		}
		return fmt.Sprintf("%.4f", *r.Loss)
	})
	add("held out, before", func(r *train.Report) string { return evaluation(r.Before, false) })
	add("held out, newest", func(r *train.Report) string { return evaluation(r.Last, true) })
	add("held out, best", func(r *train.Report) string { return evaluation(r.Best, true) })
	add("time", func(r *train.Report) string {
		return ifAny(r.Seconds, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10).String())
	})
	add("tokens/s", func(r *train.Report) string { return ifAny(r.Speed, fmt.Sprintf("%.0f", r.Speed)) })
	add("memory", func(r *train.Report) string {
		return ifAny(r.Memory, fmt.Sprintf("%.2f GiB", float64(r.Memory)/(1<<30)))
	})
	return list
}

// printRuns writes a table of a column for each run, with what differs, and below it what is the same in all of them.
// Where the terminal is too narrow for all columns, the table goes on below with the next runs, and cells take several
// lines.
func printRuns(w io.Writer, runs []*train.Report, width int) error {
	var differ []compared
	same := [][]string{}
	for _, l := range comparedLines(runs) {
		if len(slices.Compact(slices.Clone(l.cells))) == 1 && l.name != "run" {
			same = append(same, []string{l.name, l.cells[0]})
			continue
		}
		differ = append(differ, l)
	}
	t := grid{width: width}
	for _, l := range differ {
		row := []string{l.name}
		for _, cell := range l.cells {
			row = append(row, orDash(cell))
		}
		t.rows = append(t.rows, row)
	}
	var out strings.Builder
	t.write(&out)
	if len(same) > 0 {
		fmt.Fprint(&out, "\nthe same in all:\n")
		t.rows = same
		t.write(&out)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// orDash fills a cell in which there is nothing to tell.
func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}

// ifAny is empty where there is nothing to tell.
func ifAny[T int | int64 | float64](value T, text string) string {
	if value == 0 {
		return ""
	}
	return text
}

func evaluation(e *train.Evaluation, withStep bool) string {
	switch {
	case e == nil:
		return ""
	case withStep:
		return fmt.Sprintf("%.4f after step %d", e.Loss, e.Step)
	}
	return fmt.Sprintf("%.4f", e.Loss)
}
