package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/train"
)

// Facts of an adapter that say in which form its training data were.
const (
	factTemplate     = "template"
	factSource       = "chat_template"    // Jinja, where it isn't the model's own
	factVariables    = "template_options" // a JSON object
	factTrainingData = "data"             // names of files

	factPreTokenizer = "pre_tokenizer" // where it isn't the model's own
)

// formFlags are the flags of how prompts are written.
func formFlags(f *alpaca.Form) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: "template", Value: f.Template, Destination: &f.Template,
			Usage: "form of the prompts: alpaca (Stanford Alpaca's), chat (the model's own chat template), the name of another template that the model has, or a file of Jinja, NAME.jinja; " +
				"auto is that of the adapter's training, else chat, or alpaca where the model has no chat template",
		},
		&cli.GenericFlag{Name: "template-option", Usage: "variable of the chat template, as `NAME=VALUE` (enable_thinking=false); may be given more than once", Value: &variables{form: f}},
		&cli.StringFlag{Name: "date", Usage: "`DAY` that a chat template writes which writes one, such as 2026-01-31", DefaultText: "today", Destination: &f.Date},
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

// form is the one asked for; auto is that of the adapter's training where it is known.
func (s *session) form(asked alpaca.Form) (alpaca.Form, error) {
	if s.adapter == nil || asked.Template != alpaca.Auto || s.adapter.Facts[factTemplate] == "" {
		return asked, nil
	}
	facts := s.adapter.Facts
	asked.Template = facts[factTemplate]
	if asked.Template != alpaca.Alpaca { // whose source is for other programs
		asked.Source = facts[factSource]
	}
	if facts[factVariables] == "" {
		return asked, nil
	}
	trained := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(facts[factVariables]), &trained); err != nil {
		return asked, fmt.Errorf("the adapter's veratune.%s is no JSON object; it is damaged", factVariables)
	}
	maps.Copy(trained, asked.Variables)
	asked.Variables = trained
	return asked, nil
}

// encoder renders prompts in the form asked for, and says in which.
func (s *session) encoder(asked alpaca.Form, report io.Writer) (*alpaca.Encoder, error) {
	form, err := s.form(asked)
	if err != nil {
		return nil, err
	}
	e, err := alpaca.NewEncoder(form, s.tokenizer)
	if err != nil {
		return nil, badForm(err)
	}
	fmt.Fprintln(report, s.describe(e.Form(), asked))
	return e, nil
}

// badForm makes a template that there is not a mistake on the command line.
func badForm(err error) error {
	if errors.As(err, new(alpaca.NoTemplate)) {
		return usageError{err}
	}
	return err
}

// describe says which form was taken, and why.
func (s *session) describe(taken, asked alpaca.Form) string {
	line := "template: " + taken.Describe()
	switch {
	case asked.Template != alpaca.Auto:
	case s.adapter != nil && s.adapter.Facts[factTemplate] != "":
		line += ", as the adapter was trained"
	case taken.Template == alpaca.Alpaca:
		line += ", as the model has no chat template"
	}
	for _, name := range slices.Sorted(maps.Keys(taken.Variables)) {
		line += fmt.Sprintf(", %s=%s", name, taken.Variables[name])
	}
	if taken.Date != "" {
		line += ", dated " + taken.Date
	}
	return line
}

// formFacts are what an adapter says of its training data.
func (f *finetune) formFacts(d *alpaca.Dataset) map[string]string {
	facts := map[string]string{factTemplate: d.Form.Template, factTrainingData: d.Titles()}
	if d.Form.Source != "" {
		facts[factSource] = d.Form.Source
	}
	if f.preTokenizer != "" {
		facts[factPreTokenizer] = f.preTokenizer
	}
	if len(d.Form.Variables) > 0 {
		if text, err := json.Marshal(d.Form.Variables); err == nil {
			facts[factVariables] = string(text)
		}
	}
	return facts
}

// keepDate has a run that is resumed write the day that it has written before.
func (f *finetune) keepDate() {
	if !f.resume || f.data.Date != "" {
		return
	}
	var config struct {
		Setup struct {
			Data struct {
				Date string `json:"date"`
			} `json:"data"`
		} `json:"setup"`
	}
	if text, err := durable.ReadFile(filepath.Join(f.out, train.ConfigFile), train.MaxConfig); err == nil && json.Unmarshal(text, &config) == nil {
		f.data.Date = config.Setup.Data.Date
	}
}
