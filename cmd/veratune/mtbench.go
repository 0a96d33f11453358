package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/mtbench"
)

func mtbenchCommand() *cli.Command {
	return &cli.Command{
		Name:        "mtbench",
		Usage:       "evaluate models on questions of two turns, with a model as the judge",
		Subcommands: []*cli.Command{mtbenchRunCommand(), mtbenchJudgeCommand(), mtbenchShowCommand()},
	}
}

// evaluationFlag names the folder that all of the commands share.
func evaluationFlag(to *string) cli.Flag {
	return &cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "evaluation `FOLDER`", Value: "mtbench",
		Destination: to}
}

// modelName is what a model's file is called in tables, be it split into parts.
func modelName(path string) string {
	name := filepath.Base(path)
	if part := partName.FindStringSubmatch(name); part != nil {
		return part[1]
	}
	return strings.TrimSuffix(name, ".gguf")
}

// reporter shows how work on many items gets on.
type reporter struct {
	line  *terminal.Line
	what  string
	began time.Time
	ended int             // items of this process
	told  map[string]bool // reasons of failures
}

func newReporter(out io.Writer, what string) *reporter {
	return &reporter{line: terminal.NewLine(out), what: what, began: time.Now(), told: map[string]bool{}}
}

// report tells the first failure of each kind when it happens; all of them are listed at the end.
func (r *reporter) report(p mtbench.Progress) {
	if p.Err != nil {
		if reason := errors.Unwrap(p.Err).Error(); !r.told[reason] {
			r.told[reason] = true
			r.line.Note("%s", terminal.Words(p.Err))
		}
	}
	r.step(1, p.Done, p.Failed, p.Total)
}

// step says that so many items have ended now, and how many of all are done and have failed.
func (r *reporter) step(now, done, failed, total int) {
	r.ended += now
	line := fmt.Sprintf("%s %d/%d", r.what, done, total)
	if failed > 0 {
		line += fmt.Sprintf("  %d failed", failed)
	}
	over := done + failed
	left := time.Since(r.began) / time.Duration(r.ended) * time.Duration(total-over)
	if left = left.Round(time.Second); left > 0 {
		line += "  " + left.String() + " left"
	}
	r.line.Step(over, total, line)
}

// measured is a step of work in which nothing fails.
func (r *reporter) measured(now, done, total int) { r.step(now, done, 0, total) }
