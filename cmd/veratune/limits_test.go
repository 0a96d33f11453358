package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
)

// TestUnbrokenRows gives every command that tokenizes a long text without a space or line end.
func TestUnbrokenRows(t *testing.T) {
	const refused = "and there is room for 511"
	long := strings.Repeat("er", 40<<10)
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, `{"instruction": "Say %d.", "output": "It is %d."}`+"\n", i, i)
	}
	data := write(t, "rows.jsonl", `{"instruction": "Say er.", "output": "`+long+`"}`+"\n"+many.String())
	alone := write(t, "alone.jsonl", `{"text": "`+long+`"}`+"\n")
	for kind, model := range map[string]string{
		"bpe":           testutil.TinyLlama(t, testutil.TinyOptions{}),
		"sentencepiece": testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true}),
	} {
		for _, c := range []struct {
			says string
			args []string
		}{
			{"longer than --max-length", []string{"data", "check", data}},
			{"cut at --max-length", []string{"data", "show", data}},
			{"41 rows, 1 truncated", []string{"loss", "--data", data}},
			{"1 rows, as 81 samples", []string{"loss", "--strict", "--data", alone}},
			{"41 rows, 1 truncated", []string{"alpaca", "--data", data, "--eval-data", data, "--rank", "4", "--out",
				filepath.Join(t.TempDir(), "run")}},
			{"41 rows, 1 truncated", []string{"plan", "--data", data, "--rank", "4"}},
			{refused, []string{"generate", "--prompt", long}},
			{refused, []string{"generate", "--raw", "--prompt", long}},
		} {
			args := append(c.args[:len(c.args):len(c.args)], "--model", model)
			if c.args[0] == "data" {
				args = append(c.args[:2:2], "--model", model, data)
			}
			code, stdout, stderr := veratune(args...)
			if (code != 0) != (c.says == refused) || !strings.Contains(stdout+stderr, c.says) {
				t.Errorf("%s: %.60q: exit code %d, %.500s, %.500s", kind, c.args, code, stdout, stderr)
			}
		}
	}
}

// TestInterruptedTokenizing ends every command that reads a long row by a signal.
func TestInterruptedTokenizing(t *testing.T) {
	data := write(t, "rows.jsonl", `{"text": "`+strings.Repeat("many words in a row ", 2<<20)+`"}`+"\n")
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	commands := [][]string{
		{"data", "check", "--model", model, data}, {"loss", "--model", model, "--data", data},
		{"alpaca", "--model", model, "--data", data, "--rank", "4", "--out", filepath.Join(t.TempDir(), "run")},
	}
	if testing.Short() {
		commands = commands[:1]
	}
	for _, args := range commands {
		cmd, output := process(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1000 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGTERM)
		start := time.Now()
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitInterrupted ||
			!strings.HasSuffix(output.String(), "veratune: interrupted\n") || time.Since(start) > 10*time.Second {
			t.Errorf("%v: exit code %d, %v after the signal: %s", args[0], code, time.Since(start), output)
		}
	}
}
