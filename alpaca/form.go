package alpaca

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

// The prompt templates. Rows of prompt and completion, and of text, are used verbatim with every template.
const (
	Auto   = "auto"   // Chat where the model has a chat template, Alpaca otherwise
	Alpaca = "alpaca" // Stanford Alpaca's two prompts, with and without an input
	Chat   = "chat"   // the model's own chat template
)

// templateFile is how the name of a file with a chat template ends.
const templateFile = ".jinja"

// templateUsage says what Form.Template may be.
const templateUsage = "auto, alpaca, chat, the name of another template in the model, or FILE" + templateFile

// Form says how prompts are written.
type Form struct {
	// auto, alpaca, chat, the name of another template of the model, or FILE.jinja
	Template string `json:"template"`
	// Jinja, where the template is neither built in nor the model's
	Source string `json:"chat_template,omitempty"`
	// of the chat template, such as enable_thinking
	Variables map[string]json.RawMessage `json:"template_options,omitempty"`
	// YYYY-MM-DD, for templates that write it; "" is today
	Date string `json:"date,omitempty"`
}

// NoTemplate is the error of a template that there is not.
type NoTemplate struct{ error }

func (e NoTemplate) Unwrap() error { return e.error }

// Validate returns an error that names the first field that is wrong and what is allowed.
func (f Form) Validate() error {
	if f.Template == "" {
		return fmt.Errorf("template: want %s", templateUsage)
	}
	if f.Date != "" {
		if _, err := time.Parse(time.DateOnly, f.Date); err != nil {
			return fmt.Errorf("date %q: want a day as 2026-01-31", f.Date)
		}
	}
	for name, value := range f.Variables {
		if slices.Contains(reservedVariables, name) {
			return fmt.Errorf("template option %s: is what the conversation gives the template; others can be set",
				name)
		}
		if !json.Valid(value) {
			return fmt.Errorf("template option %s: %s is no JSON value", name, value)
		}
	}
	return nil
}

// ParseVariable reads NAME=VALUE: the value is JSON (true, 3, ["a"]), or else a text.
func ParseVariable(s string) (name string, value json.RawMessage, err error) {
	name, text, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return "", nil, errors.New("want NAME=VALUE, such as enable_thinking=false")
	}
	switch text { // as people write them
	case "True":
		text = "true"
	case "False":
		text = "false"
	case "None":
		text = "null"
	}
	if value = json.RawMessage(text); !json.Valid(value) {
		value, err = json.Marshal(text)
	}
	return name, value, err
}

// Describe says in words what a form's template is, once NewEncoder has resolved it.
func (f Form) Describe() string {
	switch {
	case f.Template == Alpaca:
		return "Stanford Alpaca's prompts"
	case f.Source != "":
		return "the chat template " + f.Template
	case f.Template == Chat:
		return "the model's own chat template"
	}
	return "the model's chat template " + f.Template
}

// resolve finds the template's source. It is "" for Alpaca.
func (f *Form) resolve(tok Tokenizer) (source string, err error) {
	switch {
	case f.Source != "":
		return f.Source, nil
	case f.Template == Alpaca:
		return "", nil
	case f.Template == Auto && tok.ChatTemplate("") == "":
		f.Template = Alpaca
		return "", nil
	case f.Template == Auto, f.Template == Chat:
		f.Template = Chat
		if source = tok.ChatTemplate(""); source == "" {
			return "", NoTemplate{fmt.Errorf(
				"template chat: the model has no chat template; use template alpaca, or FILE%s", templateFile)}
		}
		return source, nil
	case strings.HasSuffix(f.Template, templateFile):
		return f.read()
	}
	if source = tok.ChatTemplate(f.Template); source == "" {
		known := append([]string{Auto, Alpaca, Chat}, slices.DeleteFunc(tok.ChatTemplates(), func(s string) bool {
			return s == ""
		})...)
		return "", NoTemplate{fmt.Errorf("template %q: want %s, or FILE%s", f.Template, strings.Join(known, ", "),
			templateFile)}
	}
	return source, nil
}

// largestTemplate bounds a file that is taken for a template; real ones have up to 30 kB.
const largestTemplate = 1 << 20

// read takes the template of a file into the form, under the file's name.
func (f *Form) read() (string, error) {
	data, err := durable.ReadFile(f.Template, largestTemplate)
	if err != nil {
		return "", NoTemplate{fmt.Errorf("template: %w", err)}
	}
	if len(strings.TrimSpace(string(data))) == 0 {
		return "", NoTemplate{fmt.Errorf("template %s: the file is empty", f.Template)}
	}
	f.Template, f.Source = filepath.Base(f.Template), string(data)
	return f.Source, nil
}
