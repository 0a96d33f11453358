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
	"golang.org/x/term"
)

// console reads what a person types: on a terminal with an editor and its history, elsewhere line by line. It has Ctrl-C to itself.
type console struct {
	editor      *liner.State // nil where there is no terminal
	cooked, raw liner.ModeApplier
	plain       *bufio.Reader
	notes       io.Writer
	interrupts  chan os.Signal
	warned      bool // that one more Ctrl-C ends the chat
}

func newConsole(in io.Reader, out, notes io.Writer) *console {
	c := &console{plain: bufio.NewReader(in), notes: notes, interrupts: make(chan os.Signal, 1)}
	signal.Reset(os.Interrupt) // the end of every other command
	signal.Notify(c.interrupts, os.Interrupt)
	if isTerminal(in) && isTerminal(out) {
		// Outside of its prompts the terminal stays as it was: whatever ends the process then leaves it in order.
		var err error
		if c.cooked, err = liner.TerminalMode(); err != nil {
			return c
		}
		c.editor = liner.NewLiner()
		c.editor.SetCtrlCAborts(true)
		if c.raw, err = liner.TerminalMode(); err != nil {
			c.raw = c.cooked
		}
		c.cooked.ApplyMode()
	}
	return c
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func (c *console) Close() {
	signal.Stop(c.interrupts)
	if c.editor != nil {
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
var errInterrupted = fmt.Errorf("the chat was interrupted: %w", context.Canceled)

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
	select {
	case r := <-done:
		return r.line, r.err
	case <-c.interrupts:
		return "", errInterrupted
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (c *console) read(prompt string) (string, error) {
	if c.editor == nil {
		line, err := c.plain.ReadString('\n')
		if line != "" {
			err = nil
		}
		return strings.TrimRight(line, "\r\n"), err
	}
	c.raw.ApplyMode()
	defer c.cooked.ApplyMode()
	line, err := c.editor.Prompt(prompt)
	switch {
	case errors.Is(err, liner.ErrPromptAborted) && c.warned:
		return "", errInterrupted
	case errors.Is(err, liner.ErrPromptAborted):
		fmt.Fprintln(c.notes, "(Ctrl-C once more ends the chat)")
		c.warned = true
		return "", err
	case err != nil:
		return "", err
	}
	c.warned = false
	if line != "" {
		c.editor.AppendHistory(line)
	}
	return line, nil
}

// untilInterrupted gives work a context that Ctrl-C cancels; a second Ctrl-C ends the process. It tells whether there was one.
func (c *console) untilInterrupted(ctx context.Context, work func(context.Context)) (interrupted bool) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.interrupts:
			interrupted = true
			signal.Stop(c.interrupts)
		case <-ctx.Done():
		}
		cancel()
	}()
	work(ctx)
	cancel()
	<-watched
	signal.Notify(c.interrupts, os.Interrupt)
	return interrupted
}
