package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// benchTrain holds the options of the bench train command.
type benchTrain struct {
	*engine
	data   alpaca.Options
	vera   vera.Config
	train  train.Config
	path   string
	rows   int
	asJSON bool
}

func benchCommand() *cli.Command {
	return &cli.Command{Name: "bench", Usage: "measure speed and memory", Subcommands: []*cli.Command{benchTrainCommand()}}
}

func benchTrainCommand() *cli.Command {
	b := &benchTrain{engine: newEngine(model.Default().Compute), data: alpaca.Default(), vera: vera.Default(), train: train.Default()}
	return &cli.Command{
		Name:  "train",
		Usage: "measure whole training steps on real rows; the first step is not counted",
		Flags: slices.Concat(b.engine.flags(), dataFlags(&b.data), []cli.Flag{
			&cli.StringFlag{Name: "data", Usage: "JSON or JSONL `FILE` of rows; left out, the built-in starter set", Destination: &b.path},
			&cli.IntFlag{Name: "rows", Usage: "rows to use, from the first; 0 uses all", Value: 64, Destination: &b.rows},
			&cli.IntFlag{Name: "accumulation", Usage: "batches in a step", Value: b.train.Accumulation, Destination: &b.train.Accumulation},
			&cli.IntFlag{Name: "rank", Usage: "rank of the shared pair", Value: b.vera.Rank, Destination: &b.vera.Rank},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &b.asJSON},
		}),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if b.rows < 0 {
				return usageError{fmt.Errorf("rows %d: 0 or more", b.rows)}
			}
			if err := validate(b.validate(), b.data.Validate(), b.train.Validate()); err != nil {
				return err
			}
			return b.run(c)
		},
	}
}

func (b *benchTrain) run(c *cli.Context) error {
	s, err := b.open()
	if err != nil {
		return err
	}
	defer s.Close()
	d, err := s.data(b.path, b.data, c.App.ErrWriter)
	if err != nil {
		return err
	}
	if b.rows > 0 && b.rows < len(d.Samples) {
		d.Samples = d.Samples[:b.rows]
	}
	adapter, err := vera.New(b.vera, s.Base())
	if err != nil {
		return usageError{err}
	}
	if err := s.Attach(adapter); err != nil {
		return err
	}
	speed, err := train.Measure(c.Context, b.train, s.Model, adapter.Params, d.Source(b.data))
	if err != nil {
		return err
	}
	if b.asJSON {
		return json.NewEncoder(c.App.Writer).Encode(speed)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%.1f tokens/s, %.3f samples/s over %d steps of %d tokens; peak memory %.2f GiB\n",
		speed.TokensPerSecond, speed.SamplesPerSecond, speed.Steps, speed.Tokens, speed.PeakGiB)
	return err
}
