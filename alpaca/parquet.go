package alpaca

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/parquet-go/parquet-go"
)

// parquetMagic begins and ends every Parquet file.
const parquetMagic = "PAR1"

// parquetFile gives each row as the JSON object that it would be in a JSON file.
type parquetFile struct {
	name   string
	file   *parquet.File
	schema *parquet.Schema // the columns that rows are read from, alone
	io.Closer

	mu   sync.Mutex
	rows *parquet.GenericReader[any] // for read
}

func openParquet(name string, data io.ReaderAt, size int64, closer io.Closer, mapped map[string]string) (_ *parquetFile,
	err error) {
	f := &parquetFile{name: name, Closer: closer}
	defer f.guard(&err)
	if err := checkFooter(data, size); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if f.file, err = parquet.OpenFile(data, size, parquet.SkipBloomFilters(true)); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	columns, all, usable := parquet.Group{}, []string{}, false
	for _, field := range f.file.Schema().Fields() {
		all = append(all, field.Name())
		if knownColumn(field.Name(), rowNames, mapped) {
			columns[field.Name()] = field
		}
		usable = usable || knownColumn(field.Name(), formNames, mapped)
	}
	if !usable {
		return nil, noColumn(name, all)
	}
	f.schema = parquet.NewSchema(f.file.Schema().Name(), columns)
	f.rows = f.reader()
	return f, nil
}

// checkFooter fails where the file's end gives the footer before it a size that the file can't hold; the library would
// allocate that much.
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

func (f *parquetFile) kind() string { return "Parquet" }

func (f *parquetFile) reader() *parquet.GenericReader[any] {
	return parquet.NewGenericReader[any](f.file, f.schema)
}

// guard makes an error of the library's panic over a damaged file.
func (f *parquetFile) guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%s: damaged Parquet file: %v", f.name, p)
	}
}

func (f *parquetFile) scan(yield func(rawRow) error) error {
	r := f.reader()
	defer r.Close()
	rows := make([]any, 64)
	for done := 0; ; {
		n, end := f.readRows(r, rows)
		for _, columns := range rows[:n] {
			row := rawRow{number: done + 1, place: place{offset: int64(done)}}
			row.json, row.err = f.rowJSON(columns)
			if err := yield(row); err != nil {
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

func (f *parquetFile) read(p place) (raw []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.guard(&err)
	if err := f.rows.SeekToRow(p.offset); err != nil {
		return nil, fmt.Errorf("%s: %w", f.name, err)
	}
	rows := make([]any, 1)
	if n, err := f.rows.Read(rows); n < 1 {
		return nil, fmt.Errorf("%s: %w", f.name, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return f.rowJSON(rows[0])
}
