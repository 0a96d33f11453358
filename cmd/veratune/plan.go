package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/model"
)

// planCommand takes the flags of alpaca, and says what that would need.
func planCommand() *cli.Command {
	f := newTraining()
	var asJSON bool
	return &cli.Command{
		Name:   "plan",
		Usage:  "tell how much memory finetuning with the same flags will need, without training",
		Flags:  append(f.flags(), &cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &asJSON}),
		Before: f.options,
		Action: func(c *cli.Context) error {
			n, err := f.estimate(c)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.App.Writer).Encode(n)
			}
			fmt.Fprintf(c.App.Writer, "%s: %s\n", n.Architecture, strings.Join(n.MadeOf, "; "))
			fmt.Fprintf(c.App.Writer, "adapted: %d layers, %s\n", n.Layers, strings.Join(n.Targets, ", "))
			weights, process := "model file, mapped", "tokenizer, rows, adapter"
			if device := f.Engine.Device; device != model.CPU {
				weights, process = "weights on "+device, "adapter"
			}
			if n.InTurn {
				weights += ", two blocks' at a time"
			}
			for _, line := range []struct {
				what  string
				bytes int64
			}{
				{weights, n.File}, {process, n.Process}, {"merged matrices", n.Merged},
				{"between the blocks", n.Streams},
				{"kept for the backward pass", n.Saved}, {"work", n.Work},
				{"answers to --sample", n.Answers}, {"in all", n.Total},
			} {
				fmt.Fprintf(c.App.Writer, "%8.2f GiB  %s\n", float64(line.bytes)/(1<<30), line.what)
			}
			_, err = fmt.Fprintf(c.App.Writer, "largest pass: %d tokens; %d blocks keep what the backward pass needs\n",
				n.Rows, n.Keeping)
			return err
		},
	}
}

// estimate is what a training would be.
type estimate struct {
	model.Memory
	Total        int64    `json:"total"`
	Architecture string   `json:"architecture"`
	MadeOf       []string `json:"made_of"`
	Targets      []string `json:"targets"` // kinds of layers that would be adapted
	Layers       int      `json:"layers"`  // how many
}

// estimate gives what the step with the most tokens will need.
func (f *training) estimate(c *cli.Context) (estimate, error) {
	f.o.Report = reportTo(c.App.ErrWriter)
	p, err := finetune.Open(c.Context, &f.o)
	if err != nil {
		return estimate{}, err
	}
	defer p.Close()
	n, err := p.Memory()
	if err != nil {
		return estimate{}, err
	}
	d, err := model.Describe(f.Model)
	return estimate{n, n.Total(), p.Architecture, d.MadeOf, p.Targets(), len(p.Adapter.Layers)}, err
}
