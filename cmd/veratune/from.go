package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/vera"
)

// begin gives the adapter before training.
func (f *finetune) begin(base vera.Base) (*vera.Adapter, error) {
	if f.from == "" {
		a, err := vera.New(f.vera, base)
		if err != nil {
			return nil, usageError{err}
		}
		if len(f.vera.Targets) == 0 {
			f.vera.Targets = a.Targets // a run's record names them
		}
		return a, nil
	}
	a, err := vera.Load(f.from, base)
	if err != nil {
		return nil, err
	}
	if a.Method != f.vera.Method {
		return nil, usageError{fmt.Errorf("from %s: its method is %s; give --method %[2]s", f.from, a.Method)}
	}
	a.Dropout = f.vera.Dropout
	f.vera = a.Config
	return a, nil
}

// foreign lists the options of the other methods.
func (f *finetune) foreign() []string {
	if f.vera.Method == vera.MethodLoRA {
		return []string{"d-initial", "init", "only", "unique-pairs"}
	}
	return []string{"alpha"}
}

// ofAdapter are the options that an adapter to begin with decides.
var ofAdapter = []string{"rank", "targets", "layers", "d-initial", "init", "only", "unique-pairs", "alpha"}

// config is a file for --config that trains alike, but for the options named.
func (f *finetune) config(c *cli.Context, but ...string) ([]byte, error) {
	but = append(but, f.foreign()...)
	if len(f.evalFiles) > 0 {
		but = append(but, "held-out")
	}
	if f.from != "" {
		but = append(but, ofAdapter...)
	}
	return configOf(c, but...)
}
