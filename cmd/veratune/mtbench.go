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
	return &cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "evaluation `FOLDER`", Value: "mtbench", Destination: to}
}

// modelName is what a model's file is called in tables.
func modelName(path string) string {
	return strings.TrimSuffix(filepath.Base(path), ".gguf")
}

// reporter shows how an evaluation gets on.
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
	r.ended++
	if p.Err != nil {
		if reason := errors.Unwrap(p.Err).Error(); !r.told[reason] {
			r.told[reason] = true
			r.line.Note("%s", terminal.Words(p.Err))
		}
	}
	line := fmt.Sprintf("%s %d/%d", r.what, p.Done, p.Total)
	if p.Failed > 0 {
		line += fmt.Sprintf("  %d failed", p.Failed)
	}
	over := p.Done + p.Failed
	left := time.Since(r.began) / time.Duration(r.ended) * time.Duration(p.Total-over)
	if left = left.Round(time.Second); left > 0 {
		line += "  " + left.String() + " left"
	}
	r.line.Step(over, p.Total, line)
}
