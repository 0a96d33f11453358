package main

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
)

// formFlags are the flags of how prompts are written.
func formFlags(f *alpaca.Form) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "template", Value: f.Template, Destination: &f.Template,
			Usage: "form of the prompts: alpaca (Stanford Alpaca's), chat (the model's own chat template), the name " +
				"of another template that the model has, or a file of Jinja, NAME.jinja; " +
				"auto is that of the adapter's training, else chat, or alpaca where the model has no chat template",
		},
		&cli.GenericFlag{Name: "template-option",
			Usage: "variable of the chat template, as `NAME=VALUE` (enable_thinking=false); may be given more than once", Value: &variables{form: f}},
		&cli.StringFlag{Name: "date", Usage: "`DAY` that a chat template writes which writes one, such as 2026-01-31",
			DefaultText: "today", Destination: &f.Date},
	}
}

// variables is the flag of a template's variables.
type variables struct {
	form  *alpaca.Form
	words []string
}

func (v *variables) Set(word string) error {
	name, value, err := alpaca.ParseVariable(word)
	if err != nil {
		return err
	}
	v.form.Variables = maps.Clone(v.form.Variables)
	if v.form.Variables == nil {
		v.form.Variables = map[string]json.RawMessage{}
	}
	v.form.Variables[name] = value
	v.words = append(v.words, word)
	return nil
}

func (v *variables) String() string { return strings.Join(v.words, " ") }

// columns is the flag of the names of a row's fields.
type columns struct{ names *map[string]string }

func (c *columns) Set(text string) (err error) {
	*c.names, err = alpaca.ParseColumns(text)
	return err
}

func (c *columns) String() string {
	if c.names == nil {
		return ""
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(*c.names)) {
		words = append(words, name+"="+(*c.names)[name])
	}
	return strings.Join(words, ",")
}
