package mtbench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

func TestBuiltinQuestions(t *testing.T) {
	questions := Questions()
	if len(questions) != 80 {
		t.Fatalf("%d questions, want 80", len(questions))
	}
	seen := map[string]int{}
	for i, q := range questions {
		if want := 1001 + i; q.ID != want {
			t.Errorf("question %d: id %d, want %d", i, q.ID, want)
		}
		if want := Categories[i/10]; q.Category != want {
			t.Errorf("question %d: category %s, want %s", q.ID, q.Category, want)
		}
		needs := slices.Contains(NeedReference, q.Category)
		if needs != (len(q.Reference) == Turns) || slices.Contains(q.Reference, "") {
			t.Errorf("question %d (%s): references %q", q.ID, q.Category, q.Reference)
		}
		for _, text := range slices.Concat(q.Turns, q.Reference) {
			if text != strings.TrimSpace(text) {
				t.Errorf("question %d: white space around %q", q.ID, text)
			}
			if other, twice := seen[text]; twice {
				t.Errorf("questions %d and %d share %q", other, q.ID, text)
			}
			seen[text] = q.ID
		}
	}
}

var word = regexp.MustCompile(`[\pL\pN_]+`)

// runs gives all runs of n words of a question.
func runs(q Question, n int) map[string]bool {
	words := word.FindAllString(strings.ToLower(strings.Join(q.Turns, " ")), -1)
	all := map[string]bool{}
	for i := range len(words) - n + 1 {
		all[strings.Join(words[i:i+n], " ")] = true
	}
	return all
}

// Five words in a row, such as "what is the probability that", are shared by chance.
func TestBuiltinQuestionsAreOriginal(t *testing.T) {
	theirs, err := ReadQuestions(testutil.Shared(t, "data/mt_bench/question.jsonl")[0], "")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]int{}
	for _, q := range theirs {
		for run := range runs(q, 6) {
			known[run] = q.ID
		}
	}
	for _, q := range Questions() {
		for run := range runs(q, 6) {
			if id, ok := known[run]; ok {
				t.Errorf("question %d and FastChat's %d share %q", q.ID, id, run)
			}
		}
	}
}

func TestTemperature(t *testing.T) {
	want := map[string]float64{"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1, "reasoning": 0,
		"math": 0, "coding": 0, "extraction": 0}
	for _, category := range Categories {
		if got := (Question{Category: category}).Temperature(); got != want[category] {
			t.Errorf("%s: %v, want %v", category, got, want[category])
		}
	}
}

func TestReadFastChatsQuestions(t *testing.T) {
	path := testutil.Shared(t, "data/mt_bench/question.jsonl")[0]
	references := testutil.Shared(t, "data/mt_bench/reference_answer/gpt-4.jsonl")[0]
	questions, err := ReadQuestions(path, references)
	if err != nil {
		t.Fatal(err)
	}
	if len(questions) != 80 || questions[0].ID != 81 || questions[79].ID != 160 {
		t.Fatalf("%d questions from %d", len(questions), questions[0].ID)
	}
	for _, q := range questions {
		if slices.Contains(NeedReference, q.Category) && (len(q.Reference) != Turns || q.Reference[0] == "" ||
			q.Reference[1] == "") {
			t.Errorf("question %d has no reference", q.ID)
		}
	}
	if r := questions[20].Reference[0]; !strings.Contains(r, "third place") {
		t.Errorf("reference of question 101 is not GPT-4's: %q", r)
	}
}

// write makes a file in a folder of the test.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

const goodQuestion = `{"question_id": 7, "category": "math", "turns": ["1+1?", "And 2+2?"], "reference": ["2", ""]}`

func TestReadQuestions(t *testing.T) {
	text := "\xef\xbb\xbf" + goodQuestion + "\r\n\r\n" +
		`{"question_id": 9, "category": "stem", "turns": ["Why?", "How?"], "more": 1}`
	questions, err := ReadQuestions(written(t, "q.jsonl", text), "")
	want := []Question{{7, "math", []string{"1+1?", "And 2+2?"}, []string{"2", ""}},
		{9, "stem", []string{"Why?", "How?"}, nil}}
	if err != nil || !reflect.DeepEqual(questions, want) {
		t.Errorf("%+v, %v", questions, err)
	}
	references := written(t, "r.jsonl",
		`{"question_id": 7, "choices": [{"turns": ["two", "four"]}]}`+"\n"+`{"question_id": 8, "choices": [{"turns": `+
			`["", "x"]}]}`)
	questions, err = ReadQuestions(written(t, "q.jsonl", text), references)
	want[0].Reference = []string{"two", "four"}
	if err != nil || !reflect.DeepEqual(questions, want) {
		t.Errorf("%+v, %v", questions, err)
	}
}

func TestReadQuestionsErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "q.jsonl: holds no question"},
		{"\n{", "q.jsonl: line 2: malformed JSON"},
		{"[]", "line 1: is not a JSON object"},
		{"null", "line 1: is not a JSON object"},
		{"{\"a\": \"\xff\"}", "line 1: is not valid UTF-8"},
		{`{"category": "math", "turns": ["a", "b"]}`, "line 1: has no question_id"},
		{`{"question_id": "x", "category": "math", "turns": ["a", "b"]}`, "line 1: question_id cannot be a string"},
		{`{"question_id": 1, "category": "math", "turns": 3}`, "line 1: turns cannot be a number"},
		{goodQuestion + "\n\n" + goodQuestion, "line 3: question 7 is on line 1 already"},
		{`{"question_id": 1, "category": "math", "turns": ["a"]}`, "line 1: question 1: want 2 turns, has 1"},
		{`{"question_id": 1, "category": "math", "turns": ["a", " "]}`, "line 1: question 1: turn 2 is empty"},
		{`{"question_id": 1, "category": "maths", "turns": ["a", "b"]}`,
			`line 1: question 1: category "maths", want one of writing, roleplay`},
		{`{"question_id": 1, "category": "math", "turns": ["a", "b"], "reference": ["c"]}`,
			"question 1: want a reference for each of 2 turns, has 1"},
	} {
		_, err := ReadQuestions(written(t, "q.jsonl", c.text), "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"x", "r.jsonl: line 1: malformed JSON"},
		{`{"choices": [{"turns": ["a", "b"]}]}`, "line 1: has no question_id"},
		{`{"question_id": 7, "choices": []}`, "line 1: question 7: want a choice with 2 turns"},
		{`{"question_id": 7, "choices": [{"turns": ["a"]}]}`, "line 1: question 7: want a choice with 2 turns"},
		{strings.Repeat(`{"question_id": 7, "choices": [{"turns": ["a", "b"]}]}`+"\n", 2),
			"line 2: question 7 is answered a second time"},
		{`{"question_id": 8, "choices": [{"turns": ["a", "b"]}]}`, "answers none of the questions of"},
	} {
		_, err := ReadQuestions(written(t, "q.jsonl", goodQuestion), written(t, "r.jsonl", c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		}
	}
	good, none := written(t, "q.jsonl", goodQuestion), filepath.Join(t.TempDir(), "none")
	for _, paths := range [][2]string{{none, ""}, {good, none}} {
		if _, err := ReadQuestions(paths[0], paths[1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", paths, err)
		}
	}
}

func FuzzQuestions(f *testing.F) {
	f.Add([]byte(goodQuestion))
	f.Add([]byte(`{"question_id": 1, "category": "stem", "turns": ["a", "b"], "reference": []}` + "\r\n\n{}"))
	f.Add([]byte("\xef\xbb\xbfnull"))
	f.Add(builtinQuestions[:4000])
	f.Fuzz(func(t *testing.T, data []byte) {
		questions, err := parseQuestions("f", data)
		if err != nil {
			return
		}
		var again []byte
		for _, q := range questions {
			if len(q.Turns) != Turns || !slices.Contains(Categories, q.Category) {
				t.Fatalf("accepted %+v", q)
			}
			row, err := json.Marshal(q)
			if err != nil {
				t.Fatal(err)
			}
			again = fmt.Appendf(again, "%s\n", row)
		}
		same, err := parseQuestions("f", again)
		if err != nil || len(same) != len(questions) {
			t.Fatalf("%s: %v", again, err)
		}
		for i := range same {
			if same[i].ID != questions[i].ID || !slices.Equal(same[i].Turns, questions[i].Turns) ||
				!slices.Equal(same[i].Reference, questions[i].Reference) {
				t.Errorf("%+v became %+v", questions[i], same[i])
			}
		}
	})
}

func FuzzReferences(f *testing.F) {
	f.Add([]byte(`{"question_id": 7, "choices": [{"index": 0, "turns": ["a", "b"]}]}`))
	f.Add([]byte(`{"question_id": 7, "choices": [{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		answers, err := parseReferences("f", data)
		for id, turns := range answers {
			if err == nil && len(turns) != Turns {
				t.Errorf("question %d has %d turns", id, len(turns))
			}
		}
	})
}
