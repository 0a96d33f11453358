// Command veratune finetunes a quantised model straight from its GGUF file with VeRA adapters.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	_ "github.com/veratune/veratune/bindings/onearena" // for the whole program
	"github.com/veratune/veratune/finetune"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/train"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program: it gives the exit code and writes an error as one line.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		// A terminal that is closed may send it twice, from the system and from the shell, so that it stays caught.
		var release func()
		ctx, release = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer release()
	}
	// The first signal asks for a clean end; a second one ends the process at once. Who reads the output may be gone
	// before that end.
	context.AfterFunc(ctx, func() {
		stop()
		signal.Ignore(syscall.SIGPIPE)
	})

	out, errs := terminal.NewOutput(stdout), terminal.NewOutput(stderr)
	defer out.Close()
	defer errs.Close()
	app := newApp(out, errs)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintf(errs, "veratune: %s%s\n", terminal.Words(err), remedy(err))
	return exitCode(err)
}

func exitCode(err error) int {
	switch {
	case isUsage(err):
		return exitUsage
	case errors.Is(err, train.ErrInterrupted), errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailed
}

// remedy says what helps where the system refused something.
func remedy(err error) string {
	for _, r := range []struct {
		refused syscall.Errno
		helps   string
	}{
		{syscall.ENOSPC, "make room there, then give the command again (a training or sweep: with --resume)"},
		{syscall.EDQUOT, "make room there, then give the command again (a training or sweep: with --resume)"},
		{syscall.EROFS, "choose another folder"},
		{syscall.EFBIG, "raise the limit on the size of files, ulimit -f"},
		{syscall.EMFILE, "raise the limit on open files, ulimit -n"},
		{syscall.ENOMEM, "give it more memory, or have it take less: --memory, --batch, --max-length"},
	} {
		if durable.Refused(err, r.refused) {
			return "; " + r.helps
		}
	}
	return ""
}

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:      "veratune",
		Usage:     "finetune a quantised model straight from its GGUF file with VeRA adapters",
		Version:   version(),
		Writer:    stdout,
		ErrWriter: stderr,
		Commands: []*cli.Command{
			alpacaCommand(), planCommand(), sweepCommand(), lossCommand(), generateCommand(), chatCommand(),
			serveCommand(), mtbenchCommand(), exportCommand(), inspectCommand(), compareCommand(),
			watchCommand(), devicesCommand(), dataCommand(), benchCommand(), completionCommand(),
		},
		OnUsageError:         onUsageError,
		ExitErrHandler:       func(*cli.Context, error) {},
		EnableBashCompletion: true,
	}
	for _, c := range app.Commands {
		if len(c.Subcommands) > 0 {
			c.Action, c.OnUsageError, c.HideHelpCommand = cli.ShowSubcommandHelp, onUsageError, true
		}
	}
	for _, c := range leaves(app.Commands) {
		c.OnUsageError, c.HideHelpCommand = onUsageError, true
		if len(c.Flags) > 0 {
			configurable(c)
		}
		before, action := c.Before, c.Action
		c.Action = func(c *cli.Context) error { return withDashes(c, action(c)) }
		if before != nil {
			c.Before = func(c *cli.Context) error { return withDashes(c, before(c)) }
		}
	}
	cli.VersionPrinter = printVersion
	return app
}

// leaves are the commands that do something themselves.
func leaves(commands []*cli.Command) []*cli.Command {
	var list []*cli.Command
	for _, c := range commands {
		if len(c.Subcommands) == 0 {
			list = append(list, c)
		}
		list = append(list, leaves(c.Subcommands)...)
	}
	return list
}

// usageError is a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// isUsage tells whether the command line is wrong, be it only beside the model that it names.
func isUsage(err error) bool {
	return errors.As(err, new(usageError)) || errors.As(err, new(finetune.OptionError)) ||
		errors.As(err, new(alpaca.NoTemplate))
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	return usageError{plainUsage(c.Command, err)}
}

// validate turns the first failed check of options into a usage error.
func validate(checks ...error) error {
	for _, err := range checks {
		if err != nil {
			return usageError{err}
		}
	}
	return nil
}

// noArguments refuses words that belong to no flag.
func noArguments(c *cli.Context) error {
	if c.NArg() == 0 {
		return nil
	}
	word := c.Args().First()
	if c.IsSet("data") && exists(word) { // a shell has made several words of a pattern
		return usageError{fmt.Errorf("unexpected argument %q; where --data takes several files, a pattern stands in "+
			"quotes, \"data/*.jsonl\", or each file has --data before it", word)}
	}
	return usageError{fmt.Errorf("unexpected argument %q", word)}
}
