package serve

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/veratune/veratune/internal/browser"
)

// startWithJobs starts a server that trains into its folder of adapters.
func startWithJobs(t *testing.T, change func(*Options)) *running {
	t.Helper()
	base, adapters := openTiny(t), t.TempDir()
	o := testJobs(t)
	o.Adapters, o.Flags = adapters, []string{"--model=" + base.Options.Model}
	j, err := OpenJobs(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	j.Start()
	saveAdapter(t, base, filepath.Join(adapters, "older.gguf"), 1, nil, nil)
	return serve(t, base, adapters, func(o *Options) {
		if o.Jobs = j; change != nil {
			change(o)
		}
	})
}

func TestPage(t *testing.T) {
	r := startWithJobs(t, func(o *Options) { o.Key = testKey })
	p := browser.Open(t, r.url+"/")
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(rows, []byte(chatRows(40)), 0o666); err != nil {
		t.Fatal(err)
	}
	text := func(id, text string) chromedp.Action[chromedp.Void] {
		return browser.Script(`byId("` + id + `").value = ` + "`" + text + "`")
	}
	click := func(selector string) chromedp.Action[chromedp.Void] {
		return browser.Script(`document.querySelector("` + selector + `").click()`)
	}
	p.Part("key", func(p *browser.Page) {
		p.Becomes(`!byId("key-form").hidden && byId("service").hidden`)
		p.Do(text("key", "wrong"), click("#key-form button"))
		p.Becomes(`byId("connection").textContent.includes("API key")`)
		p.Do(text("key", testKey), click("#key-form button"))
		p.Becomes(`!byId("service").hidden && !byId("training").hidden && byId("key-form").hidden`)
		browser.Is(p, `sessionStorage.getItem("key") + localStorage.length`, testKey+"0")
		browser.Is(p, `byId("base").textContent + " " + byId("adapter").value`, baseName+" older")
	})
	p.Part("chat", func(p *browser.Page) {
		p.Do(text("tokens", "8"), text("message", "Add 3 to <script>window.injected = 1</script>"), click("#send"))
		p.Becomes(`!byId("send").disabled && document.querySelectorAll(".answer .text").length === 2`)
		browser.Is(p, `[...document.querySelectorAll(".answer h3")].map(e => e.textContent).join()`, "older,"+baseName)
		browser.Is(p, `document.querySelectorAll("#turns .bad").length`, 0)
		browser.Is(p, `document.querySelector(".ask").textContent.includes("<script>")`, true)
		p.Do(text("adapter", "nobody"), text("message", "Again"), click("#beside"), click("#send"))
		p.Becomes(`document.querySelectorAll("#turns .bad").length === 1`)
		p.Do(click("#anew"))
		browser.Is(p, `byId("turns").childElementCount`, 0)
	})
	p.Part("training", func(p *browser.Page) {
		p.Do(chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{rows}), click("#upload"))
		p.Becomes(`byId("upload-state").textContent === "rows.jsonl is uploaded." && ` +
			`byId("training-file").value !== ""`)
		browser.Is(p, `byId("validation-file").options.length`, 2)
		p.Do(text("suffix", "sums"), text("n_epochs", "2"), text("rank", "8"), text("batch_size", "4"),
			click("#job-form .buttons button"))
		p.Becomes(`document.querySelector("#jobs tbody tr")?.cells[1].textContent === "done"`)
		browser.Is(p, `document.querySelector("#jobs tbody th").textContent.startsWith("ft:tiny:sums:")`, true)
		p.Becomes(`charts.length === 5 && charts[0].lines[0]?.values.length === 20`)
		p.Becomes(`figures.filter(f => f.image?.isConnected && f.image.naturalWidth > 0).length === 5`)
		p.Becomes(`byId("events").firstChild.textContent.includes("The job has successfully completed")`)
		p.Becomes(`models.has(document.querySelector("#jobs tbody th").textContent)`)
		p.Do(browser.Script(`byId("adapter").value = document.querySelector("#jobs tbody th").textContent`),
			text("message", "Add 3"), click("#send"))
		p.Becomes(`!byId("send").disabled && document.querySelectorAll(".answer .text").length === 1`)
		browser.Is(p, `document.querySelectorAll("#turns .bad").length`, 0)
		p.Do(text("n_epochs", "0"), browser.Script(`byId("job-form").noValidate = true`),
			click("#job-form .buttons button"))
		p.Becomes(`byId("job-state").classList.contains("bad")`)
		p.Do(click("#files button"))
		p.Becomes(`byId("files").childElementCount === 0`)
	})
	p.Part("looks", func(p *browser.Page) {
		p.IsEmpty(`[...document.querySelectorAll("input, select, textarea")].filter(e => !e.labels?.length).map(e => `+
			`e.id)`, "without a label")
		p.IsEmpty(`performance.getEntriesByType("resource").map(r => r.name).filter(n => !n.startsWith("data:") && `+
			`!n.startsWith(location.origin))`, "asked for elsewhere")
		p.Do(chromedp.EmulateViewport(390, 844))
		p.Becomes(`document.documentElement.scrollWidth === 390`)
		p.IsEmpty(`[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, .unseen") && `+
			`e.getBoundingClientRect().right > 391).map(e => e.tagName + "." + e.className + "#" + e.id)`,
			"wider than the screen")
		p.Prefer("dark")
		p.Becomes(`Number(getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]) < 60`)
		browser.Is(p, `window.injected === undefined`, true)
	})
	if strings.Contains(r.log.String(), testKey) {
		t.Error("the key is in the log")
	}
}
