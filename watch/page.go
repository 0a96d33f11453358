// Package watch shows runs as a page: live while they train, over HTTP, or as one file that holds all it needs.
//
// What stands in a run folder is not trusted: it reaches the page as JSON and comes into the document as text alone,
// charts hold numbers and are shown as images, and the page's content security policy lets no script run but its own.
package watch

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
)

var (
	//go:embed page.html
	pageHTML string
	//go:embed page.css
	pageCSS string
	//go:embed page.js
	pageJS string
	// ChartScript shows charts on a page that has Style, in an element "charts": drawCharts draws what Charts gave,
	// once that is in the variable charts. It begins the page's script.
	//
	//go:embed charts.js
	ChartScript string
)

// Style is that of pages in this package's looks.
func Style() string { return coloursCSS + pageCSS }

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// page is what page.html is made of.
type page struct {
	Style  template.CSS
	Script template.JS
	Policy string // content security policy
	Data   struct {
		Live   bool    `json:"live"`
		Runs   []*news `json:"runs"`
		Charts []chart `json:"charts"`
	}
}

// Write writes a page of the runs as they are now.
func Write(w io.Writer, folders []string) error {
	var p page
	var runs []recorded
	for _, f := range followers(folders) {
		defer f.close()
		n, err := f.next()
		if err != nil {
			return err
		}
		p.Data.Runs, runs = append(p.Data.Runs, n), append(runs, recorded{f.path, n.Records})
	}
	var err error
	if p.Data.Charts, err = drawCharts(runs); err != nil {
		return err
	}
	return p.write(w)
}

func followers(folders []string) []*follower {
	list := make([]*follower, len(folders))
	for i, path := range folders {
		list[i] = &follower{run: i, path: path}
	}
	return list
}

func (p *page) write(w io.Writer) error {
	p.Style, p.Script = template.CSS(Style()), template.JS(ChartScript+pageJS)
	p.Policy = Policy(Style(), ChartScript+pageJS)
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, p); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	_, err := out.WriteTo(w)
	return err
}

// Policy is the content security policy of a page with one style and one script, both inline, which asks nobody but its
// server.
func Policy(style, script string) string {
	return fmt.Sprintf("default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "+
		"style-src %s; script-src %s", digest(style), digest(script))
}

// digest names an inline script or style in a content security policy.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
