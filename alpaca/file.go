package alpaca

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// place says where in its file a row is.
type place struct {
	offset int64 // in bytes; in a Parquet file, rows before it
	size   int   // in bytes
}

// rawRow is a row that is still to be parsed.
type rawRow struct {
	number int // for people
	place  place
	json   []byte
	err    error // why there is no json
}

// rowFile is an open file of rows, which need not fit into memory: it is read through once, and then row by row.
type rowFile interface {
	// scan calls yield with each row in the file's order. It returns the first error, yield's or its own; json is valid
	// during the call only.
	scan(yield func(rawRow) error) error
	read(at place) ([]byte, error) // the JSON of a row
	length() int64                 // of the file, in the unit of a place's offset
	kind() string                  // what the file was taken for, for people
	Close() error
}

const takenFiles = "want JSON, JSON lines, CSV, TSV or Parquet, as it is or packed with gzip or zstd"

// openRows opens a file by what is in it.
func openRows(path string, o Options) (rowFile, error) {
	if err := validateColumns(o.Columns); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading data: %w", err)
	}
	if !info.Mode().IsRegular() && info.Mode()&os.ModeNamedPipe == 0 {
		return nil, fmt.Errorf("%s is %s; %s", path, durable.Kind(info.Mode()), takenFiles)
	}
	f, err := openUntil(o.context(), path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(o.context(), func() { f.Close() }) // which ends the wait for what a pipe may bring
	plain, packing, err := unpack(path, f, info.Mode().IsRegular())
	if ended := o.context().Err(); !stop() && ended != nil {
		err = ended
	}
	if err != nil {
		if plain != nil {
			plain.Close()
		}
		f.Close()
		return nil, err
	}
	if plain != f {
		f.Close()
	}
	if info, err = plain.Stat(); err != nil {
		return nil, errors.Join(fmt.Errorf("reading data: %w", err), plain.Close())
	}
	rows, err := rowsIn(path, plain, info.Size(), plain, o)
	if err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	if packing != "" {
		rows = packedFile{rows, packing}
	}
	return rows, nil
}

// openUntil opens a file of rows. That of a pipe waits for who writes into it.
func openUntil(ctx context.Context, path string) (*os.File, error) {
	type opened struct {
		*os.File
		error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		if o.error != nil {
			return nil, fmt.Errorf("reading data: %w", o.error)
		}
		return o.File, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// packedFile is read in its unpacked form.
type packedFile struct {
	rowFile
	packing string
}

func (f packedFile) kind() string { return f.rowFile.kind() + ", " + f.packing }

// sniffed is how much of a file is looked at to find out what it is.
const sniffed = 64 << 10

var byteOrderMark = []byte("\xef\xbb\xbf")

// rowsIn finds out which kind of file it is.
func rowsIn(name string, data io.ReaderAt, size int64, closer io.Closer, o Options) (rowFile, error) {
	head := make([]byte, min(size, sniffed))
	n, err := data.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	head = head[:n]
	if bytes.HasPrefix(head, []byte(parquetMagic)) {
		return openParquet(name, data, size, closer, o.Columns)
	}
	var start int64
	if bytes.HasPrefix(head, byteOrderMark) {
		start = int64(len(byteOrderMark))
		head = head[start:]
	}
	t := textFile{name: name, data: data, size: size, start: start, Closer: closer}
	first, _, err := t.next(start, " \t\r\n\v\f")
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: the file is empty", name)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	case tableName(name):
		return openCSV(t, o.Columns)
	case first == '{' || first == '[':
		return openJSON(t)
	}
	if table, err := openCSV(t, o.Columns); err == nil && bytes.IndexByte(head, 0) < 0 {
		return table, nil
	}
	if hasRows(head) {
		return &jsonFile{textFile: t}, nil
	}
	return nil, fmt.Errorf("%s: %s; %s", name, unknownContent(head), takenFiles)
}

// tableName tells whether a file is called a table.
func tableName(name string) bool {
	name = strings.ToLower(name)
	if ext := filepath.Ext(name); ext == ".gz" || ext == ".zst" {
		name = strings.TrimSuffix(name, ext)
	}
	ext := filepath.Ext(name)
	return ext == ".csv" || ext == ".tsv"
}

// hasRows tells whether one of the first lines is that of a JSONL file, though the first is not.
func hasRows(head []byte) bool {
	for line := range bytes.Lines(head) {
		if line = bytes.TrimSpace(line); len(line) > 0 && (line[0] == '{' || line[0] == '[') && checkJSON(line) == nil {
			return true
		}
	}
	return checkJSON(bytes.TrimSpace(head)) == nil
}

// magics are how files begin that people take for data.
var magics = []struct{ magic, what string }{
	{"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save it as CSV"},
	{"%PDF", "a PDF"},
	{"BZh", "packed with bzip2; unpack it"},
	{"\xfd7zXZ", "packed with xz; unpack it"},
	{"7z\xbc\xaf", "packed with 7-Zip; unpack it"},
	{"ARROW1", "an Arrow file; write it as Parquet"},
	{"\xff\xff\xff\xff", "an Arrow stream; write it as Parquet"},
	{"SQLite format 3", "an SQLite database; write its table as CSV"},
	{"GGUF", "a GGUF model"},
	{"\xd0\xcf\x11\xe0", "an old Office file; save it as CSV"},
	{"<!DOCTYPE", "a web page"}, {"<!doctype", "a web page"}, {"<html", "a web page"},
	{"version https://git-lfs", "a Git LFS pointer; fetch the file with git lfs pull"},
}

// unknownContent says what a file is that holds no rows, as far as its first bytes tell.
func unknownContent(head []byte) string {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return "is " + m.what
		}
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return "is no text, or text that is neither UTF-8 nor marked as UTF-16"
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(head), []byte("\n"))
	const most = 40
	begin := []rune(string(bytes.TrimSpace(line)))
	if len(begin) > most {
		begin = append(begin[:most], '…')
	}
	return fmt.Sprintf("begins with %q, which is neither JSON nor the names of a table's columns", string(begin))
}

// textFile is a file that is read by offsets of bytes.
type textFile struct {
	name  string
	data  io.ReaderAt
	size  int64
	start int64 // after the byte order mark
	io.Closer
}

func (f *textFile) length() int64 { return f.size }

func (f *textFile) from(offset int64) io.Reader {
	return io.NewSectionReader(f.data, offset, f.size-offset)
}

func (f *textFile) read(p place) ([]byte, error) {
	raw := make([]byte, p.size)
	if _, err := f.data.ReadAt(raw, p.offset); err != nil &&
		!(errors.Is(err, io.EOF) && p.offset+int64(p.size) == f.size) {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	return raw, nil
}

// next gives the first byte from offset on that isn't among skip, and its offset.
func (f *textFile) next(offset int64, skip string) (byte, int64, error) {
	r := bufio.NewReader(f.from(offset))
	for ; ; offset++ {
		b, err := r.ReadByte()
		if err != nil || strings.IndexByte(skip, b) < 0 {
			return b, offset, err
		}
	}
}

// noClose is for files in memory.
type noClose struct{}

func (noClose) Close() error { return nil }

func inMemory(name string, data []byte, o Options) (rowFile, error) {
	return rowsIn(name, bytes.NewReader(data), int64(len(data)), noClose{}, o)
}
