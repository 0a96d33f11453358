package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/train"
)

// sweep holds the options of the sweep command.
type sweep struct {
	options  []*alternatives // of the trainings
	switches []string        // those of them that have no value
	fraction float64
	draws    int
	halving  bool
	maxTime  time.Duration
	out      string
	resume   bool
	force    bool
	told     bool // what model and data there are
}

// ownOptions of a sweep stand in for those of its trainings.
var ownOptions = []string{"max-time", "out", "resume", "force"}

func sweepCommand() *cli.Command {
	s := &sweep{}
	return &cli.Command{
		Name:  "sweep",
		Usage: "find the best setting by short trainings on a part of the data",
		Description: "Takes the options of alpaca, and several values where alpaca takes one: --lr 1e-3,4e-3,1e-2 " +
			"--rank 256,1024 tries all combinations, --lr 1e-4..1e-2 draws from the\n" +
			"range, evenly on a logarithmic scale. Options that take a list or name a file are given several times " +
			"instead: --targets attn_q,attn_v --targets ffn_down.\n\n" +
			"All are trained for a part of their steps, the half with the higher held-out loss is left, and the " +
			"others go on for twice as long, until two are left, which reach the\n" +
			"end. The learning rate is always that of the whole short training, so that whatever reaches the end is " +
			"as if it had been trained in one go. Measuring takes its time, too:\n" +
			"--held-out 200 keeps it short where there are many rows.\n\n" +
			"OUT holds the runs, sweep.json and sweep.svg with all losses, and best.yaml, which trains in full:\n\n" +
			"  veratune alpaca --config OUT/best.yaml --out runs/full\n\n" +
			"Ctrl-C saves; the same command with --resume goes on.",
		Flags: s.flags(),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return s.run(c)
		},
	}
}

func (s *sweep) flags() []cli.Flag {
	var flags []cli.Flag
	for _, f := range newTraining().flags() {
		if slices.Contains(ownOptions, f.Names()[0]) {
			continue
		}
		f = alternativesOf(f)
		if g, ok := f.(*cli.GenericFlag); ok {
			s.options = append(s.options, g.Value.(*alternatives))
		} else {
			s.switches = append(s.switches, f.Names()[0])
		}
		flags = append(flags, f)
	}
	return append(flags,
		&cli.Float64Flag{Name: "fraction", Usage: "part of the rows to train on, drawn by the seed; 1 for all",
			Value: 0.1, Destination: &s.fraction},
		&cli.IntFlag{Name: "draws", Usage: "numbers to draw from each range", Value: 8, Destination: &s.draws},
		&cli.BoolFlag{Name: "halving", Usage: "leave the worse half on the way; --halving=false trains all to the end",
			Value: true, Destination: &s.halving},
		&cli.DurationFlag{Name: "max-time",
			Usage:       "halt the sweep when this time is over, such as 7h30m; --resume goes on. 0 for no limit",
			Destination: &s.maxTime},
		&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "sweep `FOLDER`", Value: "runs/sweep",
			Destination: &s.out},
		&cli.BoolFlag{Name: "resume", Usage: "go on with the sweep in the sweep folder", Destination: &s.resume},
		&cli.BoolFlag{Name: "force", Usage: "start anew; a sweep in the sweep folder is renamed",
			Destination: &s.force},
	)
}

func (s *sweep) run(c *cli.Context) error {
	fixed, trials, err := s.trials(c)
	if err != nil {
		return usageError{err}
	}
	if err := train.CheckSweep(s.out, s.resume, s.force); err != nil {
		return err
	}
	// All of them are checked before the first one is trained.
	var inputs []string
	for _, t := range trials {
		if err := s.training(c, slices.Concat(fixed, t), func(f *training, _ *cli.Context) error {
			if len(f.evalFiles) == 0 && f.o.HeldOut == 0 {
				return usageError{errors.New("sweep: needs held-out or eval-data, to compare on")}
			}
			inputs = append(inputs, f.o.Inputs()...)
			return nil
		}); err != nil {
			return err
		}
	}
	race := &train.Sweep{
		Folder: s.out, Whole: !s.halving, Setup: setupOf(fixed, s.fraction), MaxTime: s.maxTime, Resume: s.resume,
		Force: s.force, Inputs: inputs, Progress: c.App.ErrWriter,
	}
	for _, t := range trials {
		options := map[string]string{}
		for _, chosen := range t {
			options[chosen.name] = chosen.value()
		}
		race.Trials = append(race.Trials, options)
	}
	race.Train = func(_ context.Context, i int, folder string, part float64, left time.Duration) (result train.Result,
		err error) {
		err = s.training(c, slices.Concat(fixed, trials[i]), func(f *training, c *cli.Context) error {
			report := s.reporter(c)
			f.o.Folder, f.o.Resume, f.o.MaxTime = folder, train.Begun(folder), left
			f.o.Halt = func(steps int) int { return haltAt(part, steps, report) }
			result, err = f.learn(c, report)
			return err
		})
		return result, err
	}
	now, err := race.Run(c.Context)
	if err != nil {
		return err
	}
	if err := printSweep(c.App.Writer, trials[0], now); err != nil {
		return err
	}
	if now.Halted {
		_, err := fmt.Fprintln(c.App.Writer, "max-time: halted; --resume goes on")
		return err
	}
	if len(now.Tied) > 0 {
		return s.tied(c.App.Writer, now)
	}
	return s.training(c, slices.Concat(fixed, trials[now.Best.Trial]), func(f *training, trial *cli.Context) error {
		config, err := f.config(trial, "out", "steps", "max-steps", "max-time")
		if err != nil {
			return err
		}
		best := filepath.Join(s.out, train.SweepBest)
		if err := durable.WriteFile(best, config, 0o666); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		if _, err := fmt.Fprintf(c.App.Writer, "best: %s; train it in full with veratune alpaca --config %s\n",
			now.Best.Name(), best); err != nil {
			return err
		}
		reached := now.Best.Rungs[len(now.Best.Rungs)-1].Loss
		if before := now.Best.Before; before != nil && reached >= before.Loss {
			_, err = fmt.Fprintf(c.App.ErrWriter, "warning: the best is no better than the model was before "+
				"training: held-out loss %.4f → %.4f; try lower --lr, or more rows with --fraction\n",
				before.Loss, reached)
		}
		return err
	})
}

// tied tells of a sweep that has no best.
func (s *sweep) tied(w io.Writer, now *train.Sweeping) error {
	var names []string
	for _, t := range now.Tied {
		names = append(names, t.Name())
	}
	last := now.Tied[0].Rungs[len(now.Tied[0].Rungs)-1]
	_, err := fmt.Fprintf(w, "no best: %s have the same held-out loss, %.4f after step %d; compare settings that "+
		"differ more, or train longer, with --fraction or --epochs\n",
		strings.Join(names, " and "), last.Loss, last.Step)
	return err
}

// shortest is the number of steps below which trainings are too short to be told apart.
const shortest = 5

// haltAt is the step at which a part of so many steps is over, 0 for all of them. It tells where the trainings are
// compared after so few that this tells little.
func haltAt(part float64, steps int, report io.Writer) int {
	step := int(math.Ceil(part * float64(steps)))
	if step < shortest {
		fmt.Fprintf(report, "warning: the trainings are compared after step %d of %d, too early to tell settings "+
			"apart; more steps come from more rows (--fraction), more --epochs, or a smaller --batch or "+
			"--accumulation\n", step, steps)
	}
	if part < 1 {
		return step
	}
	return 0
}

// reporter tells of the model and the data once.
func (s *sweep) reporter(c *cli.Context) io.Writer {
	if s.told {
		return io.Discard
	}
	s.told = true
	return c.App.ErrWriter
}

// trials are the options that all trainings have, and what they differ in.
func (s *sweep) trials(c *cli.Context) (fixed []choice, trials [][]choice, err error) {
	seed := uint64(0)
	for _, o := range s.options {
		if len(o.choices) != 1 {
			continue
		}
		fixed = append(fixed, o.choices[0])
		if o.name == "seed" {
			seed, _ = strconv.ParseUint(o.choices[0].value(), 0, 64) // the training complains
		}
	}
	for _, name := range s.switches {
		if c.IsSet(name) {
			fixed = append(fixed, choice{name, []string{strconv.FormatBool(c.Bool(name))}})
		}
	}
	switch {
	case !(s.fraction > 0 && s.fraction <= 1):
		return nil, nil, fmt.Errorf("fraction %v: above 0, and 1 at most", s.fraction)
	case s.draws < 1:
		return nil, nil, fmt.Errorf("draws %d: at least 1", s.draws)
	case s.maxTime < 0:
		return nil, nil, fmt.Errorf("max-time %v: 0 for no limit, or more", s.maxTime)
	case s.resume && s.force:
		return nil, nil, errors.New("resume and force: give one of them")
	}
	if trials = combine(s.options, s.draws, seed); len(trials) < 2 {
		return nil, nil, errors.New("there is nothing to compare: give an option several values, such as --lr " +
			"1e-3,4e-3, or a range, --lr 1e-4..1e-2")
	}
	return fixed, trials, nil
}

// training does something with a training of these options, as the command line of alpaca would have them.
func (s *sweep) training(c *cli.Context, options []choice, do func(*training, *cli.Context) error) error {
	f := newTraining()
	f.o.Fraction = s.fraction
	command := &cli.Command{
		Name: "sweep", Flags: f.flags(), Before: f.options, OnUsageError: onUsageError,
		Action: func(c *cli.Context) error { return do(f, c) },
	}
	configurable(command)
	app := &cli.App{Metadata: c.App.Metadata, Writer: c.App.Writer, ErrWriter: c.App.ErrWriter,
		ExitErrHandler: c.App.ExitErrHandler, Commands: []*cli.Command{command}}
	args := []string{"veratune", command.Name}
	for _, o := range options {
		for _, word := range o.words {
			args = append(args, "--"+o.name+"="+word)
		}
	}
	return app.RunContext(c.Context, args)
}

// setupOf is what a sweep must be resumed with.
func setupOf(fixed []choice, fraction float64) map[string]any {
	setup := map[string]any{"fraction": fraction}
	for _, o := range fixed {
		setup[o.name] = o.value()
	}
	return setup
}

// printSweep writes a line for each trial: its options, and its held-out loss after each part of its steps.
func printSweep(w io.Writer, options []choice, now *train.Sweeping) error {
	t := newTable(w)
	for _, o := range options {
		fmt.Fprint(t, o.name, "\t")
	}
	fmt.Fprint(t, "before")
	for _, part := range now.Rungs {
		fmt.Fprintf(t, "\t%.3g%%", 100*part)
	}
	fmt.Fprintln(t, "\tsteps\trun")
	for _, trial := range now.Ranked() {
		for _, o := range options {
			fmt.Fprint(t, trial.Options[o.name], "\t")
		}
		fmt.Fprint(t, orDash(evaluation(trial.Before, false)))
		steps := ""
		for rung := range now.Rungs {
			loss := ""
			switch {
			case rung < len(trial.Rungs):
				loss, steps = evaluation(&trial.Rungs[rung], false), strconv.Itoa(trial.Rungs[rung].Step)
			case rung == len(trial.Rungs) && trial.Diverged:
				loss = "diverged"
			}
			fmt.Fprint(t, "\t", orDash(loss))
		}
		fmt.Fprintf(t, "\t%s\t%s\n", orDash(steps), trial.Run)
	}
	return t.Flush()
}
