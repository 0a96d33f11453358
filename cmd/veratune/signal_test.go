package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// ended starts a process, sends it signals once something has happened, and gives its exit code, -1 where a signal has
// ended it.
func ended(t *testing.T, cmd *exec.Cmd, happened func() bool, signals ...os.Signal) int {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	err := wait(done, happened)
	if err == errStillRunning {
		for _, s := range signals {
			cmd.Process.Signal(s)
		}
		err = <-done
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

// grown tells whether a file has something in it.
func grown(path ...string) func() bool {
	return func() bool {
		info, err := os.Stat(filepath.Join(path...))
		return err == nil && info.Size() > 0
	}
}

// A terminal that is closed ends training, sweeps and evaluations as Ctrl-C does, also where it says so twice: the
// state is saved, pid is gone, and the same command goes on to the same result.
func TestHangUp(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 60)
	questions := write(t, "question.jsonl", `{"question_id": 1, "category": "writing", "turns": ["Why?", "How?"]}`+"\n")
	for name, c := range map[string]struct {
		args    func(out string) []string
		begun   []string // a file that says that the work is under way
		results []string
		resume  []string
	}{
		"alpaca": {func(out string) []string { return alpacaArgs(model, data, out, "--save-every", "0") },
			[]string{train.MetricsFile}, []string{train.AdapterFile}, []string{"--resume"}},
		"sweep": {func(out string) []string { return sweepArgs(model, data, out) },
			[]string{"runs", "2", train.MetricsFile}, []string{train.SweepBest}, []string{"--resume"}},
		"mtbench": {func(out string) []string {
			return []string{"mtbench", "run", "--model", model, "--questions", questions, "--max-tokens", "300",
				"--threads", "1", "--template", "alpaca", "--out", out}
		}, []string{"pid"}, []string{"question.jsonl"}, nil},
	} {
		whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "out")
		if code, _, stderr := veratune(c.args(whole)...); code != 0 {
			t.Fatalf("%s: exit code %d, %q", name, code, stderr)
		}
		cmd, output := process(c.args(out)...)
		code := ended(t, cmd, grown(filepath.Join(append([]string{out}, c.begun...)...)), syscall.SIGHUP,
			syscall.SIGHUP)
		if code != exitInterrupted {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, exitInterrupted, output)
		}
		if pids, err := filepath.Glob(filepath.Join(out, "*", "*", "pid")); len(pids) > 0 || err != nil ||
			exists(filepath.Join(out, "pid")) {
			t.Errorf("%s: pid is left", name)
		}
		if code, _, stderr := veratune(append(c.args(out), c.resume...)...); code != 0 {
			t.Fatalf("%s: going on: exit code %d, %q", name, code, stderr)
		}
		for _, result := range c.results {
			got, want := read(t, filepath.Join(out, result)), read(t, filepath.Join(whole, result))
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %s differs from that of the command that was left alone", name, result)
			}
		}
	}
}

// Signals of which each ends a training with its state saved, and what else there is to a terminal's end.
func TestSignals(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 60)
	for name, c := range map[string]struct {
		signals []os.Signal
		shell   string // that starts the program
		code    int
	}{
		"SIGINT":                  {[]os.Signal{syscall.SIGINT}, "", exitInterrupted},
		"SIGTERM":                 {[]os.Signal{syscall.SIGTERM}, "", exitInterrupted},
		"SIGHUP":                  {[]os.Signal{syscall.SIGHUP}, "", exitInterrupted},
		"Ctrl-C and a lost shell": {[]os.Signal{syscall.SIGINT, syscall.SIGHUP}, "", exitInterrupted},
		"nohup":                   {[]os.Signal{syscall.SIGHUP}, `trap "" HUP; exec "$0" "$@"`, 0},
		"nohup, and then a SIGINT": {[]os.Signal{syscall.SIGHUP, syscall.SIGINT}, `trap "" HUP; exec "$0" "$@"`,
			exitInterrupted},
	} {
		out := filepath.Join(t.TempDir(), "out")
		cmd, output := process(alpacaArgs(model, data, out, "--save-every", "0")...)
		if c.shell != "" {
			cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", c.shell}, cmd.Args...)
		}
		if code := ended(t, cmd, grown(out, train.MetricsFile), c.signals...); code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", name, code, c.code, output)
		}
		if len(steps(t, out)) == 0 || exists(filepath.Join(out, "pid")) {
			t.Errorf("%s: checkpoints %v, or pid is left", name, steps(t, out))
		}
	}
}

// Ctrl-C ends what reads the output, too, as in `veratune alpaca | tee log`: the state is saved though nobody hears of
// it.
func TestInterruptWithoutAReader(t *testing.T) {
	model, data, out := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 60), filepath.Join(t.TempDir(), "out")
	cmd, _ := process(alpacaArgs(model, data, out, "--save-every", "0")...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	go io.Copy(io.Discard, reader)
	gone := func() bool {
		if !grown(out, train.MetricsFile)() {
			return false
		}
		cmd.Process.Signal(syscall.SIGINT)
		time.Sleep(10 * time.Millisecond) // a reader that ends before is another story
		reader.Close()
		return true
	}
	if code := ended(t, cmd, gone); code != exitInterrupted || len(steps(t, out)) == 0 {
		t.Errorf("exit code %d, checkpoints %v", code, steps(t, out))
	}
	writer.Close()
}
