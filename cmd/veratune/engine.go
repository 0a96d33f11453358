package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// engine holds what the commands that open a model share.
type engine struct {
	path    string
	adapter string
	force   bool // take the adapter of another base model
	options model.Options
	compute string // "" is the default of the command on the CPU, and f32 elsewhere
	cpu     model.Compute
	plan    string
	memory  string
}

func newEngine(compute model.Compute) *engine {
	o := model.Default()
	return &engine{options: o, cpu: compute, plan: string(o.Plan)}
}

func (e *engine) flags() []cli.Flag {
	model := &cli.StringFlag{Name: "model", Aliases: []string{"m"}, Usage: "GGUF `FILE` of a Llama", Required: true, Destination: &e.path}
	return append([]cli.Flag{model}, e.computeFlags()...)
}

func (e *engine) computeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "threads", Usage: "threads to compute with", Value: e.options.Threads, Destination: &e.options.Threads},
		&cli.StringFlag{Name: "compute", Usage: "arithmetic of the matrix products: f32 or bf16", DefaultText: string(e.cpu) + "; f32 on other devices than the CPU", Destination: &e.compute},
	}
}

func (e *engine) adapterFlag() cli.Flag {
	return &cli.StringFlag{Name: "adapter", Aliases: []string{"a"}, Usage: "adapter `FILE` of veratune, or folder of PEFT", Destination: &e.adapter}
}

// forceFlag goes with adapterFlag.
func (e *engine) forceFlag() cli.Flag {
	return &cli.BoolFlag{Name: "force", Usage: "use the adapter although it was trained on another model, where its shapes fit", Destination: &e.force}
}

// dataFlags are the flags of how rows become batches.
func dataFlags(o *alpaca.Options) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "template", Usage: "form of the prompts: " + strings.Join(alpaca.Templates, ", ") + "; auto is that of the adapter's training, else of the model", Value: o.Template, Destination: &o.Template},
		&cli.IntFlag{Name: "max-length", Usage: "longest sample in tokens; longer ones are cut", Value: o.MaxLength, Destination: &o.MaxLength},
		&cli.BoolFlag{Name: "strict", Usage: "stop at the first bad row instead of leaving it out", Destination: &o.Strict},
		&cli.IntFlag{Name: "batch", Usage: "samples that are computed together", Value: o.Batch, Destination: &o.Batch},
	}
}

// planFlag is for the commands that train.
func (e *engine) planFlag() cli.Flag {
	return &cli.StringFlag{Name: "plan", Usage: "how to multiply with the adapted matrices: factored, merged, or auto for the one with fewer multiplications", Value: e.plan, Destination: &e.plan}
}

// deviceFlag is for the commands that train or measure the loss.
func (e *engine) deviceFlag() cli.Flag {
	return &cli.StringFlag{Name: "device", Usage: "processor that computes: cpu, another that `veratune devices` lists, or auto", Value: e.options.Device, Destination: &e.options.Device}
}

func (e *engine) memoryFlag() cli.Flag {
	return &cli.StringFlag{Name: "memory", Usage: "limit of the process's memory, or the device's, such as 6GB or 800MiB, which --recompute auto keeps to; left out, half of the free memory is used, or nine tenths of the device's", Destination: &e.memory}
}

func (e *engine) validate() error {
	if e.memory != "" {
		n, err := humanize.ParseBytes(e.memory)
		if err != nil || n == 0 || n > math.MaxInt64 {
			return fmt.Errorf("memory %q: a size such as 6GB or 800MiB", e.memory)
		}
		e.options.Memory = int64(n)
	}
	var err error
	if e.options.Device, err = model.DeviceName(e.options.Device); err != nil {
		return err
	}
	e.options.Compute, e.options.Plan = model.Compute(e.compute), model.Plan(e.plan)
	switch {
	case e.compute != "":
	case e.options.Device == model.CPU:
		e.options.Compute = e.cpu
	default:
		e.options.Compute = model.ComputeF32
	}
	return e.options.Validate()
}

// open opens the model, its tokenizer and, where one is named, the adapter.
func (e *engine) open() (*session, error) {
	m, err := model.Open(e.path, e.options)
	if err != nil {
		return nil, err
	}
	s := &session{Model: m}
	if s.tokenizer, err = m.Tokenizer(); err != nil {
		s.Close()
		return nil, err
	}
	if e.adapter == "" {
		return s, nil
	}
	if s.adapter, err = vera.Load(e.adapter, m.Base(), e.loadOptions()...); err == nil {
		err = m.Attach(s.adapter)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (e *engine) loadOptions() []vera.LoadOption {
	if e.force {
		return []vera.LoadOption{vera.AnyBase}
	}
	return nil
}

// session is an open model with its tokenizer and perhaps an adapter.
type session struct {
	*model.Model
	tokenizer model.Tokenizer
	adapter   *vera.Adapter
}

func (s *session) Close() {
	if s.tokenizer.Vocab != nil {
		s.tokenizer.Close()
	}
	s.Model.Close()
}

// factTemplate is the fact of an adapter that names the template of its training data.
const factTemplate = "template"

// template is the one asked for; auto is that of the adapter's training where it is known.
func (s *session) template(asked string) string {
	if asked == alpaca.Auto && s.adapter != nil && s.adapter.Facts[factTemplate] != "" {
		return s.adapter.Facts[factTemplate]
	}
	return asked
}

// data is load without multiple-choice questions.
func (s *session) data(path string, o alpaca.Options, report io.Writer) (*alpaca.Dataset, error) {
	d, err := s.load(path, o, report)
	if err == nil && len(d.Questions) > 0 {
		return nil, fmt.Errorf("%s: holds multiple-choice questions, which are for the loss command alone; want instruction, chat or prompt rows", path)
	}
	return d, err
}

// load loads a data file, or the starter set where path is empty, and reports what was left out.
func (s *session) load(path string, o alpaca.Options, report io.Writer) (*alpaca.Dataset, error) {
	o.Template = s.template(o.Template)
	load := func() (*alpaca.Dataset, error) { return alpaca.Load(path, s.tokenizer, o) }
	if path == "" {
		load = func() (*alpaca.Dataset, error) { return alpaca.Starter(s.tokenizer, o) }
	}
	d, err := load()
	if err != nil {
		return nil, err
	}
	const shown = 5
	for i, bad := range d.Bad {
		if i == shown {
			fmt.Fprintf(report, "… and %d more bad rows\n", len(d.Bad)-shown)
			break
		}
		fmt.Fprintf(report, "left out: %v\n", bad)
	}
	fmt.Fprintf(report, "%s: %v\n", d.Name, d.Counts())
	return d, nil
}
