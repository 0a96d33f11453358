package serve

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edsrzf/mmap-go"

	"github.com/veratune/veratune/vera"
)

// FuzzBodies: no body is a fault of the server, and what isn't answered is refused in the API's form.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{chatBody("tiny", ""), chatBody("one", `, "stream": true, "n": 2, "logprobs": true`),
		chatBody("../one", `, "tools": [{"type": "function", "function": {"name": "a"}}]`),
		`{"model": "tiny", "messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "a", "function": ` +
			`{"name": "b", "arguments": "{\"c\": 1}"}}]}, {"role": "tool", "tool_call_id": "a", "content": "d"}]}`,
		`{"model": "tiny", "prompt": ["a", "b"], "echo": true, "stop": ["c"], "max_tokens": 2}`,
		`{"model": "tiny", "prompt": [[1, 2]], "logprobs": 2, "stream": true, "stream_options": ` +
			`{"include_usage": true}}`,
		`{"model": "tiny", "messages": [{"from": "human", "value": "x"}], "chat_template_kwargs": {"a": [1, ` +
			`{"b": null}]}}`,
	} {
		f.Add(body)
	}
	base, folder := openTiny(f), f.TempDir()
	saveAdapter(f, base, filepath.Join(folder, "one.gguf"), 1, nil, nil)
	o := Default()
	o.Name, o.Folder, o.Room = baseName, folder, 64
	s, err := New(base, o)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Close)
	h := s.Handler()
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
			q := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
			q.Host = "localhost"
			w := httptest.NewRecorder()
			h.ServeHTTP(w, q)
			var reply chatReply
			if w.Code != http.StatusOK && (w.Code >= http.StatusInternalServerError ||
				json.Unmarshal(w.Body.Bytes(), &reply) != nil || reply.Error.Message == "") {
				t.Errorf("%q: %d, %s", body, w.Code, w.Body)
			}
		}
	})
}

// FuzzCalls: whatever a model says, none of it is lost, and calls are JSON.
func FuzzCalls(f *testing.F) {
	for _, said := range []string{hermes, qwen, llama, "<tool_call><tool_call>", "{", "</tool_call>"} {
		f.Add(said, 3)
	}
	f.Fuzz(func(t *testing.T, said string, size int) {
		for _, form := range []callForm{unknownCalls, jsonCalls, functionCalls, bareCalls} {
			reader, text := callReader{form: form, tools: json.RawMessage(`[{}]`)}, ""
			for rest := said; rest != ""; {
				n := min(max(size, 1), len(rest))
				text += reader.write(rest[:n])
				rest = rest[n:]
			}
			rest, calls := reader.finish()
			if calls == nil && text+rest != said || calls != nil && !strings.HasPrefix(said, text) {
				t.Errorf("form %d: %q becomes %q and %q", form, said, text, rest)
			}
			for _, call := range calls {
				var arguments map[string]any
				if call.Function.Name == "" || json.Unmarshal([]byte(call.Function.Arguments), &arguments) != nil {
					t.Errorf("form %d: %q becomes %+v", form, said, call)
				}
			}
		}
	})
}

// TestCutWhileRead: a file that is cut short while it is read is an error of its own requests.
func TestCutWhileRead(t *testing.T) {
	r := start(t, nil)
	read := r.adapters.read
	r.adapters.read = func(path string) (*vera.Adapter, error) {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		memory, err := mmap.Map(file, mmap.RDONLY, 0)
		if err != nil {
			return nil, err
		}
		defer memory.Unmap()
		if err := file.Truncate(0); err != nil {
			return nil, err
		}
		return nil, &json.SyntaxError{Offset: int64(memory[0])}
	}
	var reply chatReply
	r.json(t, "POST", "/v1/chat/completions", chatBody("one", ""), http.StatusInternalServerError, &reply)
	if !strings.Contains(reply.Error.Message, "cut short") {
		t.Errorf("%s", reply.Error.Message)
	}
	r.adapters.read = read
	r.say(t, "two")
}
