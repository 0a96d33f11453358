package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
)

// lossOptions holds the options of the loss command.
type lossOptions struct {
	*engine
	data   alpaca.Options
	files  measuredFiles
	asJSON bool
}

// lossResult is what `veratune loss --json` prints.
type lossResult struct {
	Loss       float64 `json:"loss"`       // mean −log p of a labelled token, natural logarithm
	Perplexity float64 `json:"perplexity"` // e^loss
	Rows       int     `json:"rows"`
	Labelled   int     `json:"labelled"` // tokens
}

func lossCommand() *cli.Command {
	l := &lossOptions{engine: newEngine(measuring), data: alpaca.Default()}
	return &cli.Command{
		Name:  "loss",
		Usage: "measure the mean response loss and perplexity on instruction data, or the accuracy on multiple-choice questions",
		Description: "A file of instruction, chat or prompt rows gives the mean loss of the responses.\n\n" +
			"A file of multiple-choice questions gives the part of them whose right choice the model finds more likely than the others, by log p of the choice's text as the\n" +
			"response (acc), and by that per byte of it (acc_norm). The model is shown the question alone, without the choices or their letters. The end of the turn does not\n" +
			"count, and --batch is a number of questions. Rows are as Hugging Face exports MMLU, ARC and HellaSwag:\n\n" +
			"  {\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}    the answer is an index from 0 or a letter from A\n" +
			"  {\"question\": \"…\", \"choices\": {\"text\": [\"…\", \"…\"], \"label\": [\"A\", \"B\"]}, \"answerKey\": \"A\"}\n" +
			"  {\"ctx\": \"…\", \"endings\": [\"…\", \"…\"], \"label\": \"0\"}",
		Flags: slices.Concat(l.engine.flags(), dataFlags(&l.data), []cli.Flag{
			l.adapterFlag(),
			l.deviceFlag(),
			l.forceFlag(),
			&cli.GenericFlag{Name: "data", Usage: "`FILE` of instruction, chat or prompt rows, or of multiple-choice questions: " + filesUsage + ". May be given more than once", Required: true, Value: &l.files},
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
	s, err := l.open()
	if err != nil {
		return err
	}
	defer s.Close()
	l.data.Context = c.Context
	d, err := s.load(dataFiles(l.files), l.data, c.App.ErrWriter)
	if err != nil {
		return err
	}
	if len(d.Questions) > 0 {
		logP, err := s.choices(c, d.Questions, l.data.Batch)
		if err != nil {
			return err
		}
		return grade(d.Questions, logP).print(c.App.Writer, l.asJSON)
	}
	r, err := s.measure(c, d, l.data.Batch)
	if err != nil {
		return err
	}
	return r.print(c.App.Writer, l.asJSON)
}

// measure computes the mean loss over a data set.
func (s *session) measure(c *cli.Context, d *alpaca.Dataset, batch int) (lossResult, error) {
	r := lossResult{Rows: d.Len()}
	source := d.InOrder(batch)
	total := 0.0
	progress := newReporter(c.App.ErrWriter, "batches measured")
	defer progress.line.End()
	for i := range source.Batches() {
		if err := c.Context.Err(); err != nil {
			return r, err
		}
		tokens, targets, lengths, err := source.Batch(0, i)
		if err != nil {
			return r, err
		}
		sum, n, err := s.Loss(tokens, targets, lengths)
		if err != nil {
			return r, err
		}
		total += sum
		r.Labelled += n
		progress.step(1, i+1, 0, source.Batches())
	}
	if r.Labelled == 0 {
		return r, errors.New("no row has a labelled token")
	}
	r.Loss = total / float64(r.Labelled)
	r.Perplexity = math.Exp(r.Loss)
	if math.IsNaN(r.Loss) || math.IsInf(r.Loss, 0) {
		return r, fmt.Errorf("the loss is %v: the model file or the adapter is damaged", r.Loss)
	}
	return r, nil
}

func (r lossResult) print(w io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintf(w, "loss %.6f, perplexity %.4f over %d labelled tokens of %d rows\n", r.Loss, r.Perplexity, r.Labelled, r.Rows)
	return err
}
