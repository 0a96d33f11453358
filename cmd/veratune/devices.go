package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
)

// deviceFor is a device and the architecture of the model that it was asked about.
type deviceFor struct {
	model.Device
	Architecture string `json:"architecture,omitempty"`
}

// devicesCommand lists what --device takes.
func devicesCommand() *cli.Command {
	var path string
	var asJSON bool
	return &cli.Command{
		Name:  "devices",
		Usage: "list the processors that can train, their memory, and which operations of a training step they lack",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "model", Aliases: []string{"m"},
				Usage: "GGUF `FILE` that is to be trained; left out, operations are asked for with common types of " +
					"weights", Destination: &path},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line", Destination: &asJSON},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			list, failed, err := model.Devices(path)
			if err != nil {
				return err
			}
			var architecture string
			if path != "" {
				d, err := model.Describe(path)
				if err != nil {
					return err
				}
				if architecture = d.Architecture; !asJSON {
					fmt.Fprintf(c.App.Writer, "%s: %s\n", d.Architecture, strings.Join(d.MadeOf, "; "))
				}
			}
			for _, err := range failed {
				fmt.Fprintf(c.App.ErrWriter, "not usable: %v\n", err)
			}
			for _, d := range list {
				if asJSON {
					if err := json.NewEncoder(c.App.Writer).Encode(deviceFor{d, architecture}); err != nil {
						return err
					}
					continue
				}
				runs := "computes the whole step"
				if len(d.Lacks) > 0 {
					runs = "cannot train this: it lacks " + strings.Join(d.Lacks, ", ")
				}
				if _, err := fmt.Fprintf(c.App.Writer, "%-10s %s, %.1f of %.1f GiB free; %s\n", d.Name, d.Description,
					float64(d.Free)/(1<<30), float64(d.Total)/(1<<30), runs); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
