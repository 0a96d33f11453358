package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"
)

// generateOptions holds the options of the generate command.
type generateOptions struct {
	*engine
	answering   answering
	instruction string
	input       string
	raw         bool
}

func generateCommand() *cli.Command {
	g := &generateOptions{engine: newEngine(generating), answering: newAnswering()}
	return &cli.Command{
		Name:  "generate",
		Usage: "answer one instruction",
		Flags: slices.Concat(g.engine.flags(), []cli.Flag{
			g.adapterFlag(),
			g.forceFlag(),
			&cli.StringFlag{Name: "prompt", Aliases: []string{"p"}, Usage: "the instruction", Required: true, Destination: &g.instruction},
			&cli.StringFlag{Name: "input", Usage: "text that the instruction is about", Destination: &g.input},
			&cli.BoolFlag{Name: "raw", Usage: "continue the prompt as it stands, without a template", Destination: &g.raw},
		}, g.answering.flags()),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(g.validate(), g.answering.validate())); err != nil {
				return err
			}
			return g.run(c)
		},
	}
}

func (g *generateOptions) run(c *cli.Context) error {
	s, err := g.open()
	if err != nil {
		return err
	}
	defer s.Close()
	out := &stream{tokenizer: s.tokenizer, stops: g.answering.stops, emit: func(text string) error {
		_, err := io.WriteString(c.App.Writer, text)
		return err
	}}
	prompt, err := g.tokens(c.Context, s, out, c.App.ErrWriter)
	if err != nil {
		return err
	}
	sampling := g.answering.sampling
	server, err := s.Serve(1, len(prompt)+min(sampling.MaxTokens, s.Context))
	if err != nil {
		return err
	}
	defer server.Close()
	_, err = out.generate(c.Context, server, prompt, sampling)
	fmt.Fprintln(c.App.Writer)
	return err
}

// tokens is the prompt in the form that training gave it; the template's stop strings go to out.
func (g *generateOptions) tokens(ctx context.Context, s *session, out *stream, report io.Writer) ([]int32, error) {
	if g.raw {
		report = io.Discard
	}
	encoder, err := s.encoder(g.answering.form, report)
	if err != nil {
		return nil, err
	}
	encoder = encoder.Until(ctx)
	if g.raw {
		return encoder.Verbatim(g.instruction)
	}
	out.stops = append(encoder.Stops(), out.stops...)
	return encoder.Prompt(g.instruction, g.input)
}
