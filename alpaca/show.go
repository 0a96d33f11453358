package alpaca

import (
	"errors"
	"slices"
)

// Shown is what becomes of a row: what the model sees of it, and what it learns.
type Shown struct {
	File    string        `json:"file"`
	Row     int           `json:"row"`
	Form    string        `json:"form,omitempty"`   // what it was taken for
	Reason  string        `json:"reason,omitempty"` // why it can't be used
	Samples []ShownSample `json:"samples,omitempty"`

	// Prompt are the tokens that the runtime sends for the last answer of an instruction or a conversation.
	Prompt []int32 `json:"prompt,omitempty"`
}

// ShownSample is one of a row's samples, cut at the maximum length.
type ShownSample struct {
	Tokens    []int32 `json:"tokens"`
	Learnt    []bool  `json:"learnt"` // of each token, whether it is a label
	Truncated bool    `json:"truncated"`
	Pieces    []Piece `json:"pieces"`
}

// Piece is the text of some tokens in a row. Where the template closes an answer without an end token, the end that is
// learnt there instead is a piece of its own, which is not in the text.
type Piece struct {
	Text    string `json:"text"`
	Learnt  bool   `json:"learnt"`
	Control bool   `json:"control"` // it is a control token
	Extra   bool   `json:"extra"`   // it is learnt, but not in the text
}

// errEnough ends a walk through a file.
var errEnough = errors.New("enough rows")

// Show reads the first rows of files, from a row number on, and says what becomes of them. It needs o.Form, o.TrainOn,
// o.MaxLength, o.Columns and o.Chosen.
func Show(paths []string, tok Tokenizer, o Options, from, rows int) (list []Shown, form Form, err error) {
	e, err := NewEncoder(o.Form, tok)
	if err != nil {
		return nil, form, err
	}
	e = e.Until(o.context())
	e.trainOn = o.TrainOn
	reader := newRowReader(o)
	for _, path := range paths {
		f, err := openRows(path, o)
		if err != nil {
			return nil, form, err
		}
		err = f.scan(func(raw rawRow) error {
			if raw.number < from {
				return o.context().Err()
			}
			if len(list) == rows {
				return errEnough
			}
			s, err := e.show(reader, raw, o.MaxLength)
			s.File = path
			list = append(list, s)
			return errors.Join(err, o.context().Err())
		})
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil && !errors.Is(err, errEnough) {
			return nil, form, err
		}
	}
	return list, e.Form(), nil
}

// show says what becomes of a row. Its error is the vocabulary's.
func (e *Encoder) show(reader rowReader, raw rawRow, maxLength int) (Shown, error) {
	s := Shown{Row: raw.number}
	r, err := reader.parse(raw)
	var samples []Sample
	if err == nil {
		s.Form = r.form
		samples, err = e.shownSamples(r, maxLength)
	}
	if err != nil {
		s.Reason = err.Error()
		return s, nil
	}
	for _, sample := range samples {
		shown, err := e.shown(sample)
		if err != nil {
			return s, err
		}
		s.Samples = append(s.Samples, shown)
	}
	s.Prompt, err = e.rowPrompt(r)
	return s, err
}

func (e *Encoder) shownSamples(r row, maxLength int) ([]Sample, error) {
	switch {
	case r.choices != nil:
		q, err := e.question(r, maxLength)
		return q.Choices, err
	case r.text != "":
		tokens, err := e.text(r.text)
		if err != nil {
			return nil, err
		}
		var samples []Sample
		for len(tokens) > 1 {
			n := min(len(tokens), maxLength)
			samples = append(samples, e.learnText(tokens[:n], int32(r.number)))
			tokens = tokens[n-1:]
		}
		return samples, nil
	}
	samples, _, err := e.encode(r, maxLength)
	return samples, err
}

// rowPrompt is what comes before the last answer of a row.
func (e *Encoder) rowPrompt(r row) ([]int32, error) {
	switch {
	case r.text != "" || r.completion != "":
		return nil, nil
	case r.messages == nil:
		return e.Prompt(r.instruction, r.input)
	case e.chat == nil:
		s, err := e.alpacaTurns(append(slices.Clone(r.messages[:len(r.messages)-1]), Message{Role: Assistant}))
		if err != nil {
			return nil, err
		}
		return s.tokens[:s.prompt], nil
	}
	return e.chatPrompt(conversation{r.messages[:len(r.messages)-1], r.tools, r.documents})
}

// shown cuts a sample into pieces that are learnt and others.
func (e *Encoder) shown(s Sample) (ShownSample, error) {
	v := ShownSample{Truncated: s.Truncated}
	var err error
	add := func(token int32, learnt, extra bool) {
		text, wrong := e.tok.Piece(token)
		err = errors.Join(err, wrong)
		control := e.controls.text(token) != ""
		if last := len(v.Pieces) - 1; last >= 0 && !control && !extra {
			if p := &v.Pieces[last]; p.Learnt == learnt && !p.Control && !p.Extra {
				p.Text += text
				return
			}
		}
		v.Pieces = append(v.Pieces, Piece{text, learnt, control, extra})
	}
	for i, token := range s.Tokens {
		learnt := i > 0 && s.Targets[i-1] == token
		if i > 0 && s.Targets[i-1] >= 0 && !learnt {
			add(s.Targets[i-1], true, true)
		}
		add(token, learnt, false)
		v.Tokens, v.Learnt = append(v.Tokens, token), append(v.Learnt, learnt)
	}
	last := s.Targets[len(s.Targets)-1]
	add(last, true, s.added)
	v.Tokens, v.Learnt = append(v.Tokens, last), append(v.Learnt, true)
	return v, err
}
