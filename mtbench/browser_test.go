package mtbench

import (
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/veratune/veratune/internal/browser"
)

// choose picks an option as a user does.
func choose(p *browser.Page, id, option string) {
	p.Helper()
	p.Do(chromedp.SetValue(chromedp.CSS("#"+id), option),
		browser.Script(`document.getElementById("`+id+`").dispatchEvent(new Event("change"))`))
}

func TestPageInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, []byte(html(t, invented(80, "base", "tuned "+attack))), 0o666); err != nil {
		t.Fatal(err)
	}
	b := browser.Open(t, (&url.URL{Scheme: "file", Path: path}).String())
	const shown = `[...document.querySelectorAll("article")].filter(q => q.checkVisibility())`

	b.Part("content", func(b *browser.Page) {
		browser.Is(b, `document.querySelectorAll("article").length`, 80)
		browser.Is(b, shown+`.length`, 80)
		browser.Is(b, `document.querySelector("#count").textContent`, "80 of 80 questions")
		browser.Is(b, `document.querySelector("article").querySelectorAll(".answer").length`, 4)
		browser.Is(b, `window.injected === undefined`, true)
		browser.Is(b, `document.scripts.length`, 1)
		browser.Is(b, `document.querySelectorAll("img, iframe, link").length`, 0)
		browser.Is(b, `document.querySelectorAll("h1 span")[1].textContent.includes("<script>")`, true)
	})
	b.Part("answers stand side by side", func(b *browser.Page) {
		browser.Is(b, `(() => { const [a, b] = [...document.querySelectorAll(".answer")].map(e => `+
			`e.getBoundingClientRect()); return a.top === b.top && a.right <= b.left })()`, true)
	})
	b.Part("radar", func(b *browser.Page) {
		browser.Is(b, `document.querySelectorAll("svg.radar .line").length`, 2)
		browser.Is(b, `document.querySelectorAll("svg.radar circle").length`, 16)
		browser.Is(b, `document.querySelector("svg.radar").getBoundingClientRect().width > 300`, true)
		b.IsEmpty(`[...document.querySelectorAll("svg.radar text, svg.radar path, svg.radar circle")].filter(e => {
			const box = e.getBBox(), view = e.ownerSVGElement.viewBox.baseVal;
			return box.x < 0 || box.y < 0 || box.x + box.width > view.width || box.y + box.height > view.height;
		}).map(e => e.outerHTML)`, "not within the plot")
	})
	b.Part("filter by category", func(b *browser.Page) {
		choose(b, "category", "math")
		browser.Is(b, shown+`.length`, 10)
		browser.Is(b, shown+`.every(q => q.dataset.category === "math")`, true)
		browser.Is(b, `document.querySelector("#count").textContent`, "10 of 80 questions")
		choose(b, "category", "")
		browser.Is(b, shown+`.length`, 80)
	})
	b.Part("search", func(b *browser.Page) {
		b.Do(chromedp.SendKeys(chromedp.CSS("#search"), "ASK 93?"))
		browser.Is(b, shown+`.map(q => q.id).join()`, "question-93")
		b.Do(chromedp.SendKeys(chromedp.CSS("#search"), "nowhere"))
		browser.Is(b, shown+`.length`, 0)
		b.Do(browser.Script(`document.querySelector("#search").value = ""; ` +
			`document.querySelector("#search").dispatchEvent(new Event("input"))`))
		browser.Is(b, shown+`.length`, 80)
	})
	b.Part("order", func(b *browser.Page) {
		const falls = `[...document.querySelectorAll("article")].every((q, i, all) => i === 0 || ` +
			`Number(q.dataset.apart) <= Number(all[i - 1].dataset.apart))`
		browser.Is(b, falls, false)
		choose(b, "order", "apart")
		browser.Is(b, falls, true)
		choose(b, "order", "asked")
		browser.Is(b, `document.querySelector("article").id`, "question-81")
	})
	b.Part("the judge's words unfold with the keyboard", func(b *browser.Page) {
		const words = `document.querySelector("details.judgment .text").checkVisibility({contentVisibilityAuto: false})`
		browser.Is(b, `document.querySelector("details.judgment").open`, false)
		b.Do(chromedp.Focus(chromedp.CSS("details.judgment summary")), chromedp.KeyEvent("\r"))
		browser.Is(b, `document.querySelector("details.judgment").open`, true)
		browser.Is(b, words, true)
		browser.Is(b, `document.querySelector("details.judgment .text").getBoundingClientRect().height > 10`, true)
	})
	b.Part("choice of models", func(b *browser.Page) {
		tuned := chromedp.CSS("input[name=model][value='1']")
		b.Do(chromedp.Focus(tuned), chromedp.KeyEvent(" "))
		browser.Is(b, `[...document.querySelectorAll("[data-model='1']")].every(e => !e.checkVisibility())`, true)
		browser.Is(b, `[...document.querySelectorAll(".answer[data-model='0']")].every(e => e.checkVisibility())`, true)
		b.Do(chromedp.Focus(tuned), chromedp.KeyEvent(" "))
		browser.Is(b, `[...document.querySelectorAll(".answer")].every(e => e.checkVisibility())`, true)
	})
	b.Part("narrow", func(b *browser.Page) {
		b.Do(chromedp.EmulateViewport(390, 844),
			browser.Script(`for (const d of document.querySelectorAll("details")) d.open = true`))
		browser.Is(b, `document.documentElement.scrollWidth`, 390)
		browser.Is(b, `(() => { const [a, b] = [...document.querySelectorAll(".answer")].map(e => `+
			`e.getBoundingClientRect()); return a.bottom <= b.top && a.left === b.left })()`, true)
		b.IsEmpty(`[...document.querySelectorAll(".text, summary, h1, h2, h3")].filter(e => e.scrollWidth > `+
			`e.clientWidth).map(e => e.textContent)`, "text that is cut off")
		b.IsEmpty(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .unseen") && `+
			`e.getBoundingClientRect().right > 391).map(e => e.tagName + "." + e.className)`,
			"wider than the screen")
	})
	b.Part("dark", func(b *browser.Page) {
		red := func(scheme string) int {
			b.Prefer(scheme)
			return browser.Value[int](b, `Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0])`)
		}
		if light, dark := red("light"), red("dark"); light < 200 || dark > 60 {
			b.Errorf("the page's red is %d in light and %d in dark mode", light, dark)
		}
	})
	b.Quiet()
}
