package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/mpi"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// finetune holds the options of the alpaca command.
type finetune struct {
	*engine
	data      alpaca.Options
	vera      vera.Config
	train     train.Config
	recipe    recipeFlags
	files     dataFiles
	layers    blocks
	evalFiles measuredFiles
	heldOut   float64
	from      string
	samples   texts
	maxSteps  int
	maxTime   time.Duration
	noHalt    bool
	out       string
	resume    bool
	force     bool
	ranks     train.Group // that train together, or nil

	// Of a sweep, which are not flags: parts of the rows, and of the steps, that are trained on, and whether it is compared with others.
	fraction, part float64
	compared       bool
}

// recipeFlags are flags whose type on the command line is not that of the option.
type recipeFlags struct {
	recompute, init, schedule, method string
	dInitial, dropout, alpha          float64
	seed                              uint64
}

// defaultHeldOut is the part of the rows that is not trained on but measured.
const defaultHeldOut = 0.05

func newFinetune() *finetune {
	return &finetune{engine: newTrainer(), data: alpaca.Default(), vera: vera.Default(), train: train.Default(), fraction: 1, part: 1}
}

func (f *finetune) flags() []cli.Flag {
	return slices.Concat(f.engine.flags(), f.rowFlags(), dataFlags(&f.data), f.veraFlags(), f.trainFlags())
}

func alpacaCommand() *cli.Command {
	f := newFinetune()
	printConfig := false
	return &cli.Command{
		Name:  "alpaca",
		Usage: "finetune a model on instruction data",
		Description: "Trains a VeRA adapter, or with --method lora a LoRA, on instruction rows and writes it to OUT/adapter.gguf. The defaults are the recipe of the VeRA paper's Table 9.\n" +
			"Ctrl-C saves the run; the same command with --resume goes on to the same bits. Started by mpirun or srun, several processes share each step.",
		Flags:  append(f.flags(), &cli.BoolFlag{Name: "print-config", Usage: "print all options as a file for --config, and do nothing else", Destination: &printConfig}),
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

func (f *finetune) rowFlags() []cli.Flag {
	return []cli.Flag{
		&cli.GenericFlag{Name: "data", Usage: "`FILE` of instruction, chat or prompt rows: " + filesUsage + ". May be given more than once; FILE:WEIGHT has an epoch see that part of the rows, or see them so often; left out, the built-in starter set", Value: &f.files},
		&cli.Float64Flag{Name: "held-out", Usage: "rows that are kept back to measure the loss: a part below 1, or a number; 0 for none", Value: defaultHeldOut, Destination: &f.heldOut},
		&cli.GenericFlag{Name: "eval-data", Usage: "`FILE` of rows to measure the loss on, instead of --held-out; as --data, without weights", Value: &f.evalFiles},
	}
}

func (f *finetune) veraFlags() []cli.Flag {
	return []cli.Flag{
		methodFlag(&f.recipe.method),
		&cli.StringFlag{Name: "from", Usage: "begin with what the adapter in `FILE` has learnt, also one of PEFT or a LoRA, or that of a run folder; its rank, layers and random matrices stay", Destination: &f.from, Action: findAdapter(&f.from)},
		&cli.IntFlag{Name: "rank", Usage: rankUsage, DefaultText: rankDefault(), Destination: &f.vera.Rank},
		&cli.StringSliceFlag{Name: "targets", Usage: "kinds of linear layers to adapt: " + strings.Join(vera.Targets, ", ") + "; inspect lists those of a model", DefaultText: "all that the model has"},
		&cli.GenericFlag{Name: "layers", Usage: "blocks to adapt, counted from 0, such as 0-9,20; left out, all", Value: &f.layers},
		&cli.Uint64Flag{Name: "seed", Usage: "seed of the random matrices (32 bits), the order of the rows and dropout", Destination: &f.recipe.seed},
		&cli.Float64Flag{Name: "d-initial", Usage: "every number of d before training", Value: decimal(f.vera.DInitial), Destination: &f.recipe.dInitial},
		&cli.Float64Flag{Name: "dropout", Usage: "probability that training zeroes an input of the adapter", Destination: &f.recipe.dropout},
		&cli.StringFlag{Name: "init", Usage: "distribution of the shared pair: kaiming_uniform (PEFT's), kaiming_normal, uniform", Value: string(f.vera.Init), Destination: &f.recipe.init},
		&cli.StringFlag{Name: "only", Usage: "train this one of VeRA's vectors alone: b, or d (then b is 1 and d begins at 0)", Destination: &f.vera.Only},
		&cli.BoolFlag{Name: "unique-pairs", Usage: "give each layer random matrices of its own instead of the shared pair", Destination: &f.vera.UniquePairs},
		&cli.Float64Flag{Name: "alpha", Usage: "lora: the change is alpha/rank · B A", Value: float64(vera.LoRADefault().Alpha), Destination: &f.recipe.alpha},
	}
}

// loraLR is the learning rate of LoRA's row in the paper's Table 9.
const loraLR = 4e-4

const rankUsage = "rank of the random matrices, or of a LoRA"

func rankDefault() string {
	return fmt.Sprintf("%d; lora: %d", vera.Default().Rank, vera.LoRADefault().Rank)
}

func methodFlag(to *string) cli.Flag {
	return &cli.StringFlag{Name: "method", Usage: "what to train: vera, or lora (the recipe of its row in the same table)", Value: string(vera.MethodVeRA), Destination: to}
}

// recipe is a method's own; a method that there is not is found when the adapter is made.
func recipe(method string) vera.Config {
	if method == string(vera.MethodLoRA) {
		return vera.LoRADefault()
	}
	c := vera.Default()
	c.Method = vera.Method(method)
	return c
}

func (f *finetune) trainFlags() []cli.Flag {
	t := &f.train
	return []cli.Flag{
		&cli.Float64Flag{Name: "lr", Usage: "highest learning rate", DefaultText: fmt.Sprintf("%g; lora: %g", t.LR, loraLR), Destination: &t.LR},
		&cli.StringFlag{Name: "schedule", Usage: "learning rate after the warm-up: cosine, linear, constant", Value: string(t.Schedule), Destination: &f.recipe.schedule},
		&cli.Float64Flag{Name: "warmup-ratio", Usage: "part of all steps in which the learning rate rises", Value: t.WarmupRatio, Destination: &t.WarmupRatio},
		&cli.IntFlag{Name: "accumulation", Usage: "batches in a step", Value: t.Accumulation, Destination: &t.Accumulation},
		&cli.Float64Flag{Name: "epochs", Usage: "times to go through the rows; 0.5 for half of them", Value: t.Epochs, Destination: &t.Epochs},
		&cli.IntFlag{Name: "steps", Usage: "steps to train, instead of --epochs", Destination: &t.Steps},
		&cli.Float64Flag{Name: "weight-decay", Usage: "AdamW's decoupled weight decay", Value: t.WeightDecay, Destination: &t.WeightDecay},
		&cli.Float64Flag{Name: "clip", Usage: "largest norm of a step's gradient; 0 for no limit", Value: t.Clip, Destination: &t.Clip},
		&cli.IntFlag{Name: "max-steps", Usage: "halt after this step, at the learning rate that it has in the whole training; --resume goes on. 0 for no limit", Destination: &f.maxSteps},
		&cli.DurationFlag{Name: "max-time", Usage: "halt after the step in which this time is over, such as 7h30m; --resume goes on. 0 for no limit", Destination: &f.maxTime},
		&cli.BoolFlag{Name: "no-halt", Usage: "go on where the loss has been above three times that before training for ten steps, which else ends the run; one that isn't finite always ends it", Destination: &f.noHalt},
		&cli.GenericFlag{Name: "eval-every", Usage: "steps between measurements of the held-out loss, or a part of an epoch such as 0.5epoch; 0 measures only before and after", Value: &t.EvalEvery},
		&cli.GenericFlag{Name: "sample", Usage: "answer this `PROMPT` at each of these measurements, for the run's record and veratune watch; may be given more than once. An answer's memory comes on top of --memory", Value: &f.samples},
		&cli.IntFlag{Name: "patience", Usage: "end early after so many measurements in a row without a new lowest held-out loss; 0 never does", Value: t.Patience, Destination: &t.Patience},
		&cli.IntFlag{Name: "save-every", Usage: "steps between checkpoints; 0 saves only at the end and on Ctrl-C", Value: t.SaveEvery, Destination: &t.SaveEvery},
		&cli.IntFlag{Name: "keep", Usage: "newest checkpoints that are kept", Value: t.Keep, Destination: &t.Keep},
		&cli.StringFlag{Name: "recompute", Usage: "compute intermediate results again in the backward pass instead of keeping them: auto (by memory), all, none", Value: string(f.engine.options.Recompute), Destination: &f.recipe.recompute},
		f.engine.deviceFlag(),
		f.engine.planFlag(),
		f.engine.memoryFlag(),
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "run `FOLDER`", Value: "runs/alpaca", Destination: &f.out},
		&cli.BoolFlag{Name: "resume", Usage: "go on with the run in the run folder", Destination: &f.resume},
		&cli.BoolFlag{Name: "force", Usage: "start anew; a run in the run folder is renamed", Destination: &f.force},
	}
}

// options brings the flags into the options and checks them all.
func (f *finetune) options(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	r := f.recipe
	f.vera.Method = vera.Method(r.method)
	if !c.IsSet("rank") {
		f.vera.Rank = recipe(r.method).Rank
	}
	if !c.IsSet("lr") {
		f.train.LR = train.Default().LR
		if f.vera.Method == vera.MethodLoRA {
			f.train.LR = loraLR
		}
	}
	for _, name := range f.foreign() {
		if c.IsSet(name) {
			return usageError{fmt.Errorf("%s: is not for method %s", name, f.vera.Method)}
		}
	}
	for _, name := range ofAdapter {
		if f.from != "" && c.IsSet(name) {
			return usageError{fmt.Errorf("%s: is what the adapter of --from has", name)}
		}
	}
	f.vera.Targets = splitWords(c.StringSlice("targets"))
	if c.IsSet("targets") && len(f.vera.Targets) == 0 { // as of a variable that is not set
		return usageError{errors.New("targets: is given, and empty")}
	}
	f.vera.Layers = f.layers.numbers()
	f.vera.Dropout, f.train.Schedule = float32(r.dropout), train.Schedule(r.schedule)
	if f.vera.Method == vera.MethodLoRA {
		f.vera.Alpha, f.vera.DInitial, f.vera.Init = float32(r.alpha), 0, ""
	} else {
		f.vera.Alpha, f.vera.DInitial, f.vera.Init = 0, float32(r.dInitial), vera.Init(r.init)
	}
	f.vera.Seed, f.data.Seed, f.train.Seed = uint32(r.seed), r.seed, r.seed
	f.engine.options.Recompute = model.Recompute(r.recompute)
	if r.seed > 1<<32-1 {
		return usageError{fmt.Errorf("seed %d: from 0 to %d", r.seed, uint32(1<<32-1))}
	}
	if f.heldOut < 0 {
		return usageError{fmt.Errorf("held-out %g: a part below 1, or a number of rows", f.heldOut)}
	}
	if len(f.evalFiles) > 0 && c.IsSet("held-out") {
		return usageError{errors.New("eval-data and held-out: give one of them")}
	}
	if f.train.Patience > 0 && len(f.evalFiles) == 0 && f.heldOut == 0 {
		return usageError{errors.New("patience: needs held-out or eval-data")}
	}
	if len(f.samples) > 0 && len(f.evalFiles) == 0 && f.heldOut == 0 {
		return usageError{errors.New("sample: needs held-out or eval-data, as answers are made when the loss on them is measured")}
	}
	if f.maxSteps < 0 || f.maxTime < 0 {
		return usageError{fmt.Errorf("max-steps %d, max-time %v: 0 for no limit, or more", f.maxSteps, f.maxTime)}
	}
	if f.resume && f.force {
		return usageError{errors.New("resume and force: give one of them")}
	}
	if f.from == "" {
		if err := validate(f.vera.Validate()); err != nil {
			return err
		}
	}
	return validate(f.engine.validate(), f.data.Validate(), f.train.Validate())
}

func (f *finetune) run(c *cli.Context) error {
	if mpi.Launched() {
		return f.together(c)
	}
	return f.report(c)
}

// report trains and tells of it.
func (f *finetune) report(c *cli.Context) error {
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
		fmt.Fprintf(c.App.Writer, "patience: ended after step %d; the lowest held-out loss, %.4f, is that of step %d: %s\n",
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

// clearlyHigher is how many times the first step's loss a training loss is that chance doesn't explain: steps see different rows.
const clearlyHigher = 1.5

// worse says that a training made the model worse, and what to try; "" where it did not.
func (f *finetune) worse(r train.Result) string {
	try := fmt.Sprintf("try a --lr below %g, a --clip such as 1, or a longer warm-up with --warmup-ratio", f.train.LR)
	switch {
	case r.Before != nil && r.After.Loss > r.Before.Loss && r.BestAdapter != "":
		return fmt.Sprintf("the model is worse than before training: held-out loss %.4f → %.4f; %s has the lowest, %.4f after step %d; %s",
			r.Before.Loss, r.After.Loss, r.BestAdapter, r.Best.Loss, r.Best.Step, try)
	case r.Before != nil && r.After.Loss > r.Before.Loss:
		return fmt.Sprintf("the model is worse than before training: held-out loss %.4f → %.4f; there is no %s, as no measurement was lower; %s", r.Before.Loss, r.After.Loss, train.BestFile, try)
	case r.Before == nil && r.Loss > clearlyHigher*r.First:
		return fmt.Sprintf("the model is worse than before training: loss %.4f → %.4f; %s", r.First, r.Loss, try)
	}
	return ""
}

// learn trains. What the model and the data are goes to report.
func (f *finetune) learn(c *cli.Context, report io.Writer) (train.Result, error) {
	if f.writes() {
		if err := train.CheckFolder(f.out, f.resume, f.force, f.inputs()...); err != nil {
			return train.Result{}, err
		}
	}
	f.keepDate()
	f.data.Context = c.Context
	p, err := f.prepare(report)
	if err != nil {
		return train.Result{}, err
	}
	defer p.Close()
	adapter, training := p.adapter, p.training
	if _, err := p.largest(f); err != nil { // better known now than in the middle of the run
		return train.Result{}, err
	}
	config, err := f.config(c)
	if err != nil {
		return train.Result{}, err
	}
	run := &train.Run{
		Options: config,
		Config:  f.train, Engine: p.learner, Params: adapter.Params, Training: training.Source(f.data),
		SaveAdapter: func(path string, facts map[string]string) error {
			adapter.Facts = facts
			return adapter.Save(path)
		},
		Facts:    f.formFacts(training),
		Setup:    f.setup(p.session, training.Form),
		About:    about{Version: version(), Model: f.path, Data: training.Name, Threads: f.engine.options.Threads, Device: f.engine.options.Device, Ranks: f.size()},
		MaxSteps: f.maxSteps, MaxTime: f.maxTime, NoHalt: f.noHalt,
		Folder: f.out, Resume: f.resume, Force: f.force, Inputs: f.inputs(), Group: f.ranks, Progress: c.App.ErrWriter,
	}
	for part := range adapter.Trained {
		run.Parts = append(run.Parts, train.Part{Layer: part.Name(), Name: part.Part, Size: len(part.Values)})
	}
	if len(f.samples) > 0 {
		if run.Samples, err = p.samples(f.engine, f.samples, training.Form); err != nil {
			return train.Result{}, err
		}
	}
	if p.heldOut != nil {
		run.HeldOut = p.heldOut.InOrder(f.data.Batch)
	}
	most := run.Steps()
	if f.maxSteps > 0 {
		most = min(most, f.maxSteps)
	}
	first := int(math.Ceil(f.part * float64(most)))
	if f.part < 1 {
		run.MaxSteps = first
	}
	f.tellShort(report, first, most)
	return run.Train(c.Context)
}

// inputs are the files that the training reads.
func (f *finetune) inputs() []string {
	list := append([]string{f.path, f.from, f.data.Template}, f.files.paths()...)
	list = append(list, dataFiles(f.evalFiles).paths()...)
	return slices.DeleteFunc(list, func(path string) bool { return path == "" })
}

// prepared is all that a training needs: an open model with a new adapter, and rows.
type prepared struct {
	*session
	learner           train.Engine
	training, heldOut *alpaca.Dataset // heldOut is nil where no rows are kept back
}

func (f *finetune) prepare(report io.Writer) (*prepared, error) {
	s, err := f.open()
	if err != nil {
		return nil, err
	}
	p := &prepared{session: s}
	if err := f.fill(p, report); err != nil {
		s.Close()
		return nil, err
	}
	return p, nil
}

// targets are the kinds of layers that the adapter adapts.
func (p *prepared) targets() (list []string) {
	for _, l := range p.adapter.Layers {
		if !slices.Contains(list, l.Target) {
			list = append(list, l.Target)
		}
	}
	return list
}

// largest plans the memory of the step with the most tokens.
func (p *prepared) largest(f *finetune) (model.Memory, error) {
	tokens, targets, lengths, err := f.train.LargestStep(p.training.Source(f.data))
	if err != nil {
		return model.Memory{}, err
	}
	return p.Plan(tokens, targets, lengths)
}

func (f *finetune) fill(p *prepared, report io.Writer) (err error) {
	if p.adapter, err = f.begin(p.Base()); err != nil {
		return err
	}
	if p.training, p.heldOut, err = f.split(p.session, report); err != nil {
		return err
	}
	if p.training, err = f.sample(p.training); err != nil {
		return err
	}
	if err := p.Attach(p.adapter); err != nil {
		return err
	}
	where := "the whole step is computed there"
	if f.ranks != nil {
		p.learner, where = p.Model, "losses and gradients are computed there, the update on the CPU"
	} else if p.learner, err = f.engine.learner(p.session, f.train); err != nil {
		return err
	}
	if device := f.engine.options.Device; device != model.CPU {
		fmt.Fprintf(report, "device %s: %s, in %s\n", device, where, f.engine.options.Compute)
	}
	fmt.Fprintf(report, "%s: %s, %d blocks, width %d; %s rank %d on %d layers (%s), %d trained numbers\n",
		orPath(p.Name, f.path), p.Architecture, p.Blocks, p.Width, p.adapter.Method, p.adapter.Rank, len(p.adapter.Layers), strings.Join(p.targets(), ", "), len(p.adapter.Params))
	return nil
}

// split gives the rows to train on and those to measure, nil where there are none.
func (f *finetune) split(s *session, report io.Writer) (training, heldOut *alpaca.Dataset, err error) {
	if training, err = s.data(f.files, f.data, report); err != nil {
		return nil, nil, err
	}
	if len(f.evalFiles) > 0 {
		if heldOut, err = s.data(dataFiles(f.evalFiles), f.data, report); err != nil {
			return nil, nil, err
		}
		if shared, all := heldOut.In(training); shared > 0 {
			fmt.Fprintf(report, "warning: %d of the %d held-out rows are in the training data, too, so that their loss says little about new rows; take them out of --data or --eval-data\n", shared, all)
		}
		return training, heldOut, nil
	}
	if f.heldOut == 0 {
		return training, nil, nil
	}
	training, heldOut, err = training.Split(f.heldOut, f.data.Seed)
	if err == nil && training.LeftOut > 0 {
		fmt.Fprintf(report, "%d rows that repeat held-out ones are left out of training\n", training.LeftOut)
	}
	return training, heldOut, err
}

// sample gives a part of the rows.
func (f *finetune) sample(rows *alpaca.Dataset) (*alpaca.Dataset, error) {
	if f.fraction == 1 {
		return rows, nil
	}
	_, part, err := rows.Split(f.fraction, f.data.Seed)
	return part, err
}

// setup is what decides the result beside the recipe and the data: a run is resumed only where it is equal.
type setup struct {
	Vera    vera.Config    `json:"vera"`
	From    string         `json:"from,omitempty"` // digest of the trained numbers that it began with
	Data    alpaca.Options `json:"data"`
	Base    string         `json:"base"` // fingerprint of the model
	Compute model.Compute  `json:"compute"`
	Plan    model.Plan     `json:"plan"`

	PreTokenizer string `json:"pre_tokenizer,omitempty"`
}

func (f *finetune) setup(s *session, form alpaca.Form) setup {
	data := f.data
	data.Form = form
	o := setup{Vera: f.vera, Data: data, Base: s.Base().Fingerprint, Compute: f.engine.options.Compute, Plan: f.engine.options.Plan, PreTokenizer: f.preTokenizer}
	if f.from != "" {
		o.From = s.adapter.Digest()
	}
	return o
}

// about is kept with a run for people.
type about struct {
	Version string `json:"version"`
	Model   string `json:"model"`
	Data    string `json:"data"`
	Threads int    `json:"threads"`
	Device  string `json:"device"`
	Ranks   int    `json:"ranks"`
}

// version is the module's, with the commit where Go knows it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
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
