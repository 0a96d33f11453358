package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/session"
)

// export holds the options of the export command.
type export struct {
	*engine
	to    string
	out   output
	data  alpaca.Options
	files measuredFiles // of rows to measure losses on
	kind  string        // of the tensors written, "" for the form's own default

	wantsModelfile bool

	loraForm
	mergedForm
}

// exports are the forms that an adapter can be written in.
var exports = []struct {
	name  string
	flags func(*export) []cli.Flag // that this form alone has
	check func(*export) error      // of their values
	write func(*export, *cli.Context, *session.Session) error
}{
	{"vera", nil, nil, (*export).native},
	{"lora", (*export).loraFlags, (*export).checkLoRA, (*export).lora},
	{"merged", (*export).mergedFlags, (*export).checkMerged, (*export).merged},
	{"peft", (*export).peftFlags, nil, (*export).peft},
}

func exportNames() string {
	var names []string
	for _, form := range exports {
		names = append(names, form.name)
	}
	return strings.Join(names, ", ")
}

func exportCommand() *cli.Command {
	x := &export{engine: newEngine(evaluate.Engine(), measuring), data: alpaca.Default()}
	flags := slices.Concat(x.engine.flags(), []cli.Flag{
		x.adapterFlag(),
		x.forceFlag(),
		&cli.StringFlag{Name: "to", Usage: "form to write: " + exportNames(), Required: true, Destination: &x.to},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "`FILE` or folder to write", Required: true,
			Destination: &x.out.path},
		&cli.StringFlag{Name: "type", Usage: "`TYPE` of the tensors that are written. lora: f32, f16 (the default) " +
			"or q8_0. merged: keep (that of the base model, the default), auto (finer ones where they gain most, " +
			"within --budget), or one for all adapted tensors, such as q8_0", Destination: &x.kind},
		&cli.GenericFlag{Name: "data", Usage: "`FILE` of rows to measure the loss on, before and after: " + filesUsage,
			Value: &x.files},
	}, dataFlags(&x.data), []cli.Flag{x.modelfileFlag(), x.out.overwriteFlag()})
	for _, form := range exports {
		if form.flags != nil {
			flags = append(flags, form.flags(x)...)
		}
	}
	return &cli.Command{
		Name:  "export",
		Usage: "write an adapter in a form that other programs read",
		Flags: flags,
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(x.validate(), x.data.Validate(), x.checkModelfile())); err !=
				nil {
				return err
			}
			return x.run(c)
		},
	}
}

func (x *export) run(c *cli.Context) error {
	if x.Adapter == "" {
		return usageError{errors.New("export needs --adapter")}
	}
	for _, form := range exports {
		if form.name != x.to {
			continue
		}
		if form.check != nil {
			if err := form.check(x); err != nil {
				return usageError{err}
			}
		}
		if err := x.checkOutput(c); err != nil {
			return err
		}
		s, err := session.Open(x.Options)
		if err != nil {
			return err
		}
		defer s.Close()
		x.tellTemplate(s)
		if err := form.write(x, c, s); err != nil || !x.wantsModelfile {
			return err
		}
		return x.modelfile(c, s)
	}
	return usageError{fmt.Errorf("to %q: one of %s", x.to, exportNames())}
}

// checkOutput says before the work what can't be written.
func (x *export) checkOutput(c *cli.Context) error {
	if x.to == "peft" {
		if err := unowned(x.out.path); err != nil {
			return err
		}
		return durable.CheckNewFolder(x.out.path)
	}
	if err := x.out.check(c, x.Model); err != nil || !x.wantsModelfile {
		return err
	}
	return x.modelfileOutput().check(c)
}

func (x *export) native(_ *cli.Context, s *session.Session) error {
	return s.Adapter.SaveOutput(x.out.path, x.out.overwrite) // another process may have written there since the check
}

// exportLoss is the mean response loss of a model, perhaps with an adapter, on the rows of --data.
type exportLoss struct {
	Of             string  `json:"of"`
	Loss           float64 `json:"loss"`
	model, adapter string  // paths, "" for no adapter
}

// rows reads the files of --data, nil where none is named.
func (x *export) rows(c *cli.Context, s *session.Session) (*alpaca.Dataset, error) {
	if len(x.files) == 0 {
		return nil, nil
	}
	x.data.Context = c.Context
	return s.Rows(x.files, x.data, reportTo(c.App.ErrWriter))
}

// losses measures the base model without and with the adapter, then what was written; nothing without rows.
func (x *export) losses(c *cli.Context, d *alpaca.Dataset, written ...exportLoss) ([]exportLoss, error) {
	if d == nil {
		return nil, nil
	}
	list := append([]exportLoss{{Of: "base", model: x.Model}, {Of: "adapter", model: x.Model, adapter: x.Adapter}},
		written...)
	for i := range list {
		if err := x.measure(c, d, &list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// measure opens the model anew, as any other command would.
func (x *export) measure(c *cli.Context, d *alpaca.Dataset, l *exportLoss) error {
	o := x.Options
	o.Model, o.Adapter = l.model, l.adapter
	s, err := session.Open(o)
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := measure(c, s, d, x.data.Batch)
	l.Loss = r.Loss
	return err
}
