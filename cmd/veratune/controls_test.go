package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// controls would set a terminal's title, clear it, write over a line and turn the direction of writing.
const controls = "\x1b]0;title\x07\x1b[2J\u009b2Jback\rover\u202eturned\x7f"

// TestControlCharacters has names, metadata and data that would control the terminal, in every command that says
// something of them.
func TestControlCharacters(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["general.name"] = "model " + controls
		f.Metadata["veratune.adapter"], f.Metadata["veratune.data"] = "0123abcd", controls
	}})
	dir := t.TempDir()
	data := filepath.Join(dir, "rows"+controls+".json")
	if err := os.WriteFile(data, read(t, rows(t, 20)), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := write(t, "bad.jsonl", `{"instruction": "x", "output": "y"}`+"\n"+`{"`+"\\u001b]0;"+`": 1}`+"\n")
	template := write(t, "template.jinja", `{{ raise_exception("`+"no \x1b[2J"+`") }}`)
	out := filepath.Join(dir, "run"+controls)
	adapter := filepath.Join(out, train.AdapterFile)
	config := write(t, "options.yaml", "\"rank\\e[2J\": 3\n")
	for _, args := range [][]string{
		alpacaArgs(model, data, out, "--max-steps", "1"),
		{"inspect", model},
		{"inspect", "--json", model},
		{"inspect", adapter},
		{"inspect", "--json", adapter},
		{"inspect", out},
		{"compare", out, out},
		{"compare", "--json", out, out},
		{"loss", "--model", model, "--data", data, "--threads", "1"},
		{"plan", "--model", model, "--data", data, "--threads", "1"},
		{"data", "check", data, "--model", model},
		{"data", "check", bad, "--model", model},
		{"data", "check", bad, "--model", model, "--json"},
		{"data", "show", data, "--model", model},
		{"data", "show", data, "--model", model, "--template", template},
		{"data", "convert", bad, "-o", filepath.Join(dir, "x"+controls+".jsonl")},
		{"alpaca", "--model", model + controls},
		{"alpaca", "--model", model, "--data", controls},
		{"alpaca", "--model", model, "--config", config},
		{"alpaca", "--" + controls},
		{"loss", "--model", model, "--adapter", model + controls, "--data", data},
		{"generate", "--model", model, "--template", template, "-p", "x"},
		{"generate", "--model", model, "--adapter", controls, "-p", "x"},
		{"mtbench", "show", "--out", controls},
		{"watch", controls},
		{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out",
			filepath.Join(dir, "lora"+controls)},
		{controls},
	} {
		_, stdout, stderr := veratune(args...)
		if args[0] == "data" && args[1] == "convert" {
			stdout = "" // is for programs
		}
		if strings.ContainsAny(stdout+stderr, "\x1b\x07\r\u009b\u202e\x7f") {
			t.Errorf("%q: %q, %q", args, stdout, stderr)
		}
	}
}

// TestAnswersAtATerminal has a model answer in control characters: a terminal gets them spelt out, a program as they
// are.
func TestAnswersAtATerminal(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		tokens := f.Metadata["tokenizer.ggml.tokens"].([]string)
		for i := 3 + 256; i < len(tokens); i++ {
			tokens[i] = fmt.Sprintf("ě]0;%d", i) // ě stands for the byte of ESC
		}
		delete(f.Metadata, "tokenizer.ggml.merges")
		f.Metadata["tokenizer.ggml.merges"] = []string{}
	}})
	args := []string{"generate", "--model", model, "--threads", "1", "--raw", "-p", "x", "--temperature", "3",
		"--max-tokens", "100"}
	code, stdout, stderr := veratune(args...)
	if code != 0 || !strings.Contains(stdout, "\x1b]0;") {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	x := sit(t, "xterm", &pty.Winsize{Rows: 24, Cols: 80}, args...)
	x.leave(0)
	<-x.ended
	if strings.Contains(x.shown, "\x1b]") || !strings.Contains(x.shown, `\x1b]0;`) {
		t.Errorf("%q", x.shown)
	}
}

// TestControlCharactersInPages has such names in pictures and pages, which stay readable.
func TestControlCharactersInPages(t *testing.T) {
	model, dir := testutil.TinyLlama(t, testutil.TinyOptions{}), t.TempDir()
	out := filepath.Join(dir, "run<&>"+controls)
	if code, _, stderr := veratune(alpacaArgs(model, rows(t, 20), out, "--max-steps", "1")...); code != 0 {
		t.Fatal(stderr)
	}
	picture, page := filepath.Join(dir, "x.svg"), filepath.Join(dir, "x.html")
	for _, args := range [][]string{{"compare", out, out, "--plot", picture}, {"watch", out, "--html", page}} {
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatal(stderr)
		}
	}
	decoder := xml.NewDecoder(bytes.NewReader(read(t, picture)))
	for {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if html := string(read(t, page)); strings.ContainsAny(html, "\x1b\x07") {
		t.Error("the page holds them")
	}
}
