package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/session"
)

// mtbenchJudge holds the options of the mtbench judge command.
type mtbenchJudge struct {
	*engine
	options  mtbench.JudgeOptions
	endpoint mtbench.EndpointOptions
	mode     string
	prompts  string
	keyEnv   string
	out      string
	form     alpaca.Form
}

// What the endpoint's options are where the command line doesn't say.
const (
	defaultKeyEnv  = "OPENAI_API_KEY"
	defaultTimeout = 2 * time.Minute
)

func mtbenchJudgeCommand() *cli.Command {
	j := &mtbenchJudge{engine: newGenerator(), options: mtbench.DefaultJudgeOptions(),
		form: alpaca.Form{Template: alpaca.Auto}}
	o := &j.options
	return &cli.Command{
		Name:  "judge",
		Usage: "have a local model, or one behind an endpoint, judge the answers",
		Description: "Writes OUT/model_judgment/JUDGE_single.jsonl or JUDGE_pair.jsonl, in FastChat's formats. What " +
			"is judged already is not judged again. A judgment that gives\n" +
			"no score or winner is asked for again, at a temperature of 0.7; when --retries do not help, its last " +
			"words are kept with the score -1 or the winner \"error\",\n" +
			"and counted in the last line. To ask for it once more, delete its line in the file.",
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{Name: "judge-model", Usage: "GGUF `FILE` of a model that judges, or hf:OWNER/REPO/FILE",
				Destination: &j.Model, Action: fetch(&j.Model)},
			&cli.StringFlag{Name: "endpoint",
				Usage: "`URL` of an OpenAI-compatible server that judges instead, such as " +
					"http://localhost:8080/v1",
				Destination: &j.endpoint.URL},
			&cli.StringFlag{Name: "judge", Usage: "`NAME` of the judge, at the endpoint and in the results; a local " +
				"one is called after its file otherwise", Destination: &o.Name},
			evaluationFlag(&j.out),
			&cli.StringFlag{Name: "mode", Usage: "single grades each answer; pair compares each model's answers with " +
				"the baseline's, in both orders", Value: string(o.Mode), Destination: &j.mode},
			&cli.StringFlag{Name: "baseline",
				Usage:       "pair: `MODEL` to compare with; left out, the first that has answered",
				Destination: &o.Baseline},
			&cli.StringFlag{Name: "prompts",
				Usage: "`FILE` of the judge's prompts, such as FastChat's judge_prompts.jsonl; left out, the " +
					"built-in ones", Destination: &j.prompts},
			&cli.IntFlag{Name: "repeat", Usage: "judgments of the same, for their median and spread; the first is at " +
				"temperature 0, all others at 0.7", Value: o.Repeat, Destination: &o.Repeat},
			&cli.IntFlag{Name: "retries", Usage: "further tries where a judgment gives no score or winner",
				Value: o.Retries, Destination: &o.Retries},
			&cli.IntFlag{Name: "parallel", Usage: "judgments that are asked for together", Value: o.Parallel,
				Destination: &o.Parallel},
			&cli.IntFlag{Name: "max-tokens", Usage: "longest judgment in tokens", Value: o.MaxTokens,
				Destination: &o.MaxTokens},
			&cli.DurationFlag{Name: "timeout", Usage: "endpoint: longest time of a request", Value: defaultTimeout,
				Destination: &j.endpoint.Timeout},
			&cli.StringFlag{Name: "key-env", Usage: "endpoint: `VARIABLE` of the environment that holds the key",
				Value: defaultKeyEnv, Destination: &j.keyEnv},
		}, formFlags(&j.form), []cli.Flag{j.preTokenizerFlag(), j.deviceFlag()}, j.computeFlags()),
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if err := j.validateFlags(c); err != nil {
				return usageError{err}
			}
			return j.run(c)
		},
	}
}

// validateFlags brings the flags into the options and checks them all.
func (j *mtbenchJudge) validateFlags(c *cli.Context) error {
	j.options.Mode = mtbench.Mode(j.mode)
	if err := validate(j.validate(), j.options.Validate(), j.form.Validate()); err != nil {
		return err
	}
	if (j.Model == "") == (j.endpoint.URL == "") {
		return errors.New("judge-model and endpoint: give one of them")
	}
	ofOther := []string{"timeout", "key-env"}
	if j.Model == "" {
		ofOther = []string{"pre-tokenizer", "device", "threads", "compute", "template", "template-option", "date"}
	}
	for _, name := range ofOther {
		if c.IsSet(name) {
			return fmt.Errorf("%s: is not for a judge of this kind", name)
		}
	}
	if j.Model != "" {
		if j.options.Name == "" {
			j.options.Name = modelName(j.Model)
		}
		return nil
	}
	if j.options.Name == "" {
		return errors.New("endpoint needs --judge, the name of the model there")
	}
	j.endpoint.Model, j.endpoint.Key = j.options.Name, os.Getenv(j.keyEnv)
	if j.endpoint.Key == "" && c.IsSet("key-env") {
		return fmt.Errorf("key-env %s: the environment holds no such variable", j.keyEnv)
	}
	_, err := mtbench.NewEndpoint(j.endpoint)
	return err
}

func (j *mtbenchJudge) run(c *cli.Context) (err error) {
	if j.prompts != "" {
		if j.options.Prompts, err = mtbench.ReadPrompts(j.prompts); err != nil {
			return err
		}
	}
	folder, err := mtbench.Open(j.out)
	if err != nil {
		return err
	}
	defer folder.Close()
	judge, closeJudge, err := j.openJudge(c)
	if err != nil {
		return err
	}
	defer closeJudge()
	progress := newReporter(c.App.ErrWriter, "judgments by "+j.options.Name)
	j.options.Progress = progress.report
	judged, err := folder.Judge(c.Context, judge, j.options)
	progress.line.End()
	j.print(c.App.Writer, judged)
	return err
}

func (j *mtbenchJudge) openJudge(c *cli.Context) (mtbench.Model, func(), error) {
	if j.Model == "" {
		e, err := mtbench.NewEndpoint(j.endpoint)
		return e, func() {}, err
	}
	s, err := session.Open(j.Options)
	if err != nil {
		return nil, nil, err
	}
	m, err := evaluate.NewAssistant(s, j.form, j.options.Parallel, reportTo(c.App.ErrWriter))
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return m, func() { m.Close(); s.Close() }, nil
}

func (j *mtbenchJudge) print(w io.Writer, judged mtbench.Judged) {
	if judged.Judgments > 0 {
		fmt.Fprintf(w, "%d judgments by %s, mode %s; %d of them give no score or winner\n", judged.Judgments,
			j.options.Name, j.mode, judged.Unreadable)
	}
	if judged.Missing > 0 {
		fmt.Fprintf(w, "%d judgments are missing, since there is no answer to judge; `veratune mtbench run` makes "+
			"the answers\n", judged.Missing)
	}
}
