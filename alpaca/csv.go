package alpaca

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// csvFile is a table whose first line names its columns. Each record is given as the JSON object that it would be in a
// JSON file.
type csvFile struct {
	textFile
	comma   rune
	columns []string // in their order; "" where a column has no name
	first   int64    // offset of the first record
}

func (f *csvFile) kind() string {
	switch f.comma {
	case ',':
		return "CSV"
	case '\t':
		return "TSV"
	}
	return "CSV with " + string(f.comma)
}

// longestHeader bounds how much is read of a file that may be no table.
const longestHeader = 1 << 20

// openCSV finds the delimiter by the names in the first line: the one that gives the most that are known, then the most
// at all.
func openCSV(t textFile, columns map[string]string) (*csvFile, error) {
	var best *csvFile
	var bestScore int
	var failed error
	for _, comma := range []rune{',', ';', '\t'} {
		r := tableReader(io.LimitReader(t.from(t.start), longestHeader), comma)
		header, err := r.Read()
		if err != nil {
			failed = fmt.Errorf("%s: the names of its columns can't be read: %w", t.name, recordError(err))
			continue
		}
		f := &csvFile{textFile: t, comma: comma, first: t.start + r.InputOffset()}
		known := 0
		for _, name := range header {
			name = strings.TrimSpace(name)
			f.columns = append(f.columns, name)
			if knownColumn(name, rowNames, columns) {
				known++
			}
		}
		if score := known<<20 + len(header); best == nil || score > bestScore {
			best, bestScore = f, score
		}
	}
	if best == nil {
		return nil, failed
	}
	return best, best.checkColumns(columns)
}

// checkColumns fails where no row could be read from the columns.
func (f *csvFile) checkColumns(columns map[string]string) error {
	seen, usable := map[string]bool{"": false}, false
	for _, name := range f.columns {
		if seen[name] {
			return fmt.Errorf("%s: two columns are named %q", f.name, name)
		}
		seen[name] = name != ""
		usable = usable || knownColumn(name, formNames, columns)
	}
	if !usable {
		return noColumn(f.name, f.columns)
	}
	return nil
}

// noColumn is the error of a table without the column of any form of row.
func noColumn(name string, columns []string) error {
	const most = 20
	if len(columns) > most {
		columns = append(columns[:most:most], "…")
	}
	return fmt.Errorf("%s: has the columns %s; %s", name, strings.Join(columns, ", "), wanted)
}

func tableReader(r io.Reader, comma rune) *csv.Reader {
	c := csv.NewReader(r)
	c.Comma, c.FieldsPerRecord, c.ReuseRecord = comma, -1, true
	c.LazyQuotes = comma == '\t' // what writes them puts few fields in quotes, and quotes into fields
	return c
}

func (f *csvFile) scan(yield func(rawRow) error) error {
	r := tableReader(f.from(f.first), f.comma)
	header, err := f.read(place{0, int(f.first)})
	if err != nil {
		return err
	}
	before := bytes.Count(header, []byte("\n"))
	for from := int64(0); ; {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		row := rawRow{place: place{f.first + from, int(r.InputOffset() - from)}}
		from = r.InputOffset()
		var wrong *csv.ParseError
		switch {
		case err == nil:
			line, _ := r.FieldPos(0)
			row.number = before + line
			row.json, row.err = f.object(record)
		case errors.As(err, &wrong) && errors.Is(err, csv.ErrQuote) && f.first+from >= f.size &&
			wrong.Line > wrong.StartLine:
			return fmt.Errorf("%s: the quotes that are opened in the record of line %d are never closed", f.name,
				before+wrong.StartLine)
		case errors.As(err, &wrong):
			row.number, row.err = before+wrong.StartLine, recordError(err)
		default:
			return fmt.Errorf("%s: %w", f.name, err)
		}
		if err := yield(row); err != nil {
			return err
		}
	}
}

func (f *csvFile) read(p place) ([]byte, error) {
	raw, err := f.textFile.read(p)
	if err != nil || p.offset < f.first {
		return raw, err
	}
	record, err := tableReader(bytes.NewReader(raw), f.comma).Read()
	if err == nil {
		raw, err = f.object(record)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return raw, nil
}

// object writes a record as JSON. A field that is empty is null.
func (f *csvFile) object(record []string) ([]byte, error) {
	if len(record) != len(f.columns) {
		return nil, fmt.Errorf("has %d fields, where the first line names %d columns", len(record), len(f.columns))
	}
	o := make(object, 0, len(record))
	for i, field := range record {
		switch {
		case !utf8.ValidString(field):
			return nil, errors.New("is not valid UTF-8; save the file as UTF-8")
		case f.columns[i] == "":
		case field == "":
			o = append(o, Field{f.columns[i], []byte("null")})
		default:
			o = append(o, Field{f.columns[i], quote(field)})
		}
	}
	return o.json(), nil
}

// recordError says what is wrong with a record.
func recordError(err error) error {
	var wrong *csv.ParseError
	switch {
	case errors.Is(err, csv.ErrBareQuote):
		return errors.New("a quote stands in a field that doesn't begin with one; put the field in quotes, and write " +
			"its own quotes twice")
	case errors.Is(err, csv.ErrQuote):
		return errors.New("a field in quotes has a quote in it that isn't written twice, or no closing quote")
	case errors.As(err, &wrong):
		return wrong.Err
	case errors.Is(err, io.EOF):
		return errors.New("the file is empty")
	}
	return err
}
