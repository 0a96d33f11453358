package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// The scripts ask veratune itself what may follow.
var (
	//go:embed completion.bash
	completionBash string
	//go:embed completion.zsh
	completionZsh string
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes commands and options in a shell",
		ArgsUsage: "bash|zsh|fish",
		Description: "To have it in every shell:\n\n" +
			"  echo 'source <(veratune completion bash)' >> ~/.bashrc\n" +
			"  echo 'source <(veratune completion zsh)' >> ~/.zshrc     after compinit\n" +
			"  veratune completion fish > ~/.config/fish/completions/veratune.fish",
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usageError{errors.New("completion takes the name of a shell: bash, zsh or fish")}
			}
			script, err := completion(c.App, c.Args().First())
			if err != nil {
				return err
			}
			_, err = io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

func completion(app *cli.App, shell string) (string, error) {
	switch shell {
	case "bash":
		return completionBash, nil
	case "zsh":
		return completionZsh, nil
	case "fish":
		for _, command := range leaves(app.Commands) {
			for _, f := range command.Flags {
				if f, ok := f.(*cli.StringFlag); ok {
					f.TakesFile = takesPath(f)
				}
			}
		}
		return app.ToFishCompletion()
	}
	return "", usageError{fmt.Errorf("completion: no script for %q; want bash, zsh or fish", shell)}
}
