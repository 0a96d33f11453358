package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"github.com/veratune/veratune/internal/terminal"
)

// inWords is the text of an error for people: what libraries and the system say in it is put in words.
func inWords(err error) string {
	text := err.Error()
	each(err, func(e error) {
		if words := said(e); words != "" {
			text = strings.Replace(text, e.Error(), words, 1)
		}
	})
	return terminal.Text(draft.ReplaceAllString(text, "$1$2"))
}

// draft is the name of a folder that is being written, which becomes that of the whole one.
var draft = regexp.MustCompile(`\.unfinished-([^/ :]+?)(?:-[0-9]{5,})?([/ :])`)

// each visits an error and all that it wraps, the outer ones first.
func each(err error, visit func(error)) {
	if err == nil {
		return
	}
	visit(err)
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		each(e.Unwrap(), visit)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			each(inner, visit)
		}
	}
}

// said is what a library's or the system's error says, in words; "" where it is none, or plain enough.
func said(err error) string {
	switch err {
	case io.EOF, io.ErrUnexpectedEOF:
		return "it is empty, or ends too early"
	case context.Canceled:
		return "interrupted"
	case context.DeadlineExceeded:
		return "it took too long"
	}
	switch e := err.(type) {
	case *fs.PathError:
		return e.Path + ": " + reason(e.Err)
	case *os.LinkError:
		return e.New + ": " + reason(e.Err)
	case *os.SyscallError:
		return reason(e.Err)
	case *strconv.NumError:
		return notNumber(e)
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("%s: %s is not what belongs there", orDash(e.Field), article(e.Value))
	case *url.Error:
		return e.URL + ": " + e.Err.Error()
	case *net.OpError:
		if e.Addr == nil {
			return e.Err.Error()
		}
		return fmt.Sprintf("%v: %v", e.Addr, e.Err)
	}
	return ""
}

// reason is what the system says, with what it means where that isn't plain.
func reason(err error) string {
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return "a part of this path is a file, not a folder"
	case errors.Is(err, fs.ErrNotExist):
		return "no such file or folder"
	}
	return err.Error()
}

func notNumber(e *strconv.NumError) string {
	if errors.Is(e.Err, strconv.ErrRange) {
		return e.Num + " is too large a number"
	}
	return fmt.Sprintf("%q is no number", e.Num)
}

func article(kind string) string {
	if strings.ContainsAny(kind[:1], "aeiou") {
		return "an " + kind
	}
	return "a " + kind
}

// plainYAML says where a file isn't YAML, and why.
func plainYAML(err error) error {
	var e *yaml.LoadError
	if errors.As(err, &e) {
		return fmt.Errorf("line %d: %s", e.Mark.Line, e.Message)
	}
	return err
}

// badValue is the library's message about an option's value.
var badValue = regexp.MustCompile(`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-+([a-z-]+): (?s:(.*))$`)

// plainUsage puts the library's messages about options in words.
func plainUsage(c *cli.Command, err error) error {
	parts := badValue.FindStringSubmatch(err.Error())
	if parts == nil {
		return err
	}
	flag, value := flagOf(c, parts[2]), parts[1]
	if text, err := strconv.Unquote(value); err == nil {
		value = text
	}
	return fmt.Errorf("--%s %w", parts[2], plainValue(flag, value, errors.New(parts[3])))
}

// plainValue says what values an option takes, where that isn't its own message.
func plainValue(f cli.Flag, value string, err error) error {
	want := ""
	switch f.(type) {
	case *cli.IntFlag, *cli.IntSliceFlag:
		want = "a whole number"
	case *cli.Uint64Flag:
		want = "a whole number, 0 or more"
	case *cli.Float64Flag:
		want = "a number"
	case *cli.DurationFlag:
		want = "a time such as 7h30m"
	case *cli.BoolFlag:
		want = "true or false"
	default:
		return fmt.Errorf("%q: %w", value, err)
	}
	return fmt.Errorf("%q: want %s", value, want)
}

// dashed is a usage error whose text has dashes before the options that it begins with: packages below this one know them by their names alone.
type dashed struct {
	error
	text string
}

func (d dashed) Error() string { return d.text }
func (d dashed) Unwrap() error { return d.error }

// withDashes makes usage errors of a command dashed.
func withDashes(c *cli.Context, err error) error {
	var usage usageError
	if !errors.As(err, &usage) {
		return err
	}
	head, _, _ := strings.Cut(err.Error(), ":")
	words := strings.SplitAfter(head, " ")
	for i, word := range words {
		begins := i == 0 || words[i-1] == "and " || strings.HasSuffix(words[i-1], ", ")
		if begins && slices.Contains(optionNames(c.Command), strings.TrimRight(word, " ,")) {
			words[i] = "--" + word
		}
	}
	return dashed{err, strings.Join(words, "") + strings.TrimPrefix(err.Error(), head)}
}
