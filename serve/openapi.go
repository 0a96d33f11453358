package serve

import (
	_ "embed"
	"net/http"
)

// document describes the API.
//
//go:embed openapi.json
var document []byte

// openAPI shows the document.
func openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(document)
	return err
}
