// Package browser shows pages to tests in a real Chromium.
package browser

import (
	"context"
	"iter"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Page is a page that is open in Chromium.
type Page struct {
	*testing.T
	ctx     context.Context
	console iter.Seq2[chromedp.ConsoleMessage, error]
}

// Open shows the page at an address, for a minute at most. It skips the test where there is no Chromium.
func Open(t *testing.T, address string) *Page {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		t.Skip("no Chromium here: Debian's package chromium has it")
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(stop)
	// Chromium has no sandbox for root
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox)
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	p := &Page{T: t, ctx: ctx, console: chromedp.Console(ctx)}
	p.Do(chromedp.EmulateViewport(1400, 900), chromedp.Navigate(address))
	return p
}

// Do makes the actions of a person or a script.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.Fatal(err)
	}
}

// Part makes a part of the test one of its own.
func (p *Page) Part(name string, part func(p *Page)) {
	p.Run(name, func(t *testing.T) { part(&Page{T: t, ctx: p.ctx}) })
}

// Value gives the value of a JavaScript expression.
func Value[T any](p *Page, expression string) T {
	p.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Is checks the value of a JavaScript expression.
func Is[T comparable](p *Page, expression string, want T) {
	p.Helper()
	if got := Value[T](p, expression); got != want {
		p.Errorf("%s is %v, want %v", expression, got, want)
	}
}

// Becomes waits until a JavaScript expression is true.
func (p *Page) Becomes(expression string) {
	p.Helper()
	for !Value[bool](p, expression) {
		if p.ctx.Err() != nil {
			p.Fatalf("%s does not become true", expression)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// IsEmpty checks that a JavaScript expression lists nothing.
func (p *Page) IsEmpty(expression, complaint string) {
	p.Helper()
	if list := Value[[]string](p, expression); len(list) > 0 {
		p.Errorf("%s: %s", complaint, strings.Join(list, "; "))
	}
}

// Script is the action of running JavaScript.
func Script(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](text)
}

// Prefer chooses the page's colours: "light" or "dark".
func (p *Page) Prefer(scheme string) {
	p.Helper()
	media := emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, media); err != nil {
		p.Fatal(err)
	}
}

// Quiet checks that the page has said nothing on the console so far. It must be the last check.
func (p *Page) Quiet() {
	p.Helper()
	p.Do(Script(`console.log("end")`))
	for m, err := range p.console {
		switch {
		case err != nil:
			p.Fatal(err)
		case m.Text == "end":
			return
		}
		p.Errorf("console: %s", m.Text)
	}
}
