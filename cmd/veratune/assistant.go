package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/mtbench"
)

// assistant answers conversations with a session's model and adapter, in one template. It is safe for concurrent use. The session must keep its adapter
// until the assistant is closed.
type assistant struct {
	session *session
	encoder *alpaca.Encoder
	server  *model.Server
	room    int // of a conversation with its answer, in tokens
	stops   []string
}

// evaluationRoom holds two answers of MT-Bench's 1,024 tokens, their questions, reference answers and what a judge is told.
const evaluationRoom = 8192

// assistant answers an evaluation in a form, up to parallel conversations together.
func (s *session) assistant(form alpaca.Form, parallel int, report io.Writer) (*assistant, error) {
	return newAssistant(s, form, parallel, min(evaluationRoom, s.Context), nil, report)
}

func newAssistant(s *session, form alpaca.Form, parallel, room int, stops []string, report io.Writer) (*assistant, error) {
	encoder, err := s.encoder(form, report)
	if err != nil {
		return nil, err
	}
	server, err := s.Serve(parallel, room)
	if err != nil {
		return nil, err
	}
	return &assistant{session: s, encoder: encoder, server: server, room: room, stops: append(encoder.Stops(), stops...)}, nil
}

// Close frees the assistant's memory; the session stays open. It must be called once, after all answers.
func (a *assistant) Close() { a.server.Close() }

// Complete implements mtbench.Model. An answer for which the room does not suffice is cut.
func (a *assistant) Complete(ctx context.Context, conversation []mtbench.Message, s mtbench.Sampling) (string, error) {
	messages := make([]alpaca.Message, len(conversation))
	for i, m := range conversation {
		messages[i] = alpaca.Message{Role: m.Role, Content: m.Content}
	}
	prompt, err := a.encoder.Until(ctx).Conversation(messages)
	if err != nil {
		return "", err
	}
	if len(prompt) >= a.room {
		return "", fmt.Errorf("the conversation has %d tokens, and there is room for %d with its answer: ask for shorter answers (--max-tokens), or take a model with a longer context",
			len(prompt), a.room)
	}
	sampling := model.DefaultSampling()
	sampling.MaxTokens, sampling.Temperature, sampling.Seed = s.MaxTokens, s.Temperature, s.Seed
	var answer strings.Builder
	_, err = a.say(ctx, prompt, sampling, func(text string) error {
		answer.WriteString(text)
		return nil
	})
	return answer.String(), err
}

// say continues a prompt as far as the room goes, and tells whether the answer came to its end.
func (a *assistant) say(ctx context.Context, prompt []int32, sampling model.Sampling, emit func(text string) error) (ended bool, err error) {
	sampling.MaxTokens = min(sampling.MaxTokens, a.room-len(prompt))
	out := &stream{tokenizer: a.session.tokenizer, stops: a.stops, emit: emit}
	return out.generate(ctx, a.server, prompt, sampling)
}
