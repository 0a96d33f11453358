package session_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

func Example() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	s, err := session.Open(session.Options{Model: path, Engine: model.Default()}) // Adapter names one
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	report := session.Report{Note: func(line string) { fmt.Println(line) }}
	rows, err := s.Rows(nil, alpaca.Default(), report) // nil: the built-in starter set
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s of %d tokens, %d rows\n", s.Architecture, s.Tokenizer.Size(), rows.Len())
	// Output:
	// template: the model's own chat template
	// starter set: JSON array; instruction (242)
	// starter set: 242 rows, 37276 tokens, 22877 of them labelled
	// llama of 300 tokens, 242 rows
}

// open opens a tiny model in float32.
func open(t *testing.T, o session.Options) *session.Session {
	t.Helper()
	o.Engine = model.Default()
	o.Engine.Compute, o.Engine.Threads = model.ComputeF32, 1
	s, err := session.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// adapter is one of rank 4 whose vectors are not 0, with facts of its training.
func adapter(t *testing.T, s *session.Session, facts map[string]string) *vera.Adapter {
	t.Helper()
	c := vera.Default()
	c.Rank = 4
	a, err := vera.New(c, s.Base())
	if err != nil {
		t.Fatal(err)
	}
	for i := range a.Params {
		a.Params[i] = 0.5
	}
	a.Facts = facts
	return a
}

// loss is that of a short text.
func loss(t *testing.T, s *session.Session) float64 {
	t.Helper()
	tokens, err := s.Tokenizer.Tokenize(t.Context(), "a text to measure", false, false)
	if err != nil {
		t.Fatal(err)
	}
	sum, n, err := s.Loss(tokens[:len(tokens)-1], tokens[1:], []int{len(tokens) - 1})
	if err != nil || n != len(tokens)-1 {
		t.Fatal(n, err)
	}
	return sum
}

// write writes a file of rows and names it as data.
func write(t *testing.T, rows string) []alpaca.Part {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	return []alpaca.Part{{Path: path, Weight: 1}}
}

// TestUse puts adapters on and off: the loss follows, to the bit, and so does the pre-tokenizer.
func TestUse(t *testing.T) {
	s := open(t, session.Options{Model: testutil.TinyLlama(t, testutil.TinyOptions{})})
	before := loss(t, s)
	a := adapter(t, s, map[string]string{session.FactPreTokenizer: "gpt-2"})
	if err := s.Use(a); err != nil {
		t.Fatal(err)
	}
	if s.Adapter != a || s.PreTokenizer != "gpt-2" || loss(t, s) == before {
		t.Errorf("with the adapter: pre-tokenizer %q, loss %g and %g before", s.PreTokenizer, loss(t, s), before)
	}
	if err := s.Use(nil); err != nil {
		t.Fatal(err)
	}
	if s.Adapter != nil || s.PreTokenizer != "" || loss(t, s) != before {
		t.Errorf("without it: pre-tokenizer %q, loss %g and %g before", s.PreTokenizer, loss(t, s), before)
	}
}

// TestOpenAdapter: an opened adapter is the saved one; that of another model is refused unless AnyBase is set.
func TestOpenAdapter(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	s := open(t, session.Options{Model: path})
	a := adapter(t, s, map[string]string{session.FactPreTokenizer: "gpt-2"})
	file := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := a.Save(file); err != nil {
		t.Fatal(err)
	}
	if err := s.Use(a); err != nil {
		t.Fatal(err)
	}
	again := open(t, session.Options{Model: path, Adapter: file})
	if again.PreTokenizer != "gpt-2" || loss(t, again) != loss(t, s) {
		t.Errorf("opened: pre-tokenizer %q, loss %g and %g", again.PreTokenizer, loss(t, again), loss(t, s))
	}
	if chosen := open(t, session.Options{Model: path, Adapter: file, PreTokenizer: "llama-bpe"}); chosen.PreTokenizer !=
		"llama-bpe" {
		t.Errorf("the option is not taken: %q", chosen.PreTokenizer)
	}

	other := session.Options{Model: testutil.TinyLlama(t, testutil.TinyOptions{Seed: 7}), Adapter: file}
	if s, err := session.Open(other); err == nil {
		s.Close()
		t.Error("an adapter of another model is taken")
	}
	other.AnyBase = true
	open(t, other)
}

// TestOpenRefuses: what cannot be opened is an error that names it, and nothing stays open.
func TestOpenRefuses(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	absent := filepath.Join(t.TempDir(), "absent.gguf")
	for name, c := range map[string]struct {
		options session.Options
		want    string
	}{
		"model":         {session.Options{Model: absent}, "absent.gguf"},
		"adapter":       {session.Options{Model: path, Adapter: absent}, "absent.gguf"},
		"pre-tokenizer": {session.Options{Model: path, PreTokenizer: "none such"}, "none such"},
	} {
		c.options.Engine = model.Default()
		if s, err := session.Open(c.options); err == nil {
			s.Close()
			t.Errorf("%s: opened", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestForm: auto is the form of the adapter's training; what is asked for stands before it.
func TestForm(t *testing.T) {
	s := open(t, session.Options{Model: testutil.TinyLlama(t, testutil.TinyOptions{})})
	auto := alpaca.Form{Template: alpaca.Auto}
	form := func(asked alpaca.Form) alpaca.Form {
		t.Helper()
		f, err := s.Form(asked)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := form(auto); f.Template != alpaca.Auto {
		t.Errorf("without an adapter: %+v", f)
	}

	facts := map[string]string{session.FactTemplate: "mine.jinja", session.FactSource: "{{ messages }}",
		session.FactVariables: `{"thinking": true, "tone": "dry"}`}
	if err := s.Use(adapter(t, s, facts)); err != nil {
		t.Fatal(err)
	}
	asked := auto
	asked.Variables = map[string]json.RawMessage{"tone": json.RawMessage(`"warm"`)}
	f := form(asked)
	if f.Template != "mine.jinja" || f.Source != "{{ messages }}" || string(f.Variables["thinking"]) != "true" ||
		string(f.Variables["tone"]) != `"warm"` {
		t.Errorf("of the training: %+v", f)
	}
	if line := s.Describe(f, auto); line != `template: the chat template mine.jinja, as the adapter was trained, `+
		`thinking=true, tone="warm"` {
		t.Errorf("described as %q", line)
	}
	if f := form(alpaca.Form{Template: alpaca.Chat}); f.Template != alpaca.Chat || f.Source != "" ||
		f.Variables != nil {
		t.Errorf("another than the training's: %+v", f)
	}

	facts[session.FactTemplate] = alpaca.Alpaca
	if f := form(auto); f.Template != alpaca.Alpaca || f.Source != "" {
		t.Errorf("Alpaca's prompts: %+v", f)
	}
	facts[session.FactVariables] = "thinking"
	if _, err := s.Form(auto); err == nil || !strings.Contains(err.Error(), session.FactVariables) {
		t.Errorf("damaged variables: %v", err)
	}
}

// TestRows: rows are counted, bad ones are named, and multiple-choice questions are for Data alone.
func TestRows(t *testing.T) {
	s := open(t, session.Options{Model: testutil.TinyLlama(t, testutil.TinyOptions{})})
	var lines []string
	read := false
	report := session.Report{Note: func(line string) { lines = append(lines, line) },
		Reading: func(string, float64) { read = true }}
	good := `{"instruction": "add 3", "output": "it is 4"}` + "\n"
	d, err := s.Rows(write(t, strings.Repeat(good, 3)+strings.Repeat("{}\n", 7)), alpaca.Default(), report)
	if err != nil {
		t.Fatal(err)
	}
	if d.Len() != 3 || len(d.Bad) != 7 || !read {
		t.Errorf("%d rows, %d bad, reading told: %v", d.Len(), len(d.Bad), read)
	}
	left := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.HasPrefix(l, "left out: ") })
	if len(left) != 5 || !slices.Contains(lines, "… and 2 more bad rows") {
		t.Errorf("reported:\n%s", strings.Join(lines, "\n"))
	}

	question := write(t, `{"question": "1 + 1", "choices": ["2", "3"], "answer": 0}`+"\n")
	if _, err := s.Rows(question, alpaca.Default(), session.Report{}); err == nil ||
		!strings.Contains(err.Error(), "multiple-choice") {
		t.Errorf("questions as rows: %v", err)
	}
	if d, err := s.Data(question, alpaca.Default(), session.Report{}); err != nil || len(d.Questions) != 1 {
		t.Errorf("questions as data: %v", err)
	}
}

// TestFind names what of a folder is no data, up to five.
func TestFind(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"rows.jsonl", "a", "b", "c", "d", "e", "f", "g"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	files, err := session.Find([]alpaca.Part{{Path: folder, Weight: 1}},
		session.Report{Note: func(line string) { lines = append(lines, line) }})
	if err != nil || len(files) != 1 || filepath.Base(files[0].Path) != "rows.jsonl" {
		t.Fatal(files, err)
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "skipped: ") || !strings.HasSuffix(lines[0], "e and 2 more") {
		t.Errorf("reported: %q", lines)
	}
}
