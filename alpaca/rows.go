package alpaca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// BadRow says why a row can't be trained on. It is an error in strict mode and a count otherwise.
type BadRow struct {
	File   string
	Row    int // from 1; in a JSONL file it is the number of the line
	Reason string
}

func (b BadRow) Error() string { return fmt.Sprintf("%s: row %d: %s", b.File, b.Row, b.Reason) }

// row is one parsed row in one of five forms: messages, instruction with output, prompt with completion, text or, as a multiple-choice question, instruction
// with choices.
type row struct {
	number                     int
	messages                   []Message
	tools, documents           json.RawMessage // for the chat template of messages; nil where there are none
	instruction, input, output string          // input is "" where the row has none
	prompt, completion         string
	text                       string
	choices                    []string
	answer                     int // index of the right choice
}

// object is a JSON object whose values are still to be read.
type object map[string]json.RawMessage

func parseObject(raw []byte) (object, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("is not valid UTF-8")
	}
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		if json.Valid(raw) {
			return nil, fmt.Errorf("is %s, want an object", kind(raw))
		}
		return nil, fmt.Errorf("malformed JSON: %w", err)
	}
	if o == nil {
		return nil, errors.New("is null, want an object")
	}
	return o, nil
}

func parseRow(number int, raw []byte) (row, error) {
	r := row{number: number}
	o, err := parseObject(raw)
	if err != nil {
		return r, err
	}
	has := func(name string) bool { _, ok := o[name]; return ok }
	switch {
	case has("messages"):
		r.messages, err = parseMessages(o["messages"])
	case has("instruction"):
		r.instruction, r.input, r.output, err = parseInstruction(o)
	case has("prompt"), has("completion"):
		if r.prompt, err = o.text("prompt"); err == nil {
			r.completion, err = o.response("completion")
		}
	case has("choices"), has("endings"):
		r.instruction, r.choices, r.answer, err = parseQuestion(o)
	default:
		err = errors.New("has no instruction, messages, prompt or choices")
	}
	return r, err
}

func parseInstruction(o object) (instruction, input, output string, err error) {
	if instruction, err = o.text("instruction"); err != nil {
		return
	}
	if raw, ok := o["input"]; ok {
		if input, err = text("input", raw); err != nil {
			return
		}
		if marker := strings.TrimSpace(input); marker == "" || strings.EqualFold(marker, "<noinput>") {
			input = ""
		}
	}
	output, err = o.response("output")
	return
}

// emptyAnswer is the reason of rows with nothing to learn.
type emptyAnswer struct{ error }

// response returns a field that is there to be learned.
func (o object) response(name string) (string, error) {
	s, blank, err := o.maybeBlank(name)
	if blank {
		err = emptyAnswer{fmt.Errorf("%s is empty", name)}
	}
	return s, err
}

// parseMessages reads a conversation: an optional system message, then user and assistant messages that begin with the
// user's and end with the assistant's. A blank system message is left out.
func parseMessages(raw json.RawMessage) ([]Message, error) {
	if kind(raw) != "an array" {
		return nil, fmt.Errorf("messages is %s, want an array", kind(raw))
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(raw, &elements); err != nil {
		return nil, fmt.Errorf("messages: %w", err)
	}
	var messages []Message
	for i, element := range elements {
		m, err := parseMessage(element)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i+1, err)
		}
		blank := strings.TrimSpace(m.Content) == ""
		switch {
		case m.Role == System && i > 0:
			return nil, fmt.Errorf("message %d: a system message must come first", i+1)
		case m.Role == System && blank:
			continue
		case blank && m.Role == Assistant:
			return nil, emptyAnswer{fmt.Errorf("message %d: content of the assistant is empty", i+1)}
		case blank:
			return nil, fmt.Errorf("message %d: content of the %s is empty", i+1, m.Role)
		case m.Role == Assistant && (len(messages) == 0 || messages[0].Role == System && len(messages) == 1):
			return nil, fmt.Errorf("message %d: the assistant speaks before the user", i+1)
		}
		messages = append(messages, m)
	}
	if len(messages) == 0 {
		return nil, errors.New("messages is empty")
	}
	if messages[len(messages)-1].Role != Assistant {
		return nil, errors.New("the last message is not the assistant's")
	}
	return messages, nil
}

func parseMessage(raw json.RawMessage) (m Message, err error) {
	o, err := parseObject(raw)
	if err != nil {
		return m, err
	}
	if m.Role, err = o.text("role"); err != nil {
		return m, err
	}
	if m.Role != System && m.Role != User && m.Role != Assistant {
		return m, fmt.Errorf("role %q, want %s, %s or %s", m.Role, System, User, Assistant)
	}
	content, ok := o["content"]
	if !ok {
		return m, errors.New("content is missing")
	}
	m.Content, err = text("content", content)
	return m, err
}

// text returns a field that must be there and hold more than white space.
func (o object) text(name string) (string, error) {
	s, blank, err := o.maybeBlank(name)
	if blank {
		err = fmt.Errorf("%s is empty", name)
	}
	return s, err
}

func (o object) maybeBlank(name string) (s string, blank bool, err error) {
	raw, ok := o[name]
	if !ok {
		return "", false, fmt.Errorf("%s is missing", name)
	}
	s, err = text(name, raw)
	return s, err == nil && strings.TrimSpace(s) == "", err
}

// text reads a string, or null as the empty one. A NUL would cut the text short in a C tokenizer.
func text(name string, raw json.RawMessage) (string, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("%s is %s, want a string", name, kind(raw))
	}
	if strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%s holds a NUL character", name)
	}
	return s, nil
}

// kind names the type of a valid JSON value, which its first byte tells.
func kind(raw []byte) string {
	switch c := bytes.TrimSpace(raw)[0]; c {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
