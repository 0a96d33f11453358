package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/peterh/liner"

	"github.com/veratune/veratune/internal/terminal"
)

// console reads what a person types: on a terminal with an editor and its history, elsewhere line by line. It has
// Ctrl-C to itself.
type console struct {
	keys        *pastes      // of a person at a terminal, else nil
	editor      *liner.State // nil where the terminal is not for both
	cooked, raw liner.ModeApplier
	plain       *bufio.Reader
	out, notes  io.Writer
	interrupts  chan os.Signal
	warned      bool // that one more Ctrl-C ends the chat
}

// A terminal in this mode marks what is pasted.
const markPastes, dontMarkPastes = "\x1b[?2004h", "\x1b[?2004l"

func newConsole(in io.Reader, out, notes io.Writer) *console {
	c := &console{out: terminal.Raw(out), notes: notes, interrupts: make(chan os.Signal, 1)}
	signal.Reset(os.Interrupt) // the end of every other command
	signal.Notify(c.interrupts, os.Interrupt)
	if terminal.Is(in) {
		c.keys = &pastes{in: in}
		in = c.keys
	}
	c.plain = bufio.NewReader(in)
	if c.keys != nil && terminal.Is(out) && liner.TerminalSupported() {
		c.edit(in)
	}
	return c
}

// edit begins the editor. Outside of its prompts the terminal stays as it was: whatever ends the process then leaves it
// in order.
func (c *console) edit(in io.Reader) {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	if c.cooked, err = liner.TerminalMode(); err != nil {
		return
	}
	go func() {
		io.Copy(w, in)
		w.Close()
	}()
	// The editor takes its input from nowhere else than os.Stdin as it is now.
	stdin := os.Stdin
	os.Stdin = r
	c.editor = liner.NewLiner()
	os.Stdin = stdin
	c.editor.SetCtrlCAborts(true)
	if c.raw, err = liner.TerminalMode(); err != nil {
		c.raw = c.cooked
	}
	c.cooked.ApplyMode()
}

func (c *console) Close() {
	signal.Stop(c.interrupts)
	if c.editor != nil {
		io.WriteString(c.out, dontMarkPastes)
		c.editor.Close()
	}
}

// message reads a message; a line that ends in a backslash goes on in the next.
func (c *console) message(ctx context.Context) (string, error) {
	var message []string
	for {
		prompt := "> "
		if len(message) > 0 {
			prompt = "… "
		}
		line, err := c.line(ctx, prompt)
		goesOn := false
		switch {
		case errors.Is(err, liner.ErrPromptAborted):
			message = nil
			continue
		case err == io.EOF && len(message) > 0:
		case err != nil:
			return "", err
		default:
			line, goesOn = strings.CutSuffix(line, `\`)
			message = append(message, line)
		}
		if !goesOn {
			return strings.Join(message, "\n"), nil
		}
	}
}

// errInterrupted is the end by Ctrl-C.
const errInterrupted = interrupted("the chat was interrupted")

// line waits for a line, Ctrl-C, or the end of ctx.
func (c *console) line(ctx context.Context, prompt string) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := c.read(prompt)
		done <- result{line, err}
	}()
	for {
		select {
		case r := <-done:
			if errors.Is(r.err, liner.ErrPromptAborted) && !c.warn() {
				return "", errInterrupted
			}
			return r.line, r.err
		case <-c.interrupts: // of another process, or where the terminal has no editor
			if c.keys == nil || !c.warn() {
				return "", errInterrupted
			}
		case <-ctx.Done():
			return "", errInterrupted
		}
	}
}

// warn says what one more Ctrl-C does, and is false where that has been said and nothing typed since.
func (c *console) warn() bool {
	if typed := c.keys.typed.Swap(false); c.warned && !typed {
		return false
	}
	c.warned = true
	fmt.Fprintln(c.notes, "(Ctrl-C once more ends the chat; /save FILE keeps the conversation)")
	return true
}

func (c *console) read(prompt string) (string, error) {
	if c.editor == nil {
		if c.keys != nil {
			io.WriteString(c.notes, prompt)
		}
		line, err := c.plain.ReadString('\n')
		if line != "" {
			err = nil
		}
		line = strings.TrimRight(line, "\r\n")
		if c.keys != nil {
			line = unmark(line)
		}
		return line, err
	}
	c.raw.ApplyMode()
	defer c.cooked.ApplyMode()
	io.WriteString(c.out, markPastes)
	defer io.WriteString(c.out, dontMarkPastes)
	line, err := c.editor.Prompt(prompt)
	if err != nil {
		return "", err
	}
	if line != "" {
		c.editor.AppendHistory(line)
	}
	return unmark(line), nil
}

// untilInterrupted gives work a context that Ctrl-C cancels; a third Ctrl-C ends the process, should it not. It tells
// whether there was one.
func (c *console) untilInterrupted(ctx context.Context, work func(context.Context)) (interrupted bool) {
	ctx, stop := context.WithCancel(ctx)
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-c.interrupts:
				if interrupted {
					fmt.Fprintln(c.notes, "(the answer is about to stop; Ctrl-C once more ends the chat at once)")
					signal.Stop(c.interrupts)
				}
				interrupted = true
				stop()
			case <-done:
				return
			}
		}
	}()
	work(ctx)
	close(done)
	<-watched
	stop()
	signal.Notify(c.interrupts, os.Interrupt)
	return interrupted
}
