package main

import (
	"bytes"
	"io"
	"strings"
	"sync/atomic"
)

// Characters that stand for those of pasted text which an editor of lines would take for keys: the end of a line, and a
// tab.
const (
	pastedNewline = "␤"
	pastedTab     = "␉"
)

// unmark gives the text that was pasted.
func unmark(line string) string {
	return strings.NewReplacer(pastedNewline, "\n", pastedTab, "\t").Replace(line)
}

// pastes reads what a terminal sends, and makes one line of a paste of several, where the terminal marks it (in its
// mode 2004). Other control characters are taken out of a paste, so that it presses no keys.
type pastes struct {
	in     io.Reader
	inside bool   // of a paste
	cr     bool   // that was the last of a paste
	rest   []byte // may become a mark
	ready  []byte
	typed  atomic.Bool // anything but Ctrl-C
}

const ctrlC = "\x03"

var pasteBegins, pasteEnds = []byte("\x1b[200~"), []byte("\x1b[201~")

func (p *pastes) Read(to []byte) (int, error) {
	for len(p.ready) == 0 {
		chunk := make([]byte, 4096)
		n, err := p.in.Read(chunk)
		if len(bytes.Trim(chunk[:n], ctrlC)) > 0 {
			p.typed.Store(true)
		}
		p.take(append(p.rest, chunk[:n]...))
		if err != nil && len(p.ready) == 0 {
			p.ready, p.rest = p.rest, nil
			if len(p.ready) == 0 {
				return 0, err
			}
		}
	}
	n := copy(to, p.ready)
	p.ready = p.ready[n:]
	return n, nil
}

func (p *pastes) take(data []byte) {
	p.rest = nil
	for len(data) > 0 {
		mark := pasteBegins
		if p.inside {
			mark = pasteEnds
		}
		before, after, found := bytes.Cut(data, mark)
		if !found {
			held := begun(data, mark)
			before, p.rest = data[:len(data)-held], bytes.Clone(data[len(data)-held:])
		}
		if p.inside {
			p.paste(before)
		} else {
			p.ready = append(p.ready, before...)
		}
		if !found {
			return
		}
		p.inside, p.cr, data = !p.inside, false, after
	}
}

// begun is the length of the longest end of data that a mark begins with.
func begun(data, mark []byte) int {
	for n := min(len(data), len(mark)-1); n > 0; n-- {
		if bytes.HasSuffix(data, mark[:n]) {
			return n
		}
	}
	return 0
}

func (p *pastes) paste(text []byte) {
	for _, b := range text {
		switch {
		case b == '\n' && p.cr:
		case b == '\n' || b == '\r':
			p.ready = append(p.ready, pastedNewline...)
		case b == '\t':
			p.ready = append(p.ready, pastedTab...)
		case b >= ' ' && b != 0x7f:
			p.ready = append(p.ready, b)
		}
		p.cr = b == '\r'
	}
}
