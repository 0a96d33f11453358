package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/train"
)

func compareCommand() *cli.Command {
	var asJSON bool
	var plot string
	return &cli.Command{
		Name:        "compare",
		Usage:       "set runs side by side: how they differ, what came out, and what it took",
		Description: "A folder of runs or a sweep stands for the runs in it.",
		ArgsUsage:   "RUN…",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "plot", Usage: "draw the losses of all runs into `FILE`, which ends in .svg or .png", Destination: &plot},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON array of all that is known of each run", Destination: &asJSON},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usageError{errors.New("compare takes two run folders or more, or a folder of runs")}
			}
			if plot != "" {
				if _, err := train.PlotFormat(plot); err != nil {
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
			return compare(c.App.Writer, folders, plot, asJSON)
		},
	}
}

func compare(w io.Writer, folders []string, plot string, asJSON bool) error {
	runs := make([]*train.Report, len(folders))
	for i, path := range folders {
		var err error
		if runs[i], err = train.ReadRun(path); err != nil {
			return err
		}
	}
	if plot != "" {
		if err := train.Plot(plot, runs); err != nil {
			return err
		}
	}
	if asJSON {
		return json.NewEncoder(w).Encode(runs)
	}
	return printRuns(w, runs)
}

// printRuns writes a table of a column for each run: the settings in which they differ, then what was measured.
func printRuns(w io.Writer, runs []*train.Report) error {
	t := newTable(w)
	row := func(name string, values []string) {
		fmt.Fprint(t, name)
		for _, v := range values {
			fmt.Fprint(t, "\t", orDash(v))
		}
		fmt.Fprintln(t)
	}
	measured := func(name string, value func(r *train.Report) string) {
		values := make([]string, len(runs))
		for i, r := range runs {
			values[i] = value(r)
		}
		if strings.Join(values, "") != "" {
			row(name, values)
		}
	}
	measured("run", func(r *train.Report) string { return r.Folder })
	for _, d := range train.Differences(runs) {
		row(d.Name, d.Values)
	}
	measured("adapter", func(r *train.Report) string {
		return ifAny(r.Trained, fmt.Sprintf("%s, %d numbers, %.2f MB", r.Method, r.Trained, float64(r.Bytes)/1e6))
	})
	measured("steps", func(r *train.Report) string {
		if !r.Finished {
			return fmt.Sprintf("%d, unfinished", r.Steps)
		}
		return fmt.Sprint(r.Steps)
	})
	measured("training loss", func(r *train.Report) string {
		if r.Loss == nil {
			return ""
		}
		return fmt.Sprintf("%.4f", *r.Loss)
	})
	measured("held out, before", func(r *train.Report) string { return evaluation(r.Before, false) })
	measured("held out, newest", func(r *train.Report) string { return evaluation(r.Last, true) })
	measured("held out, best", func(r *train.Report) string { return evaluation(r.Best, true) })
	measured("time", func(r *train.Report) string {
		return ifAny(r.Seconds, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second/10).String())
	})
	measured("tokens/s", func(r *train.Report) string { return ifAny(r.Speed, fmt.Sprintf("%.0f", r.Speed)) })
	measured("memory", func(r *train.Report) string {
		return ifAny(r.Memory, fmt.Sprintf("%.2f GiB", float64(r.Memory)/(1<<30)))
	})
	return t.Flush()
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
