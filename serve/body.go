package serve

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// readJSON reads the body of a request into v. Fields that v doesn't have are left out.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	return readJSON(w, r, s.options.MaxBody, v)
}

// readJSON reads a body of so many bytes at most into v.
func readJSON(w http.ResponseWriter, r *http.Request, most int64, v any) error {
	if r.ContentLength > most {
		return &http.MaxBytesError{Limit: most}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return err
	case err != nil:
		return invalid("", "the body did not come whole in time")
	}
	// Reading on tells when the client leaves, which may take as long as the answer.
	http.NewResponseController(w).SetReadDeadline(time.Time{})
	if !utf8.Valid(body) {
		return invalid("", "the body is not valid UTF-8")
	}
	return parseJSON(body, v)
}

// parseJSON says in words what is wrong with a body.
func parseJSON(body []byte, v any) error {
	err := json.Unmarshal(body, v)
	var kind *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	var ours *failure
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ours):
		return ours
	case errors.As(err, &kind) && kind.Field == "":
		return invalid("", "the body is %s, and must be a JSON object", article(kind.Value))
	case errors.As(err, &kind):
		field := strings.TrimPrefix(kind.Field, "parameters.") // which is embedded
		return invalid(field, "%s: is %s, and must be %s", field, article(kind.Value),
			article(word(kind.Type.Kind().String())))
	case errors.As(err, &syntax):
		return invalid("", "the body is not valid JSON, from byte %d on", syntax.Offset)
	}
	return invalid("", "the body is not valid JSON")
}

// word is JSON's for a kind of Go's.
func word(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "whole number"
	case strings.HasPrefix(kind, "float"):
		return "number"
	case kind == "bool":
		return "boolean"
	case kind == "slice":
		return "array"
	case kind == "struct", kind == "map":
		return "object"
	}
	return kind
}

// article puts one before a word.
func article(word string) string {
	word, _, _ = strings.Cut(word, " -") // "number -1.5"
	switch {
	case word == "null":
		return word
	case strings.HasPrefix(word, "a") || strings.HasPrefix(word, "o"):
		return "an " + word
	}
	return "a " + word
}
