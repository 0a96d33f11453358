package alpaca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// Dataset knows where the usable rows of its files are, in their order. A row is read and encoded again whenever a
// batch needs it, so that files need not fit into memory; the files stay open until Close. Multiple-choice questions
// are kept whole.
type Dataset struct {
	Name      string // the files, or StarterName
	Form      Form   // what the rows were rendered in: NewEncoder's
	Questions []Question
	Bad       []BadRow // rows that were skipped, in the order of the files
	LeftOut   int      // rows that Split kept out of training since they repeat held-out ones

	parts     []part
	entries   []entry // of samples, part by part
	rows      int     // that are used
	noRoom    int     // answers that are left out since their prompts are too long
	encoder   *Encoder
	reader    rowReader
	maxLength int
}

// part is an open file of a dataset.
type part struct {
	Part
	rowFile
	texts []textRow
	forms map[string]int // rows that are used, by what they were taken for
}

// textRow says where a row of text is. Such rows are laid end to end and cut into samples.
type textRow struct {
	place place
	row   int32
}

// entry says where a sample's row is and what came of it when the files were read.
type entry struct {
	place                 place
	digest                digest
	row, tokens, labelled int32
	// of the row's samples, from 0; in a packed one, the token of its first text that it begins with
	sample    int32
	text      int32 // in a packed sample, its first text of the part, from 0; else -1
	part      uint16
	truncated bool
}

// digest is the same for equal samples, and for no others.
type digest [16]byte

func newDigest(b []byte) digest {
	sum := sha256.Sum256(b)
	return digest(sum[:16])
}

// Load reads files of rows and encodes each once. Rows that can't be used are skipped and listed in Bad; with o.Strict
// the first of them is the error. A file without a usable row is an error, and so is one that mixes multiple-choice
// questions with other rows.
func Load(files []Part, tok Tokenizer, o Options) (*Dataset, error) {
	if len(files) > math.MaxUint16 {
		return nil, fmt.Errorf("%d files of data, more than %d", len(files), math.MaxUint16)
	}
	var parts []part
	var names []string
	for _, file := range files {
		f, err := openRows(file.Path, o)
		if err != nil {
			return nil, errors.Join(err, closeAll(parts))
		}
		parts = append(parts, part{Part: file, rowFile: f})
		names = append(names, file.String())
	}
	return newDataset(strings.Join(names, ", "), parts, tok, o)
}

// newDataset reads the parts, which are its own to close.
func newDataset(name string, parts []part, tok Tokenizer, o Options) (*Dataset, error) {
	d := &Dataset{Name: name, parts: parts, reader: newRowReader(o), maxLength: o.MaxLength}
	err := o.Validate()
	if err == nil {
		d.encoder, err = NewEncoder(o.Form, tok)
	}
	if err == nil {
		d.encoder = d.encoder.Until(o.context())
		d.encoder.trainOn, d.Form = o.TrainOn, d.encoder.Form()
	}
	for i := 0; i < len(parts) && err == nil; i++ {
		err = d.read(i, o)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.encoder = d.encoder.Until(context.Background())
	return d, nil
}

// Titles are the names of the files, without folders.
func (d *Dataset) Titles() string {
	var names []string
	for _, p := range d.parts {
		names = append(names, filepath.Base(p.Path))
	}
	return strings.Join(names, ", ")
}

// Close closes the files.
func (d *Dataset) Close() error { return closeAll(d.parts) }

func closeAll(parts []part) error {
	var errs []error
	for _, p := range parts {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// reading is a row on its way into a dataset.
type reading struct {
	number   int
	part     int
	place    place
	row      row // number is 0 where it is no row
	entries  []entry
	noRoom   int     // samples that are left out
	text     []int32 // of a row of text
	question Question
	err      error
}

// read goes through a part.
func (d *Dataset) read(i int, o Options) error {
	p := d.parts[i]
	bad, rows, kind := len(d.Bad), d.rows, uniform{}
	pack := &packer{d: d, part: i}
	err := eachRow(p.rowFile, p.Path, o,
		func(raw rawRow) reading { return d.encode(raw, i) },
		func(r reading) error { return d.take(r, &kind, pack, o.Strict) })
	pack.end()
	switch {
	case err != nil || d.rows > rows:
		return err
	case len(d.Bad) > bad:
		return fmt.Errorf("%s: no usable row in %d; row %d: %s", p.Path, len(d.Bad)-bad, d.Bad[bad].Row,
			d.Bad[bad].Reason)
	}
	return fmt.Errorf("%s: the file has no rows", p.Path)
}

// encode finds out what becomes of a row.
func (d *Dataset) encode(raw rawRow, part int) reading {
	r := reading{number: raw.number, part: part, place: raw.place}
	if r.row, r.err = d.reader.parse(raw); r.err != nil {
		r.row = row{}
		return r
	}
	switch {
	case r.row.choices != nil:
		r.question, r.err = d.encoder.question(r.row, d.maxLength)
		return r
	case r.row.text != "":
		r.text, r.err = d.encoder.text(r.row.text)
		return r
	}
	samples, noRoom, err := d.encoder.encode(r.row, d.maxLength)
	r.err, r.noRoom = err, noRoom
	for i, s := range samples {
		e := newEntry(s, part)
		e.place, e.row, e.sample = raw.place, int32(raw.number), int32(i)
		r.entries = append(r.entries, e)
	}
	return r
}

func newEntry(s Sample, part int) entry {
	return entry{
		digest: newDigest(appendSample(nil, s)), tokens: int32(len(s.Tokens)), labelled: int32(s.labelled()),
		text: -1, part: uint16(part), truncated: s.Truncated,
	}
}

// take adds a row, of the kind of those before it in its file.
func (d *Dataset) take(r reading, kind *uniform, pack *packer, strict bool) error {
	path := d.parts[r.part].Path
	if r.row.number > 0 {
		if err := kind.check(r.row); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	d.noRoom += r.noRoom
	switch {
	case r.err != nil && strict:
		return BadRow{path, r.number, r.err.Error()}
	case r.err != nil:
		d.Bad = append(d.Bad, BadRow{path, r.number, r.err.Error()})
		return nil
	case r.row.choices != nil:
		d.Questions = append(d.Questions, r.question)
	case r.row.text != "":
		pack.add(r)
	default:
		d.entries = append(d.entries, r.entries...)
	}
	d.rows++
	forms := &d.parts[r.part].forms
	if *forms == nil {
		*forms = map[string]int{}
	}
	(*forms)[r.row.form]++
	return nil
}

// Taken says what each file was taken for: "a.jsonl.zst: JSON lines, zstd; 12 of ShareGPT conversation".
func (d *Dataset) Taken() (list []string) {
	for _, p := range d.parts {
		var forms []string
		for _, form := range slices.SortedFunc(maps.Keys(p.forms), func(a, b string) int {
			return cmp.Or(p.forms[b]-p.forms[a], strings.Compare(a, b))
		}) {
			forms = append(forms, fmt.Sprintf("%s (%d)", form, p.forms[form]))
		}
		list = append(list, fmt.Sprintf("%s: %s; %s", p.Path, p.kind(), strings.Join(forms, ", ")))
	}
	return list
}

// Len is the number of samples.
func (d *Dataset) Len() int { return len(d.entries) }

// Cut leaves only the first n samples, where there are more.
func (d *Dataset) Cut(n int) {
	d.entries = d.entries[:min(n, len(d.entries))]
}

// sample reads rows again. It is an error where they are not what they were when Load read them.
func (d *Dataset) sample(e entry) (Sample, error) {
	p := d.parts[e.part]
	var s Sample
	var err error
	if e.text >= 0 {
		s, err = d.packed(e)
	} else {
		s, err = d.encoded(e)
	}
	if err != nil {
		return Sample{}, err
	}
	if newDigest(appendSample(nil, s)) != e.digest {
		return Sample{}, fmt.Errorf("%s: row %d is not what it was when the file was first read; leave the file as "+
			"it is while it is used", p.Path, e.row)
	}
	return s, nil
}

// row reads a row of a part again. One that can't be read any more is no row.
func (d *Dataset) row(part uint16, number int32, p place) (row, error) {
	raw, err := d.parts[part].rowFile.read(p)
	if err != nil {
		return row{}, fmt.Errorf("reading row %d again: %w", number, err)
	}
	r, _ := d.reader.parse(rawRow{number: int(number), json: raw})
	return r, nil
}

func (d *Dataset) encoded(e entry) (s Sample, err error) {
	r, err := d.row(e.part, e.row, e.place)
	if err != nil {
		return s, err
	}
	samples, _, _ := d.encoder.encode(r, d.maxLength)
	if int(e.sample) < len(samples) {
		s = samples[e.sample]
	}
	return s, nil
}

// Counts sums a dataset up. Rows = Used + Skipped.
type Counts struct {
	Rows    int `json:"rows"`
	Used    int `json:"used"`
	Skipped int `json:"skipped"`
	// answers that are left out, of skipped rows and others, since their prompts are longer than the maximum length
	NoRoom    int `json:"no_room"`
	Samples   int `json:"samples"`   // that the used rows have become
	Truncated int `json:"truncated"` // of the samples, those cut to the maximum length
	Tokens    int `json:"tokens"`    // positions to be computed when every row is seen once
	Labelled  int `json:"labelled"`  // of them, those whose loss counts
}

func (c Counts) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d rows", c.Used)
	if c.Skipped > 0 {
		fmt.Fprintf(&b, " of %d (%d skipped)", c.Rows, c.Skipped)
	}
	if c.NoRoom > 0 {
		fmt.Fprintf(&b, ", %d answers left out since their prompts are longer than max-length", c.NoRoom)
	}
	if c.Samples != c.Used {
		fmt.Fprintf(&b, ", as %d samples", c.Samples)
	}
	if c.Truncated > 0 {
		fmt.Fprintf(&b, ", %d truncated", c.Truncated)
	}
	fmt.Fprintf(&b, ", %d tokens, %d of them labelled", c.Tokens, c.Labelled)
	return b.String()
}

// Counts returns the numbers of rows and tokens, those of all choices where the rows are questions.
func (d *Dataset) Counts() Counts {
	c := Counts{Rows: d.rows + len(d.Bad), Used: d.rows, Skipped: len(d.Bad), NoRoom: d.noRoom,
		Samples: len(d.entries) + len(d.Questions)}
	for _, e := range d.entries {
		if e.truncated {
			c.Truncated++
		}
		c.Tokens += int(e.tokens)
		c.Labelled += int(e.labelled)
	}
	for _, q := range d.Questions {
		for _, s := range q.Choices {
			c.Tokens += len(s.Tokens)
			c.Labelled += s.labelled()
		}
	}
	return c
}

// Split holds samples out of training: a fraction of them where held < 1, that many otherwise. The seed decides which;
// both parts keep the order of the files, and rows that repeat a held-out row are left out of training. Held 0 holds
// nothing out. Bad stays with the part to train on. Both read from d, which stays open for them.
func (d *Dataset) Split(held float64, seed uint64) (training, heldOut *Dataset, err error) {
	rows := float64(len(d.entries))
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
	chosen := permutation(len(d.entries), seed, splitStream)[:n]
	slices.Sort(chosen)
	training, heldOut = new(*d), new(*d)
	training.entries, heldOut.entries, heldOut.Bad = nil, nil, nil
	seen := make(map[digest]bool, n)
	for _, i := range chosen {
		heldOut.entries = append(heldOut.entries, d.entries[i])
		seen[d.entries[i].digest] = true
	}
	var repeated []entry
	for i, e := range d.entries {
		if _, held := slices.BinarySearch(chosen, i); seen[e.digest] && !held {
			repeated = append(repeated, e)
		}
		if !seen[e.digest] {
			training.entries = append(training.entries, e)
		}
	}
	training.LeftOut = countRows(repeated)
	if len(training.entries) == 0 {
		return nil, nil, errors.New(d.Name + ": every row repeats a held-out one, so none is left to train on")
	}
	return training, heldOut, nil
}
