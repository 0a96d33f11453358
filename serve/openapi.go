package serve

import (
	_ "embed"
	"encoding/json"
	"net/http"

	"go.yaml.in/yaml/v4"
)

var (
	//go:embed openapi.yaml
	description []byte
	//go:embed openapi_jobs.yaml
	jobsDescription []byte
)

// document describes the API, as the files of its parts do.
func document(parts ...[]byte) (json.RawMessage, error) {
	whole := map[string]any{}
	for _, part := range parts {
		var d map[string]any
		if err := yaml.Unmarshal(part, &d); err != nil {
			return nil, err
		}
		join(whole, d)
	}
	return json.Marshal(whole)
}

// join adds the keys of an object to another, those of objects in both, too.
func join(to, from map[string]any) {
	for key, value := range from {
		inner, isObject := value.(map[string]any)
		if there, ok := to[key].(map[string]any); ok && isObject {
			join(there, inner)
		} else {
			to[key] = value
		}
	}
}

// openAPI shows the document.
func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	parts := [][]byte{description}
	if s.options.Jobs != nil {
		parts = append(parts, jobsDescription)
	}
	d, err := document(parts...)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, d)
}
