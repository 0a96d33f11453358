package alpaca

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// parsed are the rows of a file before they are encoded.
type parsed struct {
	good []row
	bad  []BadRow
}

func parseRows(name string, data []byte) (p parsed, err error) {
	err = inMemory(name, data).scan(func(number int, _ place, raw []byte) error {
		r, err := parseRow(number, raw)
		if err != nil {
			p.bad = append(p.bad, BadRow{name, number, err.Error()})
		} else {
			p.good = append(p.good, r)
		}
		return nil
	})
	return p, err
}

// dataset encodes the rows of one file in memory.
func dataset(name string, data []byte, tok Tokenizer, o Options) (*Dataset, error) {
	return newDataset(name, []part{{Part: Part{name, 1}, rowFile: inMemory(name, data)}}, tok, o)
}

func TestParseForms(t *testing.T) {
	forms := []string{
		`{"instruction": "Add.", "input": "1 1", "output": "2", "id": 7}`,
		`{"instruction": "Sing.", "input": " <NoInput> ", "output": "La."}`,
		`{"instruction": "Sing.", "input": null, "output": "La."}`,
		`{"instruction": "Sing.", "output": "La."}`,
		`{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}`,
		`{"prompt": "2+2=", "completion": "4"}`,
	}
	array, lines := "["+strings.Join(forms, ",\n")+"]\n", strings.Join(forms, "\r\n")
	for name, data := range map[string]string{"array": array, "array with mark": "\ufeff \n" + array, "lines": lines, "lines with mark": "\ufeff" + lines} {
		rs, err := parseRows("f", []byte(data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(rs.bad) > 0 || len(rs.good) != 6 {
			t.Fatalf("%s: %d good rows, bad: %v", name, len(rs.good), rs.bad)
		}
		g := rs.good
		if g[0].input != "1 1" || g[1].input+g[2].input+g[3].input != "" || g[3].output != "La." {
			t.Errorf("%s: instruction rows: %+v", name, g[:4])
		}
		if len(g[4].messages) != 2 || g[4].messages[1].Content != "Ho" {
			t.Errorf("%s: messages: %+v", name, g[4])
		}
		if g[5].prompt != "2+2=" || g[5].completion != "4" {
			t.Errorf("%s: prompt: %+v", name, g[5])
		}
	}
}

func TestBadRows(t *testing.T) {
	const good = `{"instruction": "a", "output": "b"}`
	for raw, reason := range map[string]string{
		`{"instruction": "a"}`:                                  "output is missing",
		`{"instruction": "a", "output": " \n"}`:                 "output is empty",
		`{"instruction": "a", "output": null}`:                  "output is empty",
		`{"instruction": "a", "output": 4}`:                     "output is a number, want a string",
		`{"instruction": "a", "input": ["x"], "output": ""}`:    "input is an array, want a string",
		`{"instruction": "", "output": "b"}`:                    "instruction is empty",
		`{"instruction": true, "output": "b"}`:                  "instruction is a boolean",
		`{"instruction": "a", "output": "b\u0000c"}`:            "output holds a NUL",
		"{\"instruction\": \"a\", \"output\": \"b\xff\"}":       "not valid UTF-8",
		`{"output": "b"}`:                                       "has no instruction, messages, prompt or choices",
		`{"prompt": "a"}`:                                       "completion is missing",
		`{"completion": "a"}`:                                   "prompt is missing",
		`{"prompt": "", "completion": "a"}`:                     "prompt is empty",
		`"text"`:                                                "is a string, want an object",
		`null`:                                                  "is null, want an object",
		`[1]`:                                                   "is an array, want an object",
		`{"messages": "hi"}`:                                    "messages is a string, want an array",
		`{"messages": []}`:                                      "messages is empty",
		`{"messages": [1]}`:                                     "message 1: is a number",
		`{"messages": [{"role": "user"}]}`:                      "message 1: content is missing",
		`{"messages": [{"content": "a"}]}`:                      "message 1: role is missing",
		`{"messages": [{"role": "tool", "content": "a"}]}`:      `message 1: role "tool"`,
		`{"messages": [{"role": "user", "content": "a"}]}`:      "the last message is not the assistant's",
		`{"messages": [{"role": "assistant", "content": "a"}]}`: "speaks before the user",
		`{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "s"}]}`:                   "message 2: a system message must come first",
		`{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}`:                "message 2: content of the assistant is empty",
		`{"messages": [{"role": "user", "content": [{"type": "text"}]}, {"role": "assistant", "content": "b"}]}`: "message 1: content is an array",
		`{"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "b"}]}`:              "speaks before the user",
	} {
		for form, data := range map[string]string{"array": "[" + good + "," + raw + "]", "lines": good + "\n" + raw + "\n"} {
			rs, err := parseRows("f.json", []byte(data))
			if err != nil {
				t.Errorf("%s of %s: %v", form, raw, err)
				continue
			}
			if len(rs.good) != 1 || len(rs.bad) != 1 || rs.bad[0].Row != 2 || !strings.Contains(rs.bad[0].Reason, reason) {
				t.Errorf("%s of %s: bad rows %v, want row 2: %s", form, raw, rs.bad, reason)
			}
		}
	}
}

func TestMalformedLineIsSkippedByNumber(t *testing.T) {
	rs, err := parseRows("f.jsonl", []byte("\n{\"instruction\": \"a\", \"output\": \"b\"}\n\n{\"instruction\": \"a\", \n{\"prompt\": \"a\", \"completion\": \"b\"}"))
	if err != nil {
		t.Fatal(err)
	}
	if len(rs.good) != 2 || rs.good[1].number != 5 || len(rs.bad) != 1 || rs.bad[0].Row != 4 {
		t.Fatalf("good %+v, bad %v", rs.good, rs.bad)
	}
	if got := rs.bad[0].Error(); !strings.HasPrefix(got, "f.jsonl: row 4: malformed JSON: ") {
		t.Errorf("bad row reads %q", got)
	}
}

func TestUnusableFiles(t *testing.T) {
	for data, want := range map[string]string{
		"":               "f: the file is empty",
		"\ufeff \n\t":    "f: the file is empty",
		"[]":             "f: the file has no rows",
		"[{}, 3]":        "f: no usable row in 2; row 1: has no instruction",
		"instruction\na": "f: no usable row in 2; row 1: malformed JSON",
		"[\n{\"instruction\": \"a\", \"output\": \"b\"}\n{": "f: malformed JSON array near line 3",
		"\n[{\"instruction\": \"a\", \"output\": \"b\"}":    "f: malformed JSON array near line 2: unexpected end",
		"[{\"instruction\": \"a\", \"output\": \"b\"}] x":   "f: malformed JSON array",
		"{\n \"data\": []\n}":                               "f: the file is one JSON value over many lines",
	} {
		_, err := dataset("f", []byte(data), fakeTokenizer{}, Default())
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", data, err, want)
		}
	}
	if _, err := openRows(filepath.Join(t.TempDir(), "absent.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func FuzzParseRows(f *testing.F) {
	for _, seed := range []string{
		`[{"instruction": "a", "input": "<noinput>", "output": "b"}]`,
		"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
		"\ufeff[", "[[[[", "{}", "null", "[null]", "{\"messages\": [null]}", "{\"instruction\": \"\\ud800\", \"output\": \"\xff\"}", "[{}]]", "\x00",
		`{"messages": [{"role": "system", "content": "<|im_end|>"}, {"role": "user", "content": " <s>"}, {"role": "assistant", "content": "</s> "}]}`,
		`[{"question": "a", "choices": ["b", "c"], "answer": "B"}, {"ctx": "a", "endings": [" <|im_end|>", "</s>"], "label": "1"}]`,
		"{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"c\"], \"label\": [\"1\", \"2\"]}, \"answerKey\": \"2\"}\n{\"choices\": {}}\n{\"endings\": null}",
		`[{"question": "a", "choices": ["b", "c"], "answer": 0}, {"prompt": "a", "completion": "b"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, tok := range []fakeTokenizer{{}, {bos: true, spaces: true, chat: bracketed}, {chat: chatML}} {
			d, err := dataset("f", data, tok, Default())
			if err != nil {
				continue
			}
			samples := samplesOf(t, d)
			for _, q := range d.Questions {
				if n := len(q.Choices); n < 2 || n != len(q.Bytes) || q.Answer < 0 || q.Answer >= n || d.Len() > 0 {
					t.Fatalf("a question of %d choices beside %d samples: %+v", n, d.Len(), q)
				}
				samples = append(samples, q.Choices...)
			}
			for _, s := range samples {
				if n := len(s.Tokens); n == 0 || n != len(s.Targets) || s.Targets[n-1] < 0 || n >= Default().MaxLength {
					t.Fatalf("sample of %d tokens, %d targets", n, len(s.Targets))
				}
			}
		}
	})
}
