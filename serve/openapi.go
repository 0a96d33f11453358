package serve

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v4"
)

//go:embed openapi.yaml
var description []byte

// document describes the API, as openapi.yaml does.
var document = sync.OnceValues(func() (json.RawMessage, error) {
	var d any
	if err := yaml.Unmarshal(description, &d); err != nil {
		return nil, err
	}
	return json.Marshal(d)
})

// openAPI shows the document.
func openAPI(w http.ResponseWriter, _ *http.Request) error {
	d, err := document()
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, d)
}
