package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/terminal"
)

// dataConvert holds the options of the data convert command.
type dataConvert struct {
	data alpaca.Options
	out  output
}

func dataConvertCommand() *cli.Command {
	d := &dataConvert{data: alpaca.Default()}
	return &cli.Command{
		Name:  "convert",
		Usage: "write rows of any form as JSON lines of messages",
		Description: "Rows of raw text stay lines of text; of a multiple-choice question, the right choice is the " +
			"answer. Rows that cannot be read are named and left out.",
		ArgsUsage: "FILE…",
		Flags: append(rowFlags(&d.data),
			&cli.BoolFlag{Name: "strict", Usage: "stop at the first bad row instead of leaving it out",
				Destination: &d.data.Strict},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FILE` to write; left out, the output",
				Destination: &d.out.path},
			d.out.overwriteFlag(),
		),
		Action: func(c *cli.Context) error {
			files, err := rowFiles(c)
			if err != nil {
				return err
			}
			if err := d.out.check(c); err != nil {
				return err
			}
			return d.run(c, files)
		},
	}
}

func (d *dataConvert) run(c *cli.Context, files []string) error {
	if d.out.path == "" {
		return d.convert(c, files, terminal.Verbatim(c.App.Writer))
	}
	f, err := d.out.create()
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if err := d.convert(c, files, f); err != nil {
		return err
	}
	return f.Commit()
}

func (d *dataConvert) convert(c *cli.Context, files []string, out io.Writer) error {
	d.data.Context = c.Context
	rows, bad, err := alpaca.Convert(files, out, d.data)
	if err != nil {
		return err
	}
	reportTo(c.App.ErrWriter).LeftOut(bad)
	fmt.Fprintf(c.App.ErrWriter, "%d rows, %d left out\n", rows, len(bad))
	if rows == 0 {
		return errors.New("data convert: there is no usable row")
	}
	return nil
}
