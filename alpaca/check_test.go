package alpaca

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func (f fakeTokenizer) Detokenize(tokens []int32, special bool) (string, error) {
	if !special {
		tokens = slices.DeleteFunc(slices.Clone(tokens), func(t int32) bool { return t >= 256 })
	}
	return detokenize(tokens), nil
}

func TestCheck(t *testing.T) {
	a := write(t,
		`{"prompt": "ab", "completion": "cd"}`,
		`{"prompt": "ab", "completion": "ef"}`, // another answer
		`{"prompt": "ab", "completion": "cd"}`, // again
		`{"prompt": "ab", "completion": ""}`,
		`{"prompt": "ab", "completion": "cdefghij"}`,                     // cut, and another answer
		`{"prompt": "abcdefghijk", "completion": "c"}`,                   // no room
		`{"prompt": "<|im_end|>", "completion": "</s> <|im_end|> </s>"}`, // no room either, but seen
		`{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]}`,
		`{"instruction": "a"}`,
	)
	b := write(t, `[{"prompt": "x", "completion": "y"}, {"completion": "cd", "prompt": "ab"}, {"question": "q", `+
		`"choices": ["a", "bcd"], "answer": 0}]`)
	o := Default()
	o.MaxLength = 512
	if c, err := NewCheck([]string{b}, fakeTokenizer{}, o); err != nil || len(c.Unusable) != 1 ||
		!strings.Contains(c.Unusable[0].Reason, "of rows 1 and 3, one is a multiple-choice question") {
		t.Errorf("a question among other rows: %+v, %v", c, err)
	}
	o.MaxLength = 8
	c, err := NewCheck([]string{a, b}, fakeTokenizer{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c.Rows, c.Kinds, c.EmptyAnswers), "12 map[prompt:6] 2"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
	places := func(list []Finding) (s string) {
		for _, f := range list {
			s += fmt.Sprintf("%s%d", map[string]string{a: "a", b: "b"}[f.File], f.Row)
			if f.Before != nil {
				s += fmt.Sprintf("=%s%d", map[string]string{a: "a", b: "b"}[f.Before.File], f.Before.Row)
			}
			s += " "
		}
		return s
	}
	for what, pair := range map[string][2]string{
		"unusable":   {places(c.Unusable), "a4 a6 a7 a8 a9 b3 "},
		"cut":        {places(c.Cut), "a5 "},
		"duplicates": {places(c.Duplicates), "a3=a1 b2=a1 "},
		"conflicts":  {places(c.Conflicts), "a2=a1 a5=a1 "},
		"controls":   {fmt.Sprintf("%d %+v", len(c.Controls), c.Controls[0].Rows), "2 1"},
		"lengths":    {fmt.Sprint(c.Lengths), "[3 5 5 5 5 11 13 31]"},
		"quantiles":  {fmt.Sprint(c.Quantiles), "{3 3 5 5 11 31 31 31 9.75}"},
		"histogram":  {fmt.Sprint(c.Histogram), "[{2 3 1} {4 7 4} {8 15 2} {16 31 1}]"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, want %s", what, pair[0], pair[1])
		}
	}
	if got, want := c.Controls[0], (ControlText{"</s>", 1, Place{a, 7}}); !slices.Contains(c.Controls, want) {
		t.Errorf("control tokens %+v, want %+v", got, want)
	}
	if c.Clean() {
		t.Error("it is called clean")
	}
	if c, err = NewCheck([]string{write(t, `{"prompt": "ab", "completion": "cd"}`)}, fakeTokenizer{}, o); err != nil ||
		!c.Clean() {
		t.Errorf("a clean file: %+v, %v", c, err)
	}
}
