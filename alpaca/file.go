package alpaca

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// place says where in its file a row is.
type place struct {
	offset int64 // in bytes; in a Parquet file, rows before it
	size   int   // in bytes
}

// rowFile is an open file of rows, which need not fit into memory: it is read through once, and then row by row.
type rowFile interface {
	// scan calls yield with the number of each row for people, its place and its JSON, in the file's order. It returns the first error, yield's or its own;
	// raw is valid during the call only.
	scan(yield func(number int, at place, raw []byte) error) error
	read(at place) ([]byte, error)
	length() int64 // of the file, in the unit of a place's offset
	Close() error
}

// openRows opens a file by what is in it.
func openRows(path string) (rowFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading data: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading data: %w", err)
	}
	if !info.Mode().IsRegular() {
		defer f.Close()
		data, err := io.ReadAll(f) // a pipe can't be read twice
		if err != nil {
			return nil, fmt.Errorf("reading data: %w", err)
		}
		return rowsIn(path, bytes.NewReader(data), int64(len(data)), noClose{})
	}
	rows, err := rowsIn(path, f, info.Size(), f)
	if err != nil {
		f.Close()
	}
	return rows, err
}

// rowsIn finds out which kind of file it is.
func rowsIn(name string, data io.ReaderAt, size int64, closer io.Closer) (rowFile, error) {
	magic := make([]byte, len(parquetMagic))
	if n, _ := data.ReadAt(magic, 0); string(magic[:n]) == parquetMagic {
		return openParquet(name, data, size, closer)
	}
	return &jsonFile{name: name, data: data, size: size, Closer: closer}, nil
}

func inMemory(name string, data []byte) *jsonFile {
	return &jsonFile{name: name, data: bytes.NewReader(data), size: int64(len(data)), Closer: noClose{}}
}

// noClose is for files in memory.
type noClose struct{}

func (noClose) Close() error { return nil }

// jsonFile is a JSON array of rows, or JSONL: whatever doesn't open with a bracket is read line by line.
type jsonFile struct {
	name string
	data io.ReaderAt
	size int64
	io.Closer
}

func (f *jsonFile) length() int64 { return f.size }

func (f *jsonFile) from(offset int64) io.Reader {
	return io.NewSectionReader(f.data, offset, f.size-offset)
}

func (f *jsonFile) read(at place) ([]byte, error) {
	raw := make([]byte, at.size)
	if _, err := f.data.ReadAt(raw, at.offset); err != nil && !(errors.Is(err, io.EOF) && at.offset+int64(at.size) == f.size) {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return raw, nil
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func (f *jsonFile) scan(yield func(number int, at place, raw []byte) error) error {
	var start int64
	if mark, err := f.read(place{0, len(byteOrderMark)}); err == nil && bytes.Equal(mark, byteOrderMark) {
		start = int64(len(mark))
	}
	first, _, err := f.next(start, " \t\r\n\v\f")
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the file is empty", f.name)
	case err != nil:
		return fmt.Errorf("%s: %w", f.name, err)
	case first == '[':
		return f.scanArray(start, yield)
	}
	return f.scanLines(start, yield)
}

// next gives the first byte from offset on that isn't among skip, and its offset.
func (f *jsonFile) next(offset int64, skip string) (byte, int64, error) {
	r := bufio.NewReader(f.from(offset))
	for ; ; offset++ {
		b, err := r.ReadByte()
		if err != nil || bytes.IndexByte([]byte(skip), b) < 0 {
			return b, offset, err
		}
	}
}

func (f *jsonFile) scanLines(start int64, yield func(number int, at place, raw []byte) error) error {
	r := bufio.NewReaderSize(f.from(start), int(min(1<<20, f.size)))
	first := true
	for number := 1; ; number++ {
		line, err := r.ReadBytes('\n')
		if row := bytes.TrimSpace(line); len(row) > 0 {
			if first && !json.Valid(row) && f.oneValue(start) {
				return fmt.Errorf("%s: the file is one JSON value over many lines; want an array of rows, or one row a line", f.name)
			}
			first = false
			if err := yield(number, place{start, len(line)}, row); err != nil {
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

func (f *jsonFile) scanArray(start int64, yield func(number int, at place, raw []byte) error) error {
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
		if err := yield(number, place{start + d.InputOffset() - int64(len(raw)), len(raw)}, raw); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return f.malformed(start+d.InputOffset(), err)
	}
	switch _, at, err := f.next(start+d.InputOffset(), " \t\r\n"); {
	case err == nil:
		return f.malformed(at, errors.New("text after its end"))
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
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

// oneValue tells whether the file from start on is a single JSON value.
func (f *jsonFile) oneValue(start int64) bool {
	d, depth := json.NewDecoder(f.from(start)), 0
	for values := 0; ; {
		token, err := d.Token()
		if err != nil {
			return errors.Is(err, io.EOF) && values == 1 && depth == 0
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			values++
		}
	}
}
