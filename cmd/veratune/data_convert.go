package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/durable"
)

// dataConvert holds the options of the data convert command.
type dataConvert struct {
	data alpaca.Options
	out  string
}

func dataConvertCommand() *cli.Command {
	d := &dataConvert{data: alpaca.Default()}
	return &cli.Command{
		Name:        "convert",
		Usage:       "write rows of any form as JSON lines of messages",
		Description: "Rows of raw text stay lines of text; of a multiple-choice question, the right choice is the answer. Rows that cannot be read are named and left out.",
		ArgsUsage:   "FILE…",
		Flags: append(rowFlags(&d.data),
			&cli.BoolFlag{Name: "strict", Usage: "stop at the first bad row instead of leaving it out", Destination: &d.data.Strict},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FILE` to write; left out, the output", Destination: &d.out},
		),
		Action: func(c *cli.Context) error {
			files, err := rowFiles(c)
			if err != nil {
				return err
			}
			if d.out != "" {
				if err := free(d.out); err != nil {
					return usageError{fmt.Errorf("out: %w", err)}
				}
			}
			return d.run(c, files)
		},
	}
}

func (d *dataConvert) run(c *cli.Context, files []string) error {
	if d.out == "" {
		return d.convert(c, files, c.App.Writer)
	}
	f, err := durable.Create(d.out, 0o644)
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if err := d.convert(c, files, f); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

func (d *dataConvert) convert(c *cli.Context, files []string, out io.Writer) error {
	rows, bad, err := alpaca.Convert(files, out, d.data)
	if err != nil {
		return err
	}
	reportBad(c.App.ErrWriter, bad)
	fmt.Fprintf(c.App.ErrWriter, "%d rows, %d left out\n", rows, len(bad))
	if rows == 0 {
		return errors.New("data convert: there is no usable row")
	}
	return nil
}
