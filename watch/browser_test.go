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

// plotted is the number of values that each line of each chart has.
const plotted = `charts.map(c => c.plot.data.slice(1).map(values => values.filter(v => v != null).length).join("+")).join(" ")`

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
		browser.Is(p, `document.scripts.length`, 3)
		browser.Is(p, `document.querySelectorAll("img, iframe").length`, 0)
		browser.Is(p, `document.querySelectorAll("#state tbody tr").length`, 2)
		browser.Is(p, `[...document.querySelectorAll("#state tbody tr")].map(r => r.cells[2].textContent + " " + r.cells[3].textContent + " " + r.cells[5].textContent + " " + r.cells[9].textContent).join("; ")`,
			"12 30% 2.077 1.01 GiB; 6 15% 2.2 1.01 GiB")
		browser.Is(p, `document.querySelector("#connection").textContent`, "")
	})
	p.Part("charts", func(p *browser.Page) {
		browser.Is(p, plotted, "12+4+6+2 12+6 12+6 12+6 12+6")
		p.IsEmpty(`charts.filter(c => {
			const canvas = c.figure.querySelector("canvas"), pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
			const seen = new Set();
			for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) seen.add(pixels[i] + "," + pixels[i + 1] + "," + pixels[i + 2]);
			return !seen.has("31,111,178") || !seen.has("200,83,26");
		}).map(c => c.title)`, "charts without a line in the colour of each run")
		browser.Is(p, `charts[1].plot.data[1][11].toFixed(6)`, "0.001200")
	})
	p.Part("a stretch of the steps is looked at in all charts", func(p *browser.Page) {
		box := browser.Value[struct{ Left, Top, Width, Height float64 }](p, `(b => ({Left: b.left, Top: b.top, Width: b.width, Height: b.height}))(charts[0].plot.over.getBoundingClientRect())`)
		y := box.Top + box.Height/2
		p.Do(chromedp.DragAndDropXY(box.Left+.3*box.Width, y, box.Left+.6*box.Width, y))
		p.Becomes(`charts.every(c => c.plot.scales.x.min > 2 && c.plot.scales.x.max < 9)`)
		p.Do(browser.Script(`draw()`))
		p.Becomes(`charts.every(c => c.plot.scales.x.min > 2 && c.plot.scales.x.max < 9)`)
	})
	p.Part("answers and layers", func(p *browser.Page) {
		const answers = `[...document.querySelectorAll(".answer .text")].map(e => e.textContent.slice(0, 9).trim()).join("; ")`
		browser.Is(p, `document.querySelectorAll("#answers article").length`, 2)
		browser.Is(p, `document.querySelector(".ask").textContent.includes("<script>")`, true)
		browser.Is(p, answers, "answer 12; answer 4; two; two")
		browser.Is(p, `document.querySelectorAll(".layers").length`, 2)
		browser.Is(p, `[...document.querySelectorAll(".layers")].map(l => l.querySelectorAll("svg").length + " " + l.querySelectorAll("rect").length).join("; ")`, "4 16; 4 16")
		browser.Is(p, `document.querySelector(".layers rect title").textContent`, "blk.0.attn_q: 12")
		browser.Is(p, `document.querySelector(".layers h4").textContent`, "Gradient of b: 0.2 to 12")
		browser.Is(p, `document.querySelectorAll(".layers svg")[2].querySelector("rect").getAttribute("fill-opacity")`, "0.000")
		p.Do(chromedp.Focus(chromedp.CSS("#moment")), chromedp.KeyEvent(kb.ArrowLeft))
		browser.Is(p, `document.querySelector("#moment-step").textContent`, "8")
		browser.Is(p, answers, "answer 8; answer 4; two; two")
		browser.Is(p, `document.querySelector(".layers rect title").textContent`, "blk.0.attn_q: 8")
	})
	p.Part("settings", func(p *browser.Page) {
		p.Do(chromedp.Focus(chromedp.CSS("summary")), chromedp.KeyEvent("\r"))
		browser.Is(p, `[...document.querySelectorAll("#settings tbody tr")].filter(r => r.checkVisibility()).map(r => r.cells[0].textContent).join()`,
			"about.model,setup.vera.rank,setup.vera.targets,train.epochs,train.lr,train.steps")
		browser.Is(p, `document.querySelector("#settings tbody").rows[2].cells[2].textContent`, "attn_q ffn_up")
	})
	p.Part("narrow", func(p *browser.Page) {
		p.Do(chromedp.EmulateViewport(390, 844))
		p.Becomes(`charts.every(c => c.plot.width < 360)`)
		browser.Is(p, `document.documentElement.scrollWidth`, 390)
		p.IsEmpty(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .uplot") && e.getBoundingClientRect().right > 391).map(e => e.tagName + "." + e.className)`, "wider than the screen")
	})
	p.Part("dark", func(p *browser.Page) {
		p.Prefer("dark")
		p.Becomes(`Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]) < 60 && charts[0].plot.series[1].stroke() === "#6db3f2"`)
	})
	p.Quiet()
}

func TestLiveInBrowser(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	folder := invent(t, "run", 3)
	p := browser.Open(t, served(t, folder))
	p.Becomes(`document.querySelector("#connection").textContent === "live" && charts[0].plot.data[0].length === 4`)
	browser.Is(p, plotted, "3+3+1 3 3 3 3")
	browser.Is(p, `document.querySelectorAll(".answer").length`, 2)

	// A run that was halted, and goes on.
	p.Do(browser.Script(`runs[0].finished = true; draw()`))
	browser.Is(p, `document.querySelector("#state tbody tr").cells[1].textContent`, "finished")
	extend(t, folder, lines(3, 8))
	p.Becomes(`document.querySelector("#state tbody tr").cells[2].textContent === "8" && charts[4].plot.data[0].length === 8`)
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
	p.Becomes(`charts[4].plot.data[0].length === 5`)
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
