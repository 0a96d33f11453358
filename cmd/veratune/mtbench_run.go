package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// mtbenchRun holds the options of the mtbench run command.
type mtbenchRun struct {
	*engine
	options    mtbench.RunOptions
	name       string // of the base model
	adapters   []string
	out        string
	questions  string
	references string
	form       alpaca.Form
}

func mtbenchRunCommand() *cli.Command {
	r := &mtbenchRun{engine: newGenerator(), options: mtbench.DefaultRunOptions(),
		form: alpaca.Form{Template: alpaca.Auto}}
	o := &r.options
	return &cli.Command{
		Name:  "run",
		Usage: "have a model, and adapters on it, answer the questions",
		Description: "Writes OUT/question.jsonl and, for the model and each adapter, OUT/model_answer/NAME.jsonl, in " +
			"FastChat's formats. What is answered already is not asked\n" +
			"again: after an interruption, or with a further adapter, the same folder goes on.",
		Flags: slices.Concat(r.engine.flags(), []cli.Flag{
			r.deviceFlag(),
			&cli.StringSliceFlag{Name: "adapter", Aliases: []string{"a"}, Usage: adapterUsage + ". It answers, too; " +
				"NAME=FILE calls it NAME instead of after its file or run folder. May be given several times"},
			r.forceFlag(),
			&cli.StringFlag{Name: "name", Usage: "what to call the model without adapters; left out, its file name",
				Destination: &r.name},
			evaluationFlag(&r.out),
			&cli.StringFlag{Name: "questions",
				Usage:       "`FILE` of questions, such as FastChat's question.jsonl; left out, the built-in ones",
				Destination: &r.questions},
			&cli.StringFlag{Name: "references", Usage: "`FILE` of reference answers to --questions, such as " +
				"FastChat's reference_answer/gpt-4.jsonl, where they are not in it", Destination: &r.references},
			&cli.IntFlag{Name: "parallel", Usage: "conversations that are computed together", Value: o.Parallel,
				Destination: &o.Parallel},
			&cli.IntFlag{Name: "max-tokens", Usage: "longest answer to a turn in tokens", Value: o.MaxTokens,
				Destination: &o.MaxTokens},
			&cli.Uint64Flag{Name: "seed", Usage: "seed of the drawing of answers, in the categories whose " +
				"temperature is not 0", Destination: &o.Seed},
		}, formFlags(&r.form)),
		Action: func(c *cli.Context) error {
			r.adapters = c.StringSlice("adapter")
			if err := errors.Join(noArguments(c), validate(r.validate(), r.options.Validate(),
				r.form.Validate())); err != nil {
				return err
			}
			return r.run(c)
		},
	}
}

// contestant is what answers under a name: the model, perhaps with an adapter.
type contestant struct {
	name, path string // no path for the model alone
	adapter    *vera.Adapter
}

func (r *mtbenchRun) run(c *cli.Context) error {
	list, err := r.contestants(c.App.ErrWriter)
	if err != nil {
		return err
	}
	if err := durable.CheckFolder(r.out); err != nil {
		return fmt.Errorf("evaluation folder %w", err)
	}
	questions, err := r.readQuestions()
	if err != nil {
		return err
	}
	s, err := session.Open(r.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	for i, x := range list { // better known now than when the model has answered
		if x.path == "" {
			continue
		}
		if list[i].adapter, err = s.Load(x.path); err != nil {
			return err
		}
	}
	if _, err := s.Encoder(r.form, session.Report{}); err != nil {
		return err
	}
	folder, err := mtbench.Create(r.out, questions)
	if err != nil {
		return err
	}
	defer folder.Close()
	var failed []error
	for _, x := range list {
		err := r.answer(c, folder, s, x)
		if c.Context.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// contestants gives everything that answers a name of its own.
func (r *mtbenchRun) contestants(report io.Writer) ([]contestant, error) {
	if r.name == "" {
		r.name = modelName(r.Model)
	}
	list := []contestant{{name: r.name}}
	for _, given := range r.adapters {
		x := contestant{path: given}
		if name, path, named := strings.Cut(given, "="); named && !exists(given) {
			x = contestant{name: name, path: path}
		}
		var err error
		if x.path, err = found(x.path, report); err != nil {
			return nil, err
		}
		if x.name == "" {
			x.name = adapterName(x.path)
		}
		// Some file systems keep no two names that differ in case only.
		if i := slices.IndexFunc(list, func(y contestant) bool { return strings.EqualFold(x.name, y.name) }); i >= 0 {
			return nil, usageError{fmt.Errorf(
				"adapter %s: would be called %s, as is %s; give it a name, as in --adapter NAME=%s", given, x.name,
				orPath(list[i].path, r.Model), x.path)}
		}
		list = append(list, x)
	}
	return list, nil
}

// adapterName calls an adapter after its run folder, or after its file where that has a name of its own.
func adapterName(path string) string {
	whole, err := filepath.Abs(path)
	if err != nil {
		whole = path
	}
	folder := filepath.Dir(whole)
	run := filepath.Base(folder)
	switch filepath.Base(whole) {
	case train.AdapterFile:
		if strings.HasPrefix(run, "step-") { // a checkpoint, in RUN/checkpoints
			return filepath.Base(filepath.Dir(filepath.Dir(folder))) + "-" + run
		}
		return run
	case train.BestFile:
		return run + "-best"
	}
	return modelName(whole)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (r *mtbenchRun) readQuestions() ([]mtbench.Question, error) {
	if r.questions == "" {
		if r.references != "" {
			return nil, usageError{errors.New("references: go with --questions; the built-in ones have their own")}
		}
		return mtbench.Questions(), nil
	}
	return mtbench.ReadQuestions(r.questions, r.references)
}

// answer has one contestant answer.
func (r *mtbenchRun) answer(c *cli.Context, folder *mtbench.Folder, s *session.Session, x contestant) error {
	if err := s.Use(x.adapter); err != nil {
		return err
	}
	o := r.options
	o.Name = x.name
	progress := newReporter(c.App.ErrWriter, "answers of "+x.name)
	defer progress.line.End()
	o.Progress = progress.report
	if err := evaluate.Answer(c.Context, s, folder, r.form, o, reportTo(c.App.ErrWriter)); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s: all %d questions are answered\n", x.name, len(folder.Questions))
	return nil
}
