// Package terminal tells people how long work is getting on: on a terminal in one line that is written over, elsewhere
// in a line now and then.
package terminal

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/term"
)

// plainLines is about how many lines the steps of a piece of work take where the output is no terminal.
const plainLines = 20

// Line writes status lines and lines that stay, as Text. Several goroutines may use it.
type Line struct {
	out   io.Writer
	width func() int // columns of the terminal; nil where out is none
	mu    sync.Mutex // guards what is written, and open
	open  bool       // the terminal's cursor is in a status line
}

// NewLine finds out whether out is a terminal; nil takes what is written and shows it nowhere.
func NewLine(out io.Writer) *Line {
	l := &Line{out: Raw(out)}
	if out == nil {
		l.out = io.Discard
	}
	if Width(out) > 0 {
		l.width = func() int { return Width(out) }
	}
	return l
}

// Width is the number of columns of the terminal that out is, 80 where it doesn't say; 0 where out is none.
func Width(out io.Writer) int {
	number := fd(out)
	if number < 0 {
		return 0
	}
	width, _, err := term.GetSize(number)
	if err != nil || width < 2 {
		return 80
	}
	return width
}

// Step shows the line of a step that has just been made, which is number done of total; without a terminal only of some
// steps, the first and the last among them.
func (l *Line) Step(done, total int, line string) {
	switch {
	case l.width != nil:
		l.Status(line)
	case done == 1 || done == total || done*plainLines/total != (done-1)*plainLines/total:
		l.Note("%s", line)
	}
}

// Status shows a line that the next one takes the place of; terminals only.
func (l *Line) Status(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.width != nil {
		// A line that wraps could not be written over.
		fmt.Fprintf(l.out, "\r%.*s\x1b[K", l.width()-1, Text(line))
		l.open = true
	}
}

// Note writes a line that stays.
func (l *Line) Note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		fmt.Fprint(l.out, "\r\x1b[K")
		l.open = false
	}
	fmt.Fprintln(l.out, Text(fmt.Sprintf(format, args...)))
}

// End leaves the last line of a terminal standing.
func (l *Line) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		fmt.Fprintln(l.out)
		l.open = false
	}
}
