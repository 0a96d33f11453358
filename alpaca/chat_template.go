package alpaca

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
	"github.com/ncruces/go-strftime"
)

// reservedVariables are those that a template gets with every conversation.
var reservedVariables = []string{"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}

// chatTemplate renders conversations with a Jinja template, as transformers' apply_chat_template does.
type chatTemplate struct {
	name      string // for messages
	compiled  *jinja.Template
	variables map[string]jinja.Value // that are the same for every conversation
	controls  *controls
	dated     bool // the template writes the day
	marked    bool // the template says itself what the assistant says, in {% generation %} blocks
}

// conversation is what a template renders.
type conversation struct {
	messages         []Message
	tools, documents json.RawMessage // nil where there are none
}

// rendered is the text of a conversation.
type rendered struct {
	text   string
	spoken []span // of {% generation %} blocks
	plain  []int  // where a message spells a control token out, which stays text; sorted
}

// span is a range of bytes.
type span struct{ start, end int }

func newChatTemplate(name, source string, tok Tokenizer, c *controls, variables map[string]json.RawMessage,
	now time.Time) (*chatTemplate, error) {
	t := &chatTemplate{name: name, controls: c, dated: strings.Contains(source, "strftime_now"),
		variables: map[string]jinja.Value{
			"strftime_now": jinja.NewCallable("strftime_now",
				func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
					if len(args) != 1 || !args[0].IsString() {
						return jinja.Undefined(), errors.New("strftime_now: needs a format")
					}
					return jinja.NewString(strftime.Format(args[0].AsString(), now)), nil
				}),
			"bos_token": jinja.NewString(c.text(tok.BOS())),
			"eos_token": jinja.NewString(c.text(tok.EOS())),
		}}
	for name, raw := range variables {
		v, err := jinjaValue(raw, func(s string) string { return s })
		if err != nil {
			return nil, fmt.Errorf("template option %s: %w", name, err)
		}
		t.variables[name] = v
	}
	rewritten, err := rewriteJinja(source)
	if err == nil {
		t.compiled, err = compileJinja(rewritten)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t.marked = strings.Contains(rewritten, "{{ "+generationOpen+" }}")
	return t, nil
}

// compileJinja makes an error of the library's panic over a broken template.
func compileJinja(source string) (t *jinja.Template, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the template is broken: %v", p)
		}
	}()
	t, err = jinja.Compile(source)
	if err != nil {
		err = errors.New(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "jinja parse: "), "jinja scan: "))
	}
	return t, err
}

// render returns the text of a conversation, up to where the assistant's next message begins with addAssistant.
//
// A control token that a message spells out must stay text. Its first character is therefore exchanged for one of a
// private use area before the template sees it, and put back in its text. A template may act on such a text, as some do
// on "</think>" in what the assistant said: then, in the assistant's messages, it is the template's own.
func (t *chatTemplate) render(c conversation, addAssistant bool) (rendered, error) {
	m := t.controls.disguise(c)
	text, err := t.run(c, addAssistant, m)
	if err != nil || m == nil {
		return t.marks(text, nil), err
	}
	open, err := t.run(c, addAssistant, nil)
	if err != nil {
		return rendered{}, err
	}
	for _, control := range m.found {
		if m.restore(text) == open {
			break
		}
		m.assistantsOwn[control] = true
		next, err := t.run(c, addAssistant, m)
		if err != nil {
			return rendered{}, err
		}
		if m.restore(next) == m.restore(text) { // the template doesn't act on it
			delete(m.assistantsOwn, control)
			continue
		}
		text = next
	}
	return t.marks(text, m), nil
}

// renderRow is render for messages as they come in rows: like transformers' apply_chat_template, it leaves out what is
// null. A template that fails over a message without content gets an empty one, as llama.cpp's server gives it. The
// conversation that was rendered is returned, too.
func (t *chatTemplate) renderRow(c conversation, addAssistant bool) (conversation, rendered, error) {
	c.messages = slices.Clone(c.messages)
	for i := range c.messages {
		c.messages[i].Fields = object(c.messages[i].Fields).keep(func(f Field) bool { return !isNull(f.Value) })
	}
	r, err := t.render(c, addAssistant)
	if err == nil {
		return c, r, nil
	}
	filled := c
	filled.messages = slices.Clone(c.messages)
	for i, m := range filled.messages {
		if m.Fields != nil && !object(m.Fields).has("content") {
			filled.messages[i].Fields = append(slices.Clip(m.Fields), Field{"content", quote("")})
		}
	}
	if r, again := t.render(filled, addAssistant); again == nil {
		return filled, r, nil
	}
	return c, r, err
}

// header is the text before the content of a conversation's last message.
func (t *chatTemplate) header(c conversation) (string, error) {
	const unseen = "\U0010fff0"
	c.messages = slices.Clone(c.messages)
	last := &c.messages[len(c.messages)-1]
	last.Content = unseen
	if last.Fields != nil {
		fields := object(last.Fields).keep(func(f Field) bool { return f.Name != "content" })
		last.Fields = append(fields, Field{"content", quote(unseen)})
	}
	r, err := t.render(c, false)
	before, _, _ := strings.Cut(r.text, unseen)
	return before, err
}

// Marks stand in a rendered text around what a template calls generation.
const (
	spokenStart = '\U0010fffc'
	spokenEnd   = '\U0010fffd'
)

// run renders, with the texts of control tokens disguised.
func (t *chatTemplate) run(c conversation, addAssistant bool, m *mask) (text string, err error) {
	values := maps.Clone(t.variables)
	maps.Copy(values, new(budget).functions())
	values["add_generation_prompt"] = jinja.NewBool(addAssistant)
	values[generationOpen], values[generationEnd] = jinja.NewString(string(spokenStart)),
		jinja.NewString(string(spokenEnd))
	messages := make([]jinja.Value, len(c.messages))
	for i := range c.messages {
		if messages[i], err = c.messages[i].jinja(m); err != nil {
			return "", fmt.Errorf("message %d: %w", i+1, err)
		}
	}
	values["messages"] = jinja.NewList(messages)
	for name, raw := range map[string]json.RawMessage{"tools": c.tools, "documents": c.documents} {
		values[name] = jinja.None()
		if raw != nil {
			if values[name], err = jinjaValue(raw, m.hide); err != nil {
				return "", fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: the template fails: %v", t.name, p)
		}
	}()
	text, err = t.compiled.RenderValues(values)
	if err != nil {
		return "", fmt.Errorf("%s: %s", t.name, m.restore(strings.ReplaceAll(err.Error(), unsafePrefix, "")))
	}
	return text, nil
}

// jinja is what a template sees of a message.
func (m Message) jinja(mask *mask) (jinja.Value, error) {
	hide := mask.hide
	if m.Role == Assistant {
		hide = mask.hideAssistant
	}
	v := jinja.NewDict()
	object := v.AsDict()
	if m.Fields == nil {
		object.Set("role", jinja.NewString(m.Role))
		object.Set("content", jinja.NewString(hide(m.Content)))
	}
	for _, f := range withReasoning(m.Fields) {
		value, err := jinjaValue(f.Value, hide)
		if err != nil {
			return v, fmt.Errorf("%s: %w", f.Name, err)
		}
		object.Set(f.Name, value)
	}
	return v, nil
}

// withReasoning gives what the assistant thought all the names that templates know it by, as transformers does.
func withReasoning(fields []Field) []Field {
	o := object(fields)
	for _, name := range []string{"reasoning_content", "thinking", "reasoning"} {
		thought := o.find(name)
		if thought == nil || isNull(thought) {
			continue
		}
		if !o.has("thinking") {
			o = append(object{{"thinking", thought}}, o...)
		}
		if !o.has("reasoning_content") {
			o = append(slices.Clip(o), Field{"reasoning_content", thought})
		}
		return o
	}
	return fields
}

// marks takes the marks out of a text and what was disguised back into it, and says where they were.
func (t *chatTemplate) marks(text string, m *mask) rendered {
	if m == nil && !t.marked {
		return rendered{text: text}
	}
	var r rendered
	var b strings.Builder
	start := -1
	for i, c := range text {
		original, disguised := m.original(c)
		switch {
		case t.marked && c == spokenStart:
			start = b.Len()
		case t.marked && c == spokenEnd:
			if start >= 0 && b.Len() > start {
				r.spoken = append(r.spoken, span{start, b.Len()})
			}
			start = -1
		case disguised:
			r.plain = append(r.plain, b.Len())
			b.WriteRune(original)
		default:
			_, n := utf8.DecodeRuneInString(text[i:])
			b.WriteString(text[i : i+n])
		}
	}
	r.text = b.String()
	return r
}
