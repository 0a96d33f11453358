package generate

import (
	"context"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

// Assistant answers many prompts with a session's model and adapter, in one template. It is safe for concurrent use.
// The session must keep its adapter until the assistant is closed.
type Assistant struct {
	Encoder *alpaca.Encoder
	Room    int      // of a prompt with its answer, in tokens
	Stops   []string // before which answers end

	tokenizer model.Tokenizer
	server    *model.Server
}

// NewAssistant holds room for so many prompts that are answered together, each with its answer room tokens long.
func NewAssistant(s *session.Session, o Options, parallel, room int, r session.Report) (*Assistant, error) {
	encoder, err := s.Encoder(o.Form, r)
	if err != nil {
		return nil, err
	}
	server, err := s.Serve(parallel, room)
	if err != nil {
		return nil, err
	}
	return &Assistant{Encoder: encoder, Room: room, Stops: append(encoder.Stops(), o.Stops...), tokenizer: s.Tokenizer,
		server: server}, nil
}

// Close frees the assistant's memory; the session stays open. It must be called once, after all answers.
func (a *Assistant) Close() { a.server.Close() }

// Say continues a prompt as far as the room goes, and tells whether the answer came to its end.
func (a *Assistant) Say(ctx context.Context, prompt []int32, sampling model.Sampling, emit func(text string) error) (
	ended bool, err error) {
	sampling.MaxTokens = min(sampling.MaxTokens, a.Room-len(prompt))
	out := &Stream{Tokenizer: a.tokenizer, Stops: a.Stops, Emit: emit}
	return out.Generate(ctx, a.server, model.Request{Prompt: prompt, Sampling: sampling})
}
