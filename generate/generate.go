// Package generate answers prompts and conversations with the model and adapter of a session, and gives an answer on as
// it is made.
//
// It must not print: text goes to a callback, and messages go to a session.Report.
package generate

import (
	"context"
	"errors"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

// Options say how is answered.
type Options struct {
	Form     alpaca.Form // of the prompts
	Stops    []string    // an answer ends before the first of them, as it does before those of the template
	Sampling model.Sampling
}

// Default takes the template of the adapter's training, else the model's own, and the most likely tokens.
func Default() Options {
	return Options{Form: alpaca.Form{Template: alpaca.Auto}, Sampling: model.DefaultSampling()}
}

// Engine is how a model computes that generates: in 8 bits, on the CPU.
func Engine() model.Options {
	o := model.Default()
	o.Compute = model.ComputeQ8
	return o
}

// Prompt is what one answer is asked for.
type Prompt struct {
	Text   string
	Input  string // that the text is about
	System string // message before it
	Raw    bool   // continue the text as it stands, without a template
}

// Answer is what came of a prompt.
type Answer struct {
	Text         string
	Template     string           // "" where the prompt was raw
	Messages     []alpaca.Message // that the template was given
	PromptTokens int
	Tokens       int      // of the answer, without an end token
	EndedBy      string   // EndToken or another of them
	Stops        []string // that could have ended it
}

// Run answers one prompt; emit, if it isn't nil, gets the text in pieces as it is made. Where ctx is cancelled, the
// answer up to there comes with an error.
func Run(ctx context.Context, s *session.Session, p Prompt, o Options, emit func(text string) error,
	r session.Report) (Answer, error) {
	if p.Raw {
		r = session.Report{}
	}
	encoder, err := s.Encoder(o.Form, r)
	if err != nil {
		return Answer{}, err
	}
	var text strings.Builder
	out := &Stream{Tokenizer: s.Tokenizer, Stops: o.Stops, Emit: func(piece string) error {
		text.WriteString(piece)
		if emit == nil {
			return nil
		}
		return emit(piece)
	}}
	a := Answer{}
	prompt, err := a.encode(encoder.Until(ctx), p)
	if err != nil {
		return a, err
	}
	if !p.Raw {
		out.Stops = append(encoder.Stops(), o.Stops...)
	}
	server, err := s.Serve(1, len(prompt)+min(o.Sampling.MaxTokens, s.Context))
	if err != nil {
		return a, err
	}
	defer server.Close()
	_, err = out.Generate(ctx, server, model.Request{Prompt: prompt, Sampling: o.Sampling})
	a.Text, a.PromptTokens, a.Tokens, a.Stops = text.String(), len(prompt), out.tokens, out.Stops
	a.EndedBy = out.ending(o.Sampling.MaxTokens, errors.Is(err, context.Canceled))
	return a, err
}

// encode gives the prompt's tokens in the form that training gave it, and puts down what the template was given.
func (a *Answer) encode(encoder *alpaca.Encoder, p Prompt) ([]int32, error) {
	if p.Raw {
		return encoder.Verbatim(p.Text)
	}
	a.Template = encoder.Form().Template
	if p.System != "" {
		a.Messages = append(a.Messages, alpaca.Message{Role: alpaca.System, Content: p.System})
	}
	a.Messages = append(a.Messages, alpaca.Ask(p.Text, p.Input))
	if p.System == "" {
		return encoder.Prompt(p.Text, p.Input) // in the alpaca template, the input has a place of its own
	}
	return encoder.Conversation(a.Messages)
}
