package session

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/veratune/veratune/alpaca"
)

// Facts of an adapter that say in which form its training data were.
const (
	FactTemplate     = "template"
	FactSource       = "chat_template"    // Jinja, where it isn't the model's own
	FactVariables    = "template_options" // a JSON object
	FactTrainingData = "data"             // names of files
	FactPreTokenizer = "pre_tokenizer"    // where it isn't the model's own
)

// Form is the one asked for; auto is that of the adapter's training where it is known.
func (s *Session) Form(asked alpaca.Form) (alpaca.Form, error) {
	if s.Adapter == nil {
		return asked, nil
	}
	return FormOf(s.Adapter.Facts, asked)
}

// FormOf is the form asked for; auto is that of the training which an adapter's facts tell of.
func FormOf(facts map[string]string, asked alpaca.Form) (alpaca.Form, error) {
	if asked.Template != alpaca.Auto || facts[FactTemplate] == "" {
		return asked, nil
	}
	asked.Template = facts[FactTemplate]
	if asked.Template != alpaca.Alpaca { // whose source is for other programs
		asked.Source = facts[FactSource]
	}
	if facts[FactVariables] == "" {
		return asked, nil
	}
	trained := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(facts[FactVariables]), &trained); err != nil {
		return asked, fmt.Errorf("the adapter's veratune.%s is no JSON object; it is damaged", FactVariables)
	}
	maps.Copy(trained, asked.Variables)
	asked.Variables = trained
	return asked, nil
}

// Encoder renders prompts in the form asked for, and reports in which.
func (s *Session) Encoder(asked alpaca.Form, r Report) (*alpaca.Encoder, error) {
	form, err := s.Form(asked)
	if err != nil {
		return nil, err
	}
	e, err := alpaca.NewEncoder(form, s.Tokenizer)
	if err == nil {
		r.Notef("%s", s.Describe(e.Form(), asked))
	}
	return e, err
}

// Describe says which form was taken, and why.
func (s *Session) Describe(taken, asked alpaca.Form) string {
	line := "template: " + taken.Describe()
	switch {
	case asked.Template != alpaca.Auto:
	case s.Adapter != nil && s.Adapter.Facts[FactTemplate] != "":
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
