package mtbench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestRun checks what a model is asked, and the file that its answers make.
func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "evaluation")
	var mu sync.Mutex
	seen := map[string][]Message{}
	samplings := map[string]Sampling{}
	inner := assistant("base")
	model := &fake{reply: func(ctx context.Context, c []Message, s Sampling) (string, error) {
		text, err := inner.reply(ctx, c, s)
		mu.Lock()
		defer mu.Unlock()
		seen[text], samplings[text] = slices.Clone(c), s
		return text, err
	}}
	var reports []Progress
	if err := runIn(context.Background(), dir, "base", model, func(o *RunOptions) {
		o.Progress = func(p Progress) {
			reports = append(reports, p)
		}
	}); err != nil {
		t.Fatal(err)
	}
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[uint64]bool{}
	for i, q := range someQuestions() {
		a := e.Answers["base"][i]
		turn1, turn2 := marker("base", q.ID, 1), marker("base", q.ID, 2)
		if a.QuestionID != q.ID || a.ModelID != "base" || len(a.AnswerID) != 22 || a.Time < 1e9 ||
			!slices.Equal(a.Choices[0].Turns, []string{turn1, turn2}) {
			t.Errorf("%+v", a)
		}
		if want := []Message{{"user", q.Turns[0]}, {"assistant", turn1}, {"user", q.Turns[1]}}; !slices.Equal(
			seen[turn2], want) {
			t.Errorf("turn 2 is asked %v, want %v", seen[turn2], want)
		}
		want := map[string]float64{"writing": 0.7, "math": 0, "stem": 0.1}[q.Category]
		for _, turn := range []string{turn1, turn2} {
			s := samplings[turn]
			if s.Temperature != want || s.MaxTokens != 1024 || s.Seed>>31 != 0 || seeds[s.Seed] {
				t.Errorf("%s: %+v", turn, s)
			}
			seeds[s.Seed] = true
		}
	}
	if len(reports) != 3 || reports[2] != (Progress{Done: 3, Total: 3}) {
		t.Errorf("%+v", reports)
	}
	// An & is an &, as FastChat writes it.
	if text := string(read(t, filepath.Join(dir, questionFile))); !strings.Contains(text, "<a> poem & more") {
		t.Errorf("%s", text)
	}
	if err := runIn(context.Background(), dir, "base", &fake{}); err != nil { // which panics when it is asked
		t.Errorf("again: %v", err)
	}
}

// TestSeedsDependOnTheSeed and on nothing else: the same for every model.
func TestSeedsDependOnTheSeed(t *testing.T) {
	seeds := func(name string, seed uint64) []Sampling {
		m := assistant(name)
		if err := runIn(context.Background(), filepath.Join(t.TempDir(), "e"), name, m, func(o *RunOptions) {
			o.Seed, o.Parallel = seed, 1
		}); err != nil {
			t.Fatal(err)
		}
		return m.samplings
	}
	if !slices.Equal(seeds("a", 0), seeds("b", 0)) || slices.Equal(seeds("a", 0), seeds("a", 1)) {
		t.Error("the seeds are not what the seed makes them")
	}
}

func TestParallel(t *testing.T) {
	m := assistant("base")
	m.concurrent = make(chan struct{})
	done := make(chan error)
	go func() {
		done <- runIn(context.Background(), filepath.Join(t.TempDir(), "e"), "base", m, func(o *RunOptions) {
			o.Parallel = 2
		})
	}()
	for range 3 * Turns {
		<-m.concurrent
	}
	if err := <-done; err != nil || m.most > 2 {
		t.Errorf("%d conversations at a time, want at most 2; %v", m.most, err)
	}
}

// TestInterruptedRun cancels at every call of the model. The same command then makes the files that it makes when it is
// left alone, asking only for what was not there.
func TestInterruptedRun(t *testing.T) {
	want := contents(t, answered(t, "base"))
	for n := 1; n <= 3*Turns; n++ {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		inner := assistant("base")
		calls := 0
		model := &fake{reply: func(ctx context.Context, c []Message, s Sampling) (string, error) {
			if calls++; calls == n {
				cancel()
				return "", ctx.Err()
			}
			return inner.reply(ctx, c, s)
		}}
		dir := filepath.Join(t.TempDir(), "e")
		one := func(o *RunOptions) { o.Parallel = 1 }
		err := runIn(ctx, dir, "base", model, one)
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("%d: %v", n, err)
		}
		kept := (n - 1) / Turns
		wantError(t, err, fmt.Sprintf("%d of 3", kept))
		rest := assistant("base")
		if err := runIn(context.Background(), dir, "base", rest, one); err != nil {
			t.Fatal(err)
		}
		if rest.calls != (3-kept)*Turns {
			t.Errorf("%d: %d calls for %d questions", n, rest.calls, 3-kept)
		}
		if got := contents(t, dir); !maps.Equal(got, want) {
			t.Errorf("%d: %v\nwant %v", n, got, want)
		}
	}
}

// TestHalfWrittenAnswer cuts the file at every byte of its last line, and resumes to the same file.
func TestHalfWrittenAnswer(t *testing.T) {
	dir := answered(t, "base")
	want := contents(t, dir)
	path := filepath.Join(dir, answerFolder, "base.jsonl")
	whole := read(t, path)
	for size := lastLine(whole); size <= len(whole); size++ {
		write(t, path, whole[:size])
		if err := runIn(context.Background(), dir, "base", assistant("base")); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, dir); !maps.Equal(got, want) {
			t.Fatalf("cut at %d of %d: %v\nwant %v", size, len(whole), got, want)
		}
	}
}

// TestFailingQuestion keeps all others, and is the only one that the next run asks.
func TestFailingQuestion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "e")
	inner := assistant("base")
	failing := &fake{reply: func(ctx context.Context, c []Message, s Sampling) (string, error) {
		if c[0].Content == "1+1?" && len(c) == 3 {
			return "", errors.New("too long")
		}
		return inner.reply(ctx, c, s)
	}}
	var last Progress
	err := runIn(context.Background(), dir, "base", failing, func(o *RunOptions) {
		o.Progress = func(p Progress) {
			last = p
		}
	})
	var failed *Failed
	if !errors.As(err, &failed) || len(failed.Items) != 1 || failed.Left != 0 {
		t.Fatalf("%v", err)
	}
	wantError(t, err, "1 of 3 answers of base failed", "question 3: turn 2: too long")
	if last.Done != 2 || last.Failed != 1 || last.Total != 3 {
		t.Errorf("%+v", last)
	}
	rest := assistant("base")
	if err := runIn(context.Background(), dir, "base", rest); err != nil || rest.calls != Turns {
		t.Errorf("%d calls, %v", rest.calls, err)
	}
	if !maps.Equal(contents(t, dir), contents(t, answered(t, "base"))) {
		t.Error("the files differ from those of a run without failures")
	}
}

// TestUnprintableAnswer is the same text in turn 2 as in the file.
func TestUnprintableAnswer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "e")
	var mu sync.Mutex
	seen := map[string]bool{}
	odd := &fake{reply: func(_ context.Context, c []Message, _ Sampling) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(c) > 1 {
			seen[c[1].Content] = true
		}
		return "cut \x00 wi\xe2\x82", nil
	}}
	if err := runIn(context.Background(), dir, "base", odd); err != nil {
		t.Fatal(err)
	}
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	const want = "cut \uFFFD wi\uFFFD"
	if got := e.Answers["base"][0].Choices[0].Turns[0]; got != want || !maps.Equal(seen, map[string]bool{want: true}) {
		t.Errorf("%q in the file, %v in turn 2", got, seen)
	}
}

// TestHopelessFailure stops: the other questions would fail alike.
func TestHopelessFailure(t *testing.T) {
	down := &fake{reply: func(context.Context, []Message, Sampling) (string, error) {
		return "", hopeless{errors.New("refused")}
	}}
	err := runIn(context.Background(), filepath.Join(t.TempDir(), "e"), "base", down, func(o *RunOptions) {
		o.Parallel = 1
	})
	wantError(t, err, "1 of 3 answers of base failed and 2 were not tried", "refused")
	if down.calls != 1 {
		t.Errorf("%d calls", down.calls)
	}
}

// TestChangedModel refuses to mix the answers of two models under one name.
func TestChangedModel(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "e")
	as := func(adapter string) func(*RunOptions) {
		return func(o *RunOptions) { o.Setup = map[string]string{"adapter": adapter} }
	}
	if err := runIn(context.Background(), dir, "mine", assistant("mine"), as("v1")); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	model := assistant("mine")
	wantError(t, runIn(context.Background(), dir, "mine", model, as("v2")), "mine", `adapter "v1" instead of "v2"`)
	wantError(t, runIn(context.Background(), dir, "mine", model, as("v1"), func(o *RunOptions) { o.MaxTokens = 5 }),
		`max_tokens "1024" instead of "5"`)
	if model.calls > 0 || !maps.Equal(contents(t, dir), before) {
		t.Error("the model was asked, or a file changed")
	}
	write(t, filepath.Join(dir, answerFolder, "mine.jsonl"), nil)
	if err := runIn(context.Background(), dir, "mine", model, as("v2")); err != nil {
		t.Errorf("without the old answers: %v", err)
	}
}

func TestRunOptions(t *testing.T) {
	for name, spoil := range map[string]func(*RunOptions){
		"parallel":   func(o *RunOptions) { o.Parallel = 0 },
		"max-tokens": func(o *RunOptions) { o.MaxTokens = 0 },
	} {
		wantError(t, runIn(context.Background(), filepath.Join(t.TempDir(), "e"), "base", &fake{}, spoil), name)
	}
}
