package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/session"
)

// dataShow holds the options of the data show command.
type dataShow struct {
	*engine
	data       alpaca.Options
	from, rows int
	ids        bool
	html       output
	asJSON     bool
}

func dataShowCommand() *cli.Command {
	d := &dataShow{engine: newTrainer(), data: alpaca.Default(), from: 1, rows: 3}
	return &cli.Command{
		Name:  "show",
		Usage: "show rows as the model sees them, what is learnt of them and what is not",
		Description: "Prints the text of rows in the model's template, with control tokens. What is learnt is green " +
			"on a terminal, and stands between ⟦ and ⟧ elsewhere. An end token that\n" +
			"is learnt although the template doesn't write it has a + before it.",
		ArgsUsage: "FILE…",
		Flags: append(append([]cli.Flag{d.modelFlag(), d.preTokenizerFlag()}, sampleFlags(&d.data)...),
			&cli.IntFlag{Name: "from", Usage: "number of the first row; in JSON lines and CSV, that of its line",
				Value: d.from, Destination: &d.from},
			&cli.IntFlag{Name: "rows", Usage: "rows to show", Value: d.rows, Destination: &d.rows},
			&cli.BoolFlag{Name: "ids", Usage: "print the numbers of the tokens, too", Destination: &d.ids},
			&cli.StringFlag{Name: "html", Usage: "write a page to `FILE` instead", Destination: &d.html.path},
			d.html.overwriteFlag(),
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a row, with tokens and what is learnt, and the " +
				"prompt that the runtime sends for the row's last answer", Destination: &d.asJSON},
		),
		Action: func(c *cli.Context) error {
			if err := d.check(c); err != nil {
				return usageError{err}
			}
			if err := d.html.check(c); err != nil {
				return err
			}
			files, err := rowFiles(c)
			if err != nil {
				return err
			}
			return d.run(c, files)
		},
	}
}

func (d *dataShow) check(c *cli.Context) error {
	switch {
	case d.rows < 1 || d.from < 1:
		return fmt.Errorf("from %d, rows %d: both are at least 1", d.from, d.rows)
	case d.asJSON && d.html.path != "":
		return errors.New("json and html: give one of them")
	}
	return errors.Join(d.validate(), d.data.Validate())
}

func (d *dataShow) run(c *cli.Context, files []string) error {
	s, err := session.Open(d.Options)
	if err != nil {
		return err
	}
	defer s.Close()
	d.data.Context = c.Context
	rows, form, err := alpaca.Show(files, s.Tokenizer, d.data, d.from, d.rows)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.App.ErrWriter, s.Describe(form, d.data.Form))
	if len(rows) == 0 {
		return fmt.Errorf("%s: no row from number %d on", strings.Join(files, ", "), d.from)
	}
	switch {
	case d.asJSON:
		return encodeLines(c.App.Writer, rows)
	case d.html.path != "":
		page, err := rowsPage(rows, form, d.ids)
		if err != nil {
			return err
		}
		if err := d.html.write(page); err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, d.html.path)
		return err
	}
	return printRows(terminal.Raw(c.App.Writer), rows, d.ids, terminal.Is(c.App.Writer) && os.Getenv("NO_COLOR") == "")
}

func encodeLines[T any](w io.Writer, list []T) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, v := range list {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// Marks of pieces on a terminal: learnt ones green, control tokens bold.
const (
	colourLearnt, colourControl, colourOther, colourEnd = "\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
)

func printRows(w io.Writer, rows []alpaca.Shown, ids, colour bool) error {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "── %s, row %d: %s\n", terminal.Text(r.File), r.Row,
			either(r.Reason != "", "cannot be used: "+terminal.Text(r.Reason), r.Form))
		for i, s := range r.Samples {
			if len(r.Samples) > 1 {
				fmt.Fprintf(&b, "── sample %d of %d\n", i+1, len(r.Samples))
			}
			writePieces(&b, s.Pieces, colour)
			learnt := 0
			for _, l := range s.Learnt {
				if l {
					learnt++
				}
			}
			fmt.Fprintf(&b, "\n── %d tokens, %d of them learnt%s\n", len(s.Tokens), learnt,
				either(s.Truncated, "; cut at --max-length", ""))
			if ids {
				fmt.Fprintln(&b, tokenIDs(s))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// either is a where the condition holds, else b.
func either(condition bool, a, b string) string {
	if condition {
		return a
	}
	return b
}

func writePieces(b *strings.Builder, pieces []alpaca.Piece, colour bool) {
	for i, p := range pieces {
		text := terminal.Text(p.Text)
		if p.Extra {
			text = "+" + text
		}
		if colour {
			style := either(p.Learnt, colourLearnt, colourOther) + either(p.Control, colourControl, "")
			b.WriteString(style + text + colourEnd)
			continue
		}
		if p.Learnt && (i == 0 || !pieces[i-1].Learnt) {
			b.WriteString("⟦")
		}
		b.WriteString(text)
		if p.Learnt && (i == len(pieces)-1 || !pieces[i+1].Learnt) {
			b.WriteString("⟧")
		}
	}
}

// tokenIDs are the tokens of a sample, those that are learnt with a star.
func tokenIDs(s alpaca.ShownSample) string {
	words := make([]string, len(s.Tokens))
	for i, t := range s.Tokens {
		words[i] = fmt.Sprint(t) + either(s.Learnt[i], "*", "")
	}
	return strings.Join(words, " ")
}

//go:embed data_show.html
var rowsTemplate string

// rowsPage shows rows in a browser.
func rowsPage(rows []alpaca.Shown, form alpaca.Form, ids bool) ([]byte, error) {
	t, err := template.New("rows").Funcs(template.FuncMap{"numbers": tokenIDs, "text": terminal.Text}).Parse(
		rowsTemplate)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = t.Execute(&page, struct {
		Form string
		Rows []alpaca.Shown
		IDs  bool
	}{form.Describe(), rows, ids})
	return page.Bytes(), err
}
