package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// Options of drawing that would change nothing are refused, wherever they are given.
func TestGreedyInSilence(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	for _, option := range []string{"--top-k=3", "--top-p=0.5", "--min-p=0.1", "--seed=7"} {
		for _, command := range [][]string{{"generate", "-p", "x"}, {"chat"}} {
			args := append(command, "--model", model, "--threads", "1", "--max-tokens", "1", option)
			name, _, _ := strings.Cut(option, "=")
			if code, _, stderr := veratune(args...); code != exitUsage ||
				!strings.Contains(stderr, name+": changes nothing at temperature 0") {
				t.Errorf("%v: exit code %d, %q", args, code, stderr)
			}
		}
		if code, _, stderr := veratune("generate", "-p", "x", "--model", model, "--threads", "1", "--max-tokens", "1",
			option, "--temperature", "0.8"); code != 0 {
			t.Errorf("%s: exit code %d, %q", option, code, stderr)
		}
	}
	config := write(t, "options.yaml", "top-p: 0.5\n")
	if code, _, stderr := veratune("generate", "-p", "x", "--model", model, "--config", config); code != exitUsage ||
		!strings.Contains(stderr, "--top-p: changes nothing") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// More threads than the process may use are told, once.
func TestTooManyThreads(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	many := fmt.Sprint(runtime.GOMAXPROCS(0) + 1)
	for _, args := range [][]string{
		{"generate", "--model", model, "-p", "x", "--max-tokens", "1"},
		{"loss", "--model", model, "--data", data},
		{"sweep", "--model", model, "--data", data, "--fraction", "1", "--rank", "2", "--lr", "1e-3,1e-2", "--out",
			filepath.Join(t.TempDir(), "sweep")},
	} {
		for threads, want := range map[string]int{many: 1, "1": 0} {
			args := append([]string{}, args...)
			if args[0] == "sweep" {
				args[len(args)-1] += threads
			}
			code, _, stderr := veratune(append(args, "--threads", threads)...)
			if code != 0 || strings.Count(stderr, "warning: --threads "+many+" is more than") != want {
				t.Errorf("%v, %s threads: exit code %d, %q", args, threads, code, stderr)
			}
		}
	}
	if _, err := exec.LookPath("taskset"); err != nil {
		t.Skip("taskset isn't there")
	}
	cmd, output := process("generate", "--model", model, "-p", "x", "--max-tokens", "1", "--threads", "2")
	path, err := exec.LookPath("taskset")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append([]string{"taskset", "-c", "0", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = path
	if err := cmd.Run(); err != nil ||
		!strings.Contains(output.String(), "--threads 2 is more than the 1 that this process may use") {
		t.Errorf("%v, %s", err, output)
	}
}

// TestLossShowsProgress measures rows and questions at a terminal.
func TestLossShowsProgress(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	questions := write(t, "questions.jsonl",
		strings.Repeat(`{"question": "q", "choices": ["a", "b"], "answer": 0}`+"\n", 8))
	for data, says := range map[string]string{rows(t, 40): "batches measured 10/10",
		questions: "questions measured 8/8"} {
		x := sit(t, "xterm", &pty.Winsize{Rows: 24, Cols: 80}, "loss", "--model", model, "--threads", "1",
			"--data", data)
		x.leave(0)
		<-x.ended
		if !strings.Contains(x.shown, says) {
			t.Errorf("%q", x.shown)
		}
	}
}

// A merge that keeps little of an update says which options keep more.
func TestMergeThatKeepsLittle(t *testing.T) {
	model, data, run := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 20),
		filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, run, "--lr", "1e-5", "--max-steps", "2")...); code != 0 {
		t.Fatal(stderr)
	}
	for kind, want := range map[string]bool{"keep": true, "f32": false} {
		code, stdout, stderr := veratune("export", "--model", model, "--adapter", filepath.Join(run, train.AdapterFile),
			"--threads", "1", "--to", "merged", "--type", kind, "--out", filepath.Join(t.TempDir(), "merged.gguf"))
		if code != 0 || strings.Contains(stdout, "--type q8_0") != want ||
			strings.Contains(stdout, "--type auto") != want {
			t.Errorf("%s: exit code %d, %q, %q", kind, code, stdout, stderr)
		}
	}
}
