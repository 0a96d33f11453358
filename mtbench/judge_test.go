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

// saying is a judge that always says the same.
func saying(words string) *fake {
	return &fake{reply: func(context.Context, []Message, Sampling) (string, error) { return words, nil }}
}

// pairwise makes a judgment a comparison with the baseline.
func pairwise(o *JudgeOptions) { o.Mode = ModePair }

func oneByOne(o *JudgeOptions) { o.Parallel = 1 }

// TestSingle checks every score against judgments made by hand.
func TestSingle(t *testing.T) {
	dir := answered(t, "base", "adapter")
	score := func(question, turn int, model string) float64 {
		return float64(question%5+turn*2) + map[string]float64{"base": 0, "adapter": 0.5}[model]
	}
	judge := &fake{reply: func(_ context.Context, c []Message, s Sampling) (string, error) {
		if s.MaxTokens != 2048 || s.Temperature != 0 {
			t.Errorf("%+v", s)
		}
		question, turn, models := asked(c)
		if len(models) != 1 {
			t.Errorf("asked about %v", models)
		}
		return fmt.Sprintf("Good. Rating: [[%g]]", score(question, turn, models[0])), nil
	}}
	judged, err := judgeIn(context.Background(), dir, judge)
	if err != nil || judged != (Judged{Judgments: 12}) || judge.calls != 12 {
		t.Fatalf("%+v after %d calls, %v", judged, judge.calls, err)
	}
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, q := range someQuestions() {
		for turn := 1; turn <= Turns; turn++ {
			for _, model := range []string{"adapter", "base"} {
				s := e.Singles["judge"][i]
				i++
				prompt, conversation, err := DefaultPrompts().Single(q,
					e.Answers[model][slices.IndexFunc(e.Answers[model], func(a Answer) bool {
						return a.QuestionID == q.ID
					})], turn)
				if err != nil {
					t.Fatal(err)
				}
				want := score(q.ID, turn, model)
				if s.QuestionID != q.ID || s.Turn != turn || s.Model != model || s.Score != want ||
					s.Judge != [2]string{"judge", prompt} || s.Time < 1e9 ||
					s.Judgment != fmt.Sprintf("Good. Rating: [[%g]]", want) ||
					s.UserPrompt != conversation[len(conversation)-1].Content {
					t.Errorf("%+v", s)
				}
			}
		}
	}
	if judged, err := judgeIn(context.Background(), dir, &fake{}); err != nil || judged.Judgments != 12 {
		t.Errorf("again: %+v, %v", judged, err)
	}
}

// TestPair has judgments by hand for every outcome. The judge sees the baseline's answer first in the second game.
func TestPair(t *testing.T) {
	dir := answered(t, "base", "adapter")
	says := map[string][2]string{ // of the games, by question and turn
		"12.1": {"[[A]]", "[[B]]"}, // the adapter twice
		"12.2": {"[[B]]", "[[A]]"}, // the base twice
		"3.1":  {"[[A]]", "[[A]]"}, // whichever is first
		"3.2":  {"[[C]]", "[[C]]"},
		"7.1":  {"[[B]]", "[[C]]"},
		"7.2":  {"[[A]]", "no idea"},
	}
	want := map[string][2]string{
		"12.1": {"model_1", "model_1"}, "12.2": {"model_2", "model_2"}, "3.1": {"model_1", "model_2"},
		"3.2": {"tie", "tie"}, "7.1": {"model_2", "tie"}, "7.2": {"model_1", "error"},
	}
	judge := &fake{reply: func(_ context.Context, c []Message, _ Sampling) (string, error) {
		question, turn, models := asked(c)
		game := slices.Index([]string{"adapter", "base"}, models[0])
		return says[fmt.Sprintf("%d.%d", question, turn)][game], nil
	}}
	judged, err := judgeIn(context.Background(), dir, judge, pairwise)
	if err != nil || judged != (Judged{Judgments: 6, Unreadable: 1}) {
		t.Fatalf("%+v, %v", judged, err)
	}
	if judge.calls != 12+2 { // two retries
		t.Errorf("%d calls", judge.calls)
	}
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Pairs["judge"] {
		of := fmt.Sprintf("%d.%d", p.QuestionID, p.Turn)
		if p.Model1 != "adapter" || p.Model2 != "base" || [2]string{p.G1Winner, p.G2Winner} != want[of] ||
			[2]string{p.G1Judgment, p.G2Judgment} != says[of] {
			t.Errorf("%+v", p)
		}
		if _, _, order := asked([]Message{{"user", p.G2UserPrompt}}); order[0] != "base" {
			t.Errorf("the second game shows %v", order)
		}
	}
}

func TestBaseline(t *testing.T) {
	dir := answered(t, "base", "one", "two")
	if _, err := judgeIn(context.Background(), dir, saying("[[C]]"), pairwise, func(o *JudgeOptions) {
		o.Baseline = "one"
	}); err != nil {
		t.Fatal(err)
	}
	if judged, err := judgeIn(context.Background(), dir, saying("[[C]]"), pairwise); err != nil ||
		judged.Judgments != 4*6 {
		t.Fatalf("%+v, %v", judged, err)
	}
	e, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	matches := map[[2]string]int{}
	for _, p := range e.Pairs["judge"] {
		matches[[2]string{p.Model1, p.Model2}]++
	}
	if want := map[[2]string]int{{"base", "one"}: 6, {"two", "one"}: 6, {"one", "base"}: 6,
		{"two", "base"}: 6}; !maps.Equal(matches, want) {
		t.Errorf("%v", matches)
	}
	_, err = judgeIn(context.Background(), dir, saying("[[C]]"), pairwise, func(o *JudgeOptions) {
		o.Baseline = "three"
	})
	wantError(t, err, "three", "base, one, two")
	_, err = judgeIn(context.Background(), answered(t, "base"), saying("[[C]]"), pairwise)
	wantError(t, err, "only base")
	_, err = judgeIn(context.Background(), answered(t), saying("[[C]]"))
	wantError(t, err, "question.jsonl")
}

// TestRetries asks again, warmer and with another seed, until a judgment can be read; the last one is kept where none
// can.
func TestRetries(t *testing.T) {
	for retries := range 4 {
		var mu sync.Mutex
		tries := map[string][]Sampling{}
		judge := &fake{reply: func(_ context.Context, c []Message, s Sampling) (string, error) {
			question, turn, _ := asked(c)
			mu.Lock()
			defer mu.Unlock()
			of := fmt.Sprintf("%d.%d", question, turn)
			tries[of] = append(tries[of], s)
			if of == "3.2" && len(tries[of]) < 3 {
				return fmt.Sprintf("hmm %d", len(tries[of])), nil
			}
			return "[[8]]", nil
		}}
		dir := answered(t, "base")
		judged, err := judgeIn(context.Background(), dir, judge, func(o *JudgeOptions) { o.Retries = retries })
		wantUnreadable, wantTries, wantScore, words := 1, retries+1, -1.0, fmt.Sprintf("hmm %d", retries+1)
		if retries >= 2 {
			wantUnreadable, wantTries, wantScore, words = 0, 3, 8, "[[8]]"
		}
		if err != nil || judged != (Judged{Judgments: 6, Unreadable: wantUnreadable}) ||
			len(tries["3.2"]) != wantTries || len(tries["12.1"]) != 1 {
			t.Errorf("%d retries: %+v, %v, %d tries", retries, judged, err, len(tries["3.2"]))
		}
		for i, s := range tries["3.2"] {
			if (s.Temperature > 0) != (i > 0) || i > 0 && s.Seed == tries["3.2"][i-1].Seed {
				t.Errorf("try %d: %+v", i, s)
			}
		}
		e, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if s := e.Singles["judge"][3]; s.QuestionID != 3 || s.Turn != 2 || s.Score != wantScore || s.Judgment != words {
			t.Errorf("%d retries: %+v", retries, s)
		}
		// What could not be read is a result, too.
		if judged, err := judgeIn(context.Background(), dir, &fake{}); err != nil ||
			judged.Unreadable != wantUnreadable {
			t.Errorf("again: %+v, %v", judged, err)
		}
	}
}

// TestRepeats draws further judgments, and adds only those that are missing when more are wanted later.
func TestRepeats(t *testing.T) {
	for _, mode := range []func(*JudgeOptions){func(*JudgeOptions) {}, pairwise} {
		dir := answered(t, "base", "adapter")
		once := saying("[[7]] [[A]]")
		first, err := judgeIn(context.Background(), dir, once, mode)
		if err != nil {
			t.Fatal(err)
		}
		more := saying("[[7]] [[A]]")
		judged, err := judgeIn(context.Background(), dir, more, mode, func(o *JudgeOptions) { o.Repeat = 3 })
		if err != nil || judged.Judgments != 3*first.Judgments || more.calls != 2*once.calls {
			t.Errorf("%+v after %+v, %d calls after %d, %v", judged, first, more.calls, once.calls, err)
		}
		seeds := map[uint64]bool{}
		for _, s := range more.samplings {
			if s.Temperature == 0 || seeds[s.Seed] {
				t.Errorf("%+v", s)
			}
			seeds[s.Seed] = true
		}
	}
}

// TestInterruptedJudging cancels at every call of the judge, then cuts the file at every byte of its last line; both
// resume to the same files.
func TestInterruptedJudging(t *testing.T) {
	for name, c := range map[string]struct {
		mode        func(*JudgeOptions)
		file        string
		calls, each int
	}{
		"single": {func(*JudgeOptions) {}, "judge_single.jsonl", 12, 1},
		"pair":   {pairwise, "judge_pair.jsonl", 12, 2},
	} {
		t.Run(name, func(t *testing.T) {
			start := answered(t, "base", "adapter")
			answers := filepath.Join(start, answerFolder)
			path := filepath.Join(start, judgmentFolder, c.file)
			if _, err := judgeIn(context.Background(), start, saying("[[6]] [[B]]"), c.mode); err != nil {
				t.Fatal(err)
			}
			want, wantAnswers := timeless(read(t, path)), contents(t, answers)
			check := func(what string) {
				t.Helper()
				if got := timeless(read(t, path)); string(got) != string(want) {
					t.Fatalf("%s: %s\nwant %s", what, got, want)
				}
			}
			for n := 1; n <= c.calls; n++ {
				write(t, path, nil)
				ctx, cancel := context.WithCancel(context.Background())
				calls := 0
				judge := &fake{reply: func(ctx context.Context, _ []Message, _ Sampling) (string, error) {
					if calls++; calls == n {
						cancel()
						return "", ctx.Err()
					}
					return "[[6]] [[B]]", nil
				}}
				if _, err := judgeIn(ctx, start, judge, c.mode, oneByOne); !errors.Is(err, context.Canceled) {
					t.Fatalf("%d: %v", n, err)
				}
				rest := saying("[[6]] [[B]]")
				if _, err := judgeIn(context.Background(), start, rest, c.mode); err != nil {
					t.Fatal(err)
				}
				if kept := (n - 1) / c.each * c.each; rest.calls != c.calls-kept {
					t.Errorf("%d: %d calls, %d were kept", n, rest.calls, kept)
				}
				check(fmt.Sprintf("interrupted at call %d", n))
			}
			whole := read(t, path)
			step := 1
			if testing.Short() { // the answers' file is cut at every byte nevertheless, and its code is the same
				step = 1 + (len(whole)-lastLine(whole))/50
			}
			for size := lastLine(whole); size <= len(whole); size += step {
				write(t, path, whole[:size])
				if _, err := judgeIn(context.Background(), start, saying("[[6]] [[B]]"), c.mode); err != nil {
					t.Fatal(err)
				}
				check(fmt.Sprintf("cut at %d of %d", size, len(whole)))
			}
			if !maps.Equal(contents(t, answers), wantAnswers) {
				t.Error("the answers were changed")
			}
		})
	}
}

func TestFailingJudgment(t *testing.T) {
	dir := answered(t, "base", "adapter")
	judge := &fake{reply: func(_ context.Context, c []Message, _ Sampling) (string, error) {
		if question, turn, models := asked(c); question == 7 && turn == 2 && models[0] == "adapter" {
			return "", errors.New("the server is on fire")
		}
		return "[[9]]", nil
	}}
	judged, err := judgeIn(context.Background(), dir, judge)
	var failed *Failed
	if !errors.As(err, &failed) || judged.Judgments != 11 {
		t.Fatalf("%+v, %v", judged, err)
	}
	wantError(t, err, "1 of 12 judgments failed", "question 7, turn 2, adapter: the server is on fire")
	rest := saying("[[9]]")
	if judged, err := judgeIn(context.Background(), dir, rest); err != nil || judged.Judgments != 12 ||
		rest.calls != 1 {
		t.Errorf("%+v, %d calls, %v", judged, rest.calls, err)
	}
}

// TestMissingAnswers judges what there is, and counts what there is not.
func TestMissingAnswers(t *testing.T) {
	dir := answered(t, "base", "adapter")
	path := filepath.Join(dir, answerFolder, "adapter.jsonl")
	whole := read(t, path)
	write(t, path, whole[:lastLine(whole)])
	if judged, err := judgeIn(context.Background(), dir, saying("[[4]]")); err != nil ||
		judged != (Judged{Judgments: 10, Missing: 2}) {
		t.Errorf("%+v, %v", judged, err)
	}
	if judged, err := judgeIn(context.Background(), dir, saying("[[A]]"), pairwise); err != nil ||
		judged != (Judged{Judgments: 4, Missing: 2}) {
		t.Errorf("%+v, %v", judged, err)
	}
}

// TestStaleJudgments are not mixed with those of other answers.
func TestStaleJudgments(t *testing.T) {
	dir := answered(t, "base", "adapter")
	for _, mode := range []func(*JudgeOptions){func(*JudgeOptions) {}, pairwise} {
		if _, err := judgeIn(context.Background(), dir, saying("[[4]] [[A]]"), mode); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, answerFolder, "adapter.jsonl")
	write(t, path, []byte(strings.Replace(string(read(t, path)), "<adapter 3.2>", "<adapter 3.2> and more", 1)))
	for file, mode := range map[string]func(*JudgeOptions){"judge_single.jsonl": func(*JudgeOptions) {},
		"judge_pair.jsonl": pairwise} {
		_, err := judgeIn(context.Background(), dir, &fake{}, mode)
		wantError(t, err, file, "question 3, turn 2, adapter", "other answers")
	}
}

func TestJudgeOptions(t *testing.T) {
	for says, spoil := range map[string]func(*JudgeOptions){
		"mode":     func(o *JudgeOptions) { o.Mode = "triple" },
		"baseline": func(o *JudgeOptions) { o.Baseline = "base" },
		"repeat":   func(o *JudgeOptions) { o.Repeat = 0 },
		"retries":  func(o *JudgeOptions) { o.Retries = -1 },
		"parallel": func(o *JudgeOptions) { o.Parallel = 0 },
	} {
		_, err := judgeIn(context.Background(), answered(t, "base"), &fake{}, spoil)
		wantError(t, err, says)
	}
}
