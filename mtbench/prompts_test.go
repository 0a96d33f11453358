package mtbench

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

// A small file in FastChat's format. Braces of the templates are doubled where they are meant as such.
var smallPrompts = []Prompt{
	{"single-v1", "single", "Be fair.", "Q {question} A {answer} {{x}}", "", "general", "[[rating]]"},
	{"single-v1-multi-turn", "single", "", "{question_1}/{answer_1}/{question_2}/{answer_2}", "", "general",
		"[[rating]]"},
	{"single-math-v1", "single", "Be exact.", "{question}|{ref_answer_1}|{answer}|{answer}", "", "math", "[[rating]]"},
	{"single-math-v1-multi-turn", "single", "Be exact.",
		"{ref_answer_1}|{ref_answer_2}|{question_1}|{question_2}|{answer_1}|{answer_2}", "", "math", "[[rating]]"},
	{"pair-v2", "pairwise", "Compare.", "{question}: {answer_a} or {answer_b}", "", "general", "[[A]]"},
	{"pair-v2-multi-turn", "pairwise", "Compare.", "{answer_a_1},{answer_a_2} or {answer_b_1},{answer_b_2}", "",
		"general", "[[A]]"},
	{"pair-math-v1", "pairwise", "Compare.", "{ref_answer_1}: {answer_b} or {answer_a}", "", "math", "[[A]]"},
	{"pair-math-v1-multi-turn", "pairwise", "Compare.", "{question_2}={ref_answer_2}: {answer_a_2} or {answer_b_2}", "",
		"general", "[[A]]"},
}

func jsonl(t *testing.T, prompts []Prompt) string {
	t.Helper()
	var b strings.Builder
	for _, p := range prompts {
		row, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", row)
	}
	return b.String()
}

func replied(model string, turns ...string) Answer {
	return Answer{ModelID: model, Choices: []Choice{{Turns: turns}}}
}

func TestFill(t *testing.T) {
	p, err := ReadPrompts(written(t, "p.jsonl", jsonl(t, smallPrompts)))
	if err != nil {
		t.Fatal(err)
	}
	stem := Question{ID: 1, Category: "stem", Turns: []string{"Why {answer}?", "How?"},
		Reference: []string{"unused", "unused"}}
	coding := Question{ID: 2, Category: "coding", Turns: []string{"q1", "q2"}, Reference: []string{"r1", "r2"}}
	// What looks like a placeholder in an answer stays as it is.
	a, b := replied("a", "{question} {{", "}a2"), replied("b", "b1", "{answer_1}")
	for _, c := range []struct {
		q            Question
		pair         bool
		turn         int
		name, system string
		user         string
	}{
		{stem, false, 1, "single-v1", "Be fair.", "Q Why {answer}? A {question} {{ {x}"},
		{stem, false, 2, "single-v1-multi-turn", "", "Why {answer}?/{question} {{/How?/}a2"},
		{coding, false, 1, "single-math-v1", "Be exact.", "q1|r1|{question} {{|{question} {{"},
		{coding, false, 2, "single-math-v1-multi-turn", "Be exact.", "r1|r2|q1|q2|{question} {{|}a2"},
		{stem, true, 1, "pair-v2", "Compare.", "Why {answer}?: {question} {{ or b1"},
		{stem, true, 2, "pair-v2-multi-turn", "Compare.", "{question} {{,}a2 or b1,{answer_1}"},
		{coding, true, 1, "pair-math-v1", "Compare.", "r1: b1 or {question} {{"},
		{coding, true, 2, "pair-math-v1-multi-turn", "Compare.", "q2=r2: }a2 or {answer_1}"},
	} {
		var name string
		var conversation []Message
		var err error
		if c.pair {
			name, conversation, err = p.Pair(c.q, a, b, c.turn)
		} else {
			name, conversation, err = p.Single(c.q, a, c.turn)
		}
		want := []Message{{"system", c.system}, {"user", c.user}}
		if c.system == "" {
			want = want[1:]
		}
		if err != nil || name != c.name || !slices.Equal(conversation, want) {
			t.Errorf("%s: %s %q, %v; want %q", c.name, name, conversation, err, want)
		}
	}
}

func TestFillErrors(t *testing.T) {
	p := DefaultPrompts()
	math := Question{ID: 5, Category: "math", Turns: []string{"q1", "q2"}}
	half := math
	half.Reference = []string{"r1", ""}
	both := math
	both.Reference = []string{"r1", "r2"}
	a := replied("m", "a1", "a2")
	for _, c := range []struct {
		q    Question
		a    Answer
		turn int
		want string
	}{
		{math, a, 1, "question 5 (math): prompt single-math-v1 wants {ref_answer_1}"},
		{math, a, 2, "{ref_answer_1}"},
		{half, a, 1, ""},
		{half, a, 2, "wants {ref_answer_2}"},
		{both, a, 2, ""},
		{both, replied("m"), 1, "question 5: m has no answer to turn 1"},
		{both, replied("m", "a1"), 1, ""},
		{both, replied("m", "a1"), 2, "question 5: m has no answer to turn 2"},
		{both, Answer{ModelID: "m"}, 1, "question 5: m has no answer to turn 1"},
	} {
		_, _, err := p.Single(c.q, c.a, c.turn)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("turn %d of %v: %v, want %q", c.turn, c.q.Reference, err, c.want)
		}
		if _, _, pairErr := p.Pair(c.q, a, c.a, c.turn); (pairErr == nil) != (err == nil) {
			t.Errorf("turn %d of %v: single %v, pair %v", c.turn, c.q.Reference, err, pairErr)
		}
	}
}

// The built-in prompts are interchangeable with FastChat's: the same names, types, formats and placeholders.
func TestFastChatsPrompts(t *testing.T) {
	theirs, err := ReadPrompts(testutil.Shared(t, "data/mt_bench/judge_prompts.jsonl")[0])
	if err != nil {
		t.Fatal(err)
	}
	ours := DefaultPrompts()
	q := Question{ID: 3, Turns: []string{"first {answer}", "second"}, Reference: []string{"ref one", "ref {two}"}}
	a, b := replied("a", "one of a", "two of a {question}"), replied("b", "one of b", "{ref_answer_1} two of b")
	replaced := strings.NewReplacer("{question}", q.Turns[0], "{question_1}", q.Turns[0], "{question_2}", q.Turns[1],
		"{ref_answer_1}", "ref one", "{ref_answer_2}", "ref {two}", "{answer}", "one of a", "{answer_1}", "one of a",
		"{answer_2}", "two of a {question}",
		"{answer_a}", "one of a", "{answer_b}", "one of b", "{answer_a_1}", "one of a", "{answer_a_2}",
		"two of a {question}",
		"{answer_b_1}", "one of b", "{answer_b_2}", "{ref_answer_1} two of b")
	for _, p := range []Prompts{theirs, ours} {
		for _, category := range Categories {
			q.Category = category
			for turn := 1; turn <= Turns; turn++ {
				name, single, err := p.Single(q, a, turn)
				if want := []Message{{"system", p[name].SystemPrompt},
					{"user", replaced.Replace(p[name].PromptTemplate)}}; err != nil || !slices.Equal(single, want) {
					t.Errorf("%s: %q, %v; want %q", name, single, err, want)
				}
				name, pair, err := p.Pair(q, a, b, turn)
				if want := []Message{{"system", p[name].SystemPrompt},
					{"user", replaced.Replace(p[name].PromptTemplate)}}; err != nil || !slices.Equal(pair, want) {
					t.Errorf("%s: %q, %v; want %q", name, pair, err, want)
				}
			}
		}
	}
	for name, p := range theirs {
		if o := ours[name]; o.Type != p.Type || o.OutputFormat != p.OutputFormat ||
			!reflect.DeepEqual(shown(t, o), shown(t, p)) {
			t.Errorf("%s differs: %v and %v", name, shown(t, o), shown(t, p))
		}
	}
}

// shown gives the placeholders of a prompt.
func shown(t *testing.T, p Prompt) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	_, err := expand(p.PromptTemplate, func(name string) (string, error) {
		names[name] = true
		return "", nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Small judges follow what they have read last.
func TestBuiltinPromptsAskLast(t *testing.T) {
	for name, p := range DefaultPrompts() {
		end := p.PromptTemplate[strings.LastIndex(p.PromptTemplate, "}"):]
		wants := []string{"[["}
		if p.Type == "pairwise" {
			wants = []string{"[[A]]", "[[B]]", "[[C]]"}
		}
		for _, want := range wants {
			if !strings.Contains(end, want) || strings.Contains(p.SystemPrompt, want) {
				t.Errorf("%s: the form of the verdict must be asked for at the end, and only there", name)
			}
		}
	}
}

func TestReadPromptsErrors(t *testing.T) {
	change := func(i int, f func(*Prompt)) string {
		prompts := slices.Clone(smallPrompts)
		f(&prompts[i])
		return jsonl(t, prompts)
	}
	template := func(i int, text string) string {
		return change(i, func(p *Prompt) { p.PromptTemplate = text })
	}
	for _, c := range []struct{ text, want string }{
		{"", "p.jsonl: has no prompt named single-v1, single-v1-multi-turn, single-math-v1, " +
			"single-math-v1-multi-turn, pair-v2"},
		{jsonl(t, smallPrompts[1:7]), "has no prompt named single-v1, pair-math-v1-multi-turn"},
		{"{", "p.jsonl: line 1: malformed JSON"},
		{"{}", "line 1: has no name"},
		{`{"name": 3}`, "line 1: name cannot be a number"},
		{jsonl(t, append(slices.Clone(smallPrompts), smallPrompts[0])), "line 9: prompt single-v1 is there already"},
		{change(0, func(p *Prompt) { p.Type = "pairwise" }), `prompt single-v1: type "pairwise", want "single"`},
		{change(4, func(p *Prompt) { p.OutputFormat = "[[rating_a,rating_b]]" }),
			`prompt pair-v2: output_format "[[rating_a,rating_b]]", want "[[A]]"`},
		{template(0, "{question}"), "prompt single-v1: does not show {answer}"},
		{template(0, "{answer} {ref_answer_1}"),
			"prompt single-v1: nothing is known to put in the place of {ref_answer_1}"},
		{template(1, "{answer}"), "prompt single-v1-multi-turn: nothing is known to put in the place of {answer}"},
		{template(1, "{answer_1}"), "does not show {answer_2}"},
		{template(5, "{answer_a_2}"), "prompt pair-v2-multi-turn: does not show {answer_b_2}"},
		{template(0, "{answer} {"), "a single {"},
		{template(0, "{answer} }"), "a single }"},
		{template(0, "{answer} {}"), "{}"},
		{template(0, "{answer!r}"), "{answer!r}"},
	} {
		_, err := ReadPrompts(written(t, "p.jsonl", c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	extra := append(slices.Clone(smallPrompts), Prompt{Name: "pair-v1", PromptTemplate: "{anything}"})
	if p, err := ReadPrompts(written(t, "p.jsonl", jsonl(t, extra))); err != nil || len(p) != 8 {
		t.Errorf("a prompt that isn't needed: %v, %v", p, err)
	}
}

func FuzzPrompts(f *testing.F) {
	var small []byte
	for _, p := range smallPrompts {
		row, _ := json.Marshal(p)
		small = append(append(small, row...), '\n')
	}
	f.Add(small)
	f.Add(builtinPrompts)
	f.Add([]byte(`{"name": "single-v1", "prompt_template": "{{}"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePrompts("f", data)
		if err != nil {
			return
		}
		q := Question{Turns: []string{"{", "}"}, Reference: []string{"{answer}", "{{"}}
		a := replied("m", "{answer_2}", "}}")
		for _, q.Category = range Categories {
			for turn := 1; turn <= Turns; turn++ {
				if _, c, err := p.Single(q, a, turn); err != nil ||
					!strings.Contains(c[len(c)-1].Content, a.Choices[0].Turns[turn-1]) {
					t.Errorf("single, turn %d: %q, %v", turn, c, err)
				}
				if _, c, err := p.Pair(q, a, a, turn); err != nil ||
					!strings.Contains(c[len(c)-1].Content, a.Choices[0].Turns[turn-1]) {
					t.Errorf("pair, turn %d: %q, %v", turn, c, err)
				}
			}
		}
	})
}

// Placeholders and doubled braces are Python's; text without braces stays what it is.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"a", "{x}", "{{x}}", "{{{x}}}", "{", "}", "{x", "{}", "}{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		escaped := strings.NewReplacer("{", "{{", "}", "}}").Replace(text)
		got, err := expand(escaped, func(string) (string, error) { return "", fmt.Errorf("a placeholder") })
		if err != nil || got != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
		put := func(string) (string, error) { return text, nil }
		if got, err := expand("<{name}>", put); err != nil || got != "<"+text+">" {
			t.Errorf("%q was put in as %q, %v", text, got, err)
		}
		_, _ = expand(text, put) // must not panic
	})
}
