package alpaca

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// toolCalls gives the calls in a message the form that chat templates expect: a list, whose arguments are objects and
// not their JSON in a string. The call of OpenAI's older messages becomes such a list too. Other fields stay as they
// are.
func toolCalls(f Field) (Field, error) {
	if f.Name == functionCall && kind(f.Value) == "an object" {
		f = Field{"tool_calls", array([]json.RawMessage{callOf(f.Value)})}
	}
	if f.Name != "tool_calls" {
		return f, nil
	}
	calls, err := list("tool_calls", f.Value)
	if err != nil {
		return f, err
	}
	for i, call := range calls {
		if kind(call) != "an object" {
			return f, fmt.Errorf("tool call %d is %s, want an object", i+1, kind(call))
		}
		calls[i] = withArguments(call)
	}
	f.Value = array(calls)
	return f, nil
}

// withArguments replaces the arguments of a call that are a string by the object in it. A string that holds none stays.
func withArguments(call json.RawMessage) json.RawMessage {
	o := members(call)
	for i, f := range o {
		switch {
		case f.Name == "function" && kind(f.Value) == "an object":
			o[i].Value = withArguments(f.Value)
		case f.Name == "arguments" && kind(f.Value) == "a string":
			s := bytes.TrimSpace([]byte(unquote(f.Value)))
			if len(s) > 0 && s[0] == '{' && checkJSON(s) == nil && !holdsNUL(s) {
				o[i].Value = s
			}
		}
	}
	return o.json()
}

// callOf wraps a function's name and arguments as OpenAI's list of calls has them.
func callOf(function json.RawMessage) json.RawMessage {
	return object{{"type", quote("function")}, {"function", function}}.json()
}

// spokenCalls reads the text of a function_call turn: the JSON of a call, or of a list of calls.
func spokenCalls(content string) (json.RawMessage, error) {
	raw := bytes.TrimSpace([]byte(content))
	wrong := fmt.Errorf("the text of a %s is the JSON of its name and arguments, or of a list of such", functionCall)
	if err := checkJSON(raw); err != nil {
		return nil, fmt.Errorf("%w: %w", wrong, err)
	}
	calls := []json.RawMessage{raw}
	if kind(raw) == "an array" {
		calls = elements(raw)
	}
	for i, call := range calls {
		if kind(call) != "an object" || !members(call).has("name") {
			return nil, wrong
		}
		calls[i] = withArguments(callOf(call))
	}
	if len(calls) == 0 || holdsNUL(raw) {
		return nil, wrong
	}
	return array(calls), nil
}
