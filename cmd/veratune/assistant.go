package main

import (
	"context"
	"sync"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/mtbench"
)

// assistant answers the conversations of an evaluation with an open model.
type assistant struct {
	*session
	encoder *alpaca.Encoder
	mu      sync.Mutex
}

// assistant answers in the form of a template, up to parallel conversations together.
func (s *session) assistant(template string, _ int) (*assistant, error) {
	encoder, err := alpaca.NewEncoder(s.template(template), s.tokenizer)
	if err != nil {
		return nil, err
	}
	return &assistant{session: s, encoder: encoder}, nil
}

// Complete implements mtbench.Model.
func (a *assistant) Complete(ctx context.Context, conversation []mtbench.Message, s mtbench.Sampling) (string, error) {
	messages := make([]alpaca.Message, len(conversation))
	for i, m := range conversation {
		messages[i] = alpaca.Message(m)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	prompt, err := a.encoder.Conversation(messages)
	if err != nil {
		return "", err
	}
	var answer []int32
	sampling := model.Sampling{MaxTokens: s.MaxTokens, Temperature: s.Temperature, TopP: 1, Seed: s.Seed}
	err = a.Generate(ctx, prompt, sampling, func(token int32) bool {
		if a.tokenizer.IsEOG(token) {
			return false
		}
		answer = append(answer, token)
		return true
	})
	if err != nil {
		return "", err
	}
	return a.tokenizer.Detokenize(answer, false)
}
