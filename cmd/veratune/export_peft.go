package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/session"
)

// peftFlags: the projections are written unless someone refuses them, as in PEFT itself. They make the file larger, but
// they are the very numbers that the adapter was trained with, where PEFT otherwise has to draw them again from
// PyTorch's generator, which does not promise the same numbers on every system.
func (x *export) peftFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "projection", Usage: "peft: write the shared pair too; --projection=false leaves it to " +
			"PEFT to draw it from the seed, for a smaller file", Value: true},
	}
}

// peft writes the folder that PEFT loads.
func (x *export) peft(c *cli.Context, s *session.Session) error {
	if err := s.Adapter.SavePEFT(x.out.path, c.Bool("projection")); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "PEFT: %s; load it with PeftModel.from_pretrained(model, %q)\n", x.out.path,
		x.out.path)
	return err
}
