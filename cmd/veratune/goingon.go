package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/train"
)

// goingOn is the command that trains on from what a run has learnt, for as many steps as it was asked to make beyond
// its end, into a folder that isn't there yet.
func (f *training) goingOn(c *cli.Context, on train.Longer) string {
	words := []string{"veratune", c.Command.Name}
	other := append([]string{"resume", "force", "out", "epochs", "steps", "max-steps", "from", "config",
		"print-config"}, ofAdapter...)
	for _, flag := range c.Command.Flags {
		name := flag.Names()[0]
		if slices.Contains(other, name) || !c.IsSet(name) {
			continue
		}
		switch value := flagValue(c, flag).(type) {
		case []any:
			for _, v := range value {
				words = append(words, "--"+name, fmt.Sprint(v))
			}
		case []string:
			for _, v := range value {
				words = append(words, "--"+name, v)
			}
		case bool:
			words = append(words, fmt.Sprintf("--%s=%v", name, value))
		default:
			words = append(words, "--"+name, fmt.Sprint(value))
		}
	}
	words = append(words, "--steps", fmt.Sprint(on.Steps), "--from", on.Adapter, "--out", nextFolder(f.o.Folder))
	for i, word := range words {
		words[i] = shellWord(word)
	}
	return strings.Join(words, " ")
}

// nextFolder is the first of path-2, path-3 … that isn't there.
func nextFolder(path string) string {
	path = strings.TrimRight(path, "/")
	for i := 2; ; i++ {
		if next := fmt.Sprintf("%s-%d", path, i); !exists(next) {
			return next
		}
	}
}

// shellWord writes a word so that a shell reads it as one.
func shellWord(word string) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_./:=,@%+"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
