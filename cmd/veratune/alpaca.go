package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/internal/mpi"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// training holds the options of the alpaca command.
type training struct {
	*engine
	o         finetune.Options // what the flags say
	recipe    recipeFlags
	files     dataFiles
	layers    blocks
	evalFiles measuredFiles
	samples   texts
}

// recipeFlags are flags whose type on the command line is not that of the option.
type recipeFlags struct {
	recompute, init, schedule, method string
	dInitial, dropout, alpha          float64
	seed                              uint64
}

func newTraining() *training {
	return &training{engine: newTrainer(), o: finetune.Default(vera.MethodVeRA)}
}

func (f *training) flags() []cli.Flag {
	return slices.Concat(f.engine.flags(), f.rowFlags(), dataFlags(&f.o.Rows), f.adapterFlags(), f.trainFlags())
}

func alpacaCommand() *cli.Command {
	f := newTraining()
	printConfig := false
	return &cli.Command{
		Name:    "alpaca",
		Aliases: []string{"train"},
		Usage:   "finetune a model on instruction data",
		Description: "Trains a VeRA adapter, or with --method lora a LoRA, on instruction rows and writes it to " +
			"OUT/adapter.gguf. The defaults are the recipe of the VeRA paper's Table 9.\n" +
			"Ctrl-C saves the run; the same command with --resume goes on to the same bits. Started by mpirun or " +
			"srun, several processes share each step.",
		Flags: append(f.flags(), &cli.BoolFlag{Name: "print-config",
			Usage: "print all options as a file for --config, and do nothing else", Destination: &printConfig}),
		Before: f.options,
		Action: func(c *cli.Context) error {
			if !printConfig {
				return f.run(c)
			}
			config, err := f.config(c)
			if err != nil {
				return err
			}
			_, err = terminal.Verbatim(c.App.Writer).Write(config)
			return err
		},
	}
}

func (f *training) rowFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "data", Usage: "`FILE` of instruction, chat or prompt rows: " + filesUsage +
			". May be given more than once; FILE:WEIGHT has an epoch see that part of the rows, or see them so " +
			"often; left out, the built-in starter set", Value: &f.files},
		&cli.Float64Flag{Name: "held-out",
			Usage: "rows that are kept back to measure the loss: a part below 1, or a number; 0 for none",
			Value: f.o.HeldOut, Destination: &f.o.HeldOut},
		&cli.GenericFlag{Name: "eval-data",
			Usage: "`FILE` of rows to measure the loss on, instead of --held-out; as --data, without weights",
			Value: &f.evalFiles},
	}
}

func (f *training) adapterFlags() []cli.Flag {
	return []cli.Flag{
		methodFlag(&f.recipe.method),
		&cli.StringFlag{Name: "from", Usage: "begin with what the adapter in `FILE` has learnt, also one of PEFT or " +
			"a LoRA, or that of a run folder; its rank, layers and random matrices stay", Destination: &f.o.From,
			Action: findAdapter(&f.o.From)},
		&cli.IntFlag{Name: "rank", Usage: rankUsage, DefaultText: rankDefault(), Destination: &f.o.Adapter.Rank},
		&cli.StringSliceFlag{Name: "targets", Usage: "kinds of linear layers to adapt: " +
			strings.Join(vera.Targets, ", ") + "; inspect lists those of a model",
			DefaultText: "all that the model has"},
		&cli.GenericFlag{Name: "layers", Usage: "blocks to adapt, counted from 0, such as 0-9,20; left out, all",
			Value: &f.layers},
		&cli.Uint64Flag{Name: "seed", Usage: "seed of the random matrices (32 bits), the order of the rows and dropout",
			Destination: &f.recipe.seed},
		&cli.Float64Flag{Name: "d-initial", Usage: "every number of d before training",
			Value: decimal(f.o.Adapter.DInitial), Destination: &f.recipe.dInitial},
		&cli.Float64Flag{Name: "dropout", Usage: "probability that training zeroes an input of the adapter",
			Destination: &f.recipe.dropout},
		&cli.StringFlag{Name: "init", Usage: "distribution of the shared pair: kaiming_uniform (PEFT's), " +
			"kaiming_normal, uniform", Value: string(f.o.Adapter.Init), Destination: &f.recipe.init},
		&cli.StringFlag{Name: "only", Usage: "train this one of VeRA's vectors alone: b, or d (then b is 1 and d " +
			"begins at 0)", Destination: &f.o.Adapter.Only},
		&cli.BoolFlag{Name: "unique-pairs",
			Usage:       "give each layer random matrices of its own instead of the shared pair",
			Destination: &f.o.Adapter.UniquePairs},
		&cli.Float64Flag{Name: "alpha", Usage: "lora: the change is alpha/rank · B A",
			Value: float64(loraDefaults.Adapter.Alpha), Destination: &f.recipe.alpha},
	}
}

// loraDefaults has the defaults of the flags that another method has other ones of.
var loraDefaults = finetune.Default(vera.MethodLoRA)

const rankUsage = "rank of the random matrices, or of a LoRA"

func rankDefault() string {
	return fmt.Sprintf("%d; lora: %d", vera.Default().Rank, loraDefaults.Adapter.Rank)
}

func methodFlag(to *string) cli.Flag {
	return &cli.StringFlag{Name: "method",
		Usage: "what to train: vera, or lora (the recipe of its row in the same table)", Value: string(vera.MethodVeRA),
		Destination: to}
}

func (f *training) trainFlags() []cli.Flag {
	t := &f.o.Train
	return []cli.Flag{
		&cli.Float64Flag{Name: "lr", Usage: "highest learning rate", DefaultText: fmt.Sprintf("%g; lora: %g", t.LR,
			loraDefaults.Train.LR), Destination: &t.LR},
		&cli.StringFlag{Name: "schedule", Usage: "learning rate after the warm-up: cosine, linear, constant",
			Value: string(t.Schedule), Destination: &f.recipe.schedule},
		&cli.Float64Flag{Name: "warmup-ratio", Usage: "part of all steps in which the learning rate rises",
			Value: t.WarmupRatio, Destination: &t.WarmupRatio},
		&cli.IntFlag{Name: "accumulation", Usage: "batches in a step", Value: t.Accumulation,
			Destination: &t.Accumulation},
		&cli.Float64Flag{Name: "epochs", Usage: "times to go through the rows; 0.5 for half of them", Value: t.Epochs,
			Destination: &t.Epochs},
		&cli.IntFlag{Name: "steps", Usage: "steps to train, instead of --epochs", Destination: &t.Steps},
		&cli.Float64Flag{Name: "weight-decay", Usage: "AdamW's decoupled weight decay", Value: t.WeightDecay,
			Destination: &t.WeightDecay},
		&cli.Float64Flag{Name: "clip", Usage: "largest norm of a step's gradient; 0 for no limit", Value: t.Clip,
			Destination: &t.Clip},
		&cli.IntFlag{Name: "max-steps", Usage: "halt after this step, at the learning rate that it has in the whole " +
			"training; --resume goes on. 0 for no limit", Destination: &f.o.MaxSteps},
		&cli.DurationFlag{Name: "max-time",
			Usage: "halt after the step in which this time is over, such as 7h30m; --resume goes on. 0 " +
				"for no limit",
			Destination: &f.o.MaxTime},
		&cli.BoolFlag{Name: "no-halt", Usage: "go on where the loss has been above three times that before training " +
			"for ten steps, which else ends the run; one that isn't finite always ends it", Destination: &f.o.NoHalt},
		&cli.GenericFlag{Name: "eval-every", Usage: "steps between measurements of the held-out loss, or a part of " +
			"an epoch such as 0.5epoch; 0 measures only before and after", Value: &t.EvalEvery},
		&cli.GenericFlag{Name: "sample", Usage: "answer this `PROMPT` at each of these measurements, for the run's " +
			"record and veratune watch; may be given more than once",
			Value: &f.samples},
		&cli.IntFlag{Name: "patience",
			Usage: "end early after so many measurements in a row without a new lowest held-out loss; 0 never does",
			Value: t.Patience, Destination: &t.Patience},
		&cli.IntFlag{Name: "save-every", Usage: "steps between checkpoints; 0 saves only at the end and on Ctrl-C",
			Value: t.SaveEvery, Destination: &t.SaveEvery},
		&cli.IntFlag{Name: "keep", Usage: "newest checkpoints that are kept", Value: t.Keep, Destination: &t.Keep},
		&cli.StringFlag{Name: "recompute", Usage: "compute intermediate results again in the backward pass instead " +
			"of keeping them: auto (by memory), all, none", Value: string(f.Engine.Recompute),
			Destination: &f.recipe.recompute},
		f.engine.deviceFlag(),
		f.engine.planFlag(),
		f.engine.memoryFlag(),
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "run `FOLDER`", Value: f.o.Folder,
			Destination: &f.o.Folder},
		&cli.BoolFlag{Name: "resume", Usage: "go on with the run in the run folder", Destination: &f.o.Resume},
		&cli.BoolFlag{Name: "force", Usage: "start anew; a run in the run folder is renamed", Destination: &f.o.Force},
	}
}

// options brings the flags into the options and checks them all.
func (f *training) options(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	r, o := f.recipe, &f.o
	recipe := finetune.Default(vera.Method(r.method))
	if o.Adapter.Method = recipe.Adapter.Method; !c.IsSet("rank") {
		o.Adapter.Rank = recipe.Adapter.Rank
	}
	if !c.IsSet("lr") {
		o.Train.LR = recipe.Train.LR
	}
	for _, name := range f.foreign() {
		if c.IsSet(name) {
			return usageError{fmt.Errorf("%s: is not for method %s", name, o.Adapter.Method)}
		}
	}
	for _, name := range ofAdapter {
		if o.From != "" && c.IsSet(name) {
			return usageError{fmt.Errorf("%s: is what the adapter of --from has", name)}
		}
	}
	o.Adapter.Targets = splitWords(c.StringSlice("targets"))
	if c.IsSet("targets") && len(o.Adapter.Targets) == 0 { // as of a variable that is not set
		return usageError{errors.New("targets: is given, and empty")}
	}
	o.Adapter.Layers = f.layers.indices()
	o.Adapter.Dropout, o.Train.Schedule = float32(r.dropout), train.Schedule(r.schedule)
	if o.Adapter.Method == vera.MethodLoRA {
		o.Adapter.Alpha, o.Adapter.DInitial, o.Adapter.Init = float32(r.alpha), 0, ""
	} else {
		o.Adapter.Alpha, o.Adapter.DInitial, o.Adapter.Init = 0, float32(r.dInitial), vera.Init(r.init)
	}
	if r.seed > math.MaxUint32 {
		return usageError{fmt.Errorf("seed %d: from 0 to %d", r.seed, uint32(math.MaxUint32))}
	}
	o.Seed(uint32(r.seed))
	if len(f.evalFiles) > 0 && c.IsSet("held-out") {
		return usageError{errors.New("eval-data and held-out: give one of them")}
	}
	f.Engine.Recompute = model.Recompute(r.recompute)
	if err := validate(f.engine.validate()); err != nil {
		return err
	}
	o.Model, o.PreTokenizer, o.Engine = f.Model, f.PreTokenizer, f.Engine
	o.Data, o.EvalData, o.Samples = f.files, f.evalFiles, f.samples
	return validate(o.Validate())
}

func (f *training) run(c *cli.Context) error {
	if mpi.Launched() {
		return f.together(c)
	}
	return f.report(c)
}

// report trains and tells of it.
func (f *training) report(c *cli.Context) error {
	result, err := f.learn(c, c.App.ErrWriter)
	if longer := (train.Longer{}); errors.As(err, &longer) {
		return fmt.Errorf("%w: %s", err, f.goingOn(c, longer))
	}
	if err != nil {
		return err
	}
	if result.Before != nil && result.After != nil {
		fmt.Fprintf(c.App.Writer, "held-out loss %.4f → %.4f\n", result.Before.Loss, result.After.Loss)
	}
	switch result.EndedBy {
	case "":
	case "patience":
		where := result.BestAdapter
		if where == "" {
			where = "the model before training"
		}
		fmt.Fprintf(c.App.Writer, "patience: ended after step %d; the lowest held-out loss, %.4f, is that of "+
			"step %d: %s\n",
			result.Steps, result.Best.Loss, result.Best.Step, where)
	default:
		fmt.Fprintf(c.App.Writer, "%s: halted after step %d; --resume goes on\n", result.EndedBy, result.Steps)
	}
	fmt.Fprintf(c.App.Writer, "adapter: %s\n", result.Adapter)
	if worse := f.worse(result); worse != "" {
		fmt.Fprintln(c.App.ErrWriter, "warning: "+worse)
	}
	return nil
}

// clearlyHigher is how many times the first step's loss a training loss is that chance doesn't explain: steps see
// different rows.
const clearlyHigher = 1.5

// worse says that a training made the model worse, and what to try; "" where it did not.
func (f *training) worse(r train.Result) string {
	try := fmt.Sprintf("try a --lr below %g, a --clip such as 1, or a longer warm-up with --warmup-ratio", f.o.Train.LR)
	switch {
	case r.Before != nil && r.After.Loss > r.Before.Loss && r.BestAdapter != "":
		return fmt.Sprintf("the model is worse than before training: held-out loss %.4f → %.4f; %s has the lowest, "+
			"%.4f after step %d; %s",
			r.Before.Loss, r.After.Loss, r.BestAdapter, r.Best.Loss, r.Best.Step, try)
	case r.Before != nil && r.After.Loss > r.Before.Loss:
		return fmt.Sprintf("the model is worse than before training: held-out loss %.4f → %.4f; there is no %s, as "+
			"no measurement was lower; %s", r.Before.Loss, r.After.Loss, train.BestFile, try)
	case r.Before == nil && r.Loss > clearlyHigher*r.First:
		return fmt.Sprintf("the model is worse than before training: loss %.4f → %.4f; %s", r.First, r.Loss, try)
	}
	return ""
}

// learn trains. What the model and the data are goes to report.
func (f *training) learn(c *cli.Context, report io.Writer) (train.Result, error) {
	f.o.Config = func() ([]byte, error) { return f.config(c) }
	f.o.Version, f.o.Report, f.o.Progress = version(), reportTo(report), c.App.ErrWriter
	return finetune.Run(c.Context, &f.o)
}

func orPath(name, path string) string {
	if name == "" {
		return path
	}
	return name
}

// splitWords takes lists with commas, spaces or both apart.
func splitWords(list []string) []string {
	return strings.FieldsFunc(strings.Join(list, ","), func(r rune) bool { return r == ',' || r == ' ' })
}

// decimal is the number that a float32 was written as: 0.1, not 0.10000000149.
func decimal(v float32) float64 {
	d, _ := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
	return d
}
