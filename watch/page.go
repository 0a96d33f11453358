// Package watch shows runs as a page: live while they train, over HTTP, or as one file that holds all it needs.
//
// What stands in a run folder is not trusted: it reaches the page as JSON and comes into the document as text alone, and the page's content security policy lets
// no script run but its own.
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
	//go:embed uplot/uPlot.min.css
	uplotCSS string
	//go:embed uplot/uPlot.iife.min.js
	uplotJS string // uPlot 1.6.32, as npm has it
	//go:embed uplot/LICENSE
	uplotLicence string
)

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// page is what page.html is made of.
type page struct {
	Style   template.CSS
	Library template.JS
	Script  template.JS
	Policy  string // content security policy
	Data    struct {
		Live bool    `json:"live"`
		Runs []*news `json:"runs"`
	}
}

// Write writes a page of the runs as they are now.
func Write(w io.Writer, folders []string) error {
	runs := make([]*news, len(folders))
	for i, f := range followers(folders) {
		defer f.close()
		var err error
		if runs[i], err = f.next(); err != nil {
			return err
		}
	}
	return render(w, runs)
}

func followers(folders []string) []*follower {
	list := make([]*follower, len(folders))
	for i, path := range folders {
		list[i] = &follower{run: i, path: path}
	}
	return list
}

// render writes the page with these runs; nil makes it one that listens to the server for them.
func render(w io.Writer, runs []*news) error {
	style, library := uplotCSS+pageCSS, "/*\n"+uplotLicence+"*/\n"+uplotJS
	p := page{Style: template.CSS(style), Library: template.JS(library), Script: template.JS(pageJS)}
	p.Data.Live, p.Data.Runs = runs == nil, runs
	p.Policy = fmt.Sprintf("default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; style-src %s; script-src %s %s",
		digest(style), digest(library), digest(pageJS))
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, p); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	_, err := out.WriteTo(w)
	return err
}

// digest names an inline script or style in a content security policy.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
