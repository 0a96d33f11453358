package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/mtbench"
)

// mtbenchShow holds the options of `veratune mtbench show`.
type mtbenchShow struct {
	out, judge, baseline string
	html                 output
	asJSON               bool
}

func mtbenchShowCommand() *cli.Command {
	s := &mtbenchShow{}
	return &cli.Command{
		Name:  "show",
		Usage: "show the scores of the models, how sure they are, and every answer",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Usage: "`FOLDER` of the evaluation", Value: "mtbench", Destination: &s.out},
			&cli.StringFlag{Name: "judge", Usage: "show the judgments of `NAME` only", Destination: &s.judge},
			&cli.StringFlag{Name: "baseline", Usage: "compare with the model `NAME`", DefaultText: "the base model",
				Destination: &s.baseline},
			&cli.StringFlag{Name: "html", Usage: "write scores, answers and judgments as a page into `FILE`",
				Destination: &s.html.path},
			s.html.overwriteFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object of all scores", Destination: &s.asJSON},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if err := s.html.check(c); err != nil {
				return err
			}
			return s.run(c.App.Writer)
		},
	}
}

func (s *mtbenchShow) run(w io.Writer) error {
	e, err := mtbench.Load(s.out)
	if err != nil {
		return err
	}
	r, err := mtbench.NewReport(e, s.judge, s.baseline)
	if errors.Is(err, mtbench.ErrNotJudged) {
		return fmt.Errorf("%s: %w; `veratune mtbench judge` does it", s.out, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.out, err)
	}
	if s.html.path != "" {
		if err := writePage(s.html, r); err != nil {
			return err
		}
	}
	if s.asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return r.Print(w)
}

// writePage writes the report.
func writePage(html output, r *mtbench.Report) error {
	var page bytes.Buffer
	if err := r.WriteHTML(&page); err != nil {
		return err
	}
	if err := html.write(page.Bytes()); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}
