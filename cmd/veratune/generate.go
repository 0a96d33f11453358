package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

// generateOptions holds the options of the generate command.
type generateOptions struct {
	*engine
	answering   answering
	instruction string
	input       string
	system      string
	raw         bool
	asJSON      bool
}

// generated is what `veratune generate --json` prints.
type generated struct {
	Model        string           `json:"model"`
	Adapter      string           `json:"adapter,omitempty"`
	Template     string           `json:"template,omitempty"` // none with --raw
	Messages     []alpaca.Message `json:"messages,omitempty"` // with a template
	Prompt       string           `json:"prompt,omitempty"`   // with --raw
	Answer       string           `json:"answer"`
	PromptTokens int              `json:"prompt_tokens"`
	Tokens       int              `json:"tokens"`   // of the answer, without an end token
	EndedBy      string           `json:"ended_by"` // what ends an answer
	Settings     struct {
		model.Sampling
		Stop    []string      `json:"stop"`
		Compute model.Compute `json:"compute"`
	} `json:"settings"`
}

// standardInput in place of a prompt has it read from there.
const standardInput = "-"

func generateCommand() *cli.Command {
	g := &generateOptions{engine: newGenerator(), answering: newAnswering()}
	return &cli.Command{
		Name:  "generate",
		Usage: "answer one prompt",
		Description: "The prompt is the argument, in quotes, or what --prompt says; - reads it from the standard " +
			"input, which may have many lines.",
		ArgsUsage: "[PROMPT]",
		Flags: slices.Concat(g.engine.flags(), []cli.Flag{
			g.deviceFlag(),
			g.adapterFlag(),
			g.forceFlag(),
			&cli.StringFlag{Name: "prompt", Aliases: []string{"p"},
				Usage:       "the prompt, instead of as an argument; - reads it from the standard input",
				Destination: &g.instruction},
			&cli.StringFlag{Name: "input", Usage: "`TEXT` that the prompt is about", Destination: &g.input},
			&cli.StringFlag{Name: "system", Usage: "`TEXT` of a system message before the prompt",
				Destination: &g.system},
			&cli.BoolFlag{Name: "raw", Usage: "continue the prompt as it stands, without a template",
				Destination: &g.raw},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object: the messages, the answer, its length, what " +
				"ended it, and the settings", Destination: &g.asJSON},
		}, g.answering.flags()),
		Action: func(c *cli.Context) error {
			if err := validate(g.validate(), g.answering.validate(c), g.takePrompt(c)); err != nil {
				return err
			}
			return g.run(c)
		},
	}
}

// takePrompt finds out where the prompt is.
func (g *generateOptions) takePrompt(c *cli.Context) error {
	switch given := c.IsSet("prompt"); {
	case c.NArg() > 1 || c.NArg() == 1 && given:
		return fmt.Errorf("unexpected argument %q; there is one prompt, which stands in quotes where it has several "+
			"words", c.Args().Get(c.NArg()-1))
	case c.NArg() == 1:
		g.instruction = c.Args().First()
	case !given:
		return errors.New("the prompt is missing: give it in quotes, or - to have it read from the standard input")
	}
	if !g.raw && g.instruction == "" && g.input == "" {
		return errors.New("the prompt is empty")
	}
	if g.raw && (g.system != "" || g.input != "") {
		return errors.New("raw: takes no --system and no --input, for which a template has places")
	}
	return nil
}

func (g *generateOptions) run(c *cli.Context) (err error) {
	if g.instruction == standardInput {
		if g.instruction, err = readPrompt(c); err != nil {
			return err
		}
	}
	s, err := session.Open(g.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	to := terminal.Verbatim(c.App.Writer)
	emit := func(text string) error {
		_, err := io.WriteString(to, text)
		return err
	}
	if g.asJSON {
		emit = nil
	}
	o := g.answering.Options
	a, err := generate.Run(c.Context, s, generate.Prompt{Text: g.instruction, Input: g.input, System: g.system,
		Raw: g.raw}, o, emit, reportTo(c.App.ErrWriter))
	cut := a.EndedBy == generate.EndInterrupted
	if cut {
		err = interrupted("the answer was interrupted")
	}
	if !g.asJSON {
		if a.EndedBy != "" {
			fmt.Fprintln(to)
		}
		return err
	}
	if err != nil && !cut {
		return err
	}
	r := generated{
		Model: g.Model, Adapter: g.Adapter, Template: a.Template, Messages: a.Messages,
		Answer: a.Text, PromptTokens: a.PromptTokens, Tokens: a.Tokens, EndedBy: a.EndedBy,
	}
	if g.raw {
		r.Prompt = g.instruction
	}
	r.Settings.Sampling, r.Settings.Compute, r.Settings.Stop = o.Sampling, g.Engine.Compute,
		append([]string{}, a.Stops...)
	return errors.Join(encodeLines(c.App.Writer, []generated{r}), err)
}

// longestPrompt that is read, in bytes, is above what any model has room for.
const longestPrompt = 16 << 20

// readPrompt reads the standard input to its end, without the end of its last line.
func readPrompt(c *cli.Context) (string, error) {
	if terminal.Is(c.App.Reader) {
		fmt.Fprintln(c.App.ErrWriter, "(the prompt; Ctrl-D on a line of its own ends it)")
	}
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(c.App.Reader, longestPrompt+1))
		done <- result{text, err}
	}()
	select {
	case <-c.Context.Done():
		return "", interrupted("interrupted while the prompt was read")
	case r := <-done:
		text := strings.TrimSuffix(strings.TrimSuffix(string(r.text), "\n"), "\r")
		switch {
		case r.err != nil:
			return "", fmt.Errorf("prompt: the standard input cannot be read: %w", r.err)
		case len(r.text) > longestPrompt:
			return "", fmt.Errorf("prompt: the standard input is longer than %d MiB", longestPrompt>>20)
		case text == "":
			return "", errors.New("prompt: the standard input is empty")
		}
		return text, nil
	}
}

// interrupted is the error of what Ctrl-C ended.
type interrupted string

func (i interrupted) Error() string { return string(i) }

// Is tells that it is a cancellation, which has an exit code of its own.
func (i interrupted) Is(target error) bool { return target == context.Canceled }
