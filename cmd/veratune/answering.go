package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/generate"
)

// answering holds what the commands that answer a person share.
type answering struct {
	generate.Options
	stops texts
}

func newAnswering() answering { return answering{Options: generate.Default()} }

func (a *answering) flags() []cli.Flag {
	s := &a.Sampling
	return append(formFlags(&a.Form),
		&cli.IntFlag{Name: "max-tokens", Usage: "longest answer in tokens", Value: s.MaxTokens,
			Destination: &s.MaxTokens},
		&cli.Float64Flag{Name: "temperature", Usage: "0 takes the most likely token; higher is more varied",
			Value: s.Temperature, Destination: &s.Temperature},
		&cli.IntFlag{Name: "top-k", Usage: "draw from so many most likely tokens; 0 is all", Value: s.TopK,
			Destination: &s.TopK},
		&cli.Float64Flag{Name: "top-p", Usage: "draw from the most likely tokens of this probability together",
			Value: s.TopP, Destination: &s.TopP},
		&cli.Float64Flag{Name: "min-p",
			Usage: "draw from tokens of at least this part of the greatest probability; 0 is all", Value: s.MinP,
			Destination: &s.MinP},
		&cli.Float64Flag{Name: "repetition-penalty",
			Usage: "above 1, tokens that the text has already become less likely; 1 is none",
			Value: s.RepetitionPenalty, Destination: &s.RepetitionPenalty},
		&cli.Uint64Flag{Name: "seed", Usage: "seed of the drawing", Destination: &s.Seed},
		&cli.GenericFlag{Name: "stop", Usage: "`TEXT` before which an answer ends. May be given several times; \"### " +
			"Instruction:\" is one in the alpaca template", Value: &a.stops},
	)
}

func (a *answering) validate(c *cli.Context) error {
	if err := a.Sampling.Validate(); err != nil {
		return err
	}
	for _, name := range []string{"top-k", "top-p", "min-p", "seed"} {
		if a.Sampling.Temperature == 0 && c.IsSet(name) {
			return fmt.Errorf("%s: changes nothing at temperature 0, where the most likely token is taken; give "+
				"--temperature, too, such as 0.8", name)
		}
	}
	a.Stops = a.stops
	return a.Form.Validate()
}

// texts is a flag that may be given several times. Unlike the library's own, it does not take texts apart at commas.
type texts []string

func (t *texts) Set(text string) error {
	if text == "" {
		return errors.New("an empty text")
	}
	*t = append(*t, text)
	return nil
}

func (t *texts) String() string { return strings.Join(*t, " ") }
