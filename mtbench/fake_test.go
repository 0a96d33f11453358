package mtbench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// someQuestions are of each temperature, with and without references, and not in the order of their numbers.
func someQuestions() []Question {
	return []Question{
		{ID: 12, Category: "writing", Turns: []string{"Write <a> poem & more.", "Now shorter."}},
		{ID: 3, Category: "math", Turns: []string{"1+1?", "And 2+2?"}, Reference: []string{"2", "4"}},
		{ID: 7, Category: "stem", Turns: []string{"What is light?", "And sound?"}},
	}
}

// fake is a model that a function stands in for. It counts how many of its conversations are under way together.
type fake struct {
	reply func(ctx context.Context, conversation []Message, s Sampling) (string, error)

	mu         sync.Mutex
	calls      int
	now, most  int
	samplings  []Sampling
	concurrent chan struct{} // where set, a call waits until it can send
}

func (f *fake) Complete(ctx context.Context, conversation []Message, s Sampling) (string, error) {
	f.mu.Lock()
	f.calls++
	f.now++
	f.most = max(f.most, f.now)
	f.samplings = append(f.samplings, s)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	if f.concurrent != nil {
		f.concurrent <- struct{}{}
	}
	return f.reply(ctx, conversation, s)
}

// assistant answers so that the answer tells the model, the question and the turn.
func assistant(name string) *fake {
	return &fake{reply: func(_ context.Context, c []Message, _ Sampling) (string, error) {
		for _, q := range someQuestions() {
			if c[0].Content == q.Turns[0] {
				return marker(name, q.ID, (len(c)+1)/2), nil
			}
		}
		return "", errors.New("an unknown question")
	}}
}

func marker(model string, question, turn int) string {
	return fmt.Sprintf("<%s %d.%d>", model, question, turn)
}

// asked finds out of a judge's prompt which question and turn it is about, and of which models, in the order of their
// answers.
func asked(c []Message) (question, turn int, models []string) {
	for _, m := range regexp.MustCompile(`<(\w+) (\d+)\.(\d)>`).FindAllStringSubmatch(c[len(c)-1].Content, -1) {
		if len(models) == 0 || models[len(models)-1] != m[1] {
			models = append(models, m[1])
		}
		fmt.Sscan(m[2], &question)
		var t int
		fmt.Sscan(m[3], &t)
		turn = max(turn, t)
	}
	return question, turn, models
}

// answered is a folder with the answers of models.
func answered(t testing.TB, models ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "evaluation")
	for _, model := range models {
		if err := runIn(context.Background(), dir, model, assistant(model)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runIn has a model answer in a folder that is opened for it alone, as a process would.
func runIn(ctx context.Context, dir, name string, m Model, change ...func(*RunOptions)) error {
	f, err := Create(dir, someQuestions())
	if err != nil {
		return err
	}
	defer f.Close()
	o := DefaultRunOptions()
	o.Name = name
	for _, c := range change {
		c(&o)
	}
	return f.Run(ctx, m, o)
}

func judgeIn(ctx context.Context, dir string, m Model, change ...func(*JudgeOptions)) (Judged, error) {
	f, err := Open(dir)
	if err != nil {
		return Judged{}, err
	}
	defer f.Close()
	o := DefaultJudgeOptions()
	o.Name = "judge"
	for _, c := range change {
		c(&o)
	}
	return f.Judge(ctx, m, o)
}

// contents are the files of a folder without the times that rows were made at.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		files[name] = string(timeless(read(t, path)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var timestamp = regexp.MustCompile(`"tstamp":[0-9.e+]+`)

func timeless(text []byte) []byte { return timestamp.ReplaceAll(text, []byte(`"tstamp":0`)) }

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// lastLine gives the index at which the last line begins.
func lastLine(data []byte) int { return bytes.LastIndexByte(data[:len(data)-1], '\n') + 1 }

// wantError checks that an error says what it should.
func wantError(t testing.TB, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that says %q", says)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}
