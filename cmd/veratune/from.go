package main

import (
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/vera"
)

// foreign lists the options of the other methods.
func (f *training) foreign() []string {
	if f.o.Adapter.Method == vera.MethodLoRA {
		return []string{"d-initial", "init", "only", "unique-pairs"}
	}
	return []string{"alpha"}
}

// ofAdapter are the options that an adapter to begin with decides.
var ofAdapter = []string{"rank", "targets", "layers", "d-initial", "init", "only", "unique-pairs", "alpha"}

// config is a file for --config that trains alike, but for the options named.
func (f *training) config(c *cli.Context, but ...string) ([]byte, error) {
	but = append(but, f.foreign()...)
	if len(f.evalFiles) > 0 {
		but = append(but, "held-out")
	}
	if f.o.From != "" {
		but = append(but, ofAdapter...)
	}
	return configOf(c, but...)
}
