package mtbench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func TestFolderIsOfOneProcess(t *testing.T) {
	dir := answered(t, "base")
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	wantError(t, err, dir, fmt.Sprintf("process %d writes there", os.Getpid()))
	_, err = Create(dir, someQuestions())
	wantError(t, err, dir, fmt.Sprintf("process %d writes there", os.Getpid()))
	if _, err := Load(dir); err != nil {
		t.Errorf("reading is refused: %v", err)
	}
	f.Close()
	f, err = Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestFolderIsOfOneSetOfQuestions(t *testing.T) {
	dir := answered(t, "base")
	before := contents(t, dir)
	for name, change := range map[string]func([]Question) []Question{
		"one less":  func(q []Question) []Question { return q[1:] },
		"order":     func(q []Question) []Question { slices.Reverse(q); return q },
		"reference": func(q []Question) []Question { q[1].Reference[1] = "5"; return q },
	} {
		_, err := Create(dir, change(someQuestions()))
		if err == nil {
			t.Fatalf("%s: not refused", name)
		}
		wantError(t, err, questionFile, "other questions")
	}
	if after := contents(t, dir); after[questionFile] != before[questionFile] {
		t.Error("the questions were changed")
	}
	_, err := Open(t.TempDir())
	wantError(t, err, "question.jsonl", "mtbench run")
	_, err = Load(t.TempDir())
	wantError(t, err, "question.jsonl", "mtbench run")
}

// TestDamage names the file and the line, and leaves the file as it was.
func TestDamage(t *testing.T) {
	for name, spoil := range map[string]func(lines []string) []string{
		"cut in the middle": func(l []string) []string { l[1] = l[1][:20] + "\n"; return l },
		"no answer":         func(l []string) []string { l[1] = `{"question_id": 3}` + "\n"; return l },
		"one turn": func(l []string) []string {
			l[1] = `{"question_id":3,"choices":[{"turns":["a"]}]}` + "\n"
			return l
		},
		"zeros": func(l []string) []string { l[1] = "\x00\x00\x00\n"; return l },
	} {
		t.Run(name, func(t *testing.T) {
			dir := answered(t, "base")
			path := filepath.Join(dir, answerFolder, "base.jsonl")
			spoiled := []byte(strings.Join(spoil(strings.SplitAfter(string(read(t, path)), "\n")), ""))
			write(t, path, spoiled)
			model := assistant("base")
			wantError(t, runIn(context.Background(), dir, "base", model), path, "line 2")
			_, err := Load(dir)
			wantError(t, err, path, "line 2")
			if !bytes.Equal(read(t, path), spoiled) || model.calls > 0 {
				t.Error("the file was changed, or the model asked")
			}
		})
	}
}

// TestKeepsLinesOfOthers lets rows that another program wrote keep their bytes, whatever else they hold.
func TestKeepsLinesOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evaluation")
	path := filepath.Join(dir, answerFolder, "base.jsonl")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	foreign := func(text string) string {
		return `{"question_id": 7, "answer_id": "x", "model_id": "base", "choices": [{"index": 0, "turns": ["` + text +
			`", "\u00e9"]}], "tstamp": 1.5, "extra": 1}`
	}
	write(t, path, []byte(foreign("older")+"\n\n"+foreign("newer"))) // the last line wants its newline
	if err := runIn(context.Background(), dir, "base", assistant("base")); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(read(t, path))), "\n")
	if len(lines) != 3 || lines[2] != foreign("newer") || !strings.Contains(lines[0], `"question_id":12,`) {
		t.Errorf("%q", lines)
	}
}

func TestLoad(t *testing.T) {
	dir := answered(t, "zebra", "adapter")
	if _, err := judgeIn(context.Background(), dir, saying("[[5]]")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, answerFolder, "byhand.jsonl")
	write(t, path, append(read(t, filepath.Join(dir, answerFolder, "zebra.jsonl")), `{"question_id": 3, "cho`...))
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Models, []string{"zebra", "adapter", "byhand"}) {
		t.Errorf("%v: the models are not in the order in which they answered", e.Models)
	}
	var order []int
	for _, a := range e.Answers["byhand"] {
		order = append(order, a.QuestionID)
	}
	if !slices.Equal(order, []int{12, 3, 7}) {
		t.Errorf("answers in the order %v", order)
	}
	if len(e.Singles["judge"]) != 3*2*2 || len(e.Pairs) != 0 {
		t.Errorf("%d judgments", len(e.Singles["judge"]))
	}
}

func TestHostileNames(t *testing.T) {
	dir := answered(t)
	for _, name := range []string{"../../outside", "/etc/passwd", "..", ".hidden", `a\b`, "meta/llama:7b", "50%",
		"50%25", "дом"} {
		if err := runIn(context.Background(), dir, name, assistant("x")); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	wantError(t, runIn(context.Background(), dir, "", assistant("x")), "name")
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Models, []string{"../../outside", "/etc/passwd", "..", ".hidden", `a\b`, "meta/llama:7b", "50%",
		"50%25", "дом"}) {
		t.Errorf("%q", e.Models)
	}
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v beside the folder, %v", entries, err)
	}
}

func FuzzFileName(f *testing.F) {
	for _, name := range []string{"base", "..", "a/b", "%2F", "%", ".", "a.b", "\x00", "дом"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file, err := fileName(name)
		if err != nil {
			if name != "" {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		if filepath.Base(file) != file || !filepath.IsLocal(file) || file[0] == '.' ||
			strings.ContainsAny(file, "\x00\n\\") {
			t.Errorf("%q becomes %q, which can leave the folder", name, file)
		}
		if back := modelName(file); back != name {
			t.Errorf("%q becomes %q, which becomes %q", name, file, back)
		}
	})
}

func FuzzReadLines(f *testing.F) {
	f.Add([]byte(`{"question_id":1,"turn":1}` + "\n" + `{"question_id":2,"turn":2}`))
	f.Add([]byte("\n\n{}\n"))
	f.Add([]byte("{\"turn\":1}\x00"))
	path := filepath.Join(f.TempDir(), "rows.jsonl")
	f.Fuzz(func(t *testing.T, data []byte) {
		write(t, path, data)
		l, err := readLines[Single](path)
		if err != nil {
			return
		}
		if l.size > len(data) || len(l.rows) != len(l.text) {
			t.Fatalf("%d bytes of %d, %d rows, %d lines", l.size, len(data), len(l.rows), len(l.text))
		}
		// What is left after mending is read to the same rows, and a row can be added.
		table, err := openTable[Single](nil, path)
		if err != nil {
			t.Fatal(err)
		}
		defer table.file.Close()
		if err := table.add(Single{QuestionID: 99, Model: "added", Turn: 1}); err != nil {
			t.Fatal(err)
		}
		again, err := readLines[Single](path)
		if err != nil || len(again.rows) != len(l.rows)+1 {
			t.Fatalf("%d rows, then %d, %v", len(l.rows), len(again.rows), err)
		}
	})
}

// A folder that is taken away while models answer or judge in it ends that with an error at once, and nothing is made
// in its place.
func TestFolderThatIsTakenAway(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows takes no folder away in which a file is open")
	}
	for name, away := range map[string]func(dir string) error{
		"removed": os.RemoveAll,
		"renamed": func(dir string) error { return os.Rename(dir, dir+"-mine") },
	} {
		for _, judging := range []bool{false, true} {
			dir := answered(t, "one")
			calls := 0
			m := &fake{reply: func(context.Context, []Message, Sampling) (string, error) {
				if calls++; calls == 2 {
					if err := away(dir); err != nil {
						t.Error(err)
					}
				}
				return "[[5]]", nil
			}}
			var err error
			if judging {
				_, err = judgeIn(context.Background(), dir, m, oneByOne)
			} else {
				err = runIn(context.Background(), dir, "two", m, func(o *RunOptions) { o.Parallel = 1 })
			}
			if wantError(t, err, dir, "removed or renamed"); calls > 2 {
				t.Errorf("%s, judging %v: %d calls", name, judging, calls)
			}
			if entries, _ := os.ReadDir(dir); len(entries) > 0 {
				t.Errorf("%s, judging %v: %v was made", name, judging, entries)
			}
		}
	}
}
