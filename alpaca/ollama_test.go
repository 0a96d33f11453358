package alpaca

import (
	"slices"
	"strings"
	"testing"
)

// The alpaca template as Jinja makes the tokens that the alpaca template makes.
func TestAlpacaJinja(t *testing.T) {
	messages := []Message{{Role: User, Content: "Hi"}, {Role: Assistant, Content: "Ho"}, {Role: User, Content: "And?"}}
	for _, list := range [][]Message{messages[:1], messages, append([]Message{{Role: System, Content: "Sing."}},
		messages...)} {
		for _, tok := range []fakeTokenizer{{}, {bos: true}} {
			want, err := encoder(t, Alpaca, tok).Conversation(list)
			if err != nil {
				t.Fatal(err)
			}
			tok.chat = AlpacaJinja
			got, err := encoder(t, Chat, tok).Conversation(list)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q, %v, want %q", detokenize(got), err, detokenize(want))
			}
		}
	}
}

// smol puts a system message before conversations without one, as SmolLM2's template does.
const smol = "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}<|im_start|>system\nYou " +
	"are helpful<|im_end|>\n{% endif %}" +
	"{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if " +
	"add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

// Ollama compares what it writes with the chat template itself.
func TestOllama(t *testing.T) {
	for _, c := range []struct {
		chat string
		has  string // or the error's text
	}{
		{"", "### Instruction:\n{{ $m.Content }}"},
		{chatML, "<|im_start|>user\n{{ $m.Content }}"},
		{smol, "You are helpful"},
		{bracketed, "[INST] {{ $m.Content }}"},
		{plain, "user: {{ $m.Content }}"},
		{"{{ '{{' }}" + chatML, `{{ "{{" }}`},
		{forgetful, "leaves a message out"},
		{"{% for m in messages %}{{ loop.index }}: {{ m.content }}{% endfor %}", "can't say what"},
	} {
		for _, tok := range []fakeTokenizer{{chat: c.chat}, {chat: c.chat, bos: true}} {
			got, err := encoder(t, Auto, tok).Ollama()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.has) {
				t.Errorf("%s, %+v: %s, want %s", c.chat, tok.bos, got, c.has)
			}
		}
	}
	if got := encoder(t, Auto, fakeTokenizer{}).Ends(); !slices.Equal(got,
		[]string{"</s>", "<|im_end|>", "\n\n### Instruction:"}) {
		t.Errorf("ends %q", got)
	}
}
