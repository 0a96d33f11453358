package main

import (
	"encoding/json"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
)

// planCommand takes the flags of alpaca, and says what that would need.
func planCommand() *cli.Command {
	f := newFinetune()
	var asJSON bool
	return &cli.Command{
		Name:   "plan",
		Usage:  "tell how much memory finetuning with the same flags will need, without training",
		Flags:  append(f.flags(), &cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &asJSON}),
		Before: f.options,
		Action: func(c *cli.Context) error {
			n, err := f.plan(c)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.App.Writer).Encode(struct {
					model.Memory
					Total int64 `json:"total"`
				}{n, n.Total()})
			}
			weights, process := "model file, mapped", "tokenizer, rows, adapter"
			if device := f.engine.options.Device; device != model.CPU {
				weights, process = "weights on "+device, "adapter"
			}
			if n.InTurn {
				weights += ", two blocks' at a time"
			}
			for _, line := range []struct {
				what  string
				bytes int64
			}{
				{weights, n.File}, {process, n.Process}, {"merged matrices", n.Merged}, {"between the blocks", n.Streams},
				{"kept for the backward pass", n.Saved}, {"work", n.Work}, {"in all", n.Total()},
			} {
				fmt.Fprintf(c.App.Writer, "%8.2f GiB  %s\n", float64(line.bytes)/(1<<30), line.what)
			}
			_, err = fmt.Fprintf(c.App.Writer, "largest pass: %d tokens; %d blocks keep what the backward pass needs\n", n.Rows, n.Keeping)
			return err
		},
	}
}

// plan gives what the step with the most tokens will need.
func (f *finetune) plan(c *cli.Context) (model.Memory, error) {
	f.data.Context = c.Context
	p, err := f.prepare(c.App.ErrWriter)
	if err != nil {
		return model.Memory{}, err
	}
	defer p.Close()
	return p.largest(f)
}
