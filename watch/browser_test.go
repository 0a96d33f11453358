package watch

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/veratune/veratune/internal/browser"
	"github.com/veratune/veratune/train"
)

// plotted is the number of values that each line of each chart has; pictures are the pictures that are shown, painted.
const (
	plotted  = `charts.map(c => c.lines.map(l => l.values.length).join("+")).join(" ")`
	pictures = `figures.filter(f => f.image?.isConnected && f.image.complete && f.image.naturalWidth > 0 && ` +
		`f.picture.children.length === 2).length`
)

// coloursSeen defines a function that gives the colours which an image has.
const coloursSeen = `window.coloursSeen = image => {
	const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
	[canvas.width, canvas.height] = [920, 540];
	pen.drawImage(image, 0, 0, 920, 540);
	const pixels = pen.getImageData(0, 0, 920, 540).data, seen = new Set();
	for (let i = 0; i < pixels.length; i += 4) {
		if (pixels[i + 3] > 200) seen.add(pixels[i] + "," + pixels[i + 1] + "," + pixels[i + 2]);
	}
	return seen;
}`

func TestFileInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	var page bytes.Buffer
	if err := Write(&page, []string{invent(t, "first", 12), invent(t, "second"+attack[:8], 6)}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "runs.html")
	if err := os.WriteFile(path, page.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	p := browser.Open(t, (&url.URL{Scheme: "file", Path: path}).String())
	p.Part("content", func(p *browser.Page) {
		browser.Is(p, `window.injected === undefined`, true)
		browser.Is(p, `document.scripts.length`, 2)
		browser.Is(p, `document.querySelectorAll("img:not(.picture img), iframe").length`, 0)
		browser.Is(p, `document.querySelectorAll("#state tbody tr").length`, 2)
		browser.Is(p, `[...document.querySelectorAll("#state tbody tr")].map(r => r.cells[2].textContent + " " + `+
			`r.cells[3].textContent + " " + r.cells[5].textContent + " " + r.cells[9].textContent).join("; ")`,
			"12 30% 2.077 1.01 GiB; 6 15% 2.2 1.01 GiB")
		browser.Is(p, `document.querySelector("#connection").textContent`, "")
		p.IsEmpty(`performance.getEntriesByType("resource").map(r => r.name.slice(0, 40)).filter(n => `+
			`!n.startsWith("data:"))`, "asked for")
	})
	p.Part("charts", func(p *browser.Page) {
		browser.Is(p, plotted, "12+4+6+2 12+6 12+6 12+6 12+6")
		p.Becomes(pictures + ` === 5`)
		p.Do(browser.Script(coloursSeen))
		p.IsEmpty(`figures.filter(f => !coloursSeen(f.image).has("31,111,178") || `+
			`!coloursSeen(f.image).has("200,83,26")).map(f => f.chart.title)`,
			"charts without a line in the colour of each run")
		browser.Is(p, `[...document.querySelectorAll("#charts figure:first-child li")].map(l => `+
			`l.textContent).join("; ").replaceAll(/\S*\//g, "")`,
			"first, training, smoothed 1.391; first, held out 2.077; second<script>, training, smoothed 1.73 (step "+
				"6); second<script>, held out 2.2 (step 4)")
		browser.Is(p, `document.querySelector("#views").hidden`, true)
	})
	p.Part("values under the pointer", func(p *browser.Page) {
		p.Do(browser.Script(`figures[1].picture.scrollIntoView()`))
		box := browser.Value[struct{ Left, Top, Width, Height float64 }](p, `(b => ({Left: b.left, Top: b.top, `+
			`Width: b.width, Height: b.height}))(figures[1].picture.getBoundingClientRect())`)
		x := browser.Value[float64](p,
			`(v => v.left + (4 - v.from) / (v.to - v.from) * (v.right - v.left))(figures[1].view)`)
		p.Do(chromedp.MouseEvent("mouseMoved", box.Left+x*box.Width, box.Top+box.Height/2))
		p.Becomes(`figures[1].legend.querySelector("output").textContent === "4.00e-4"`)
		browser.Is(p, `figures[0].legend.querySelectorAll("output")[1].textContent`, "2.2")
		browser.Is(p, `Math.abs(figures[0].rule.getBoundingClientRect().left - `+
			`figures[0].picture.getBoundingClientRect().left) > 50`, true)
		p.Do(chromedp.MouseEvent("mouseMoved", 1, 1))
		p.Becomes(`figures[1].legend.querySelector("output").textContent === "0.0012" && figures[0].rule.hidden`)
		p.Do(browser.Script(`figures[1].picture.focus()`), chromedp.KeyEvent(kb.ArrowLeft),
			chromedp.KeyEvent(kb.ArrowLeft))
		browser.Is(p, `figures[1].picture.getAttribute("aria-valuetext").replaceAll(/\S*\//g, "")`,
			"step 10: first 0.001, second<script> 6.00e-4 (step 6)")
		p.Do(browser.Script(`document.activeElement.blur()`))
	})
	p.Part("answers and layers", func(p *browser.Page) {
		const answers = `[...document.querySelectorAll(".answer .text")].map(e => e.textContent.slice(0, ` +
			`9).trim()).join("; ")`
		browser.Is(p, `document.querySelectorAll("#answers article").length`, 2)
		browser.Is(p, `document.querySelector(".ask").textContent.includes("<script>")`, true)
		browser.Is(p, answers, "answer 12; answer 4; two; two")
		browser.Is(p, `document.querySelectorAll(".layers").length`, 2)
		browser.Is(p, `[...document.querySelectorAll(".layers")].map(l => l.querySelectorAll("table").length + " " + `+
			`l.querySelectorAll("td[title]").length).join("; ")`, "4 16; 4 16")
		browser.Is(p, `document.querySelector(".layers td[title]").title`, "blk.0.attn_q: 12")
		browser.Is(p, `document.querySelector(".layers caption").textContent`, "Gradient of b: 0.2 to 12")
		browser.Is(p, `[0, 2].map(i => getComputedStyle(document.querySelectorAll(".layers `+
			`table")[i].querySelector("td[title]")).backgroundColor.replaceAll(" ", "")).join()`,
			"color(srgb0.1215690.4352940.698039),color(srgb000/0)")
		p.Do(chromedp.Focus(chromedp.CSS("#moment")), chromedp.KeyEvent(kb.ArrowLeft))
		browser.Is(p, `document.querySelector("#moment-step").textContent`, "8")
		browser.Is(p, answers, "answer 8; answer 4; two; two")
		browser.Is(p, `document.querySelector(".layers td[title]").title`, "blk.0.attn_q: 8")
	})
	p.Part("settings", func(p *browser.Page) {
		p.Do(chromedp.Focus(chromedp.CSS("summary")), chromedp.KeyEvent("\r"))
		browser.Is(p, `[...document.querySelectorAll("#settings tbody tr")].filter(r => r.checkVisibility()).map(r `+
			`=> r.cells[0].textContent).join()`,
			"about.model,setup.vera.rank,setup.vera.targets,train.epochs,train.lr,train.steps")
		browser.Is(p, `document.querySelector("#settings tbody").rows[2].cells[2].textContent`, "attn_q ffn_up")
	})
	p.Part("narrow", func(p *browser.Page) {
		p.Do(chromedp.EmulateViewport(390, 844))
		p.Becomes(`figures.every(f => f.image.width < 360)`)
		browser.Is(p, `document.documentElement.scrollWidth`, 390)
		p.IsEmpty(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .layers") && `+
			`e.getBoundingClientRect().right > 391).map(e => e.tagName + "." + e.className)`, "wider than the screen")
	})
	p.Part("dark", func(p *browser.Page) {
		p.Prefer("dark")
		p.Becomes(`Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]) < 60 && ` +
			`coloursSeen(figures[0].image).has("109,179,242")`)
	})
	p.Quiet()
}

func TestLiveInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	folder := invent(t, "run", 3)
	p := browser.Open(t, served(t, folder))
	p.Becomes(`document.querySelector("#connection").textContent === "live" && charts.length === 5 && ` +
		`charts[0].lines[2].values.length === 1`)
	browser.Is(p, plotted, "3+3+1 3 3 3 3")
	browser.Is(p, `document.querySelectorAll(".answer").length`, 2)

	p.Becomes(pictures + ` === 5`)

	// A run that was halted, and goes on. The pictures are replaced where they are.
	p.Do(browser.Script(`scrollTo(0, 200)`), browser.Script(`window.gaps = 0; new MutationObserver(() => gaps += `+
		`figures.filter(f => !f.picture.querySelector("img")).length).observe(byId("charts"), {childList: true, `+
		`subtree: true})`))
	p.Do(browser.Script(`runs[0].finished = true; draw()`))
	browser.Is(p, `document.querySelector("#state tbody tr").cells[1].textContent`, "finished")
	extend(t, folder, lines(3, 8))
	p.Becomes(`document.querySelector("#state tbody tr").cells[2].textContent === "8" && ` +
		`charts[4].lines[0].values.length === 8`)
	p.Do(browser.Script(`Promise.all(figures.map(f => f.shown))`))
	browser.Is(p, pictures, 5)
	browser.Is(p, `gaps + " " + scrollY`, "0 200")
	browser.Is(p, plotted, "8+8+3 8 8 8 8")
	browser.Is(p, `document.querySelector("#moment-step").textContent`, "8")
	browser.Is(p, `document.querySelector("#state tbody tr").cells[1].textContent.startsWith("newest line ")`, true)

	// Started anew, the page forgets what it was told.
	if err := os.Rename(folder, folder+".old-1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(invent(t, "again", 5), folder); err != nil {
		t.Fatal(err)
	}
	p.Becomes(`charts[4].lines[0].values.length === 5`)
	browser.Is(p, plotted, "5+5+2 5 5 5 5")

	adapter := filepath.Join(folder, train.AdapterFile)
	write(t, adapter, "no adapter")
	p.Becomes(`document.querySelectorAll(".trouble").length === 1`)
	if err := os.Remove(adapter); err != nil {
		t.Fatal(err)
	}
	p.Becomes(`document.querySelectorAll(".trouble").length === 0`)
	browser.Is(p, `window.injected === undefined`, true)
	p.Quiet()
}
