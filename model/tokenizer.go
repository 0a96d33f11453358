package model

import "github.com/veratune/veratune/bindings"

// Tokenizer is the model's own, with its chat template.
type Tokenizer struct{ *bindings.Vocab }

// Tokenizer reads the tokenizer from the model's file. The caller closes it.
func (m *Model) Tokenizer() (Tokenizer, error) {
	v, err := bindings.OpenVocab(m.file.Path())
	return Tokenizer{v}, err
}
