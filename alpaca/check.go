package alpaca

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Check is what is to be known of files of rows before anything is trained on them. Lengths count the tokens of a row's
// prompt, response and end token, as Options.MaxLength does; a multiple-choice question counts with its longest choice.
type Check struct {
	Template string         `json:"template"`
	Form     Form           `json:"-"` // NewEncoder's
	Rows     int            `json:"rows"`
	Kinds    map[string]int `json:"kinds"` // usable rows

	Unusable     []Finding `json:"unusable"`
	EmptyAnswers int       `json:"empty_answers"` // of the unusable rows

	MaxLength int       `json:"max_length"`
	Cut       []Finding `json:"cut"` // usable rows that are longer
	Lengths   []int     `json:"-"`   // of all rows that can be encoded, sorted; not cut
	Quantiles Quantiles `json:"length"`
	Histogram []Bin     `json:"histogram"`
	Tokens    int       `json:"tokens"`
	Labelled  int       `json:"labelled"` // of Tokens, those whose loss counts

	Duplicates []Finding     `json:"duplicates"` // rows that are there before
	Conflicts  []Finding     `json:"conflicts"`  // rows whose prompt is there before, with another answer
	Controls   []ControlText `json:"controls"`
}

// Quantiles say how long rows are. A quantile is the smallest length that this part of the rows does not exceed.
type Quantiles struct {
	Min    int     `json:"min"`
	P5     int     `json:"p5"`
	P25    int     `json:"p25"`
	Median int     `json:"median"`
	P75    int     `json:"p75"`
	P95    int     `json:"p95"`
	P99    int     `json:"p99"`
	Max    int     `json:"max"`
	Mean   float64 `json:"mean"`
}

// Bin counts the rows with From to To tokens.
type Bin struct {
	From int `json:"from"`
	To   int `json:"to"`
	Rows int `json:"rows"`
}

// Finding names a row and what is the matter with it.
type Finding struct {
	Place
	Reason string `json:"reason,omitempty"`
	Before *Place `json:"before,omitempty"` // the row that it repeats
}

// Place names a row.
type Place struct {
	File string `json:"file"`
	Row  int    `json:"row"`
}

func (p Place) String() string { return fmt.Sprintf("%s: row %d", p.File, p.Row) }

// ControlText is a control token that rows spell out. It stays text there.
type ControlText struct {
	Token string `json:"token"`
	Rows  int    `json:"rows"`
	First Place  `json:"first"`
}

// Clean tells whether nothing was found that a person should look at.
func (c *Check) Clean() bool {
	return len(c.Unusable)+len(c.Cut)+len(c.Duplicates)+len(c.Conflicts)+len(c.Controls) == 0
}

// checker fills a Check.
type checker struct {
	*Check
	reader   rowReader
	encoder  *Encoder
	rows     map[digest]Place // the first with a prompt and answer
	prompts  map[digest]Place // the first with a prompt
	controls map[string]int   // index in Controls
	kind     uniform          // of the rows of the file
}

// NewCheck reads files and looks at every row. It needs o.Template and o.MaxLength.
func NewCheck(paths []string, vocab Tokenizer, o Options) (*Check, error) {
	e, err := NewEncoder(o.Form, vocab)
	if err != nil {
		return nil, err
	}
	e = e.Until(o.context())
	e.trainOn = o.TrainOn
	c := &checker{
		Check: &Check{
			Template: e.Form().Template, Form: e.Form(), Kinds: map[string]int{}, MaxLength: o.MaxLength,
			Unusable: []Finding{}, Cut: []Finding{}, Duplicates: []Finding{}, Conflicts: []Finding{},
			Controls: []ControlText{}, Histogram: []Bin{},
		},
		reader: newRowReader(o), encoder: e, rows: map[digest]Place{}, prompts: map[digest]Place{},
		controls: map[string]int{},
	}
	for _, path := range paths {
		f, err := openRows(path, o)
		if err != nil {
			return nil, err
		}
		c.kind = uniform{}
		err = eachRow(f, path, o, func(raw rawRow) looked { return c.look(Place{path, raw.number}, raw) }, c.take)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	if c.Rows == 0 {
		return nil, fmt.Errorf("%s: no row is in it", strings.Join(paths, ", "))
	}
	c.summarize()
	slices.SortStableFunc(c.Controls, func(a, b ControlText) int { return b.Rows - a.Rows })
	return c.Check, nil
}

// looked is what was seen in a single row.
type looked struct {
	place    Place
	row      row
	parsed   bool
	spelled  []string // control tokens
	length   int      // 0 where the row can't be encoded
	labelled int
	cut      bool
	unusable error
}

func (c *checker) look(found Place, raw rawRow) (l looked) {
	l.place = found
	if l.row, l.unusable = c.reader.parse(raw); l.unusable != nil {
		return l
	}
	l.parsed, l.spelled = true, c.spelled(l.row)
	l.unusable = c.measure(&l)
	return l
}

// measure counts the tokens of a row. It fails where the row can't be used.
func (c *checker) measure(l *looked) error {
	switch {
	case l.row.choices != nil:
		q, err := c.encoder.question(l.row, c.MaxLength)
		if err != nil {
			return err
		}
		l.count(slices.MaxFunc(q.Choices, func(a, b Sample) int { return len(a.Tokens) - len(b.Tokens) }))
		return nil
	case l.row.text != "":
		tokens, err := c.encoder.text(l.row.text)
		l.length, l.labelled = len(tokens), len(tokens)
		return err
	}
	list, err := c.encoder.sequences(l.row)
	if err != nil {
		return err
	}
	samples, _, err := cutAll(list, l.row.number, math.MaxInt)
	if err != nil {
		return err
	}
	for _, s := range samples {
		l.count(s)
		l.cut = l.cut || len(s.Tokens)+1 > c.MaxLength
	}
	if l.cut {
		_, _, err = cutAll(list, l.row.number, c.MaxLength)
	}
	return err
}

// count adds the labels of a sample. Of a row's samples, the longest counts.
func (l *looked) count(s Sample) {
	l.length = max(l.length, len(s.Tokens)+1)
	l.labelled += s.labelled()
}

// spelled gives the control tokens whose text is in a row.
func (c *checker) spelled(r row) (found []string) {
	for _, text := range r.texts() {
		for _, name := range c.encoder.controls.in(text) {
			if !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	return found
}

// take puts what was seen in a row beside what was seen in those before it.
func (c *checker) take(l looked) error {
	c.Rows++
	for _, name := range l.spelled {
		i, ok := c.controls[name]
		if !ok {
			i = len(c.Controls)
			c.controls[name] = i
			c.Controls = append(c.Controls, ControlText{Token: name, First: l.place})
		}
		c.Controls[i].Rows++
	}
	if l.length > 0 {
		c.Lengths = append(c.Lengths, l.length)
		c.Tokens += l.length
		c.Labelled += l.labelled
	}
	if l.parsed {
		c.repeated(l.place, l.row)
		if err := c.kind.check(l.row); l.unusable == nil {
			l.unusable = err
		}
	}
	switch {
	case l.unusable != nil:
		if errors.As(l.unusable, new(emptyAnswer)) {
			c.EmptyAnswers++
		}
		c.Unusable = append(c.Unusable, Finding{Place: l.place, Reason: l.unusable.Error()})
		return nil
	case l.cut:
		c.Cut = append(c.Cut, Finding{Place: l.place, Reason: fmt.Sprintf("%d tokens", l.length)})
	}
	c.Kinds[l.row.kind()]++
	return nil
}

func (c *checker) summarize() {
	n := len(c.Lengths)
	if n == 0 {
		return
	}
	slices.Sort(c.Lengths)
	at := func(part float64) int { return c.Lengths[max(0, int(math.Ceil(part*float64(n)))-1)] }
	c.Quantiles = Quantiles{at(0), at(0.05), at(0.25), at(0.5), at(0.75), at(0.95), at(0.99), at(1),
		float64(c.Tokens) / float64(n)}
	for from, i := 1, 0; i < n; from *= 2 {
		b := Bin{From: from, To: 2*from - 1}
		for ; i < n && c.Lengths[i] <= b.To; i++ {
			b.Rows++
		}
		if b.Rows > 0 || len(c.Histogram) > 0 {
			c.Histogram = append(c.Histogram, b)
		}
	}
}

func (c *checker) repeated(found Place, r row) {
	prompt, answer := r.halves()
	whole := newDigest([]byte(prompt + "\x00\x00" + answer))
	if first, ok := c.rows[whole]; ok {
		c.Duplicates = append(c.Duplicates, Finding{Place: found, Before: &first})
		return
	}
	c.rows[whole] = found
	asked := newDigest([]byte(prompt))
	if first, ok := c.prompts[asked]; ok {
		c.Conflicts = append(c.Conflicts, Finding{Place: found, Before: &first})
		return
	}
	c.prompts[asked] = found
}

// kind is what a row's form is called.
func (r row) kind() string {
	switch {
	case r.messages != nil:
		return "conversation"
	case r.choices != nil:
		return "question"
	case r.completion != "":
		return "prompt"
	case r.text != "":
		return "text"
	}
	return "instruction"
}

// texts are all that a row's author wrote.
func (r row) texts() []string {
	texts := append([]string{r.instruction, r.input, r.output, r.prompt, r.completion, r.text}, r.choices...)
	for _, m := range r.messages {
		texts = append(texts, m.Content)
	}
	return slices.DeleteFunc(texts, func(s string) bool { return s == "" })
}

// halves are what is asked and what is answered, for comparison. No text holds a NUL.
func (r row) halves() (prompt, answer string) {
	switch {
	case r.messages != nil:
		last := len(r.messages) - 1
		for _, m := range r.messages[:last] {
			prompt += m.Role + "\x00" + m.Content + "\x00"
		}
		return prompt, r.messages[last].Content
	case r.choices != nil:
		return r.instruction + "\x00" + strings.Join(r.choices, "\x00"), r.choices[r.answer]
	case r.completion != "":
		return r.prompt, r.completion
	case r.text != "":
		return "", r.text
	}
	return r.instruction + "\x00" + r.input, r.output
}
