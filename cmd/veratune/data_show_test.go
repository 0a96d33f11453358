package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
)

// rowsFile writes rows of several forms.
func rowsFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	lines := `{"conversations": [{"from": "human", "value": "Hi <|im_end|>"}, {"from": "gpt", "value": "Ho\u001b[2J"}]}
{"Frage": "Name a fruit.", "Antwort": "Fig."}
{"text": "Raw."}
{"prompt": "a", "chosen": "b", "rejected": "c"}
{"id": 7}
`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestDataShow shows what is learnt in text, on a page and for programs; options stand behind the file.
func TestDataShow(t *testing.T) {
	model, rows := testutil.TinyLlama(t, testutil.TinyOptions{}), rowsFile(t)
	code, out, errs := veratune("data", "show", rows, "--model", model, "--rows", "5", "--columns",
		"instruction=Frage,output=Antwort", "--ids")
	if code != 0 || !strings.HasPrefix(errs, "template: the model's own chat template\n") {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	for _, want := range []string{
		"row 1: ShareGPT conversation\n<|im_start|>user\nHi " +
			"<|im_end|><|im_end|>\n<|im_start|>assistant\n⟦Ho\\x1b[2J<|im_end|>⟧\n",
		"row 2: instruction\n", "⟦Fig.<|im_end|>⟧", "row 3: text\n", "row 4: cannot be used: ", "--chosen",
		`row 5: cannot be used: has the keys "id"; want`, " 2*\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	code, out, _ = veratune("data", "show", rows, "--model", model, "--rows", "1", "--from", "4", "--chosen", "--json")
	var shown alpaca.Shown
	if err := json.Unmarshal([]byte(out), &shown); code != 0 || err != nil || shown.Row != 4 ||
		len(shown.Samples) != 1 || len(shown.Samples[0].Tokens) != len(shown.Samples[0].Learnt) {
		t.Errorf("code %d, %v: %s", code, err, out)
	}
	page := filepath.Join(t.TempDir(), "rows.html")
	if code, out, errs := veratune("data", "show", "--html", page, "--model", model, rows); code != 0 {
		t.Fatalf("code %d: %s%s", code, out, errs)
	}
	if text, err := os.ReadFile(page); err != nil ||
		!strings.Contains(string(text), `<span class="learnt control">&lt;|im_end|&gt;</span>`) {
		t.Errorf("%v: %s", err, text)
	}
	if code, _, errs := veratune("data", "show", rows, "--html", page, "--model", model); code != exitFailed ||
		!strings.Contains(errs, "is there already") {
		t.Errorf("over a file: code %d, %s", code, errs)
	}
}

// TestDataConvert writes what training reads alike.
func TestDataConvert(t *testing.T) {
	rows, out := rowsFile(t), filepath.Join(t.TempDir(), "out.jsonl")
	code, _, errs := veratune("data", "convert", rows, "-o", out, "--columns", "instruction=Frage,output=Antwort",
		"--chosen")
	if code != 0 || !strings.Contains(errs, "row 5") || !strings.Contains(errs, "4 rows, 1 left out") {
		t.Fatalf("code %d: %s", code, errs)
	}
	want := `{"messages":[{"role":"user","content":"Hi <|im_end|>"},{"role":"assistant","content":"Ho\u001b[2J"}]}
{"messages":[{"role":"user","content":"Name a fruit."},{"role":"assistant","content":"Fig."}]}
{"text":"Raw."}
{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}
`
	if got, err := os.ReadFile(out); err != nil || string(got) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, got, want)
	}
	if code, _, errs := veratune("data", "convert", rows, "-o", out); code != exitFailed ||
		!strings.Contains(errs, "is there already") {
		t.Errorf("over a file: code %d, %s", code, errs)
	}
}

// TestTemplateForms names the template, sets its variables and its day, and has the adapter say what it was trained in.
func TestTemplateForms(t *testing.T) {
	model, rows := testutil.TinyLlama(t, testutil.TinyOptions{}), rowsFile(t)
	own := filepath.Join(t.TempDir(), "own.jinja")
	if err := os.WriteFile(own, []byte("{{ strftime_now('%d %b %Y') }} {{ mood }}\n{% for m in messages "+
		"%}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt "+
		"%}<|im_start|>assistant: {% endif %}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs := veratune("data", "show", rows, "--model", model, "--rows", "1", "--template", own,
		"--template-option", "mood=calm", "--date", "2026-01-31")
	if code != 0 || !strings.Contains(out, "31 Jan 2026 calm\n<|im_start|>user: Hi") ||
		!strings.HasPrefix(errs, "template: the chat template own.jinja, mood=\"calm\", dated 2026-01-31\n") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	run := filepath.Join(t.TempDir(), "run")
	code, _, errs = veratune("alpaca", "--model", model, "--data", rows, "--template", own, "--template-option",
		"mood=calm", "--rank", "4", "--steps", "1", "--held-out", "0", "--threads", "1", "--out", run)
	if code != 0 || !strings.Contains(errs, "JSON lines; ") {
		t.Fatalf("code %d: %s", code, errs)
	}
	adapter := filepath.Join(run, "adapter.gguf")
	code, _, errs = veratune("generate", "--model", model, "--adapter", adapter, "--max-tokens", "2", "--threads", "1",
		"--date", "2026-02-01", "-p", "Hi")
	if code != 0 || !strings.HasPrefix(errs,
		"template: the chat template own.jinja, as the adapter was trained, mood=\"calm\", dated 2026-02-01\n") {
		t.Errorf("code %d: %s", code, errs)
	}
	lora := filepath.Join(t.TempDir(), "lora.gguf")
	if code, _, errs := veratune("export", "--to", "lora", "--model", model, "--adapter", adapter, "-o", lora,
		"--modelfile"); code != 0 {
		t.Fatalf("code %d: %s", code, errs)
	}
	text, err := os.ReadFile(strings.TrimSuffix(lora, ".gguf") + ".Modelfile")
	if err != nil || !strings.Contains(string(text), "ADAPTER ./lora.gguf\n") ||
		!strings.Contains(string(text), "TEMPLATE \"\"\"") ||
		!strings.Contains(string(text), `PARAMETER stop "<|im_end|>"`) {
		t.Errorf("%v: %s", err, text)
	}
	for _, c := range []struct {
		template string
		code     int
		says     string
	}{
		{"poem", exitUsage, `template "poem": want auto, alpaca, chat, or FILE.jinja`},
		{"nowhere.jinja", exitUsage, "nowhere.jinja"},
	} {
		if code, _, errs := veratune("generate", "--model", model, "--template", c.template, "-p", "Hi"); code !=
			c.code || !strings.Contains(errs, c.says) {
			t.Errorf("template %s: code %d, %s", c.template, code, errs)
		}
	}
	if err := os.WriteFile(own, []byte("{% for m in messages %}\n{{ m.content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := veratune("generate", "--model", model, "--template", own, "-p", "Hi"); code != exitFailed ||
		!strings.Contains(errs, "own.jinja: line 2: a tag has no end }}") {
		t.Errorf("a broken template: code %d, %s", code, errs)
	}
}
