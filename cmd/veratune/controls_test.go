package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
)

// TestControlTokensStayText has a message in each role spell out each of SmolLM2's control tokens, in every reference template: the text is that of the
// template with the message in it, and has no more control tokens than with a harmless message.
func TestControlTokensStayText(t *testing.T) {
	s := opened(t, testutil.SmolLM2(t))
	var controls []string
	if err := s.tokenizer.Controls(func(_ int32, text string, _, _ bool) { controls = append(controls, text) }); err != nil {
		t.Fatal(err)
	}
	var templates []string
	for _, folder := range testutil.Folders(t, "VERATUNE_TEMPLATES", "refs/templates") {
		list, err := filepath.Glob(filepath.Join(folder, "*.jinja"))
		if err != nil {
			t.Fatal(err)
		}
		templates = append(templates, list...)
	}
	rows := 0
	for _, template := range append(templates, alpaca.Chat, alpaca.Alpaca) {
		for _, role := range []string{alpaca.System, alpaca.User, alpaca.Assistant, alpaca.Tool} {
			harmless := shownTexts(t, s, template, role, []string{harmlessWord})[0]
			if harmless.Reason != "" {
				continue // the template has no such role
			}
			for i, got := range shownTexts(t, s, template, role, controls) {
				rows++
				text, n := shownText(got)
				harmlessText, want := shownText(harmless)
				if n != want {
					t.Errorf("%s, %s says %q: %d control tokens in %q, want %d; %s", template, role, controls[i], n, text, want, got.Reason)
				}
				if text != strings.ReplaceAll(harmlessText, harmlessWord, controls[i]) {
					t.Errorf("%s, %s says %q: %q", template, role, controls[i], text)
				}
			}
		}
	}
	t.Logf("%d rows in %d templates", rows, len(templates)+2)
}

// harmlessWord is in no template.
const harmlessWord = "qzx"

// shownTexts shows conversations in which one role says each of the texts.
func shownTexts(t *testing.T, s *session, template, role string, texts []string) []alpaca.Shown {
	t.Helper()
	type message map[string]any
	var lines []byte
	for _, text := range texts {
		say := func(r, own string) message {
			if r == role {
				own = text
			}
			return message{"role": r, "content": own}
		}
		messages := []message{say(alpaca.User, "Hi"), say(alpaca.Assistant, "Ho"), say(alpaca.User, "And?"), say(alpaca.Assistant, "So.")}
		switch role {
		case alpaca.System:
			messages = append([]message{say(alpaca.System, "")}, messages...)
		case alpaca.Tool:
			call := message{"role": alpaca.Assistant, "content": "", "tool_calls": []any{message{"type": "function", "id": "call00001", "function": message{"name": "f", "arguments": message{"x": 1}}}}}
			result := say(alpaca.Tool, "")
			result["tool_call_id"], result["name"] = "call00001", "f"
			messages = []message{messages[0], call, result, messages[1]}
		}
		line, err := json.Marshal(message{"messages": messages})
		if err != nil {
			t.Fatal(err)
		}
		lines = append(append(lines, line...), '\n')
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	o := alpaca.Default()
	o.Template, o.MaxLength = template, 1<<20
	list, _, err := alpaca.Show([]string{path}, s.tokenizer, o, 1, len(texts))
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", template, err))
	}
	return list
}

// shownText is the text of a row's last sample, and the number of control tokens in it.
func shownText(s alpaca.Shown) (text string, controls int) {
	if len(s.Samples) == 0 {
		return "", -1
	}
	for _, p := range s.Samples[len(s.Samples)-1].Pieces {
		if p.Extra {
			continue
		}
		text += p.Text
		if p.Control {
			controls++
		}
	}
	return text, controls
}

// TestPromptsAreTokenizedWhole has the tokens of a prompt be those that llama.cpp makes of its whole text, also where texts get a space before them.
func TestPromptsAreTokenizedWhole(t *testing.T) {
	for _, o := range []testutil.TinyOptions{{}, {AddBOS: true}, {SentencePiece: true}, {SentencePiece: true, AddBOS: true}} {
		s := opened(t, testutil.TinyLlama(t, o))
		for _, content := range []string{"Hi", " two  words\n", "", "naïve 日本語 😀", "a\n\nb "} {
			got := conversation(t, s, alpaca.Chat, alpaca.Message{Role: alpaca.System, Content: content}, alpaca.Message{Role: alpaca.User, Content: content})
			want, err := s.tokenizer.Tokenize(t.Context(), "<|im_start|>system\n"+content+"<|im_end|>\n<|im_start|>user\n"+content+"<|im_end|>\n<|im_start|>assistant\n", false, true)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%+v, %q: %d, %v, want %d", o, content, got, err, want)
			}
		}
	}
}
