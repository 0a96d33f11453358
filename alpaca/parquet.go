package alpaca

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/parquet-go/parquet-go"
)

// parquetMagic begins and ends every Parquet file.
const parquetMagic = "PAR1"

// rowColumns are all columns that a row of one of the forms can have; no others are read.
var rowColumns = []string{
	"messages", "instruction", "input", "output", "prompt", "completion",
	"question", "choices", "answer", "answerKey", "ctx", "endings", "label",
}

// parquetFile gives each row as the JSON object that it would be in a JSON file.
type parquetFile struct {
	name   string
	file   *parquet.File
	schema *parquet.Schema // the columns of rowColumns alone
	io.Closer

	mu   sync.Mutex
	rows *parquet.GenericReader[any] // for read
}

func openParquet(name string, data io.ReaderAt, size int64, closer io.Closer) (_ *parquetFile, err error) {
	f := &parquetFile{name: name, Closer: closer}
	defer f.guard(&err)
	if err := checkFooter(data, size); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.file, err = parquet.OpenFile(data, size, parquet.SkipBloomFilters(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	columns, all := parquet.Group{}, []string{}
	for _, field := range f.file.Schema().Fields() {
		all = append(all, field.Name())
		if slices.Contains(rowColumns, field.Name()) {
			columns[field.Name()] = field
		}
	}
	if len(columns) == 0 {
		return nil, fmt.Errorf("%s: has no column instruction, messages, prompt or choices; its columns are %s", name, strings.Join(all, ", "))
	}
	f.schema = parquet.NewSchema(f.file.Schema().Name(), columns)
	f.rows = f.reader()
	return f, nil
}

// checkFooter fails where the file's end gives the footer before it a size that the file can't hold; the library would allocate that much.
func checkFooter(data io.ReaderAt, size int64) error {
	end := make([]byte, 4+len(parquetMagic))
	if _, err := data.ReadAt(end, size-int64(len(end))); err != nil {
		return fmt.Errorf("damaged Parquet file: %w", err)
	}
	if n := int64(binary.LittleEndian.Uint32(end)); n > size-int64(len(end)+len(parquetMagic)) {
		return fmt.Errorf("damaged Parquet file: a footer of %d bytes in a file of %d", n, size)
	}
	return nil
}

func (f *parquetFile) length() int64 { return f.file.NumRows() }

func (f *parquetFile) reader() *parquet.GenericReader[any] {
	return parquet.NewGenericReader[any](f.file, f.schema)
}

// guard makes an error of the library's panic over a damaged file.
func (f *parquetFile) guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: damaged Parquet file: %v", f.name, p)
	}
}

func (f *parquetFile) scan(yield func(number int, at place, raw []byte) error) error {
	r := f.reader()
	defer r.Close()
	rows := make([]any, 64)
	for done := 0; ; {
		n, end := f.readRows(r, rows)
		for _, row := range rows[:n] {
			raw, err := rowJSON(row)
			if err != nil {
				return fmt.Errorf("%s: row %d: %w", f.name, done+1, err)
			}
			if err := yield(done+1, place{offset: int64(done)}, raw); err != nil {
				return err
			}
			done++
		}
		switch {
		case errors.Is(end, io.EOF):
			return nil
		case end == nil && n == 0:
			return fmt.Errorf("%s: after row %d: damaged Parquet file", f.name, done)
		case end != nil:
			return fmt.Errorf("%s: after row %d: %w", f.name, done, end)
		}
	}
}

func (f *parquetFile) readRows(r *parquet.GenericReader[any], rows []any) (n int, err error) {
	defer f.guard(&err)
	clear(rows)
	return r.Read(rows)
}

func (f *parquetFile) read(at place) (raw []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.guard(&err)
	if err := f.rows.SeekToRow(at.offset); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	rows := make([]any, 1)
	if n, err := f.rows.Read(rows); n < 1 {
		return nil, fmt.Errorf("%s: %w", f.name, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return rowJSON(rows[0])
}

// prompts are the columns whose answers a row should have.
var prompts = map[string]string{"output": "instruction", "completion": "prompt"}

// rowJSON leaves columns out that are null in a row, as those of other forms are in a file of several; a null answer to a prompt is one, and empty.
func rowJSON(row any) ([]byte, error) {
	columns, ok := row.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("is a %T, want columns", row)
	}
	object := map[string]any{}
	for name, value := range columns {
		if value != nil || columns[prompts[name]] != nil {
			object[name] = value
		}
	}
	return json.Marshal(object)
}
