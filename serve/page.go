package serve

import (
	"bytes"
	_ "embed"
	"html/template"
	"net/http"
	"sync"

	"github.com/veratune/veratune/watch"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
)

// page is the page of the service, which holds all it needs but for what it asks the API.
var page = sync.OnceValues(func() ([]byte, error) {
	t, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, err
	}
	style, script := watch.Style()+pageCSS, watch.ChartScript+pageJS
	var out bytes.Buffer
	err = t.Execute(&out, struct {
		Style  template.CSS
		Script template.JS
		Policy string
	}{template.CSS(style), template.JS(script), watch.Policy(style, script)})
	return out.Bytes(), err
})

// showPage answers with the page, which shows nothing that the API does not give.
func showPage(w http.ResponseWriter, _ *http.Request) error {
	html, err := page()
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, err = w.Write(html)
	return err
}
