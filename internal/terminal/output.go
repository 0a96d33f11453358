package terminal

import (
	"io"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// Output is a stream that people read: all that is written to it becomes Text. It is safe for concurrent use.
type Output struct {
	stream io.Writer
	mu     sync.Mutex
	rest   []byte // of a character or a line end that isn't whole
}

// NewOutput makes an Output of a stream. Close it when all is written; the stream stays open.
func NewOutput(stream io.Writer) *Output { return &Output{stream: stream} }

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := append(o.rest, p...)
	n := whole(text)
	o.rest = append([]byte(nil), text[n:]...)
	if n == 0 {
		return len(p), nil
	}
	if _, err := io.WriteString(o.stream, Text(string(text[:n]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// whole is the length of a text without what the next bytes may complete.
func whole(text []byte) int {
	n := len(text)
	if n > 0 && text[n-1] == '\r' {
		return n - 1
	}
	for i := n - 1; i >= max(0, n-utf8.UTFMax); i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRune(text[i:]) {
				return i
			}
			break
		}
	}
	return n
}

// Close writes what was held back.
func (o *Output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := io.WriteString(o.stream, Text(string(o.rest)))
	o.rest = nil
	return err
}

// Raw is the stream of an Output, for what has been made Text before; any other writer is what it is.
func Raw(w io.Writer) io.Writer {
	if o, ok := w.(*Output); ok {
		return o.stream
	}
	return w
}

// Verbatim is a writer for what another program may read: it changes nothing unless there is a terminal.
func Verbatim(w io.Writer) io.Writer {
	if Is(w) {
		return w
	}
	return Raw(w)
}

// Is tells whether a stream, or that of an Output, is a terminal.
func Is(stream any) bool { return fd(stream) >= 0 }

// fd is the number of a terminal, -1 of all else.
func fd(stream any) int {
	if o, ok := stream.(*Output); ok {
		stream = o.stream
	}
	if file, ok := stream.(interface{ Fd() uintptr }); ok && term.IsTerminal(int(file.Fd())) {
		return int(file.Fd())
	}
	return -1
}
