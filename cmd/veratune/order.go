package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// optionsFirst puts a command's options before its arguments, wherever they were written: the library takes everything behind the first argument for arguments.
// What comes behind "--" stays there. An option whose value is missing is an error, since the library would take an argument for it.
func optionsFirst(app *cli.App, args []string) ([]string, error) {
	at, commands := 1, app.Commands
	var command *cli.Command
	for at < len(args) {
		next := find(commands, args[at])
		if next == nil {
			break
		}
		command, commands = next, next.Subcommands
		at++
	}
	if command == nil || len(commands) > 0 {
		return args, nil
	}
	var options, words []string
	for rest := args[at:]; len(rest) > 0; {
		if rest[0] == "--" {
			words = append(words, rest...)
			break
		}
		n := 1
		if name, isOption := optionName(rest[0]); !isOption {
			words = append(words, rest[0])
		} else {
			if takesWord(command, name, rest[0]) {
				n = 2
			}
			if n > len(rest) {
				return nil, usageError{fmt.Errorf("%s: needs a value behind it", rest[0])}
			}
			options = append(options, rest[:n]...)
		}
		rest = rest[n:]
	}
	return slices.Concat(args[:at], options, words), nil
}

func find(commands []*cli.Command, name string) *cli.Command {
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(name) })
	if i < 0 {
		return nil
	}
	return commands[i]
}

// optionName is the name in "-name", "--name" or "--name=value". A "-" alone is an argument, the standard input.
func optionName(word string) (name string, isOption bool) {
	name = strings.TrimLeft(word, "-")
	if name == word || name == "" {
		return "", false
	}
	name, _, _ = strings.Cut(name, "=")
	return name, true
}

// takesWord tells whether an option's value is the next word.
func takesWord(c *cli.Command, name, word string) bool {
	if strings.Contains(word, "=") {
		return false
	}
	for _, f := range c.Flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		_, isBool := f.(*cli.BoolFlag)
		return !isBool
	}
	return false
}
