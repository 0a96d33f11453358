package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/terminal"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// alpacaAdapter writes an adapter that says it was trained in the alpaca template.
func alpacaAdapter(t *testing.T, base vera.Base) string {
	t.Helper()
	path := randomAdapter(t, base, 0.5, nil)
	a, err := vera.Load(path, base)
	if err != nil {
		t.Fatal(err)
	}
	a.Facts[session.FactTemplate] = alpaca.Alpaca
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// script plays a chat and what must come of it. It keeps the conversation on its own, and has the session compute the
// answers.
type script struct {
	t         *testing.T
	s         *session.Session
	template  string
	maxTokens int
	messages  []alpaca.Message

	typed, transcript strings.Builder
	failed            int
}

// own is the form of models with a chat template.
const own = "the model's own chat template"

// line adds a line, and what is to be printed for it.
func (x *script) line(typed, printed string) {
	x.typed.WriteString(typed + "\n")
	x.transcript.WriteString(printed)
}

func (x *script) failing(typed string, err error) {
	x.failed++
	x.line(typed, fmt.Sprintf("veratune: %s\n", terminal.Words(err)))
}

// say is a message, as it is typed and as it is meant, with its answer.
func (x *script) say(typed, message string) {
	x.messages = append(x.messages, alpaca.Message{Role: alpaca.User, Content: message})
	x.typed.WriteString(typed + "\n")
	x.answer()
}

// answer is what the model says to the last message.
func (x *script) answer() {
	text, ended := greedy(x.t, x.s, conversation(x.t, x.s, x.template, x.messages...), x.maxTokens)
	x.messages = append(x.messages, alpaca.Message{Role: alpaca.Assistant, Content: text})
	x.transcript.WriteString(text + "\n")
	if !ended {
		fmt.Fprintf(&x.transcript, "(the answer is cut after %d tokens; see --max-tokens)\n", x.maxTokens)
	}
}

// wear puts an adapter on, or with an empty path takes it off.
func (x *script) wear(path, template string) {
	x.template = template
	if path == "" {
		if err := x.s.Attach(nil); err != nil {
			x.t.Fatal(err)
		}
		return
	}
	attached(x.t, x.s.Model, path)
}

// play runs the chat as a process of its own, with the script piped in. It says in which form it begins.
func (x *script) play(begun string, args ...string) {
	x.t.Helper()
	cmd, output := process(append([]string{"chat", "--threads", "1", "--max-tokens", fmt.Sprint(x.maxTokens)},
		args...)...)
	cmd.Stdin = strings.NewReader(x.typed.String())
	err := cmd.Run()
	end := ""
	if x.failed > 0 {
		end = fmt.Sprintf("veratune: %s failed\n", count(x.failed, "1 message", "messages"))
	}
	if code := cmd.ProcessState.ExitCode(); code != min(x.failed, exitFailed) {
		x.t.Errorf("exit code %d, %v: %s", code, err, output)
	}
	if got, want := output.String(), "template: "+begun+"\n"+x.transcript.String()+end; got != want {
		x.t.Errorf("transcript\n%s\nwant\n%s", got, want)
	}
}

// TestChat compares the transcript of a whole chat: history, adapters on and off, each with its template, a system
// message, and errors after which the chat goes on.
func TestChat(t *testing.T) {
	longer := func(f *testutil.TinyFile) { f.Metadata["llama.context_length"] = uint32(4096) }
	path := testutil.TinyLlama(t, testutil.TinyOptions{Change: longer})
	s := opened(t, path)
	adapter := alpacaAdapter(t, s.Base())
	foreign := randomAdapter(t, exact(t, testutil.TinyLlama(t, testutil.TinyOptions{Seed: 7})).Base(), 0.1, nil)
	_, errForeign := vera.Load(foreign, s.Base())
	_, errMissing := vera.Load("missing.gguf", s.Base())

	x := &script{t: t, s: s, template: alpaca.Chat, maxTokens: 8}
	x.failing("/retry", errors.New("/retry: there is no message yet"))
	x.say("add 3", "add 3")
	x.say("and\\\nthen 4 ", "and\nthen 4")
	x.failing("/adapter missing.gguf", errMissing)
	x.failing("/adapter "+foreign, errForeign)
	x.say("still the base", "still the base")

	x.line("/adapter "+adapter, "(adapter "+adapter+", template alpaca)\n")
	x.wear(adapter, alpaca.Alpaca)
	x.say("in other words", "in other words")
	x.failing("/adapter "+foreign, errForeign)
	x.line("/retry", "(at temperature 0 the answer does not depend on the seed; see --temperature)\n")
	x.messages = x.messages[:len(x.messages)-1]
	x.answer()

	x.line("/base", "(without an adapter, template chat)\n")
	x.wear("", alpaca.Chat)
	x.line("/system Be brief.", "(the system message is set)\n")
	x.messages = append([]alpaca.Message{{Role: alpaca.System, Content: "Be brief."}}, x.messages...)
	x.line("", "")
	x.say(" /tmp is what?", "/tmp is what?")
	x.line("/reset", "(the conversation is forgotten)\n")
	x.messages = x.messages[:1]
	x.say("hi", "hi")
	x.line("/system", "(without a system message)\n")
	x.messages = x.messages[1:]
	x.say("hi again", "hi again")

	x.failing("/adaptor x", errors.New(
		`no command "/adaptor": /help lists them; a message that begins with a slash needs a space before it`))
	x.failing("/adapter", errors.New("/adapter: needs a FILE"))
	x.failing("/reset now", errors.New(`/reset: unexpected "now" behind it`))
	x.line("/help", chatHelp())
	x.line("/exit", "")
	x.line("not read any more", "")
	x.play(own, "--model", path)

	// Saved, forgotten and loaded again, the conversation goes on as if it had never been away; training reads it, too.
	file, taken := filepath.Join(t.TempDir(), "chat.jsonl"), write(t, "taken.jsonl", "mine")
	x = &script{t: t, s: s, maxTokens: 8, messages: []alpaca.Message{{Role: alpaca.System, Content: "Be <brief>."}}}
	x.wear("", alpaca.Chat)
	x.failing("/save "+file, errors.New("/save: there is no answer yet"))
	x.say("add 3", "add 3")
	x.say("and\\\nthen 4 ", "and\nthen 4")
	x.failing("/save "+taken, fmt.Errorf("/save: %s is there already; choose another name", taken))
	x.failing("/load "+file, errors.New(
		"/load: there is a conversation already; /save FILE keeps it, /reset forgets it"))
	x.line("/save "+file, "(2 turns are in "+file+")\n")
	x.failing("/save "+file, fmt.Errorf("/save: %s is there already; choose another name", file))
	x.line("/reset", "(the conversation is forgotten)\n")
	x.line("/system Be long.", "(the system message is set)\n")
	x.failing("/load "+taken, errors.New("/load: "+taken+": begins with \"mine\", which is neither JSON nor the "+
		"names of a table's columns; want JSON, JSON lines, CSV, TSV or Parquet, as it is or packed with gzip or zstd"))
	x.line("/load "+file, "(2 turns are loaded from "+file+")\n")
	x.say("in other words", "in other words")
	x.line("/quit", "")
	x.play(own, "--model", path, "--system", "Be <brief>.")
	if code, stdout, stderr := veratune("data", "check", "--model", path, "--json", "--strict", file); code != 0 ||
		!strings.Contains(stdout, `"kinds":{"conversation":1}`) {
		t.Errorf("data check: exit code %d, %s%s", code, stdout, stderr)
	}
	if string(read(t, taken)) != "mine" {
		t.Error("a file was written over")
	}

	// Begun with the adapter and a system message, and ended by the end of the input within a message.
	x = &script{t: t, s: s, maxTokens: 6, messages: []alpaca.Message{{Role: alpaca.System, Content: "Speak."}}}
	x.wear(adapter, alpaca.Alpaca)
	x.say("add 5", "add 5")
	x.say("add\\\n6\\", "add\n6")
	x.play("Stanford Alpaca's prompts, as the adapter was trained", "--model", path, "--adapter", adapter,
		"--system", "Speak.")
}

// TestChatRoom forgets the oldest turns when the context is full, but not for a message that is too long for it.
func TestChatRoom(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	x := &script{t: t, s: opened(t, path), template: alpaca.Chat, maxTokens: 8}
	system := alpaca.Message{Role: alpaca.System, Content: "S"}
	x.messages = []alpaca.Message{system}
	x.say("add 1", "add 1")
	x.say("add 2", "add 2")
	// one less than is needed
	room := len(conversation(t, x.s, alpaca.Chat,
		append(x.messages, alpaca.Message{Role: alpaca.User, Content: "add 3"})...)) + 7
	long := strings.Repeat("~", room)
	tokens := len(conversation(t, x.s, alpaca.Chat, system, alpaca.Message{Role: alpaca.User, Content: long}))
	x.failing(long, fmt.Errorf("the message alone has %d tokens with its template, and the context has room for %d: "+
		"shorten it, or take a larger --context", tokens, room-1))
	fmt.Fprintf(&x.transcript, "(the conversation has become too long for the context of %d tokens: its oldest turn "+
		"is forgotten)\n", room)
	x.messages = append([]alpaca.Message{system}, x.messages[3:]...)
	x.say("add 3", "add 3")
	x.play(own, "--model", path, "--system", "S", "--context", fmt.Sprint(room))
}

// endless gives a chat whose answers do not end by themselves.
func endless(t *testing.T) (cmd *exec.Cmd, in io.Writer, out *bufio.Reader) {
	t.Helper()
	path := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.context_length"] = uint32(1 << 20)
		// the logits of the tokens that end a text are 0, which is never the greatest
		clear(f.Tensor("token_embd.weight").Values[:3*64])
	}})
	cmd, _ = process("chat", "--threads", "1", "--model", path, "--context", "200000", "--max-tokens", "199000")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	cmd.Stdout, cmd.Stderr = w, w
	in, err = cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	w.Close()
	out = bufio.NewReader(r)
	// from there on it waits for messages, and for signals
	if line, err := out.ReadString('\n'); line != "template: "+own+"\n" {
		t.Fatalf("the chat begins with %q, %v", line, err)
	}
	return cmd, in, out
}

// TestChatInterrupted stops an answer by SIGINT, talks on, and ends the chat by SIGINT where it waits for a message.
func TestChatInterrupted(t *testing.T) {
	cmd, in, out := endless(t)
	for range 2 {
		fmt.Fprintln(in, "go on")
		if _, err := io.ReadFull(out, make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
		cmd.Process.Signal(syscall.SIGINT)
		for said := ""; !strings.HasSuffix(said, "\n(stopped)\n"); {
			line, err := out.ReadString('\n')
			if said += line; err != nil {
				t.Fatalf("%v after %q", err, said)
			}
		}
	}
	cmd.Process.Signal(syscall.SIGINT)
	rest, _ := io.ReadAll(out)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted ||
		!strings.HasPrefix(string(rest), "veratune: ") {
		t.Errorf("%v, want exit code %d: %s", err, exitInterrupted, rest)
	}
}

// TestGenerateStops ends an answer before each of several stop strings, commas and spaces in them included.
func TestGenerateStops(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	s := opened(t, path)
	encoder, err := alpaca.NewEncoder(alpaca.Form{Template: alpaca.Chat}, s.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	prompt, err := encoder.Prompt("add 3", "")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := greedy(t, s, prompt, 40)
	said := []rune(text)
	for _, stops := range [][]string{nil, {string(said[10:14])}, {string(said[20:]), string(said[5:7])},
		{"not, said "}} {
		args := []string{"generate", "--model", path, "--threads", "1", "--max-tokens", "40", "-p", "add 3"}
		for _, stop := range stops {
			args = append(args, "--stop", stop)
		}
		want := text
		for _, stop := range stops {
			want, _, _ = strings.Cut(want, stop)
		}
		if code, stdout, stderr := veratune(args...); code != 0 || stdout != want+"\n" {
			t.Errorf("stops %q: exit code %d, %q, want %q; %s", stops, code, stdout, want, stderr)
		}
	}
	var list texts
	if err := list.Set("a, b "); err != nil || len(list) != 1 || list[0] != "a, b " {
		t.Errorf("stop strings %q, %v", list, err)
	}
	if err := list.Set(""); err == nil {
		t.Error("an empty stop string is taken")
	}
}
