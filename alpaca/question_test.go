package alpaca

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestQuestionForms(t *testing.T) {
	for name, raw := range map[string]string{
		"MMLU":           `{"question": "Sky?", "subject": "nature", "choices": ["green", "blue"], "answer": 1}`,
		"MMLU by letter": `{"question": "Sky?", "choices": ["green", "blue"], "answer": "B"}`,
		"index as text":  `{"question": "Sky?", "choices": ["green", "blue"], "answer": "1"}`,
		"ARC": `{"id": "q7", "question": "Sky?", "choices": {"text": ["green", "blue"], "label": ["A", ` +
			`"B"]}, "answerKey": "B"}`,
		"ARC by number": `{"question": "Sky?", "choices": {"label": ["1", "2"], "text": ["green", "blue"]}, ` +
			`"answerKey": "2"}`,
		"labels, as answer": `{"question": "Sky?", "choices": {"label": ["x", "y"], "text": ["green", "blue"]}, ` +
			`"answer": "y"}`,
		"HellaSwag":         `{"ind": 3, "ctx_a": "Sk", "ctx": "Sky?", "endings": ["green", "blue"], "label": "1"}`,
		"HellaSwag, number": `{"ctx": "Sky?", "endings": ["green", "blue"], "label": 1}`,
	} {
		rs, err := parseRows("f", []byte(raw))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r := rs.good[0]; r.instruction != "Sky?" || !slices.Equal(r.choices, []string{"green", "blue"}) ||
			r.answer != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestBadQuestions(t *testing.T) {
	const good = `{"question": "Sky?", "choices": ["green", "blue"], "answer": 1}`
	for raw, reason := range map[string]string{
		`{"choices": ["a", "b"], "answer": 0}`:                                                       "question is missing",
		`{"question": " ", "choices": ["a", "b"], "answer": 0}`:                                      "question is empty",
		`{"question": "q", "answer": 0}`:                                                             "answer is a number, want a string",
		`{"question": "q", "choices": "a", "answer": 0}`:                                             "choices is a string, want an array",
		`{"question": "q", "choices": null, "answer": 0}`:                                            "answer is a number, want a string",
		`{"question": "q", "choices": [], "answer": 0}`:                                              "choices has 0 entries, want at least 2",
		`{"question": "q", "choices": ["a"], "answer": 0}`:                                           "choices has 1 entries, want at least 2",
		`{"question": "q", "choices": ["a", 2], "answer": 0}`:                                        "entry 2 of choices is a number, want a string",
		`{"question": "q", "choices": ["a", " \n"], "answer": 0}`:                                    "entry 2 of choices is empty",
		`{"question": "q", "choices": ["a", "b\u0000"], "answer": 0}`:                                "entry 2 of choices holds a NUL",
		`{"question": "q", "choices": ["a", "b", "a"], "answer": 0}`:                                 "entries 1 and 3 of choices are the same",
		`{"question": "q", "choices": ["a", "b"]}`:                                                   "answer is missing",
		`{"question": "q", "choices": ["a", "b"], "answer": null}`:                                   `answer is "", want an index from 0 to 1 or a letter from A`,
		`{"question": "q", "choices": ["a", "b"], "answer": 2}`:                                      `answer is "2", want`,
		`{"question": "q", "choices": ["a", "b"], "answer": -1}`:                                     `answer is "-1", want`,
		`{"question": "q", "choices": ["a", "b"], "answer": 0.0}`:                                    `answer is "0.0", want`,
		`{"question": "q", "choices": ["a", "b"], "answer": "C"}`:                                    `answer is "C", want`,
		`{"question": "q", "choices": ["a", "b"], "answer": "a"}`:                                    `answer is "a", want`,
		`{"question": "q", "choices": ["a", "b"], "answer": [0]}`:                                    `answer is "[0]", want`,
		`{"question": "q", "choices": {"text": ["a", "b"]}, "answerKey": "A"}`:                       "choices has no label",
		`{"question": "q", "choices": {"label": ["A", "B"]}, "answerKey": "A"}`:                      "choices has no text",
		`{"question": "q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}`:       "choices has 2 texts and 1 labels",
		`{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", 2]}, "answerKey": "A"}`:    "entry 2 of choices' labels is a number",
		`{"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "0"}`:  `answerKey is "0", want one of 1, 2`,
		`{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": ""}`:   `answerKey is "", want one of A, B`,
		`{"ctx": "q", "endings": ["a", "b"], "label": ""}`:                                           `label is "", want an index from 0 to 1`,
		`{"question": "q", "endings": ["a", "b"], "label": "0"}`:                                     "ctx is missing",
		`{"question": "q", "choices": {"text": ["a", "b` + "\xff" + `"], "label": []}, "answer": 0}`: "not valid UTF-8",
	} {
		rs, err := parseRows("f.jsonl", []byte(good+"\n"+raw))
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if len(rs.good) != 1 || len(rs.bad) != 1 || rs.bad[0].Row != 2 || !strings.Contains(rs.bad[0].Reason, reason) {
			t.Errorf("%s: bad rows %v, want row 2: %s", raw, rs.bad, reason)
		}
	}
}

func TestMixedFile(t *testing.T) {
	const question, instruction = `{"question": "q", "choices": ["a", "b"], "answer": 0}`,
		`{"instruction": "a", "output": "b"}`
	for _, data := range []string{question + "\n{}\n" + instruction, "[" + instruction + ", {}, " + question + "]"} {
		_, err := dataset("f", []byte(data), fakeTokenizer{}, Default())
		if err == nil || !strings.Contains(err.Error(), "f: of rows 1 and 3, one is a multiple-choice question") {
			t.Errorf("%s: %v", data, err)
		}
	}
}

// Whatever the template and the vocabulary: a choice's tokens are those of a row with that output, and its labels are
// its text without an end token.
func TestChoices(t *testing.T) {
	path := write(t, `{"question": "Sky?", "choices": ["gr", "blüe"], "answer": "B"}`, "",
		`{"question": "2+2=", "choices": ["3", " 4", "5"], "answer": 1}`)
	for _, c := range []struct {
		name, template string
		chat           string
		before         string // text that the template puts before a response
		four           string
	}{
		{"alpaca", Alpaca, "", "", " 4"},
		{"chat", Chat, chatML, "", " 4"},
		{"bracketed", Chat, bracketed, " ", "4"}, // trims
		{"plain", Chat, plain, "", " 4"},
	} {
		for _, tok := range []fakeTokenizer{{chat: c.chat}, {chat: c.chat, spaces: true, bos: true}} {
			o := Default()
			o.Template = c.template
			d, err := Load(whole(path), tok, o)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			defer d.Close()
			if d.Len() > 0 || len(d.Questions) != 2 || d.Questions[0].Answer != 1 || d.Questions[1].Row != 3 ||
				!slices.Equal(d.Questions[0].Bytes, []int{2, 5}) {
				t.Fatalf("%s: %+v", c.name, d)
			}
			e := encoder(t, c.template, tok)
			for i, list := range [][]string{{"gr", "blüe"}, {"3", c.four, "5"}} {
				prompt, err := e.Prompt([]string{"Sky?", "2+2="}[i], "")
				if err != nil {
					t.Fatal(err)
				}
				for j, s := range d.Questions[i].Choices {
					if got := labelled(s); got != c.before+list[j] {
						t.Errorf("%s: labels %q, want %q", c.name, got, c.before+list[j])
					}
					row := encode(t, e, row{instruction: []string{"Sky?", "2+2="}[i], output: list[j]})
					if n := len(s.Tokens); !slices.Equal(row.Tokens[:n], s.Tokens) ||
						!slices.Equal(row.Targets[:n], s.Targets) || !slices.Equal(s.Tokens[:len(prompt)], prompt) {
						t.Errorf("%s: choice %q is %v → %v, as an output %v → %v", c.name, list[j], s.Tokens, s.Targets,
							row.Tokens, row.Targets)
					}
				}
			}
		}
	}
}

func TestChoicesLoad(t *testing.T) {
	const short, long = `{"question": "q", "choices": ["a", "b"], "answer": 0}`,
		`{"question": "q", "choices": ["a", "bcdef"], "answer": 0}`
	tok := fakeTokenizer{chat: chatML}
	e := encoder(t, Chat, tok)
	prompt, err := e.Prompt("q", "")
	if err != nil {
		t.Fatal(err)
	}
	o := Default()
	o.MaxLength = len(prompt) + 4
	path := write(t, short, long, `{"question": "q"}`)
	d, err := Load(whole(path), tok, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, want := d.Counts(), (Counts{Rows: 3, Used: 1, Skipped: 2, Samples: 1, Tokens: 2 * len(prompt),
		Labelled: 2}); got != want {
		t.Errorf("counts %+v, want %+v", got, want)
	}
	if len(d.Bad) != 2 || d.Bad[0].Row != 2 || !strings.Contains(d.Bad[0].Reason, "choice 2 has") ||
		!strings.Contains(d.Bad[0].Reason, "max-length") {
		t.Errorf("bad rows %v", d.Bad)
	}
	tokens, targets, lengths := Batch(slices.Repeat(d.Questions, 2))
	if want := slices.Repeat([]int{len(prompt)}, 4); !slices.Equal(lengths, want) || len(tokens) != 4*len(prompt) ||
		len(targets) != len(tokens) {
		t.Errorf("a batch of %d tokens, %d targets, lengths %v", len(tokens), len(targets), lengths)
	}
	o.MaxLength++
	if d, err = Load(whole(write(t, short, long)), tok, o); err != nil || len(d.Questions) != 2 {
		t.Errorf("with one token more: %+v, %v", d, err)
	}
	defer d.Close()
	o.Strict = true
	var bad BadRow
	if _, err := Load(whole(path), tok, o); !errors.As(err, &bad) || bad.Row != 3 {
		t.Errorf("strict: %v", err)
	}
}
