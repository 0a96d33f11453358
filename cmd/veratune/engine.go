package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/hub"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/tokenizer"
)

// engine holds what the commands that open a model share.
type engine struct {
	session.Options
	ways    []model.Compute // that the command has on the CPU
	cpu     model.Compute   // the default there
	compute string          // "" is the default of the device
	plan    string
	memory  string
}

// How commands compute that generate, and those that measure or train.
var (
	generating   = []model.Compute{model.ComputeQ8, model.ComputeF32}
	measuring    = []model.Compute{model.ComputeF32, model.ComputeBF16}
	trainingWays = []model.Compute{model.ComputeAuto, model.ComputeInt, model.ComputeBF16, model.ComputeF32}
)

// newEngine computes as a package does by default, or in another of the ways.
func newEngine(o model.Options, ways []model.Compute) *engine {
	return &engine{Options: session.Options{Engine: o}, ways: ways, cpu: o.Compute, plan: string(o.Plan)}
}

// newGenerator computes answers.
func newGenerator() *engine {
	return newEngine(generate.Engine(), generating)
}

// newTrainer computes in the arithmetic that the device trains best in.
func newTrainer() *engine {
	return newEngine(model.Default(), trainingWays)
}

// computeUsage says what the ways to compute are.
var computeUsage = map[model.Compute]string{
	model.ComputeF32: "f32 (float32)", model.ComputeBF16: "bf16 (bfloat16)",
	model.ComputeAuto: "auto (what the device trains best in; a run that is resumed keeps its own)",
	model.ComputeInt:  "int (integers of 8 or 16 bits where they are exact enough, on the CPU)",
	model.ComputeQ8: "q8 (activations and the shared pair rounded to 8 bits, in blocks of 32; on another " +
		"device than the CPU, as its kernels do that)",
}

func (e *engine) flags() []cli.Flag {
	return slices.Concat([]cli.Flag{e.modelFlag(), e.preTokenizerFlag()}, e.computeFlags())
}

func (e *engine) modelFlag() cli.Flag {
	return &cli.StringFlag{Name: "model", Aliases: []string{"m"},
		Usage: "GGUF `FILE` of a model; hf:OWNER/REPO/FILE fetches it from Hugging Face", Required: true,
		Destination: &e.Model, Action: fetch(&e.Model)}
}

// preTokenizerFlag goes with the flag of a model whose tokenizer is needed.
func (e *engine) preTokenizerFlag() cli.Flag {
	return &cli.StringFlag{Name: "pre-tokenizer", Usage: "`NAME` of how a tokenizer of bytes (gpt2) takes texts " +
		"apart, in llama.cpp's words; left out, that of the adapter's training, else tokenizer.ggml.pre in the " +
		"model's file", Destination: &e.PreTokenizer}
}

// fetch is the action of a flag that names a model: it puts the path of a file that is fetched from Hugging Face in
// place of its name. Of a split model, all parts are fetched.
func fetch(path *string) func(*cli.Context, string) error {
	return func(c *cli.Context, s string) error {
		if !strings.HasPrefix(s, hub.Scheme) {
			return nil
		}
		name, err := hub.Parse(s)
		if err != nil {
			return usageError{err}
		}
		client, err := hub.FromEnvironment(c.App.ErrWriter)
		if err != nil {
			return err
		}
		if *path, err = client.Fetch(c.Context, name); err != nil {
			return err
		}
		for _, part := range parts(name.File) {
			if part == name.File {
				continue
			}
			if _, err := client.Fetch(c.Context, hub.Name{Repo: name.Repo, File: part}); err != nil {
				return err
			}
		}
		return nil
	}
}

func (e *engine) computeFlags() []cli.Flag {
	var usages []string
	for _, way := range e.ways {
		usages = append(usages, computeUsage[way])
	}
	return []cli.Flag{
		&cli.IntFlag{Name: "threads", Usage: "threads to compute with", DefaultText: "one for each processor",
			Value: e.Engine.Threads, Destination: &e.Engine.Threads, Action: tooMany},
		&cli.StringFlag{Name: "compute", Usage: "arithmetic of the matrix products: " + strings.Join(usages, ", "),
			DefaultText: string(e.cpu), Destination: &e.compute},
	}
}

// adapterUsage says what a flag of an adapter takes.
const adapterUsage = "adapter `FILE` of veratune, folder of PEFT, or run folder: then its best adapter, else its last"

// tooMany warns of more threads than the process may use at a time: they wait for each other.
func tooMany(c *cli.Context, threads int) error {
	const told = "too many threads"
	if usable := model.Default().Threads; threads > usable && c.App.Metadata[told] == nil {
		c.App.Metadata[told] = true // a sweep has many trainings
		fmt.Fprintf(c.App.ErrWriter, "warning: --threads %d is more than the %d that this process may use at a time, "+
			"which is slow; leave it out, or give %[2]d\n", threads, usable)
	}
	return nil
}

func (e *engine) adapterFlag() cli.Flag {
	return &cli.StringFlag{Name: "adapter", Aliases: []string{"a"}, Usage: adapterUsage, Destination: &e.Adapter,
		Action: findAdapter(&e.Adapter)}
}

// forceFlag goes with adapterFlag.
func (e *engine) forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force",
		Usage:       "use the adapter although it was trained on another model, where its shapes fit",
		Destination: &e.AnyBase}
}

// dataFlags are the flags of how rows become batches.
func dataFlags(o *alpaca.Options) []cli.Flag {
	return append(sampleFlags(o),
		&cli.BoolFlag{Name: "strict", Usage: "stop at the first bad row instead of leaving it out",
			Destination: &o.Strict},
		&cli.IntFlag{Name: "batch", Usage: "samples that are computed together", Value: o.Batch, Destination: &o.Batch},
	)
}

// rowFlags are the flags of how a row is read.
func rowFlags(o *alpaca.Options) []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "columns", Usage: "the file's `NAMES` of what a row holds, by veratune's: " +
			"instruction=question,output=answer; also messages, role, content, prompt, completion, text, system, " +
			"tools, chosen", Value: &columns{&o.Columns}},
		&cli.BoolFlag{Name: "chosen", Usage: "of preference pairs, train on the chosen answer; they are refused " +
			"otherwise", Destination: &o.Chosen},
	}
}

// sampleFlags are the flags of how a row becomes a sample.
func sampleFlags(o *alpaca.Options) []cli.Flag {
	return append(append(formFlags(&o.Form), rowFlags(o)...),
		&cli.StringFlag{Name: "train-on", Usage: "what is learnt of a row: assistant (all that the assistant says), " +
			"last (what it says last), all (the prompts, too)", Value: o.TrainOn, Destination: &o.TrainOn},
		&cli.IntFlag{Name: "max-length", Usage: "longest sample in tokens; longer ones are cut", Value: o.MaxLength,
			Destination: &o.MaxLength},
	)
}

// planFlag is for the commands that train.
func (e *engine) planFlag() cli.Flag {
	return &cli.StringFlag{Name: "plan", Usage: "how to multiply with the adapted matrices: factored, merged, or " +
		"auto for the one with fewer multiplications", Value: e.plan, Destination: &e.plan}
}

// deviceFlag is for the commands that compute much.
func (e *engine) deviceFlag() cli.Flag {
	usage := "processor that computes: cpu, another that the command devices lists, or auto"
	if e.generates() {
		usage += ". Only the CPU makes an answer the same to the last bit whatever others are made with it"
	}
	return &cli.StringFlag{Name: "device", Usage: usage, Value: e.Engine.Device, Destination: &e.Engine.Device}
}

// generates tells whether the command makes answers.
func (e *engine) generates() bool { return slices.Contains(e.ways, model.ComputeQ8) }

func (e *engine) memoryFlag() cli.Flag {
	return &cli.StringFlag{Name: "memory", Usage: "limit of the process's memory, or the device's, such as 6GB or " +
		"800MiB, which --recompute auto keeps to; left out, half of the free memory is used, or nine tenths of the " +
		"device's", Destination: &e.memory}
}

// choices are the ways to compute in words.
func (e *engine) choices() string {
	names := make([]string, len(e.ways))
	for i, way := range e.ways {
		names[i] = string(way)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func (e *engine) validate() error {
	if e.memory != "" {
		n, err := humanize.ParseBytes(e.memory)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return fmt.Errorf("memory %q: a size such as 6GB or 800MiB", e.memory)
		}
		e.Engine.Memory = int64(n)
	}
	if e.PreTokenizer != "" {
		if err := tokenizer.CheckPre(e.PreTokenizer); err != nil {
			return err
		}
	}
	var err error
	if e.Engine.Device, err = model.DeviceName(e.Engine.Device); err != nil {
		return err
	}
	e.Engine.Compute, e.Engine.Plan = model.Compute(e.compute), model.Plan(e.plan)
	switch {
	case e.compute != "" && !slices.Contains(e.ways, e.Engine.Compute) &&
		(e.Engine.Device == model.CPU || !e.generates()): // a device may answer in bf16 alone
		return fmt.Errorf("compute %q: %s", e.compute, e.choices())
	case e.compute != "":
	case e.Engine.Device == model.CPU:
		e.Engine.Compute = e.cpu
	case e.generates():
		e.Engine.Compute, err = model.AnsweringCompute(e.Engine.Device)
	default:
		e.Engine.Compute = model.ComputeAuto
	}
	if err != nil {
		return err
	}
	return e.Engine.Validate()
}

// reportTo tells a person what a package reports.
func reportTo(w io.Writer) session.Report {
	line := terminal.NewLine(w)
	return session.Report{
		Note: func(text string) {
			line.End()
			fmt.Fprintln(w, text)
		},
		Reading: reading(line),
	}
}

// reading shows how far files of rows have been read.
func reading(line *terminal.Line) func(file string, part float64) {
	return func(file string, part float64) {
		if file == "" {
			line.End()
			return
		}
		line.Status(fmt.Sprintf("reading %s: %.0f%%", file, 100*part))
	}
}
