package alpaca

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// jsonFile is JSONL, an array of rows, or an object with such an array.
type jsonFile struct {
	textFile
	array int64  // offset of the array; JSONL has none
	under string // the key of the array in an object
	whole bool   // it is an array
}

// arrayNames are the keys that an array of rows may have in an object.
var arrayNames = []string{"data", "rows", "train", "examples"}

func (f *jsonFile) kind() string {
	switch {
	case f.under != "":
		return fmt.Sprintf("JSON array under %q", f.under)
	case f.whole:
		return "JSON array"
	}
	return "JSON lines"
}

// openJSON finds out how the rows of a file stand in it that begins with a bracket.
func openJSON(t textFile) (*jsonFile, error) {
	f := &jsonFile{textFile: t}
	first, at, err := f.next(f.start, " \t\r\n\v\f")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	oneLine, end := f.firstValue(at)
	then, _, err := f.next(end, " \t\r\n")
	switch {
	case oneLine && err == nil && (then == '{' || then == '[' && first == '[' || first == '{'):
		return f, nil
	case first == '[':
		f.array, f.whole = at, true
		return f, nil
	}
	return f, f.findArray(at, oneLine)
}

// firstValue tells whether the value at an offset ends on the line where it begins, and where it or else the line ends.
func (f *jsonFile) firstValue(offset int64) (oneLine bool, end int64) {
	r := bufio.NewReaderSize(f.from(offset), 1<<16)
	depth, quoted := 0, false
	for ; ; offset++ {
		b, err := r.ReadByte()
		switch {
		case err != nil || b == '\n':
			return false, offset
		case quoted && b == '\\':
			r.ReadByte()
			offset++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			if depth--; depth == 0 {
				return true, offset + 1
			}
		}
	}
}

// findArray looks into the object at an offset for an array of rows. A file that has none is JSONL, or JSON of a form
// that has no rows.
func (f *jsonFile) findArray(offset int64, oneLine bool) error {
	d := json.NewDecoder(f.from(offset))
	d.Token()
	values, numbered, isRow := 0, 0, false
	var columns bool // pandas' orient="split"
	for ; d.More(); values++ {
		token, err := d.Token()
		key, _ := token.(string)
		if err != nil {
			return nil
		}
		inner, innerAt, err := f.next(offset+d.InputOffset(), ": \t\r\n")
		if err != nil {
			return nil
		}
		isRow = isRow || slices.Contains(formNames, key)
		switch inner {
		case '[':
			element, _, err := f.next(innerAt+1, " \t\r\n")
			if columns = columns || key == "columns"; columns && key == "data" && element == '[' {
				return f.pandas("split")
			}
			if err == nil && !isRow && slices.Contains(arrayNames, key) &&
				bytes.IndexByte([]byte("{[]"), element) >= 0 {
				f.array, f.under, f.whole = innerAt, key, true
				return nil
			}
		case '{':
			if quote, in, err := f.next(innerAt+1, " \t\r\n"); err == nil && quote == '"' {
				if digit, _, err := f.next(in+1, ""); err == nil && '0' <= digit && digit <= '9' {
					numbered++
				}
			}
		}
		if key == "0" && inner == '{' {
			return f.pandas("index")
		}
		if skip(d) != nil {
			return nil
		}
	}
	if _, err := d.Token(); err != nil {
		return nil
	}
	switch {
	case numbered == values && values > 0:
		return f.pandas("columns")
	case !oneLine:
		return fmt.Errorf("%s: the file is one JSON value over many lines; want an array of rows, or one row a line",
			f.name)
	}
	return nil
}

func (f *jsonFile) pandas(orient string) error {
	return fmt.Errorf(`%s: is a table as pandas writes it with orient=%q; write rows, with df.to_json(path, `+
		`orient="records", lines=True)`, f.name, orient)
}

// skip passes over a value.
func skip(d *json.Decoder) error {
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func (f *jsonFile) scan(yield func(rawRow) error) error {
	if f.whole {
		return f.scanArray(yield)
	}
	return f.scanLines(yield)
}

func (f *jsonFile) scanLines(yield func(rawRow) error) error {
	start := f.start
	r := bufio.NewReaderSize(f.from(start), int(min(1<<20, f.size)))
	for number := 1; ; number++ {
		line, err := r.ReadBytes('\n')
		if row := bytes.TrimSpace(line); len(row) > 0 {
			found := place{start + int64(bytes.Index(line, row)), len(row)}
			if err := yield(rawRow{number: number, place: found, json: row}); err != nil {
				return err
			}
		}
		start += int64(len(line))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
}

func (f *jsonFile) scanArray(yield func(rawRow) error) error {
	start := f.array
	d := json.NewDecoder(f.from(start))
	if _, err := d.Token(); err != nil {
		return f.malformed(start, err)
	}
	var raw json.RawMessage
	for number := 1; d.More(); number++ {
		from := start + d.InputOffset()
		if err := d.Decode(&raw); err != nil {
			return f.malformed(from, err)
		}
		found := place{start + d.InputOffset() - int64(len(raw)), len(raw)}
		if err := yield(rawRow{number: number, place: found, json: raw}); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return f.malformed(start+d.InputOffset(), err)
	}
	return f.afterArray(start + d.InputOffset())
}

// afterArray fails where more than white space follows the array of rows, or more than other values where it stands in
// an object.
func (f *jsonFile) afterArray(end int64) error {
	if f.under != "" {
		b, at, err := f.next(end, " \t\r\n")
		for err == nil && b == ',' {
			if b, at, err = f.afterMember(at + 1); err != nil {
				return f.malformed(at, err)
			}
		}
		if err == nil && b != '}' {
			err = errors.New("it doesn't end with }")
		}
		if err != nil {
			return f.malformed(at, err)
		}
		end = at + 1
	}
	switch _, at, err := f.next(end, " \t\r\n"); {
	case err == nil:
		return f.malformed(at, errors.New("text after its end"))
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
}

// afterMember passes over a key and its value, and gives what follows them.
func (f *jsonFile) afterMember(offset int64) (byte, int64, error) {
	d := json.NewDecoder(f.from(offset))
	key, err := d.Token()
	if err != nil {
		return 0, offset, err
	}
	colon, offset, err := f.next(offset+d.InputOffset(), " \t\r\n")
	if err != nil || colon != ':' {
		return 0, offset, errors.Join(err, errors.New("a key without a value"))
	}
	if name, _ := key.(string); slices.Contains(arrayNames, name) {
		if first, _, err := f.next(offset+1, " \t\r\n"); err == nil && first == '[' {
			return 0, offset, fmt.Errorf("it has rows under %q and under %q; leave one of them", f.under, name)
		}
	}
	d = json.NewDecoder(f.from(offset + 1))
	if err := skip(d); err != nil {
		return 0, offset, err
	}
	return f.next(offset+1+d.InputOffset(), " \t\r\n")
}

// malformed says on which line an array is broken whose rows before an offset are sound.
func (f *jsonFile) malformed(offset int64, err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		offset, err = f.size, errors.New("unexpected end of the file")
	case errors.As(err, &syntax): // its offset leaves out what stands between the rows
		if _, at, e := f.next(offset, " \t\r\n,"); e == nil {
			offset = at
			if errors.As(json.NewDecoder(f.from(at)).Decode(new(json.RawMessage)), &syntax) {
				offset += syntax.Offset
			}
		}
	}
	line := 1
	r := bufio.NewReader(io.LimitReader(f.from(0), offset))
	for {
		_, e := r.ReadSlice('\n')
		if e == nil {
			line++
		} else if !errors.Is(e, bufio.ErrBufferFull) {
			break
		}
	}
	return fmt.Errorf("%s: malformed JSON array near line %d: %w", f.name, line, err)
}
