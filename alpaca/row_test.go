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
	return parseWith(Default(), name, data)
}

func parseWith(o Options, name string, data []byte) (p parsed, err error) {
	f, err := inMemory(name, data, o)
	if err != nil {
		return p, err
	}
	err = f.scan(func(raw rawRow) error {
		r, err := newRowReader(o).parse(raw)
		if err != nil {
			p.bad = append(p.bad, BadRow{name, raw.number, err.Error()})
		} else {
			p.good = append(p.good, r)
		}
		return nil
	})
	return p, err
}

// dataset encodes the rows of one file in memory.
func dataset(name string, data []byte, tok Tokenizer, o Options) (*Dataset, error) {
	f, err := inMemory(name, data, o)
	if err != nil {
		return nil, err
	}
	return newDataset(name, []part{{Part: Part{name, 1}, rowFile: f}}, tok, o)
}

func TestParseForms(t *testing.T) {
	forms := []string{
		`{"instruction": "Add.", "input": "1 1", "output": "2", "id": 7}`,
		`{"instruction": "Sing.", "input": " <NoInput> ", "output": "La."}`,
		`{"instruction": "Sing.", "input": null, "output": "La."}`,
		`{"instruction": "Sing.", "output": "La."}`,
		`{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}, {"role": "assistant", ` +
			`"content": "Ho"}]}`,
		`{"prompt": "2+2=", "completion": "4"}`,
	}
	array, lines := "["+strings.Join(forms, ",\n")+"]\n", strings.Join(forms, "\r\n")
	for name, data := range map[string]string{"array": array, "array with mark": "\ufeff \n" + array, "lines": lines,
		"lines with mark": "\ufeff" + lines} {
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
		`{"instruction": "a"}`:                               "output is missing",
		`{"instruction": "a", "output": " \n"}`:              "output is empty",
		`{"instruction": "a", "output": null}`:               "output is empty",
		`{"instruction": "a", "output": 4}`:                  "output is a number, want a string",
		`{"instruction": "a", "input": ["x"], "output": ""}`: "input is an array, want a string",
		`{"instruction": "", "output": "b"}`:                 "instruction is empty",
		`{"instruction": true, "output": "b"}`:               "instruction is a boolean",
		`{"instruction": "a", "output": "b\u0000c"}`:         "output holds a NUL",
		"{\"instruction\": \"a\", \"output\": \"b\xff\"}":    "not valid UTF-8",
		`{"output": "b"}`:                                    `has the keys "output"; want`,
		`{"prompt": "a"}`:                                    "completion is missing",
		`{"completion": "a"}`:                                "prompt is missing",
		`{"prompt": "", "completion": "a"}`:                  "prompt is empty",
		`"text"`:                                             "is a string, want an object",
		`null`:                                               "is null, want an object",
		`[1]`:                                                "message 1: is a number, want an object",
		`{"messages": "hi"}`:                                 "messages is a string, want an array",
		`{"messages": []}`:                                   "messages is empty",
		`{"messages": [1]}`:                                  "message 1: is a number",
		`{"messages": [{"role": "user"}]}`:                   "message 1: content is missing",
		`{"messages": [{"content": "a"}]}`:                   "message 1: role is missing",
		`{"messages": [{"role": "tool", "content": "a"}]}`:   "no message is the assistant's",
		`{"messages": [{"role": "narrator", "content": "a"}]}`: `message 1: role "narrator", want system, user, ` +
			`assistant or tool; ai, bot,`,
		`{"messages": [{"role": "user", "content": "a"}]}`: "no message is the assistant's, so there is " +
			"nothing to learn",
		`{"messages": [{"role": "system", "content": " "}]}`:                                                       "no message is the assistant's",
		`{"messages": [{"role": "assistant", "content": null}]}`:                                                   "message 1: content of the assistant is empty",
		`{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}`:                  "message 2: content of the assistant is empty",
		`{"messages": [{"role": "user", "content": null}, {"role": "assistant", "content": "b"}]}`:                 "message 1: content of the user is empty",
		`{"messages": [{"role": "user", "content": [{"type": "text"}]}, {"role": "assistant", "content": "b"}]}`:   "message 1: part 1 of content has no text",
		`{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}`:                    `message 1: part 1 of content is of type "image_url"; only text is taken`,
		`{"messages": [{"role": "user", "content": {"text": "a"}}]}`:                                               "message 1: content is an object, want a string",
		`{"messages": [{"role": "assistant", "content": "a", "tool_calls": "x"}]}`:                                 "message 1: tool_calls is a string, want an array",
		`{"messages": [{"role": "assistant", "content": "a", "tool_calls": [1]}]}`:                                 "message 1: tool call 1 is a number, want an object",
		`{"messages": [{"role": "assistant", "content": "a", "note": "\u0000"}]}`:                                  "message 1: note holds a NUL",
		`{"messages": "[{'role': 'user', 'content': 'a'}]"}`:                                                       "write it with json.dumps",
		`{"messages": [{"role": "assistant", "content": "a"}], "tools": "[{]"}`:                                    "tools holds a list that can't be read: malformed JSON",
		`{"messages": [{"role": "assistant", "content": "a"}], "tools": {}}`:                                       "tools is an object, want an array",
		`{"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "a"}], "system": "b"}`: "has a system message among its messages and another one beside them",
		`{"messages": [{"role": "assistant", "content": "a"}], "conversations": [{"from": "gpt", "value": "b"}]}`:  "has both messages and conversations, and they differ; name the one to take, as in --columns messages=conversations",
		`{"conversations": [{"from": "function_call", "value": "get()"}]}`:                                         "the text of a function_call is the JSON of its name and arguments",
		`{"conversations": [{"from": "gpt", "role": "user", "value": "a"}]}`:                                       "has both role and from",
		`{"turns": ["What is it?", "And now?"]}`:                                                                   "turns is a list of texts, which doesn't say whose they are",
		`{"instruction": "a", "output": "b", "response": "c"}`:                                                     "has both output and response, and they differ; name the one to take, as in --columns output=response",
		`{"instruction": "a", "question": "b", "output": "c"}`:                                                     "has both instruction and question",
		`{"prompt": "a", "question": "b", "answer": "c"}`:                                                          "has both question and prompt",
		`{"instruction": "a", "output": "b", "history": [["c"]]}`:                                                  "pair 1 of history has 1 texts",
		`{"chosen": "a", "rejected": "b"}`:                                                                         "is a preference pair (chosen and rejected); --chosen trains on its chosen answers",
		`{"id": 1, "body": "b"}`:                                                                                   `has the keys "id", "body"; want messages, conversations, instruction, prompt with completion, text, question with choices, or chosen (see --columns)`,
		`{"question": "a", "context": "b", "answers": {}}`:                                                         "answer is missing",
		`{"from": "human", "value": "a"}`:                                                                          "is one turn of a conversation; want all its turns in one row",
		`{}`:                                                                                                       "has no keys; want messages",
		`{"text": " "}`:                                                                                            "text is empty",
		`{"instruction": "a", "output": "b", "output": "c"}`:                                                       `the key "output" is there twice`,
		`{"instruction": "a", "output": "b", "x": [{"y": {"\u007a": 1, "z": 2}}]}`:                                 `the key "z" is there twice`,
		`{"instruction": "a", "output": "b\ud83d"}`:                                                                `the escape \ud83d is half of a character; its other half is not beside it (key "output")`,
		`{"instruction": "a", "output": "\ude00\ud83d"}`:                                                           `the escape \ude00 is half`,
		`{"instruction": "a", "output": "\ud83d\u0041"}`:                                                           `the escape \ud83d is half`,
	} {
		for form, data := range map[string]string{"array": "[" + good + "," + raw + "]", "lines": good + "\n" +
			raw + "\n"} {
			rs, err := parseRows("f.json", []byte(data))
			if err != nil {
				t.Errorf("%s of %s: %v", form, raw, err)
				continue
			}
			if len(rs.good) != 1 || len(rs.bad) != 1 || rs.bad[0].Row != 2 ||
				!strings.Contains(rs.bad[0].Reason, reason) {
				t.Errorf("%s of %s: bad rows %v, want row 2: %s", form, raw, rs.bad, reason)
			}
		}
	}
}

func TestMalformedLineIsSkippedByNumber(t *testing.T) {
	rs, err := parseRows("f.jsonl", []byte("\n{\"instruction\": \"a\", \"output\": \"b\"}\n\n{\"instruction\": "+
		"\"a\", \n{\"prompt\": \"a\", \"completion\": \"b\"}"))
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
		"[{}, 3]":        "f: no usable row in 2; row 1: has no keys",
		"instruction\na": "f: no usable row in 1; row 2: output is missing",
		"[\n{\"instruction\": \"a\", \"output\": \"b\"}\n{": "f: malformed JSON array near line 3",
		"\n[{\"instruction\": \"a\", \"output\": \"b\"}":    "f: malformed JSON array near line 2: unexpected end",
		"[{\"instruction\": \"a\", \"output\": \"b\"}] x":   "f: malformed JSON array",
		"{\n \"a\": []\n}":    "f: the file is one JSON value over many lines",
		"{\n \"data\": []\n}": "f: the file has no rows",
	} {
		_, err := dataset("f", []byte(data), fakeTokenizer{}, Default())
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: error %v, want %s", data, err, want)
		}
	}
	if _, err := openRows(filepath.Join(t.TempDir(), "absent.json"), Default()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
}

func FuzzParseRows(f *testing.F) {
	for _, seed := range []string{
		`[{"instruction": "a", "input": "<noinput>", "output": "b"}]`,
		"{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, " +
			"{\"role\": \"assistant\", \"content\": \"b\"}]}",
		"\ufeff[", "[[[[", "{}", "null", "[null]", "{\"messages\": [null]}",
		"{\"instruction\": \"\\ud800\", \"output\": \"\xff\"}", "[{}]]", "\x00",
		`{"messages": [{"role": "system", "content": "<|im_end|>"}, {"role": "user", "content": " <s>"}, {"role": ` +
			`"assistant", "content": "</s> "}]}`,
		`[{"question": "a", "choices": ["b", "c"], "answer": "B"}, {"ctx": "a", "endings": [" <|im_end|>", "</s>"], ` +
			`"label": "1"}]`,
		"{\"question\": \"a\", \"choices\": {\"text\": [\"b\", \"c\"], \"label\": [\"1\", \"2\"]}, \"answerKey\": " +
			"\"2\"}\n{\"choices\": {}}\n{\"endings\": null}",
		`[{"question": "a", "choices": ["b", "c"], "answer": 0}, {"prompt": "a", "completion": "b"}]`,
	} {
		f.Add([]byte(seed))
	}
	for _, form := range forms {
		f.Add([]byte(form.raw))
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
