package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/session"
)

// lossOptions holds the options of the loss command.
type lossOptions struct {
	*engine
	data   alpaca.Options
	files  measuredFiles
	asJSON bool
}

func lossCommand() *cli.Command {
	l := &lossOptions{engine: newEngine(evaluate.Engine(), measuring), data: alpaca.Default()}
	return &cli.Command{
		Name: "loss",
		Usage: "measure the mean response loss and perplexity on instruction data, or the accuracy on " +
			"multiple-choice questions",
		Description: "A file of instruction, chat or prompt rows gives the mean loss of the responses.\n\n" +
			"A file of multiple-choice questions gives the part of them whose right choice the model finds more\n" +
			"likely than the others, by log p of the choice's text as the response (acc), and by that per byte of\n" +
			"it (acc_norm). The model is shown the question alone, without the choices or their letters. The end of\n" +
			"the turn does not count, and --batch is a number of questions. Rows are as Hugging Face exports MMLU,\n" +
			"ARC and HellaSwag:\n\n" +
			`  {"question": "…", "choices": ["…", "…"], "answer": 0}    the answer is an index from 0 or a letter` +
			"\n" +
			`  {"question": "…", "choices": {"text": ["…", "…"], "label": ["A", "B"]}, "answerKey": "A"}` + "\n" +
			`  {"ctx": "…", "endings": ["…", "…"], "label": "0"}`,
		Flags: slices.Concat(l.engine.flags(), dataFlags(&l.data), []cli.Flag{
			l.adapterFlag(),
			l.deviceFlag(),
			l.forceFlag(),
			&cli.GenericFlag{Name: "data",
				Usage: "`FILE` of instruction, chat or prompt rows, or of multiple-choice questions: " + filesUsage +
					". May be given more than once", Required: true, Value: &l.files},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object", Destination: &l.asJSON},
		}),
		Action: func(c *cli.Context) error {
			if err := errors.Join(noArguments(c), validate(l.validate(), l.data.Validate())); err != nil {
				return err
			}
			return l.run(c)
		},
	}
}

func (l *lossOptions) run(c *cli.Context) error {
	s, err := session.Open(l.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	l.data.Context = c.Context
	d, err := s.Data(l.files, l.data, reportTo(c.App.ErrWriter))
	if err != nil {
		return err
	}
	if len(d.Questions) > 0 {
		progress := newReporter(c.App.ErrWriter, "questions measured")
		r, err := evaluate.MeasureChoices(c.Context, s, d.Questions, l.data.Batch, progress.measured)
		progress.line.End()
		if err != nil {
			return err
		}
		return printChoices(c.App.Writer, r, l.asJSON)
	}
	r, err := measure(c, s, d, l.data.Batch)
	if err != nil {
		return err
	}
	return printLoss(c.App.Writer, r, l.asJSON)
}

// measure shows how far measuring the loss is.
func measure(c *cli.Context, s *session.Session, d *alpaca.Dataset, batch int) (evaluate.Loss, error) {
	progress := newReporter(c.App.ErrWriter, "batches measured")
	defer progress.line.End()
	return evaluate.MeasureLoss(c.Context, s, d, batch, progress.measured)
}

func printLoss(w io.Writer, r evaluate.Loss, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintf(w, "loss %.6f, perplexity %.4f over %d labelled tokens of %d rows\n", r.Loss, r.Perplexity,
		r.Labelled, r.Rows)
	return err
}

func printChoices(w io.Writer, r evaluate.Choices, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	t := newTable(w)
	t.row("acc", "%.1f%% (95%%: %.1f to %.1f), by log p of a choice", 100*r.Acc, 100*r.AccInterval[0],
		100*r.AccInterval[1])
	t.row("acc_norm", "%.1f%% (95%%: %.1f to %.1f), by log p per byte", 100*r.AccNorm, 100*r.AccNormInterval[0],
		100*r.AccNormInterval[1])
	t.row("log p", "%.4f, mean of the right choices", r.LogP)
	t.row("questions", "%d; guessing would get %.1f%%", r.Questions, 100*r.Chance)
	return t.Flush()
}
