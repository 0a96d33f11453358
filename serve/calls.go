package serve

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"regexp"
	"strings"
)

// callForm is how a model writes calls of tools.
type callForm int

const (
	unknownCalls  callForm = iota // they stay text
	jsonCalls                     // <tool_call>{"name": …, "arguments": {…}}</tool_call>: Hermes, Qwen 2.5 and 3
	functionCalls                 // <tool_call><function=…><parameter=…>…</parameter></function></tool_call>: Qwen 3.5
	bareCalls                     // {"name": …, "parameters": {…}} as the whole answer: Llama 3
)

// Tags around a call.
const (
	callOpen  = "<tool_call>"
	callClose = "</tool_call>"
)

// callFormOf tells the form from a chat template, which writes calls itself.
func callFormOf(template string) callForm {
	switch {
	case strings.Contains(template, callOpen) && strings.Contains(template, "<function="):
		return functionCalls
	case strings.Contains(template, "<arg_key>"): // GLM's
		return unknownCalls
	case strings.Contains(template, callOpen) && strings.Contains(template, "arguments"):
		return jsonCalls
	case strings.Contains(template, `"parameters"`) && strings.Contains(template, "ipython"):
		return bareCalls
	}
	return unknownCalls
}

// toolCall is a call as OpenAI's API has it.
type toolCall struct {
	Index    *int         `json:"index,omitempty"` // in events
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function calledByName `json:"function"`
}

type calledByName struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"` // a JSON object
}

func newCall(name string, arguments json.RawMessage) toolCall {
	return toolCall{ID: "call_" + rand.Text(), Type: "function", Function: calledByName{name, string(arguments)}}
}

// callReader takes an answer apart into text and calls, while it comes.
type callReader struct {
	form  callForm
	tools json.RawMessage // that the request has, nil for none: then there are no calls
	began bool            // something that is no white space has come
	calls bool            // all that comes belongs to calls
	held  string          // may be calls
}

// write takes the next piece, and gives the text that is certainly no call.
func (c *callReader) write(piece string) string {
	if c.tools == nil || c.form == unknownCalls {
		return piece
	}
	c.held += piece
	if c.calls {
		return ""
	}
	text := len(c.held)
	switch {
	case c.form != bareCalls:
		if at := strings.Index(c.held, callOpen); at >= 0 {
			text, c.calls = at, true
		} else {
			text -= tail(c.held, callOpen)
		}
	case !c.began:
		start := strings.TrimSpace(c.held)
		c.began = start != ""
		if c.calls = strings.HasPrefix(start, "{"); c.calls || !c.began {
			text = 0
		}
	}
	given := c.held[:text]
	c.held = c.held[text:]
	return given
}

// tail is the length of the longest end of a text with which a tag begins.
func tail(text, tag string) int {
	n := min(len(tag)-1, len(text))
	for n > 0 && !strings.HasSuffix(text, tag[:n]) {
		n--
	}
	return n
}

// finish gives the calls, or what was held back where it turns out to be none.
func (c *callReader) finish() (rest string, calls []toolCall) {
	if c.calls {
		calls = c.parse()
	}
	if calls == nil {
		return c.held, nil
	}
	return "", calls
}

// parse reads what was held back; it is nil where that is not calls alone.
func (c *callReader) parse() (calls []toolCall) {
	if c.form == bareCalls {
		if call, ok := jsonCall(c.held, "parameters"); ok {
			return []toolCall{call}
		}
		return nil
	}
	for rest := strings.TrimSpace(c.held); rest != ""; {
		inner, opened := strings.CutPrefix(rest, callOpen)
		inner, rest, _ = strings.Cut(inner, callClose) // the last may be missing where the model ended its turn
		rest = strings.TrimSpace(rest)
		call, ok := jsonCall(inner, "arguments")
		if c.form == functionCalls {
			call, ok = c.functionCall(inner)
		}
		if !opened || !ok {
			return nil
		}
		calls = append(calls, call)
	}
	return calls
}

// jsonCall reads an object of a name and of arguments, which have a name of their own.
func jsonCall(text, arguments string) (call toolCall, ok bool) {
	var o map[string]json.RawMessage
	var name string
	if json.Unmarshal([]byte(text), &o) != nil || json.Unmarshal(o["name"], &name) != nil || name == "" {
		return call, false
	}
	given := bytes.TrimSpace(o[arguments])
	if len(given) == 0 {
		given = []byte("{}")
	}
	return newCall(name, given), given[0] == '{'
}

var (
	functionTag  = regexp.MustCompile(`(?s)^\s*<function=([^>\s]+)>(.*?)(?:</function>)?\s*$`)
	parameterTag = regexp.MustCompile(`(?s)<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>`)
)

// functionCall reads tags. A value is a text where the tool says so, or else JSON if it is any.
func (c *callReader) functionCall(text string) (call toolCall, ok bool) {
	m := functionTag.FindStringSubmatch(text)
	if m == nil {
		return call, false
	}
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range parameterTag.FindAllStringSubmatch(m[2], -1) {
		if i > 0 {
			b.WriteByte(',')
		}
		name, _ := json.Marshal(p[1])
		value := json.RawMessage(p[2])
		if c.isText(m[1], p[1]) || !json.Valid(value) {
			value, _ = json.Marshal(p[2])
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return newCall(m[1], b.Bytes()), true
}

// isText tells whether a tool's parameter is a string, as the request describes it.
func (c *callReader) isText(function, parameter string) bool {
	var tools []struct {
		Function struct {
			Name       string
			Parameters struct {
				Properties map[string]struct{ Type any }
			}
		}
	}
	if json.Unmarshal(c.tools, &tools) != nil {
		return false
	}
	for _, t := range tools {
		if t.Function.Name == function {
			return t.Function.Parameters.Properties[parameter].Type == "string"
		}
	}
	return false
}
