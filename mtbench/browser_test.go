package mtbench

import (
	"context"
	"iter"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// browser is a page in a real Chromium.
type browser struct {
	*testing.T
	ctx     context.Context
	console iter.Seq2[chromedp.ConsoleMessage, error]
}

// open shows a page from a file. It skips the test where there is no Chromium.
func open(t *testing.T, page string) *browser {
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
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(page), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(stop)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox) // Chromium has no sandbox for root
	ctx, stop = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	b := &browser{T: t, ctx: ctx, console: chromedp.Console(ctx)}
	b.do(chromedp.EmulateViewport(1400, 900), chromedp.Navigate((&url.URL{Scheme: "file", Path: path}).String()))
	return b
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		b.Fatal(err)
	}
}

// run makes a part of the test one of its own.
func (b *browser) run(name string, part func(b *browser)) {
	b.Run(name, func(t *testing.T) { part(&browser{T: t, ctx: b.ctx}) })
}

func value[T any](b *browser, expression string) T {
	b.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.Fatalf("%s: %v", expression, err)
	}
	return v
}

// is checks the value of a JavaScript expression.
func is[T comparable](b *browser, expression string, want T) {
	b.Helper()
	if got := value[T](b, expression); got != want {
		b.Errorf("%s is %v, want %v", expression, got, want)
	}
}

// isEmpty checks that a JavaScript expression lists nothing.
func (b *browser) isEmpty(expression, complaint string) {
	b.Helper()
	if list := value[[]string](b, expression); len(list) > 0 {
		b.Errorf("%s: %s", complaint, strings.Join(list, "; "))
	}
}

// choose picks an option as a user does.
func (b *browser) choose(id, option string) {
	b.Helper()
	b.do(chromedp.SetValue(chromedp.CSS("#"+id), option), script(`document.getElementById("`+id+`").dispatchEvent(new Event("change"))`))
}

func script(text string) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](text)
}

func TestPageInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	b := open(t, html(t, invented(80, "base", "tuned "+attack)))
	const shown = `[...document.querySelectorAll("article")].filter(q => q.checkVisibility())`

	b.run("content", func(b *browser) {
		is(b, `document.querySelectorAll("article").length`, 80)
		is(b, shown+`.length`, 80)
		is(b, `document.querySelector("#count").textContent`, "80 of 80 questions")
		is(b, `document.querySelector("article").querySelectorAll(".answer").length`, 4)
		is(b, `window.injected === undefined`, true)
		is(b, `document.scripts.length`, 1)
		is(b, `document.querySelectorAll("img, iframe, link").length`, 0)
		is(b, `document.querySelectorAll("h1 span")[1].textContent.includes("<script>")`, true)
	})
	b.run("answers stand side by side", func(b *browser) {
		is(b, `(() => { const [a, b] = [...document.querySelectorAll(".answer")].map(e => e.getBoundingClientRect()); return a.top === b.top && a.right <= b.left })()`, true)
	})
	b.run("radar", func(b *browser) {
		is(b, `document.querySelectorAll("svg.radar .line").length`, 2)
		is(b, `document.querySelectorAll("svg.radar circle").length`, 16)
		is(b, `document.querySelector("svg.radar").getBoundingClientRect().width > 300`, true)
		b.isEmpty(`[...document.querySelectorAll("svg.radar text, svg.radar path, svg.radar circle")].filter(e => {
			const box = e.getBBox(), view = e.ownerSVGElement.viewBox.baseVal;
			return box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height;
		}).map(e => e.outerHTML)`, "not within the plot")
	})
	b.run("filter by category", func(b *browser) {
		b.choose("category", "math")
		is(b, shown+`.length`, 10)
		is(b, shown+`.every(q => q.dataset.category === "math")`, true)
		is(b, `document.querySelector("#count").textContent`, "10 of 80 questions")
		b.choose("category", "")
		is(b, shown+`.length`, 80)
	})
	b.run("search", func(b *browser) {
		b.do(chromedp.SendKeys(chromedp.CSS("#search"), "ASK 93?"))
		is(b, shown+`.map(q => q.id).join()`, "question-93")
		b.do(chromedp.SendKeys(chromedp.CSS("#search"), "nowhere"))
		is(b, shown+`.length`, 0)
		b.do(script(`document.querySelector("#search").value = ""; document.querySelector("#search").dispatchEvent(new Event("input"))`))
		is(b, shown+`.length`, 80)
	})
	b.run("order", func(b *browser) {
		const falls = `[...document.querySelectorAll("article")].every((q, i, all) => i === 0 || Number(q.dataset.apart) <= Number(all[i - 1].dataset.apart))`
		is(b, falls, false)
		b.choose("order", "apart")
		is(b, falls, true)
		b.choose("order", "asked")
		is(b, `document.querySelector("article").id`, "question-81")
	})
	b.run("the judge's words unfold with the keyboard", func(b *browser) {
		const words = `document.querySelector("details.judgment .text").checkVisibility({contentVisibilityAuto: false})`
		is(b, `document.querySelector("details.judgment").open`, false)
		b.do(chromedp.Focus(chromedp.CSS("details.judgment summary")), chromedp.KeyEvent("\r"))
		is(b, `document.querySelector("details.judgment").open`, true)
		is(b, words, true)
		is(b, `document.querySelector("details.judgment .text").getBoundingClientRect().height > 10`, true)
	})
	b.run("choice of models", func(b *browser) {
		tuned := chromedp.CSS("input[name=model][value='1']")
		b.do(chromedp.Focus(tuned), chromedp.KeyEvent(" "))
		is(b, `[...document.querySelectorAll("[data-model='1']")].every(e => !e.checkVisibility())`, true)
		is(b, `[...document.querySelectorAll(".answer[data-model='0']")].every(e => e.checkVisibility())`, true)
		b.do(chromedp.Focus(tuned), chromedp.KeyEvent(" "))
		is(b, `[...document.querySelectorAll(".answer")].every(e => e.checkVisibility())`, true)
	})
	b.run("narrow", func(b *browser) {
		b.do(chromedp.EmulateViewport(390, 844), script(`for (const d of document.querySelectorAll("details")) d.open = true`))
		is(b, `document.documentElement.scrollWidth`, 390)
		is(b, `(() => { const [a, b] = [...document.querySelectorAll(".answer")].map(e => e.getBoundingClientRect()); return a.bottom <= b.top && a.left === b.left })()`, true)
		b.isEmpty(`[...document.querySelectorAll(".text, summary, h1, h2, h3")].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)`, "text that is cut off")
		b.isEmpty(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .unseen") && e.getBoundingClientRect().right > 391).map(e => e.tagName + "." + e.className)`,
			"wider than the screen")
	})
	b.run("dark", func(b *browser) {
		red := func(scheme string) int {
			media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
			if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, media); err != nil {
				b.Fatal(err)
			}
			return value[int](b, `Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`)
		}
		if light, dark := red("light"), red("dark"); light < 200 || dark > 60 {
			b.Errorf("the page's red is %d in light and %d in dark mode", light, dark)
		}
	})
	b.do(script(`console.log("end")`))
	for m, err := range b.console {
		switch {
		case err != nil:
			t.Fatal(err)
		case m.Text == "end":
			return
		}
		t.Errorf("console: %s", m.Text)
	}
}
