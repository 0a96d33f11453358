package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// benchGenerate holds the options of the bench generate command.
type benchGenerate struct {
	*engine
	prompt   int
	tokens   int
	parallel int
	rounds   int
	rank     int
	asJSON   bool
}

// generationLine is one line of what `bench generate --json` prints.
type generationLine struct {
	What     string                `json:"what"`
	Device   string                `json:"device"`
	Compute  model.Compute         `json:"compute"`
	ISA      string                `json:"isa"`
	Threads  int                   `json:"threads"`
	Veratune model.GenerationSpeed `json:"veratune"`
	Llama    model.GenerationSpeed `json:"llama"`
}

func benchGenerateCommand() *cli.Command {
	b := &benchGenerate{engine: newGenerator()}
	return &cli.Command{
		Name: "generate",
		Usage: "measure reading a prompt and making tokens, with and without an adapter, beside llama.cpp in the " +
			"same process and on the same device (with the adapter's LoRA export); both take turns, and the best of " +
			"each counts",
		Flags: slices.Concat(b.engine.flags(), []cli.Flag{
			b.deviceFlag(),
			b.adapterFlag(),
			b.forceFlag(),
			&cli.IntFlag{Name: "rank", Usage: "rank of the random adapter that is taken without --adapter",
				Value: vera.Default().Rank, Destination: &b.rank},
			&cli.IntFlag{Name: "prompt", Usage: "tokens of the prompt", Value: 512, Destination: &b.prompt},
			&cli.IntFlag{Name: "tokens", Usage: "tokens of the answer", Value: 64, Destination: &b.tokens},
			&cli.IntFlag{Name: "parallel", Usage: "answers that are made together", Value: 8, Destination: &b.parallel},
			&cli.IntFlag{Name: "rounds", Usage: "turns of each", Value: 3, Destination: &b.rounds},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a line", Destination: &b.asJSON},
		}),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(b.validate())); err != nil {
				return err
			}
			return b.run(c)
		},
	}
}

func (b *benchGenerate) validate() error {
	for _, n := range []struct {
		name  string
		value int
	}{{"rank", b.rank}, {"prompt", b.prompt}, {"tokens", b.tokens}, {"parallel", b.parallel}, {"rounds", b.rounds}} {
		if n.value < 1 {
			return fmt.Errorf("%s %d: at least 1", n.name, n.value)
		}
	}
	return b.engine.validate()
}

func (b *benchGenerate) run(c *cli.Context) error {
	s, err := session.Open(b.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	adapter := s.Adapter
	if adapter == nil {
		if adapter, err = measuredAdapter(b.rank, s.Base()); err != nil {
			return err
		}
	}
	folder, err := os.MkdirTemp("", "veratune-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	lora := filepath.Join(folder, "lora.gguf")
	if _, err := adapter.SaveLoRA(c.Context, lora, vera.DefaultLoRA()); err != nil {
		return err
	}
	lines := []struct {
		what    string
		adapter *vera.Adapter
		lora    string
	}{{"base", nil, ""}, {fmt.Sprintf("rank %d", adapter.Rank), adapter, lora}}
	if !b.asJSON {
		fmt.Fprintf(c.App.Writer, "%s, %s, tokens/s; prompt of %d, answer of %d\n", b.Engine.Compute, b.processor(),
			b.prompt, b.tokens)
		fmt.Fprintf(c.App.Writer, "%-12s %-10s %9s %9s %12s\n", "", "", "prompt", "answer",
			fmt.Sprintf("%d answers", b.parallel))
	}
	for _, l := range lines {
		if err := s.Attach(l.adapter); err != nil {
			return err
		}
		r := generationLine{What: l.what, Device: b.Engine.Device, Compute: b.Engine.Compute, ISA: model.ISA(),
			Threads: b.Engine.Threads}
		for range b.rounds {
			if err := c.Context.Err(); err != nil {
				return err
			}
			speed, err := s.GenerationSpeed(b.prompt, b.tokens, b.parallel)
			if err != nil {
				return err
			}
			r.Veratune = r.Veratune.Faster(speed)
			theirs, err := model.LlamaSpeed(b.Model, l.lora, b.Engine.Device, b.Engine.Threads, b.prompt, b.tokens)
			if err != nil {
				return err
			}
			r.Llama = r.Llama.Faster(theirs)
		}
		if err := b.print(c, r); err != nil {
			return err
		}
	}
	return nil
}

// processor says what computes.
func (b *benchGenerate) processor() string {
	if b.Engine.Device != model.CPU {
		return b.Engine.Device
	}
	return fmt.Sprintf("%s, %d threads", model.ISA(), b.Engine.Threads)
}

func (b *benchGenerate) print(c *cli.Context, r generationLine) error {
	out := c.App.Writer
	if b.asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	fmt.Fprintf(out, "%-12s %-10s %9.1f %9.1f %12.1f\n", r.What, "veratune", r.Veratune.Prompt, r.Veratune.Decode,
		r.Veratune.Together)
	fmt.Fprintf(out, "%-12s %-10s %9.1f %9.1f\n", "", "llama.cpp", r.Llama.Prompt, r.Llama.Decode)
	_, err := fmt.Fprintf(out, "%-12s %-10s %9.2f %9.2f\n", "", "ratio", r.Veratune.Prompt/r.Llama.Prompt,
		r.Veratune.Decode/r.Llama.Decode)
	return err
}

// measuredAdapter changes every layer a little: nothing about its speed depends on the numbers.
func measuredAdapter(rank int, base vera.Base) (*vera.Adapter, error) {
	config := vera.Default()
	config.Rank = rank
	a, err := vera.New(config, base)
	if err != nil {
		return nil, usageError{err}
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, l := range a.Layers {
		for i := range l.LambdaB {
			l.LambdaB[i] = float32(random.NormFloat64()) * 0.01
		}
	}
	return a, nil
}
