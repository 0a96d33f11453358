package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// AlpacaJinja is the alpaca template as a chat template, for programs that take no other: a user's message is the
// instruction.
const AlpacaJinja = `{%- set ns = namespace(before='` + preamble + `') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}{%- set ns.before = message['content'] -%}
{%- elif message['role'] == 'user' -%}{{- ns.before + '\n\n### Instruction:\n' + message['content'] -}}
{%- set ns.before = '' -%}
{%- elif message['role'] == 'assistant' -%}{{- '\n\n### Response:\n' + message['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '\n\n### Response:\n' -}}{%- endif -%}`

// Ends are the texts at which an answer ends: of the tokens that end generation, and the template's own.
func (e *Encoder) Ends() (list []string) {
	for _, c := range e.controls.list {
		if e.tok.IsEOG(c.token) {
			list = append(list, c.text)
		}
	}
	slices.Sort(list)
	return append(list, e.Stops()...)
}

// Ollama returns the template in Go's template language, as Ollama's Modelfile takes it. It is made from what the chat
// template renders, and compared with that on conversations of up to three turns with and without a system message;
// where they differ it is an error.
func (e *Encoder) Ollama() (string, error) {
	chat := e.chat
	if chat == nil {
		var err error
		if chat, err = newChatTemplate("the alpaca template", AlpacaJinja, e.tok, e.controls, nil, e.now); err != nil {
			return "", err
		}
	}
	pieces, err := e.turnPieces(chat)
	if err != nil {
		return "", err
	}
	source := pieces.source()
	if strings.Contains(source, `"""`) {
		return "", errors.New("the chat template writes three quotation marks in a row, which a Modelfile can't hold")
	}
	return source, e.checkOllama(chat, source)
}

// turnPieces are the texts around the messages of a conversation of user and assistant.
type turnPieces struct {
	begin                    string // of a conversation without a system message
	beforeSystem, systemEnds string
	user                     string // before a user's message
	answered, asked          string // behind a user's message that is answered already, and behind the last
	assistantEnds            string
}

func (e *Encoder) turnPieces(chat *chatTemplate) (p turnPieces, err error) {
	const system, user, assistant, last = "\U000f0010", "\U000f0011", "\U000f0012", "\U000f0013"
	cut := func(messages []Message, contents ...string) (texts []string) {
		if err != nil {
			return make([]string, len(contents)+1)
		}
		var r rendered
		if r, err = chat.render(conversation{messages: messages}, true); err != nil {
			return make([]string, len(contents)+1)
		}
		rest := r.text
		if bos := e.controls.text(e.tok.BOS()); e.tok.AddBOS() && bos != "" { // Ollama adds it
			rest = strings.TrimPrefix(rest, bos)
		}
		for _, content := range contents {
			before, after, found := strings.Cut(rest, content)
			if !found {
				err = errors.New("the chat template leaves a message out")
				return make([]string, len(contents)+1)
			}
			texts, rest = append(texts, before), after
		}
		return append(texts, rest)
	}
	ask := Message{Role: User, Content: user}
	plain := cut([]Message{ask}, user)
	led := cut([]Message{{Role: System, Content: system}, ask}, system, user)
	if err != nil { // it may take no system message
		err, led = nil, []string{plain[0], "\n\n", plain[1]}
	}
	turns := cut([]Message{ask, {Role: Assistant, Content: assistant}, {Role: User, Content: last}}, user,
		assistant, last)
	p.user = commonSuffix(commonSuffix(plain[0], led[1]), turns[2])
	p.begin, p.systemEnds, p.assistantEnds = strings.TrimSuffix(plain[0], p.user), strings.TrimSuffix(led[1], p.user),
		strings.TrimSuffix(turns[2], p.user)
	p.beforeSystem, p.answered, p.asked = led[0], turns[1], plain[1]
	return p, err
}

func commonSuffix(a, b string) string {
	n := 0
	for n < min(len(a), len(b)) && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return a[len(a)-n:]
}

// source writes the pieces as a template.
func (p turnPieces) source() string {
	text := func(s string) string {
		if strings.Contains(s, "{{") || strings.Contains(s, "}}") {
			return "{{ " + strconv.Quote(s) + " }}"
		}
		return s
	}
	begin := ""
	if p.begin != "" {
		begin = `{{ if eq $i 0 }}` + text(p.begin) + `{{ end }}`
	}
	return `{{- range $i, $m := .Messages }}` +
		`{{ if eq $m.Role "system" }}` + text(p.beforeSystem) + `{{ $m.Content }}` + text(p.systemEnds) +
		`{{ else if eq $m.Role "user" }}` + begin + text(p.user) + `{{ $m.Content }}` +
		`{{ if eq (len (slice $.Messages $i)) 1 }}` + text(p.asked) + `{{ else }}` + text(p.answered) + `{{ end }}` +
		`{{ else if eq $m.Role "assistant" }}{{ $m.Content }}` + text(p.assistantEnds) + `{{ end }}{{ end }}`
}

// checkOllama compares a template with the chat template.
func (e *Encoder) checkOllama(chat *chatTemplate, source string) error {
	t, err := template.New("").Parse(source)
	if err != nil {
		return fmt.Errorf("template for Ollama: %w", err)
	}
	turns := []Message{{Role: User, Content: "One?"}, {Role: Assistant, Content: "Yes."}, {Role: User, Content: "Two?"},
		{Role: Assistant, Content: "No."}, {Role: User, Content: "Three?"}}
	for n := 1; n <= len(turns); n += 2 {
		for _, system := range []string{"", "Be brief."} {
			messages := turns[:n]
			if system != "" {
				messages = append([]Message{{Role: System, Content: system}}, messages...)
			}
			r, err := chat.render(conversation{messages: messages}, true)
			if err != nil && system != "" {
				continue // it takes no system message
			}
			if err != nil {
				return err
			}
			want := r.text
			if bos := e.controls.text(e.tok.BOS()); e.tok.AddBOS() && bos != "" {
				want = strings.TrimPrefix(want, bos)
			}
			var got strings.Builder
			if err := t.Execute(&got, struct{ Messages []Message }{messages}); err != nil {
				return fmt.Errorf("template for Ollama: %w", err)
			}
			if got.String() != want {
				return fmt.Errorf("the template language of Ollama can't say what the chat template does with %d "+
					"messages: %q instead of %q", len(messages),
					excerpt(got.String()[commonPrefix(got.String(), want):]),
					excerpt(want[commonPrefix(got.String(), want):]))
			}
		}
	}
	return nil
}
