package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange brings the words of a command line into the library's order: a command's options, by their first names,
// before its arguments, wherever they were written. What comes behind "--" stays there. It fails where a command or an
// option isn't known, or an option's value is missing.
func arrange(app *cli.App, args []string) ([]string, error) {
	if args[len(args)-1] == "--generate-bash-completion" {
		return args, nil
	}
	words := args[1:]
	// for help on the commands behind it
	asked := len(words) > 0 && slices.Contains([]string{"help", "h", "--help", "-help", "-h"}, words[0])
	if asked {
		words = append(slices.Clip(words[1:]), "--help")
	}
	command := &cli.Command{Name: app.Name, Subcommands: app.Commands, Flags: app.Flags}
	path := []string{app.Name}
	for len(words) > 0 && len(command.Subcommands) > 0 && !isOption(words[0]) {
		if words[0] == "--" {
			words = words[1:]
			continue
		}
		next := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.HasName(words[0]) })
		if next < 0 {
			return nil, usageError{fmt.Errorf("no command %q%s (%s --help lists them)", words[0],
				isMeant(words[0], "", commandNames(command)), strings.Join(path, " "))}
		}
		command, words = command.Subcommands[next], words[1:]
		path = append(path, command.Name)
	}
	var options, arguments []string
	helps := false
	for len(words) > 0 {
		name := optionName(words[0])
		if words[0] == "--" {
			arguments = append(arguments, words...)
			break
		}
		if !isOption(words[0]) {
			arguments, words = append(arguments, words[0]), words[1:]
			continue
		}
		flag := flagOf(command, name)
		if flag == nil && !slices.Contains([]string{"help", "h"}, name) &&
			(command.Name != app.Name || !slices.Contains([]string{"version", "v"}, name)) {
			return nil, usageError{fmt.Errorf("no option %s%s (%s --help lists them)",
				strings.SplitN(words[0], "=", 2)[0], isMeant(name, "--", optionNames(command)),
				strings.Join(path, " "))}
		}
		_, value, together := strings.Cut(words[0], "=")
		if flag != nil {
			name = flag.Names()[0]
		}
		option, used := "--"+name, 1
		switch _, isBool := flag.(*cli.BoolFlag); {
		case together:
			option += "=" + value
		case flag == nil || isBool:
		case len(words) == 1:
			return nil, usageError{fmt.Errorf("%s: needs a value behind it", words[0])}
		default:
			option, used = option+"="+words[1], 2
		}
		helps = helps || slices.Contains([]string{"--help", "--h"}, option)
		options, words = append(options, option), words[used:]
	}
	switch {
	case asked && len(arguments) > 0:
		return nil, usageError{fmt.Errorf("no command %q (%s --help shows what there is)",
			strings.Join(append(path[1:], arguments...), " "), strings.Join(path, " "))}
	case helps && len(command.Subcommands) == 0: // whatever else was given
		return append(slices.Concat(args[:1], path[1:]), "--help"), nil
	}
	return slices.Concat(args[:1], path[1:], options, arguments), nil
}

// isOption tells whether a word is none of the arguments. A "-" alone is one, the standard input.
func isOption(word string) bool {
	return strings.HasPrefix(word, "-") && word != "-" && word != "--"
}

// optionName is the name in "-name", "--name" or "--name=value".
func optionName(word string) string {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	return name
}

// flagOf is the option of that name, nil where there is none.
func flagOf(c *cli.Command, name string) cli.Flag {
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func commandNames(c *cli.Command) (names []string) {
	for _, sub := range c.Subcommands {
		names = append(names, sub.Name)
	}
	return names
}

func optionNames(c *cli.Command) (names []string) {
	for _, f := range c.Flags {
		names = append(names, f.Names()[0])
	}
	return names
}
