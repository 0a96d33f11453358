package alpaca

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Dataset holds what a file's rows became, in the file's order: samples, or questions where they are multiple choice.
type Dataset struct {
	Name      string // the file, or StarterName
	Template  string // Alpaca or Chat: what the rows were rendered in
	Samples   []Sample
	Questions []Question
	Bad       []BadRow // rows that were skipped, in the order in which they were found
}

// Load reads a file of rows and encodes them. Rows that can't be used are skipped and listed in Bad; with o.Strict the
// first of them is the error. A file without a usable row is an error, and so is one that mixes multiple-choice
// questions with other rows.
func Load(path string, tok Tokenizer, o Options) (*Dataset, error) {
	rs, err := readRows(path)
	if err != nil {
		return nil, err
	}
	return rs.encode(tok, o)
}

func (rs *rows) encode(tok Tokenizer, o Options) (*Dataset, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Strict && len(rs.bad) > 0 {
		return nil, rs.bad[0]
	}
	e, err := NewEncoder(o.Template, tok)
	if err != nil {
		return nil, err
	}
	d := &Dataset{Name: rs.file, Template: e.Template()}
	for _, r := range rs.good {
		err := d.add(e, r, o.MaxLength)
		if err == nil {
			continue
		}
		bad := BadRow{rs.file, r.number, err.Error()}
		if o.Strict {
			return nil, bad
		}
		rs.bad = append(rs.bad, bad)
	}
	if len(d.Samples)+len(d.Questions) == 0 {
		rs.good = nil
		return nil, rs.usable()
	}
	d.Bad = rs.bad
	return d, nil
}

func (d *Dataset) add(e *Encoder, r row, maxLength int) error {
	if r.choices != nil {
		q, err := e.question(r, maxLength)
		if err == nil {
			d.Questions = append(d.Questions, q)
		}
		return err
	}
	s, err := e.encode(r, maxLength)
	if err == nil {
		d.Samples = append(d.Samples, s)
	}
	return err
}

// Counts sums a dataset up. Rows = Used + Skipped.
type Counts struct {
	Rows      int `json:"rows"`
	Used      int `json:"used"`
	Skipped   int `json:"skipped"`
	Truncated int `json:"truncated"` // of the used rows, those cut to the maximum length
	Tokens    int `json:"tokens"`    // positions to be computed an epoch
	Labelled  int `json:"labelled"`  // of them, those whose loss counts
}

func (c Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows", c.Used)
	if c.Skipped > 0 {
		fmt.Fprintf(&b, " of %d (%d skipped)", c.Rows, c.Skipped)
	}
	if c.Truncated > 0 {
		fmt.Fprintf(&b, ", %d truncated", c.Truncated)
	}
	fmt.Fprintf(&b, ", %d tokens, %d of them labelled", c.Tokens, c.Labelled)
	return b.String()
}

// Counts returns the numbers of rows and tokens, those of all choices where the rows are questions.
func (d *Dataset) Counts() Counts {
	used := len(d.Samples) + len(d.Questions)
	c := Counts{Rows: used + len(d.Bad), Used: used, Skipped: len(d.Bad)}
	samples := slices.Clip(d.Samples)
	for _, q := range d.Questions {
		samples = append(samples, q.Choices...)
	}
	for _, s := range samples {
		if s.Truncated {
			c.Truncated++
		}
		c.Tokens += len(s.Tokens)
		for _, t := range s.Targets {
			if t >= 0 {
				c.Labelled++
			}
		}
	}
	return c
}

// Split holds samples out of training: a fraction of them where held < 1, that many otherwise. The seed decides which;
// both parts keep the order of the file, and rows that repeat a held-out row are left out of training. Held 0 holds
// nothing out. Bad stays with the part to train on.
func (d *Dataset) Split(held float64, seed uint64) (training, heldOut *Dataset, err error) {
	rows := float64(len(d.Samples))
	part := held
	if 0 < held && held < 1 {
		part = max(1, math.Round(held*rows))
	}
	switch {
	case !(part >= 0) || part != math.Trunc(part):
		return nil, nil, fmt.Errorf("held-out part %v: want a fraction below 1 or a whole number of rows", held)
	case part >= rows:
		return nil, nil, fmt.Errorf("%s: holding %v of %v rows out leaves none to train on", d.Name, part, rows)
	}
	n := int(part)
	chosen := permutation(len(d.Samples), seed, splitStream)[:n]
	slices.Sort(chosen)
	training = &Dataset{Name: d.Name, Template: d.Template, Bad: d.Bad}
	heldOut = &Dataset{Name: d.Name, Template: d.Template}
	seen := make(map[string]bool, n)
	for _, i := range chosen {
		heldOut.Samples = append(heldOut.Samples, d.Samples[i])
		seen[key(d.Samples[i])] = true
	}
	for _, s := range d.Samples {
		if !seen[key(s)] {
			training.Samples = append(training.Samples, s)
		}
	}
	if len(training.Samples) == 0 {
		return nil, nil, errors.New(d.Name + ": every row repeats a held-out one, so none is left to train on")
	}
	return training, heldOut, nil
}

// key is equal for samples with the same tokens and labels.
func key(s Sample) string {
	return string(appendSample(nil, s))
}
