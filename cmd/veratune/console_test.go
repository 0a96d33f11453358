package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/creack/pty"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
)

// typist is a person at a terminal that veratune runs in.
type typist struct {
	t    *testing.T
	cmd  *exec.Cmd
	keys io.Writer

	mu    sync.Mutex
	shown string // and not expected yet
	ended chan struct{}
}

// sit begins a command at a terminal of a kind.
func sit(t *testing.T, kind string, size *pty.Winsize, args ...string) *typist {
	t.Helper()
	cmd, _ := process(args...)
	cmd.Stdout, cmd.Stderr = nil, nil
	cmd.Env = append(cmd.Env, "TERM="+kind)
	terminal, err := pty.StartWithSize(cmd, size)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	x := &typist{t: t, cmd: cmd, keys: terminal, ended: make(chan struct{})}
	go func() {
		defer close(x.ended)
		for buffer := make([]byte, 4096); ; {
			n, err := terminal.Read(buffer)
			x.mu.Lock()
			x.shown += string(buffer[:n])
			x.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		terminal.Close()
	})
	return x
}

// type presses keys.
func (x *typist) press(keys string) {
	x.t.Helper()
	if _, err := io.WriteString(x.keys, keys); err != nil {
		x.t.Fatal(err)
	}
}

// see waits until a text is shown, and gives what was shown before it.
func (x *typist) see(text string) string {
	x.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		x.mu.Lock()
		before, after, found := strings.Cut(x.shown, text)
		if found {
			x.shown = after
		}
		x.mu.Unlock()
		if found {
			return before
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t.Fatalf("%q is not shown, but %q", text, x.shown)
	return ""
}

// leave waits for the end, and checks the exit code.
func (x *typist) leave(code int) {
	x.t.Helper()
	err := x.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == code || err == nil && code == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t.Errorf("%v, want exit code %d: %q", err, code, x.shown)
}

// savedMessages are those that /save wrote.
func savedMessages(t *testing.T, path string) (said []string) {
	t.Helper()
	var row savedChat
	if err := json.Unmarshal(read(t, path), &row); err != nil {
		t.Fatal(err)
	}
	for _, m := range row.Messages {
		if m.Role != alpaca.Assistant {
			said = append(said, m.Content)
		}
	}
	return said
}

// TestChatAtATerminal types and pastes, presses Ctrl-C where it must not end the chat, and where it must.
func TestChatAtATerminal(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.context_length"] = uint32(4096)
		clear(f.Tensor("token_embd.weight").Values[:3*64]) // answers don't end by themselves
	}})
	const warning, interrupt = "(Ctrl-C once more ends the chat; /save FILE keeps the conversation)", "\x03"
	for _, terminal := range []struct {
		name, kind string
		size       *pty.Winsize
		edits      bool
	}{
		{"with an editor", "xterm", &pty.Winsize{Rows: 24, Cols: 80}, true},
		{"without a size", "xterm", &pty.Winsize{}, false},
		{"dumb", "dumb", &pty.Winsize{Rows: 24, Cols: 80}, false},
	} {
		t.Run(terminal.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "chat.jsonl")
			x := sit(t, terminal.kind, terminal.size, "chat", "--model", path, "--threads", "1", "--max-tokens", "4")
			if terminal.edits {
				x.see(markPastes) // asks the terminal for them
			}
			x.see("> ")
			x.press(interrupt)
			x.see(warning)
			if terminal.edits {
				x.press("thrown away" + interrupt) // not the second in a row
				x.see(warning)
				x.see("> ")
				x.press("ad 1\x1b[D\x1b[D\x1b[Dd\x1b[H\x1b[F!\r") // keys of the editor: add 1!
				x.see("--max-tokens)")
				x.see("> ")
				x.press("\x1b[A\x7f?\r") // the line before, with another end
				x.see("--max-tokens)")
			} else {
				x.press("add 1!\radd 1?\r")
				x.see("--max-tokens)")
				x.see("--max-tokens)")
			}
			x.see("> ")
			// as one message
			x.press("see: \x1b[200~a\rb\r" + either(terminal.edits, "\n", "") + "\tc" +
				either(terminal.edits, interrupt, "") + "\x1b[A\x1b[201~ d\r")
			x.see("--max-tokens)")
			x.see("> ")
			x.press(interrupt)
			x.see(warning)
			x.press("/save " + file + "\r")
			x.see("(3 turns are in " + file + ")")
			if said, want := savedMessages(t, file), []string{"add 1!", "add 1?", "see: a\nb\n\tc[A d"}; strings.Join(
				said, "|") != strings.Join(want, "|") {
				t.Errorf("messages %q, want %q", said, want)
			}
			x.see("> ")
			x.press("/quit\r")
			x.leave(0)

			x = sit(t, terminal.kind, terminal.size, "chat", "--model", path, "--threads", "1", "--max-tokens", "4000",
				"--context", "4096")
			x.see("> ")
			x.press("go on\r")
			x.see("go on")
			x.see("\n")
			time.Sleep(20 * time.Millisecond)
			x.press(interrupt)
			x.see("(stopped)")
			x.see("> ")
			x.press(interrupt)
			x.see(warning)
			x.press(interrupt)
			x.see("the chat was interrupted")
			x.leave(exitInterrupted)
		})
	}
}

// TestPastes takes pastes apart wherever a read may end.
func TestPastes(t *testing.T) {
	for typed, want := range map[string]string{
		"plain\r":                              "plain\r",
		"\x1b[A\x1b[20~\x1b":                   "\x1b[A\x1b[20~\x1b",
		"a\x1b[200~b\rc\x1b[201~d\r":           "a" + "b␤c" + "d\r",
		"\x1b[200~a\r\nb\n\nc\r\r\x1b[201~\r":  "a␤b␤␤c␤␤\r",
		"\x1b[200~\tx\x03\x1b[Ay\x7f\x1b[201~": "␉x[Ay",
		"\x1b[200~ü漢\x1b[200~\x1b[201~\x1b[20": "ü漢[200~\x1b[20",
		"\x1b[200~left open":                   "left open",
	} {
		for _, in := range []io.Reader{strings.NewReader(typed), iotest.OneByteReader(strings.NewReader(typed)),
			iotest.DataErrReader(strings.NewReader(typed))} {
			if got, err := io.ReadAll(&pastes{in: in}); err != nil || string(got) != want {
				t.Errorf("%q: %q, %v, want %q", typed, got, err, want)
			}
		}
	}
}
