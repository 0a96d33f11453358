package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/internal/testutil"
)

// TestGuides runs the commands of each page of docs/guide in a folder of its own, as they stand. What stands in blocks
// of sh works in a fresh clone.
func TestGuides(t *testing.T) {
	if testing.Short() {
		t.Skip("trains the real model")
	}
	model := testutil.SmolLM2(t)
	pages, err := filepath.Glob("../../docs/guide/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	for _, path := range pages {
		t.Run(filepath.Base(path), func(t *testing.T) {
			commands := shellCommands(string(read(t, path)))
			if len(commands) == 0 {
				t.Fatal("the page has no command")
			}
			dir := cloned(t, model)
			for _, command := range commands {
				start := time.Now()
				output, err := inClone(dir, command)
				if err != nil {
					t.Fatalf("%s\n%v\n%s", command, err, output)
				}
				t.Logf("%4.1f s  %s", time.Since(start).Seconds(), command)
			}
		})
	}
}

// shellCommands are the lines of a page's blocks of sh.
func shellCommands(page string) (commands []string) {
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```sh"
		case inside && line != "":
			commands = append(commands, line)
		}
	}
	return commands
}

// cloned is a folder with what `make build model` leaves in a clone: the program, the model and docs.
func cloned(t *testing.T, model string) string {
	t.Helper()
	dir := t.TempDir()
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		t.Fatal(err)
	}
	// On one processor, since two threads wait for each other where other programs are at work.
	program := fmt.Sprintf("#!/bin/sh\nGOMAXPROCS=1 %s=1 exec '%s' \"$@\"\n", asVeratune, os.Args[0])
	if err := errors.Join(
		os.Mkdir(filepath.Join(dir, "bin"), 0o755),
		os.Mkdir(filepath.Join(dir, "models"), 0o755),
		os.WriteFile(filepath.Join(dir, "bin", "veratune"), []byte(program), 0o755),
		os.Symlink(model, filepath.Join(dir, "models", "SmolLM2-135M-Instruct.Q4_1.gguf")),
		os.Symlink(docs, filepath.Join(dir, "docs")),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// inClone runs one command there. A server is ended by Ctrl-C once it has said its address.
func inClone(dir, command string) (output string, err error) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	if strings.Contains(command, "veratune serve") ||
		strings.Contains(command, "veratune watch") && !strings.Contains(command, "--html") {
		return serving(ctx, dir, command+" --listen 127.0.0.1:0")
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -o pipefail; "+command)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader("/help\n")
	all, err := cmd.CombinedOutput()
	return string(all), err
}

func serving(ctx context.Context, dir, command string) (output string, err error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+command)
	var errs bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, "http://") {
		err = errors.Join(err, errors.New("it doesn't say its address"))
	}
	return line + errs.String(), errors.Join(err, cmd.Process.Signal(os.Interrupt), cmd.Wait())
}

// TestReadmeCommands checks that README's table has every command.
func TestReadmeCommands(t *testing.T) {
	table := string(read(t, "../../README.md"))
	for _, c := range newApp(io.Discard, io.Discard).VisibleCommands() {
		if !strings.Contains(table, "`"+c.Name+"`") {
			t.Errorf("README does not have the command %s", c.Name)
		}
	}
}

// TestDocumentedCommands checks that every command of veratune in the documents exists with its options.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for path, text := range testutil.Documents(t, "../..") {
		if slices.Contains([]string{"cli.md", "log.md", "CHANGELOG.md"}, filepath.Base(path)) {
			continue
		}
		for _, args := range documentedUses(text) {
			found++
			if err := understood(args); err != nil {
				t.Errorf("%s: veratune %s: %v", path, strings.Join(args, " "), err)
			}
		}
	}
	if found < 20 {
		t.Errorf("%d commands", found)
	}
}

var (
	use = regexp.MustCompile("(?m)(?:^ {4}(?:mpirun -n [0-9]+ )?(?:bin/)?|^(?:[^`\n]*[|] )?bin/|`(?:mpirun -n " +
		"[0-9]+ )?(?:bin/)?)veratune ([^`\n]*)")
	after = regexp.MustCompile(`\s+#.*| \|.*|\)$`)
	word  = regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
)

// documentedUses are the arguments of each command of veratune in blocks of code and in spans of it. Commands of which
// only a part is given, with an ellipsis, are left out.
func documentedUses(page string) (uses [][]string) {
	for _, m := range use.FindAllStringSubmatch(page, -1) {
		line := after.ReplaceAllString(m[1], "")
		var args []string
		for _, w := range word.FindAllString(line, -1) {
			args = append(args, strings.Trim(w, `"'`))
		}
		if len(args) > 0 && !strings.Contains(line, "…") {
			uses = append(uses, args)
		}
	}
	return uses
}

// understood parses a command line, and does nothing.
func understood(args []string) error {
	app := newApp(io.Discard, io.Discard)
	ran := false
	for _, c := range leaves(app.Commands) {
		c.Before = nil
		c.Action = func(*cli.Context) error { ran = true; return nil }
	}
	args, err := arrange(app, append([]string{"veratune"}, args...))
	if err == nil {
		err = app.Run(args)
	}
	if err == nil && !ran {
		err = errors.New("there is no such command")
	}
	return err
}
