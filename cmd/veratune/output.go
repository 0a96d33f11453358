package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// output is a file that a command writes where a person says.
type output struct {
	path      string
	overwrite bool
}

func (o *output) overwriteFlag() cli.Flag {
	return &cli.BoolFlag{Name: "overwrite", Usage: "replace the file that is to be written where it is there " +
		"already; what the command reads, and files of runs and evaluations, are never replaced",
		Destination: &o.overwrite}
}

// check says before the work whether the file can be written; nothing where none is asked for. Everything that the
// command was given is an input.
func (o *output) check(c *cli.Context, inputs ...string) error {
	if o.path == "" {
		return nil
	}
	if err := ownedBy(o.path); err != nil {
		return err
	}
	return durable.CheckOutput(o.path, o.overwrite, append(inputs, o.given(c)...)...)
}

func (o *output) create() (*durable.File, error) {
	return durable.CreateOutput(o.path, 0o666, o.overwrite)
}

func (o *output) write(data []byte) error { return durable.WriteOutput(o.path, data, o.overwrite) }

// ownedBy fails where a file belongs to a run or an evaluation, be it reached by a link.
func ownedBy(path string) error {
	path, err := durable.Destination(path)
	if err != nil {
		return err
	}
	return unowned(path)
}

// unowned fails where a file or folder at a path itself belongs to a run or an evaluation.
func unowned(path string) error {
	if run := train.Owner(path); run != "" {
		return fmt.Errorf("%s: belongs to the run in %s; write to another file", path, run)
	}
	if folder := mtbench.Owner(path); folder != "" {
		return fmt.Errorf("%s: belongs to the evaluation in %s; write to another file", path, folder)
	}
	return nil
}

// given lists the words of a command that may name files: its arguments, and the values of its options but that of the
// output.
func (o *output) given(c *cli.Context) []string {
	words := c.Args().Slice()
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		switch f := f.(type) {
		case *cli.StringFlag:
			if f.Destination != &o.path {
				words = append(words, c.String(name))
			}
		case *cli.StringSliceFlag:
			words = append(words, c.StringSlice(name)...)
		case *cli.GenericFlag:
			switch files := f.Value.(type) {
			case *dataFiles:
				words = append(words, files.paths()...)
			case *measuredFiles:
				words = append(words, dataFiles(*files).paths()...)
			}
		}
	}
	for _, word := range words {
		if _, path, named := strings.Cut(word, "="); named {
			words = append(words, path)
		}
		if part, err := alpaca.ParsePart(word); err == nil {
			words = append(words, dataFiles{part}.paths()...)
		}
		if info, err := os.Stat(word); err == nil && info.IsDir() {
			words = append(words, vera.PEFTFiles(word)...)
		}
		words = append(words, parts(word)...)
	}
	return words
}
