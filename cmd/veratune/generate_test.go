package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
)

// TestGeneratePrompt gives the prompt in every way, and holds the answer to what the model says to the tokens of that
// prompt.
func TestGeneratePrompt(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	s := opened(t, path)
	adapter := alpacaAdapter(t, s.Base())
	const most = 6
	system := alpaca.Message{Role: alpaca.System, Content: "Be brief."}
	user := func(text string) alpaca.Message { return alpaca.Message{Role: alpaca.User, Content: text} }
	for _, c := range []struct {
		args     []string
		typed    string
		messages []alpaca.Message
	}{
		{[]string{"add 3"}, "", []alpaca.Message{user("add 3")}},
		{[]string{"add 3", "--system", "Be brief."}, "", []alpaca.Message{system, user("add 3")}},
		{[]string{"--prompt", "add 3", "--input", "it is"}, "", []alpaca.Message{user("add 3\n\nit is")}},
		{[]string{"-"}, "add\n\n\t3 \n", []alpaca.Message{user("add\n\n\t3 ")}},
		{[]string{"-", "--system", "Be brief.", "--input", "it is"}, "add 3\r\n",
			[]alpaca.Message{system, user("add 3\n\nit is")}},
		{[]string{"-p", "-"}, "add 3", []alpaca.Message{user("add 3")}},
		{[]string{"--", "-3 + 3"}, "", []alpaca.Message{user("-3 + 3")}},
	} {
		want, ended := greedy(t, s, conversation(t, s, alpaca.Chat, c.messages...), most)
		for _, form := range [][]string{nil, {"--json"}} {
			cmd, _ := process(append(append([]string{"generate", "--model", path, "--threads", "1", "--max-tokens",
				"6"}, form...), c.args...)...)
			var stdout, stderr strings.Builder
			cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.typed), &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Errorf("%q: %v, %s", c.args, err, stderr.String())
				continue
			}
			if form == nil {
				if stdout.String() != want+"\n" {
					t.Errorf("%q: %q, want %q", c.args, stdout.String(), want)
				}
				continue
			}
			var r generated
			if err := json.Unmarshal([]byte(stdout.String()), &r); err != nil ||
				strings.Count(stdout.String(), "\n") != 1 {
				t.Errorf("%q: %v, %q", c.args, err, stdout.String())
			}
			messages, _ := json.Marshal(r.Messages)
			wanted, _ := json.Marshal(c.messages)
			if r.Answer != want || string(messages) != string(wanted) ||
				r.EndedBy != either(ended, generate.EndToken, generate.EndMaxTokens) || r.Template != alpaca.Chat ||
				r.Model != path ||
				r.PromptTokens != len(conversation(t, s, alpaca.Chat, c.messages...)) || !ended && r.Tokens != most ||
				r.Settings.MaxTokens != most {
				t.Errorf("%q: %+v", c.args, r)
			}
		}
	}

	var r generated
	for _, c := range []struct {
		args  []string
		check func() bool
	}{
		{[]string{"--raw", "add 3"}, func() bool {
			return r.Prompt == "add 3" && r.Messages == nil && r.Template == ""
		}},
		{[]string{"--adapter", adapter, "add 3"}, func() bool {
			return r.Adapter == adapter && r.Template == alpaca.Alpaca && len(r.Settings.Stop) == 1
		}},
		{[]string{"--temperature", "0.5", "--seed", "3", "--stop", "x", "add 3"}, func() bool {
			return r.Settings.Temperature == 0.5 && r.Settings.Seed == 3 && r.Settings.Stop[0] == "x"
		}},
		{[]string{"--max-tokens", "100000", "--raw", strings.Repeat("~", 100)}, func() bool {
			return r.EndedBy == generate.EndContext || r.EndedBy == generate.EndToken
		}},
	} {
		r = generated{}
		code, stdout, stderr := veratune(append([]string{"generate", "--json", "--model", path, "--threads", "1",
			"--max-tokens", "6"}, c.args...)...)
		if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || !c.check() {
			t.Errorf("%q: exit code %d, %v, %s%s", c.args, code, err, stdout, stderr)
		}
	}

	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "the prompt is missing"},
		{[]string{""}, exitUsage, "the prompt is empty"},
		{[]string{"-p", "", "--system", "Be brief."}, exitUsage, "the prompt is empty"},
		{[]string{"add", "3"}, exitUsage, `unexpected argument "3"; there is one prompt, which stands in quotes`},
		{[]string{"-p", "add", "3"}, exitUsage, `unexpected argument "3"; there is one prompt`},
		{[]string{"--raw", "--system", "Be brief.", "add 3"}, exitUsage, "raw: takes no --system"},
		{[]string{"--raw", "--input", "it is", "add 3"}, exitUsage, "raw: takes no --system"},
		{[]string{"--raw", ""}, exitFailed, "the prompt has no tokens"},
		{[]string{"-"}, exitFailed, "prompt: the standard input is empty"},
	} {
		cmd, output := process(append([]string{"generate", "--model", path}, c.args...)...)
		err := cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(output.String(), c.want) {
			t.Errorf("%q: %v, %s", c.args, err, output)
		}
	}
}
