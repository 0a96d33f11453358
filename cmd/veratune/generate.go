package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
)

// generateOptions holds the options of the generate command.
type generateOptions struct {
	*engine
	sampling    model.Sampling
	instruction string
	input       string
	template    string
	raw         bool
}

func generateCommand() *cli.Command {
	g := &generateOptions{engine: newEngine(model.ComputeF32), sampling: model.DefaultSampling(), template: alpaca.Auto}
	s := &g.sampling
	return &cli.Command{
		Name:  "generate",
		Usage: "answer one instruction",
		Flags: slices.Concat(g.engine.flags(), []cli.Flag{
			g.adapterFlag(),
			g.forceFlag(),
			&cli.StringFlag{Name: "prompt", Aliases: []string{"p"}, Usage: "the instruction", Required: true, Destination: &g.instruction},
			&cli.StringFlag{Name: "input", Usage: "text that the instruction is about", Destination: &g.input},
			&cli.StringFlag{Name: "template", Usage: "form of the prompt: " + strings.Join(alpaca.Templates, ", ") + "; auto is that of the adapter's training", Value: g.template, Destination: &g.template},
			&cli.BoolFlag{Name: "raw", Usage: "continue the prompt as it stands, without a template", Destination: &g.raw},
			&cli.IntFlag{Name: "max-tokens", Usage: "longest answer in tokens", Value: s.MaxTokens, Destination: &s.MaxTokens},
			&cli.Float64Flag{Name: "temperature", Usage: "0 takes the most likely token; higher is more varied", Value: s.Temperature, Destination: &s.Temperature},
			&cli.Float64Flag{Name: "top-p", Usage: "draw from the most likely tokens of this probability together", Value: s.TopP, Destination: &s.TopP},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the drawing", Destination: &s.Seed},
		}),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(g.validate(), g.sampling.Validate(), g.validateTemplate())); err != nil {
				return err
			}
			return g.run(c)
		},
	}
}

// validateTemplate checks the flag as the data commands do.
func (g *generateOptions) validateTemplate() error {
	o := alpaca.Default()
	o.Template = g.template
	return o.Validate()
}

func (g *generateOptions) run(c *cli.Context) error {
	s, err := g.open()
	if err != nil {
		return err
	}
	defer s.Close()
	prompt, err := g.tokens(s)
	if err != nil {
		return err
	}
	out := &stream{tokenizer: s.tokenizer, w: c.App.Writer}
	server, err := s.Serve(1, len(prompt)+g.sampling.MaxTokens)
	if err != nil {
		return err
	}
	defer server.Close()
	err = server.Generate(c.Context, prompt, g.sampling, func(token int32) bool {
		return !s.tokenizer.IsEOG(token) && out.write(token)
	})
	fmt.Fprintln(c.App.Writer)
	return errors.Join(err, out.err)
}

// tokens is the prompt in the form that training gave it.
func (g *generateOptions) tokens(s *session) ([]int32, error) {
	encoder, err := alpaca.NewEncoder(s.template(g.template), s.tokenizer)
	if err != nil {
		return nil, err
	}
	if g.raw {
		return encoder.Verbatim(g.instruction)
	}
	return encoder.Prompt(g.instruction, g.input)
}

// stream writes tokens as text as soon as it is whole: a character may take several tokens.
type stream struct {
	tokenizer model.Tokenizer
	w         io.Writer
	tokens    []int32
	written   int // bytes of their text
	err       error
}

// write gives false after a failure.
func (s *stream) write(token int32) bool {
	s.tokens = append(s.tokens, token)
	text, err := s.tokenizer.Detokenize(s.tokens, false)
	if err != nil {
		s.err = err
		return false
	}
	const incomplete = "\uFFFD"
	if whole := strings.TrimRight(strings.ToValidUTF8(text, incomplete), incomplete); len(whole) > s.written {
		_, s.err = io.WriteString(s.w, whole[s.written:])
		s.written = len(whole)
	}
	return s.err == nil
}
