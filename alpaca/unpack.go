package alpaca

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding/unicode"

	"github.com/veratune/veratune/internal/durable"
)

// largestWindow is the most that unpacking a zstd file may keep in memory, the limit of the zstd program.
const largestWindow = 128 << 20

// mostLayers bounds how often data may be packed.
const mostLayers = 4

// unpack returns a file with the plain UTF-8 of f, and what was unpacked. It is f itself where there is nothing to
// unpack and f can be read anywhere; else it is a temporary file that goes away when it is closed, so that the rows
// need not fit into memory.
func unpack(name string, f *os.File, anywhere bool) (plain *os.File, packing string, err error) {
	var names []string
	var layers []io.Closer
	defer func() {
		for _, l := range layers {
			l.Close()
		}
	}()
	r := bufio.NewReaderSize(f, 1<<16)
	for {
		head, err := r.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, "", damaged(name, names, err)
		}
		l, err := layerOf(head, r)
		if err != nil {
			return nil, "", damaged(name, append(names, l.name), err)
		}
		if l.Reader == nil {
			break
		}
		if names = append(names, l.name); len(names) > mostLayers {
			return nil, "", fmt.Errorf("%s: is packed more than %d times", name, mostLayers)
		}
		if l.Closer != nil {
			layers = append(layers, l.Closer)
		}
		r = bufio.NewReaderSize(l.Reader, 1<<16)
	}
	if len(names) == 0 && anywhere {
		return f, "", nil
	}
	plain, err = spoolTo(durable.Temporary, name, names, r)
	return plain, strings.Join(names, ", "), err
}

// layer is one way in which data is packed.
type layer struct {
	io.Reader // nil where the data is plain
	io.Closer
	name string
}

func layerOf(head []byte, r io.Reader) (l layer, err error) {
	has := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	// a frame of zstd without data
	skippable := len(head) == 4 && head[0]&0xf0 == 0x50 && string(head[1:]) == "\x2a\x4d\x18"
	switch {
	case has("\x1f\x8b"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return layer{name: "gzip"}, err
		}
		return layer{z, z, "gzip"}, nil
	case has("\x28\xb5\x2f\xfd"), skippable:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(largestWindow))
		if err != nil {
			return layer{name: "zstd"}, err
		}
		return layer{z, z.IOReadCloser(), "zstd"}, nil
	case has("\xff\xfe\x00\x00"), has("\x00\x00\xfe\xff"):
		return layer{name: "UTF-32"}, errors.New("save it as UTF-8")
	case has("\xff\xfe"), has("\xfe\xff"):
		return layer{unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder().Reader(r), nil, "UTF-16"}, nil
	}
	return layer{}, nil
}

// spoolTo copies what r gives into a file of its own.
func spoolTo(create func() (*os.File, error), name string, packing []string, r io.Reader) (*os.File, error) {
	f, err := create()
	if err != nil {
		return nil, fmt.Errorf("%s: a temporary file for its rows can't be made: %w; set %s to a folder that can be "+
			"written to", name, err, durable.TempVariable)
	}
	w := &spool{file: f}
	if _, err = io.Copy(w, r); err == nil {
		return f, nil
	}
	f.Close()
	switch {
	case w.err == nil:
		return nil, damaged(name, packing, err)
	case durable.Refused(w.err, syscall.ENOSPC), durable.Refused(w.err, syscall.EDQUOT):
		return nil, fmt.Errorf("%s: there is no room for its rows in %s; set %s to a folder with more", name,
			os.TempDir(), durable.TempVariable)
	}
	return nil, fmt.Errorf("%s: writing its rows to %s: %w", name, os.TempDir(), w.err)
}

// spool keeps its error apart from the reader's, which io.Copy returns too.
type spool struct {
	file *os.File
	err  error
}

func (s *spool) Write(b []byte) (n int, err error) {
	n, s.err = s.file.Write(b)
	return n, s.err
}

// damaged says what is wrong with data that can't be unpacked.
func damaged(name string, packing []string, err error) error {
	if len(packing) == 0 {
		return fmt.Errorf("reading data: %s: %w", name, err)
	}
	what := packing[len(packing)-1]
	switch {
	case what == "UTF-32":
		return fmt.Errorf("%s: is UTF-32; %w", name, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%s: the %s data ends too early; the file is cut short", name, what)
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%s: unpacking it takes more than %d MiB of memory; pack it without zstd's --long", name,
			largestWindow>>20)
	}
	return fmt.Errorf("%s: damaged %s data: %w", name, what, err)
}
