// Package session opens a model with its tokenizer and perhaps an adapter, and reads rows for it: what finetuning,
// generation and evaluation begin with.
//
// It must not print: what a person may want to know goes to a Report.
package session

import (
	"fmt"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// Options say what is opened.
type Options struct {
	Model   string // path of a GGUF file
	Adapter string // file of an adapter, or folder of PEFT; "" for none
	AnyBase bool   // take an adapter that was trained on another model, where its shapes fit
	// in llama.cpp's words; "" is that of the adapter's training, else that of the model's file
	PreTokenizer string
	Engine       model.Options // how the model computes
}

// Session is an open model with its tokenizer and perhaps an adapter.
type Session struct {
	*model.Model
	Tokenizer    model.Tokenizer
	Adapter      *vera.Adapter // nil for none; Use changes it
	PreTokenizer string        // that the tokenizer has instead of the file's, or ""

	Options Options // what was opened
	rows    []*alpaca.Dataset
}

// Open opens the model, its tokenizer and, where one is named, the adapter. The session must be closed.
func Open(o Options) (*Session, error) {
	m, err := model.Open(o.Model, o.Engine)
	if err != nil {
		return nil, err
	}
	s := &Session{Model: m, Options: o}
	var a *vera.Adapter
	if o.Adapter != "" {
		a, err = s.Load(o.Adapter)
	}
	if err == nil {
		err = s.Use(a)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Load reads an adapter of the session's model, which Use puts on.
func (s *Session) Load(path string) (*vera.Adapter, error) {
	if s.Options.AnyBase {
		return vera.Load(path, s.Base(), vera.AnyBase)
	}
	return vera.Load(path, s.Base())
}

// Use puts an adapter on, or with nil takes it off, and takes the pre-tokenizer of its training where the options name
// none.
func (s *Session) Use(a *vera.Adapter) (err error) {
	if err := s.Attach(a); err != nil {
		return err
	}
	s.Adapter = a
	pre := s.Options.PreTokenizer
	if pre == "" && a != nil {
		pre = a.Facts[FactPreTokenizer]
	}
	if s.Tokenizer.Tokenizer == nil || pre != s.PreTokenizer {
		s.Tokenizer, err = s.Model.Tokenizer(pre)
		s.PreTokenizer = pre
	}
	return err
}

// Close frees the model and closes the rows.
func (s *Session) Close() {
	for _, d := range s.rows {
		d.Close()
	}
	s.Model.Close()
}

// Report takes what a person may want to know while work goes on. The zero value tells nobody.
type Report struct {
	Note func(line string) // a message
	// how much of a file of rows has been read, from 0 to 1; file is "" when no file is being read any more
	Reading func(file string, part float64)
}

// Notef formats a message.
func (r Report) Notef(format string, args ...any) {
	if r.Note != nil {
		r.Note(fmt.Sprintf(format, args...))
	}
}
