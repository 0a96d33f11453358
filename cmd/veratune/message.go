package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"
)

// plainYAML says where a file isn't YAML, and why.
func plainYAML(err error) error {
	var e *yaml.LoadError
	if errors.As(err, &e) {
		return fmt.Errorf("line %d: %s", e.Mark.Line, e.Message)
	}
	return err
}

// badValue is the library's message about an option's value.
var badValue = regexp.MustCompile(
	`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-+([a-z-]+): (?s:(.*))$`)

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

// dashed is a usage error whose text has dashes before the options that it begins with: packages below this one know
// them by their names alone.
type dashed struct {
	error
	text string
}

func (d dashed) Error() string { return d.text }
func (d dashed) Unwrap() error { return d.error }

// withDashes makes usage errors of a command dashed.
func withDashes(c *cli.Context, err error) error {
	if !isUsage(err) {
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
