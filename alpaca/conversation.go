package alpaca

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// functionCall is the role of ShareGPT's turns whose text is the call of a tool.
const functionCall = "function_call"

// roles are the names of roles in data, in lower case.
var roles = map[string]string{
	"system": System, "developer": System,
	"user": User, "human": User, "prompter": User,
	"assistant": Assistant, "gpt": Assistant, "bot": Assistant, "model": Assistant, "chatgpt": Assistant,
	"ai":   Assistant,
	"tool": Tool, "observation": Tool, "function": Tool, "function_response": Tool, "ipython": Tool,
	functionCall: functionCall,
}

// conversation reads a row whose messages are in a list under one of listNames.
func (p rowReader) conversation(r *row, o fields) error {
	messages, name, err := p.list(o)
	if err != nil {
		return err
	}
	r.form = "conversation"
	if raw, _ := unpacked(name, o.find(name)); name == "conversations" ||
		strings.Contains(string(raw[:min(len(raw), 200)]), `"from"`) {
		r.form = "ShareGPT conversation"
	}
	return p.converse(r, o, messages)
}

// list reads the messages under one of listNames, and says which.
func (p rowReader) list(o fields) (messages []Message, name string, err error) {
	for _, n := range listNames {
		if !o.hasList(n) || name != "" && o.mapped.has(name) {
			continue
		}
		elements, err := list(n, o.find(n))
		if err != nil {
			return nil, n, err
		}
		turns, err := p.turns(n, elements, n != "turns")
		if err != nil {
			return nil, n, err
		}
		if name != "" && len(turns) > 0 && !slices.EqualFunc(messages, turns, func(a, b Message) bool {
			return a.Role == b.Role && a.Content == b.Content
		}) {
			return nil, n, bothThere(name, n, "messages")
		}
		if name == "" && len(turns) > 0 {
			messages, name = turns, n
		}
	}
	if name == "" {
		name = listNames[max(0, slices.IndexFunc(listNames, o.hasList))]
	}
	return messages, name, nil
}

// converse takes the messages of a row up to the last that is the assistant's, and what the row has beside them.
func (p rowReader) converse(r *row, o fields, messages []Message) (err error) {
	if len(messages) == 0 {
		return errors.New("messages is empty")
	}
	last := len(messages) - 1
	for last >= 0 && messages[last].Role != Assistant {
		last--
	}
	if last < 0 {
		return errors.New("no message is the assistant's, so there is nothing to learn")
	}
	messages = messages[:last+1]
	if err := blankMessage(messages); err != nil {
		return err
	}
	messages = slices.DeleteFunc(messages, func(m Message) bool {
		return m.Role == System && strings.TrimSpace(m.Content) == ""
	})
	if r.messages, err = o.withSystem(messages); err != nil {
		return err
	}
	if r.tools, err = o.beside("tools"); err != nil {
		return err
	}
	r.documents, err = o.beside("documents")
	return err
}

// withSystem puts a row's system message before the others.
func (o fields) withSystem(messages []Message) ([]Message, error) {
	system, err := o.system()
	switch first := messages[0]; {
	case err != nil || system == "":
	case first.Role != System:
		messages = slices.Insert(messages, 0, Message{Role: System, Content: system})
	case strings.TrimSpace(first.Content) != strings.TrimSpace(system):
		err = errors.New("has a system message among its messages and another one beside them; leave one")
	}
	return messages, err
}

// blankMessage fails where a message says nothing that should. A tool may return nothing, an assistant that calls tools
// need not speak, and system messages without text are left out.
func blankMessage(messages []Message) error {
	for i, m := range messages {
		if strings.TrimSpace(m.Content) != "" || m.Role == Tool || m.Role == System {
			continue
		}
		err := fmt.Errorf("message %d: content of the %s is empty", i+1, m.Role)
		switch {
		case m.Role != Assistant:
			return err
		case !m.calls():
			return emptyAnswer{err}
		}
	}
	return nil
}

// calls tells whether a message calls tools.
func (m Message) calls() bool {
	raw := object(m.Fields).find("tool_calls")
	return raw != nil && holdsText(raw)
}

// beside reads a list that a row has beside its messages, nil where it is empty.
func (o fields) beside(name string) (json.RawMessage, error) {
	raw := o.find(name)
	if raw == nil {
		return nil, nil
	}
	elements, err := list(name, raw)
	if err != nil || len(elements) == 0 {
		return nil, err
	}
	if raw, err = unpacked(name, raw); err == nil && holdsNUL(raw) {
		err = fmt.Errorf("%s holds a NUL character", name)
	}
	return raw, err
}

// turns reads messages. Where all are texts, they are the user's and the assistant's in turn.
func (p rowReader) turns(name string, elements []json.RawMessage, texts bool) (messages []Message, err error) {
	isText := func(raw json.RawMessage) bool { return kind(raw) == "a string" }
	alternate := len(elements) > 0 && !slices.ContainsFunc(elements, func(e json.RawMessage) bool { return !isText(e) })
	if alternate && !texts {
		return nil, fmt.Errorf("%s is a list of texts, which doesn't say whose they are; want messages of role and "+
			"content", name)
	}
	for i, element := range elements {
		var m Message
		if alternate {
			m.Role = []string{User, Assistant}[i%2]
			m.Content, err = text("content", element)
		} else {
			m, err = p.message(element)
		}
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i+1, err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// message reads a turn. Its Fields have the names and the forms that chat templates know, in the turn's own order.
func (p rowReader) message(raw json.RawMessage) (m Message, err error) {
	if kind(raw) != "an object" {
		return m, fmt.Errorf("is %s, want an object", kind(raw))
	}
	all, mapped := members(raw).rename(p.columns, turnNames...)
	o := fields{all, mapped}
	roleName, err := o.one(roleNames...)
	if err != nil {
		return m, err
	}
	contentName, err := o.one(contentNames...)
	if err != nil {
		return m, err
	}
	role, err := o.text(roleName)
	if err != nil {
		return m, err
	}
	if m.Role = roles[strings.ToLower(strings.TrimSpace(role))]; m.Role == "" {
		return m, unknownRole(role)
	}
	content := o.find(contentName)
	if content == nil && !(m.Role == Assistant && (o.has("tool_calls") || o.has(functionCall))) {
		return m, fmt.Errorf("%s is missing", contentName)
	}
	if content != nil {
		if m.Content, err = contentText(contentName, content); err != nil {
			return m, err
		}
	}
	var calls json.RawMessage
	if m.Role == functionCall {
		if calls, err = spokenCalls(m.Content); err != nil {
			return m, err
		}
		m.Role, m.Content = Assistant, ""
	}
	if len(o.object) == 2 && calls == nil && content != nil && !isNull(content) {
		return m, nil
	}
	m.Fields, err = o.turnFields(m, roleName, contentName, calls)
	return m, err
}

// turnFields are the fields of a message that was read from o, with calls behind its content.
func (o fields) turnFields(m Message, roleName, contentName string, calls json.RawMessage) (all []Field, err error) {
	for _, f := range o.object {
		switch {
		case f.Name == roleName:
			f = Field{"role", quote(m.Role)}
		case f.Name == contentName && isNull(f.Value):
			f.Name = "content"
		case f.Name == contentName:
			f = Field{"content", quote(m.Content)}
		default:
			if f, err = otherField(f); err != nil {
				return nil, err
			}
		}
		if f.Name != "" {
			all = append(all, f)
		}
		if f.Name == "content" && calls != nil {
			all = append(all, Field{"tool_calls", calls})
		}
	}
	return all, nil
}

// otherField is a field of a message beside role and content. It has no name where it is left out: what is null is
// there for the sake of other messages, and a second name for role or content says what the first does.
func otherField(f Field) (Field, error) {
	switch {
	case isNull(f.Value), slices.Contains(roleNames, f.Name), slices.Contains(contentNames, f.Name):
		return Field{}, nil
	case holdsNUL(f.Value):
		return f, fmt.Errorf("%s holds a NUL character", f.Name)
	}
	return toolCalls(f)
}

func unknownRole(role string) error {
	others := []string{}
	for name := range roles {
		if !slices.Contains([]string{System, User, Assistant, Tool}, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return fmt.Errorf("role %q, want system, user, assistant or tool; %s are taken too", role,
		strings.Join(others, ", "))
}

// contentText reads a text, or the texts of a list of parts.
func contentText(name string, raw json.RawMessage) (string, error) {
	if kind(raw) != "an array" {
		return text(name, raw)
	}
	var texts []string
	for i, part := range elements(raw) {
		place := fmt.Sprintf("part %d of %s", i+1, name)
		if kind(part) == "an object" {
			o := members(part)
			if t := o.find("type"); t != nil && string(t) != `"text"` {
				return "", fmt.Errorf("%s is of type %s; only text is taken", place, t)
			}
			if part = o.find("text"); part == nil {
				return "", fmt.Errorf("%s has no text", place)
			}
		}
		s, err := text(place, part)
		if err != nil {
			return "", err
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, "\n"), nil
}
