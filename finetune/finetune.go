// Package finetune trains an adapter of a model on instruction rows: it opens the model, makes or loads the adapter,
// reads and splits the rows, and hands all of it to package train. Default has the recipes of the VeRA paper.
//
// It must not print: messages go to Options.Report, and the progress of the steps to Options.Progress.
package finetune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// Options say what is trained, on what, and how. Run puts in what only the model decides.
type Options struct {
	Model        string // path of a GGUF file
	PreTokenizer string // in llama.cpp's words; "" is that of the model's file
	Engine       model.Options

	Adapter vera.Config
	// adapter to begin with, in place of a new one; its own configuration takes the place of Adapter's, but for the
	// dropout
	From string

	Data     []alpaca.Part // files of rows, or folders or patterns of them; none is the built-in starter set
	Rows     alpaca.Options
	HeldOut  float64       // rows that are kept back to measure the loss: a part below 1, or a number; 0 for none
	EvalData []alpaca.Part // files of rows to measure the loss on, instead of HeldOut
	Fraction float64       // part of the rows to train on, drawn by the seed

	Train    train.Config
	Samples  []string // prompts that are answered at each measurement of the held-out loss, for the run's record
	MaxSteps int      // as in train.Run, as are the following
	MaxTime  time.Duration
	NoHalt   bool
	Halt     func(steps int) int // the step to halt at instead, of so many that would be made; 0 or nil for none

	Folder string // of the run
	Resume bool
	Force  bool
	Group  train.Group
	Config func() ([]byte, error) // what train.Run keeps as its Options, asked once the model is open; nil for nothing

	Version  string // of the program, for the run's record
	Report   session.Report
	Progress io.Writer // as in train.Run
}

// Default is the recipe of a method in Table 9 of the VeRA paper, on a twentieth of the rows held out. Model is left to
// be named.
func Default(method vera.Method) Options {
	o := Options{
		Engine: model.Default(), Adapter: vera.Default(), Rows: alpaca.Default(), HeldOut: 0.05, Fraction: 1,
		Train: train.Default(), Folder: "runs/alpaca",
	}
	if method == vera.MethodLoRA {
		o.Adapter, o.Train.LR = vera.LoRADefault(), 4e-4
	}
	o.Adapter.Method = method
	return o
}

// Seed sets the seed of the random matrices, of the order of the rows and of dropout.
func (o *Options) Seed(seed uint32) {
	o.Adapter.Seed, o.Rows.Seed, o.Train.Seed = seed, uint64(seed), uint64(seed)
}

// Validate returns an error that says what is allowed for the first wrong option, as far as that can be told without
// the model.
func (o *Options) Validate() error {
	measured := len(o.EvalData) > 0 || o.HeldOut > 0
	switch {
	case o.HeldOut < 0:
		return fmt.Errorf("held-out %g: a part below 1, or a number of rows", o.HeldOut)
	case o.Train.Patience > 0 && !measured:
		return errors.New("patience: needs held-out or eval-data")
	case len(o.Samples) > 0 && !measured:
		return errors.New("sample: needs held-out or eval-data, as answers are made when the loss on them is measured")
	case o.MaxSteps < 0 || o.MaxTime < 0:
		return fmt.Errorf("max-steps %d, max-time %v: 0 for no limit, or more", o.MaxSteps, o.MaxTime)
	case o.Resume && o.Force:
		return errors.New("resume and force: give one of them")
	}
	if o.From == "" {
		if err := o.Adapter.Validate(); err != nil {
			return err
		}
	}
	if err := o.Engine.Validate(); err != nil {
		return err
	}
	if err := o.Rows.Validate(); err != nil {
		return err
	}
	return o.Train.Validate()
}

// OptionError is a wrong option that shows only beside the model or the adapter.
type OptionError struct{ error }

// Unwrap gives the error that says what is wrong.
func (e OptionError) Unwrap() error { return e.error }

// Inputs are the files that a training reads.
func (o *Options) Inputs() []string {
	list := []string{o.Model, o.From, o.Rows.Template}
	for _, named := range [][]alpaca.Part{o.Data, o.EvalData} {
		files, _, _ := alpaca.Find(named) // what is wrong with a name is told by those who read it
		for _, p := range slices.Concat(named, files) {
			list = append(list, p.Path)
		}
	}
	return slices.DeleteFunc(list, func(path string) bool { return path == "" })
}

// Run trains to the end or a limit, or until ctx is cancelled, and leaves a run folder. It fails as train.Run does,
// before the model is read where the folder cannot be used.
func Run(ctx context.Context, o *Options) (train.Result, error) {
	if o.Group == nil || o.Group.Rank() == 0 { // which writes the folder
		if err := train.CheckFolder(o.Folder, o.Resume, o.Force, o.Inputs()...); err != nil {
			return train.Result{}, err
		}
	}
	o.settle()
	p, err := Open(ctx, o)
	if err != nil {
		return train.Result{}, err
	}
	defer p.Close()
	if _, err := p.Memory(); err != nil { // better known now than in the middle of the run
		return train.Result{}, err
	}
	run, err := p.run()
	if err != nil {
		return train.Result{}, err
	}
	return run.Train(ctx)
}
