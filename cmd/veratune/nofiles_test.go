package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
)

// noFiles put something at a path that can't be read whole.
var noFiles = map[string]struct {
	put  func(path string) error
	says string // "" where the message depends on what was to be read
}{
	"a pipe":   {makePipe, "a pipe"},
	"a device": {func(path string) error { return os.Symlink("/dev/zero", path) }, "a device"},
	"a folder": {func(path string) error { return os.Mkdir(path, 0o777) }, ""},
	"a huge file": {func(path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Truncate(1 << 40)
	}, ""},
}

// within runs the program, and fails the test where that takes long.
func within(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	type ended struct {
		code   int
		output string
	}
	done := make(chan ended, 1)
	go func() {
		code, stdout, stderr := veratune(args...)
		done <- ended{code, stdout + stderr}
	}()
	select {
	case e := <-done:
		return e.code, e.output
	case <-time.After(20 * time.Second):
		t.Fatalf("%q doesn't come to an end", args)
		return 0, ""
	}
}

// TestNoFiles gives every command that reads a whole file something else in its place.
func TestNoFiles(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1})
	data, run := rows(t, 8), filepath.Join(t.TempDir(), "run")
	train := []string{"alpaca", "--model", model, "--data", data, "--rank", "4", "--threads", "1", "--template",
		"alpaca", "--epochs", "1", "--save-every", "1"}
	if code, output := within(t, append(train, "--out", run)...); code != 0 {
		t.Fatal(output)
	}
	peft := filepath.Join(t.TempDir(), "peft")
	if code, output := within(t, "export", "--to", "peft", "--model", model, "--adapter",
		filepath.Join(run, "adapter.gguf"), "-o", peft); code != 0 {
		t.Fatal(output)
	}
	checkpoints, err := filepath.Glob(filepath.Join(run, "checkpoints", "step-*"))
	if err != nil || len(checkpoints) == 0 {
		t.Fatal(checkpoints, err)
	}
	in := func(folder, file string) string { return filepath.Join("checkpoints", filepath.Base(folder), file) }
	resume := append(train[:len(train):len(train)], "--out", "COPY", "--resume")
	for _, c := range []struct {
		folder, file string // what is copied, and what in it is spoiled; without a folder, PATH is that alone
		code         int
		args         []string
	}{
		{"", "", 1, append(train[:len(train):len(train)], "--config", "PATH")},
		{"", "", 2, append(train[:len(train)-6:len(train)-6], "--template", "PATH")},
		{"", "", 1, alpacaFrom(model, data, "PATH")},
		{"", "", 1, []string{"loss", "--model", "PATH", "--data", data}},
		{"", "", 1, []string{"loss", "--model", model, "--data", data, "--adapter", "PATH"}},
		{"", "", 2, []string{"generate", "--model", model, "--prompt", "x", "--template", "PATH"}},
		{"", "", 1, []string{"inspect", "PATH"}},
		{"", "", 1, []string{"mtbench", "run", "--model", model, "--questions", "PATH", "-o", "OUT"}},
		{"", "", 1, []string{"mtbench", "judge", "--judge-model", model, "--prompts", "PATH", "-o", "OUT"}},
		{peft, "adapter_config.json", 1, []string{"inspect", "COPY"}},
		{peft, "adapter_model.safetensors", 1, []string{"inspect", "COPY"}},
		{peft, "adapter_config.json", 1, []string{"loss", "--model", model, "--data", data, "--adapter", "COPY"}},
		{peft, "adapter_model.safetensors", 1, []string{"loss", "--model", model, "--data", data, "--adapter", "COPY"}},
		{run, "config.json", 1, []string{"compare", run, "COPY"}},
		{run, "metrics.jsonl", 1, []string{"compare", run, "COPY"}},
		{run, "config.json", 1, []string{"watch", "--html", "OUT", "COPY"}},
		{run, "metrics.jsonl", 1, []string{"watch", "--html", "OUT", "COPY"}},
		{run, "config.json", 1, resume},
		{run, "metrics.jsonl", 1, resume},
		{run, in(checkpoints[len(checkpoints)-1], "state"), 0, resume},
		{run, in(checkpoints[len(checkpoints)-1], "adapter.gguf"), 0, resume},
		{run, "pid", 0, resume},
	} {
		for what, n := range noFiles {
			dir := t.TempDir()
			place := map[string]string{"PATH": filepath.Join(dir, "path.jinja"), "COPY": filepath.Join(dir, "copy"),
				"OUT": filepath.Join(dir, "out")}
			path := place["PATH"]
			if c.folder != "" {
				if err := os.CopyFS(place["COPY"], os.DirFS(c.folder)); err != nil {
					t.Fatal(err)
				}
				path = filepath.Join(place["COPY"], c.file)
				if err := os.Remove(path); err != nil && c.file != "pid" {
					t.Fatal(err)
				}
			}
			if err := n.put(path); err == errSkip {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			var args []string
			for _, arg := range c.args {
				if p, ok := place[arg]; ok {
					arg = p
				}
				args = append(args, arg)
			}
			code, output := within(t, args...)
			if code != c.code || code != 0 && n.says != "" && !strings.Contains(output, n.says) {
				t.Errorf("%s %s: %s: exit code %d, %.300s", c.args[0], c.file, what, code, output)
			}
			if info, err := os.Lstat(path); err == nil && c.code != 0 && info.Mode().Type() == fs.ModeNamedPipe &&
				what != "a pipe" {
				t.Errorf("%s is a pipe now", path)
			}
		}
	}
}

// TestEndlessPipe waits for rows that nobody writes, until a signal.
func TestEndlessPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := makePipe(pipe); err != nil {
		t.Skip(err)
	}
	model := testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1})
	for _, begin := range []string{"", `{"instruction": "a",`} {
		if begin != "" {
			f, err := os.OpenFile(pipe, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.WriteString(begin)
		}
		cmd, output := process("data", "check", "--model", model, pipe)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGTERM)
		end := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		if end.Stop(); cmd.ProcessState.ExitCode() != exitInterrupted {
			t.Errorf("%q: %v, %s", begin, cmd.ProcessState, output)
		}
	}
}
