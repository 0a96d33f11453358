package model

import "github.com/veratune/veratune/bindings"

// Tokenizer is the model's own, with its chat template.
type Tokenizer struct{ *bindings.Vocab }

// Tokenizer reads the tokenizer from the model's file. The caller closes it.
func (m *Model) Tokenizer() (Tokenizer, error) {
	v, err := bindings.OpenVocab(m.file.Path())
	return Tokenizer{v}, err
}

// ApplyChat renders a conversation, turn i being contents[i] of roles[i], with the model's chat template. addAssistant ends the text where
// the assistant's answer begins.
func (t Tokenizer) ApplyChat(roles, contents []string, addAssistant bool) (string, error) {
	messages := make([]bindings.ChatMessage, len(roles))
	for i := range messages {
		messages[i] = bindings.ChatMessage{Role: roles[i], Content: contents[i]}
	}
	return t.ApplyChatTemplate(messages, addAssistant)
}
