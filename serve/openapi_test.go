package serve

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// described is the API's description, of which schema and so on are parts.
type part = map[string]any

func readDescription(t *testing.T) (root part) {
	t.Helper()
	d, err := document(description, jobsDescription)
	if err == nil {
		err = json.Unmarshal(d, &root)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// at goes down by keys.
func at(p part, keys ...string) part {
	for _, key := range keys {
		p, _ = p[key].(part)
	}
	return p
}

// TestDescribedPaths: the description has the paths that the server has, and no others.
func TestDescribedPaths(t *testing.T) {
	r := start(t, func(o *Options) { o.Jobs = &Jobs{files: &files{}} })
	described := map[string]bool{}
	for path, methods := range at(readDescription(t), "paths") {
		for method := range methods.(part) {
			if method != "parameters" {
				described[strings.ToUpper(method)+" "+path] = true
			}
		}
	}
	for _, pattern := range r.patterns {
		pattern = strings.Replace(pattern, "...}", "}", 1)
		if pattern != "/" && !strings.Contains(pattern, "{$}") && !described[pattern] {
			t.Errorf("%s is not described", pattern)
		}
		delete(described, pattern)
	}
	if len(described) > 0 {
		t.Errorf("described, and not there: %q", slices.Sorted(maps.Keys(described)))
	}
}

// TestDescribedRequests: the description has the fields that are read, and no others.
func TestDescribedRequests(t *testing.T) {
	root := readDescription(t)
	for name, request := range map[string]any{"ChatRequest": chatRequest{}, "TextRequest": completionRequest{}} {
		described, read := map[string]bool{}, map[string]bool{}
		for _, s := range at(root, "components", "schemas", name)["allOf"].([]any) {
			for field := range at(resolve(root, s.(part)), "properties") {
				described[field] = true
			}
		}
		for _, f := range reflect.VisibleFields(reflect.TypeOf(request)) {
			if field, _, _ := strings.Cut(f.Tag.Get("json"), ","); field != "" {
				read[field] = true
			}
		}
		if !maps.Equal(described, read) {
			t.Errorf("%s: described %q, read %q", name, slices.Sorted(maps.Keys(described)),
				slices.Sorted(maps.Keys(read)))
		}
	}
}

// TestDescribedReplies holds requests and their replies to the description.
func TestDescribedReplies(t *testing.T) {
	r, root := start(t, nil), readDescription(t)
	const chat, text = "/v1/chat/completions", "/v1/completions"
	for _, q := range [][3]string{
		{"GET", "/v1/models", ""}, {"GET", "/v1/models/one", ""}, {"GET", "/v1/models/" + baseName, ""},
		{"GET", "/v1/models/none", ""}, {"GET", "/health", ""}, {"GET", "/openapi.json", ""},
		{"POST", chat, chatBody("one", "")}, {"POST", chat, chatBody("lora", `, "n": 2, "stop": "a", "seed": 3`)},
		{"POST", chat, chatBody("one", `, "logprobs": true, "top_logprobs": 2`)}, {"POST", chat, chatBody("none", "")},
		{"POST", chat, chatBody("one", `, "stream": true, "stream_options": {"include_usage": true}, "stop": ["a"]`)},
		{"POST", chat, chatBody("one", `, "stream": true, "logprobs": true, "top_logprobs": 1`)},
		{"POST", text, `{"model": "one", "prompt": "a", "logprobs": 2}`},
		{"POST", text, `{"model": "one", "prompt": ["a", "b"], "echo": true, "stream": true}`},
	} {
		method, path := strings.ToLower(q[0]), q[1]
		if strings.HasPrefix(path, "/v1/models/") {
			path = "/v1/models/{id}"
		}
		operation := at(root, "paths", path, method)
		if operation == nil {
			t.Errorf("%s %s is not described", method, path)
			continue
		}
		if q[2] != "" {
			var body any
			if err := json.Unmarshal([]byte(q[2]), &body); err != nil {
				t.Fatal(err)
			}
			fits(t, root, at(operation, "requestBody", "content", "application/json", "schema"), body, q[2])
		}
		status, reply := r.ask(t, q[0], q[1], q[2])
		response := at(operation, "responses", fmt.Sprint(status))
		if response == nil {
			response = resolve(root, at(operation, "responses", "default"))
		}
		kind, objects := "application/json", []string{reply}
		if status == http.StatusOK && strings.Contains(q[2], `"stream": true`) {
			kind, objects = "text/event-stream", events(t, reply)
		}
		for _, object := range objects {
			var body any
			if err := json.Unmarshal([]byte(object), &body); err != nil {
				t.Fatal(err)
			}
			fits(t, root, at(response, "content", kind, "schema"), body, q[1]+": "+object)
		}
	}
}

// events are the objects of a stream.
func events(t *testing.T, stream string) []string {
	t.Helper()
	all := strings.Split(strings.TrimSuffix(stream, "\n\n"), "\n\n")
	for i := range all {
		var ok bool
		if all[i], ok = strings.CutPrefix(all[i], "data: "); !ok {
			t.Fatalf("an event of another form: %q", all[i])
		}
	}
	if all[len(all)-1] != "[DONE]" {
		t.Fatalf("the stream ends with %q", all[len(all)-1])
	}
	return all[:len(all)-1]
}

// resolve follows a reference.
func resolve(root, s part) part {
	if ref, ok := s["$ref"].(string); ok {
		return at(root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return s
}

// fits checks a value against a schema, as far as openapi.yaml makes use of schemas.
func fits(t *testing.T, root, schema part, value any, where string) {
	t.Helper()
	if schema = resolve(root, schema); schema == nil {
		t.Errorf("no schema for %.300s", where)
		return
	}
	if all, ok := schema["allOf"].([]any); ok {
		for _, s := range all {
			fits(t, root, s.(part), value, where)
		}
	}
	if want, ok := schema["const"]; ok && !reflect.DeepEqual(want, value) {
		t.Errorf("%v, want %v: %.300s", value, want, where)
	}
	if list, ok := schema["enum"].([]any); ok && !slices.Contains(list, value) {
		t.Errorf("%v, want one of %v: %.300s", value, list, where)
	}
	if kinds := kindsOf(schema); len(kinds) > 0 && !slices.ContainsFunc(kinds, func(k any) bool {
		return isKind(value, k.(string))
	}) {
		t.Errorf("%v, want %v: %.300s", value, kinds, where)
	}
	switch value := value.(type) {
	case part:
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, there := value[name.(string)]; !there {
				t.Errorf("%s is missing: %.300s", name, where)
			}
		}
		for name, v := range value {
			if s := at(schema, "properties", name); s != nil {
				fits(t, root, s, v, where)
			} else if s := at(schema, "additionalProperties"); s != nil {
				fits(t, root, s, v, where)
			}
		}
	case []any:
		if items := at(schema, "items"); items != nil {
			for _, v := range value {
				fits(t, root, items, v, where)
			}
		}
	}
}

func kindsOf(schema part) []any {
	switch kind := schema["type"].(type) {
	case string:
		return []any{kind}
	case []any:
		return kind
	}
	return nil
}

func isKind(value any, kind string) bool {
	switch v := value.(type) {
	case nil:
		return kind == "null"
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && v == float64(int64(v))
	case []any:
		return kind == "array"
	}
	return kind == "object"
}
