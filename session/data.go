package session

import (
	"fmt"
	"strings"

	"github.com/veratune/veratune/alpaca"
)

// shown is how many bad rows or skipped files a report names.
const shown = 5

// Find gives the files themselves, where folders or patterns are named, and reports what is skipped.
func Find(named []alpaca.Part, r Report) ([]alpaca.Part, error) {
	files, skipped, err := alpaca.Find(named)
	if len(skipped) > 0 {
		names := strings.Join(skipped[:min(shown, len(skipped))], ", ")
		if len(skipped) > shown {
			names += fmt.Sprintf(" and %d more", len(skipped)-shown)
		}
		r.Notef("skipped: %s", names)
	}
	return files, err
}

// Rows is Data without multiple-choice questions.
func (s *Session) Rows(files []alpaca.Part, o alpaca.Options, r Report) (*alpaca.Dataset, error) {
	d, err := s.Data(files, o, r)
	if err == nil && len(d.Questions) > 0 {
		return nil, fmt.Errorf("%s: holds multiple-choice questions, which are for the loss command alone; want "+
			"instruction, chat or prompt rows", d.Name)
	}
	return d, err
}

// Data loads data files, or the starter set where there is none, and reports what is left out. The rows stay open with
// the session.
func (s *Session) Data(files []alpaca.Part, o alpaca.Options, r Report) (*alpaca.Dataset, error) {
	asked := o.Form
	var err error
	if o.Form, err = s.Form(asked); err != nil {
		return nil, err
	}
	o.Progress = r.Reading
	if files, err = Find(files, r); err != nil {
		return nil, err
	}
	load := func() (*alpaca.Dataset, error) { return alpaca.Load(files, s.Tokenizer, o) }
	if len(files) == 0 {
		load = func() (*alpaca.Dataset, error) { return alpaca.Starter(s.Tokenizer, o) }
	}
	d, err := load()
	if r.Reading != nil {
		r.Reading("", 1)
	}
	if err != nil {
		return nil, err
	}
	s.rows = append(s.rows, d)
	r.Notef("%s", s.Describe(d.Form, asked))
	for _, taken := range d.Taken() {
		r.Notef("%v", taken)
	}
	for _, repeat := range d.Repeats() {
		r.Notef("warning: %s", repeat)
	}
	r.LeftOut(d.Bad)
	r.Notef("%s: %v", d.Name, d.Counts())
	return d, nil
}

// LeftOut names the first rows that are left out.
func (r Report) LeftOut(bad []alpaca.BadRow) {
	for i, row := range bad {
		if i == shown {
			r.Notef("… and %d more bad rows", len(bad)-shown)
			break
		}
		r.Notef("left out: %s", row.Error())
	}
}
