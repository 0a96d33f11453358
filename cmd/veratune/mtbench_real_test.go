package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/train"
)

// realEvaluation is an evaluation of SmolLM2 and an adapter on it.
type realEvaluation struct {
	*testing.T
	model, adapter string
	random         *rand.Rand // of the moments to kill at
}

const (
	realBase    = "base"
	realAdapter = "tuned"
)

// TestMTBenchOfSmolLM2 evaluates the real model against an adapter that it trains: 80 questions, judged by an endpoint
// whose every judgment is known, and a few of them by the model itself. Everything is killed at random moments and run
// again.
func TestMTBenchOfSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	t.Setenv(defaultKeyEnv, "")
	seed := uint64(time.Now().UnixNano())
	t.Logf("moments of seed %d", seed)
	e := &realEvaluation{T: t, model: testutil.SmolLM2(t), random: rand.New(rand.NewPCG(seed, 0))}
	work := t.TempDir()
	whole, killed, few := filepath.Join(work, "whole"), filepath.Join(work, "killed"), filepath.Join(work, "few")

	e.train(filepath.Join(work, realAdapter))
	e.command(e.runArgs(whole, "--parallel", "8")...)
	e.killed(killed, e.runArgs(killed, "--parallel", "8")...)
	e.same(killed, whole)
	e.checkAnswers(killed)
	e.answerFew(few, killed)

	judge := httptest.NewServer(http.HandlerFunc(e.serveJudgment))
	t.Cleanup(judge.Close)
	for _, mode := range []string{"single", "pair"} {
		args := func(out string) []string {
			return []string{"mtbench", "judge", "--endpoint", judge.URL + "/v1", "--judge", "stub", "--mode", mode,
				"--out", out}
		}
		e.command(args(whole)...)
		e.killed(killed, args(killed)...)
	}
	e.same(killed, whole)
	e.checkJudgments(killed)
	e.checkReport(killed)
	e.judgeFew(few)
}

// command runs the program in this process, and gives what it prints.
func (e *realEvaluation) command(args ...string) string {
	e.Helper()
	began := time.Now()
	code, stdout, stderr := veratune(args...)
	if code != 0 {
		e.Fatalf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
	}
	e.Logf("%.1f s: veratune %s", time.Since(began).Seconds(), strings.Join(args[:2], " "))
	return stdout
}

// train makes an adapter whose answers are not those of the model.
func (e *realEvaluation) train(out string) {
	e.adapter = filepath.Join(out, train.AdapterFile)
	e.command("alpaca", "--model", e.model, "--template", "chat", "--rank", "16", "--steps", "3", "--batch", "2",
		"--accumulation", "1", "--held-out", "0", "--lr", "0.1", "--out", out)
}

func (e *realEvaluation) runArgs(out string, more ...string) []string {
	return append([]string{"mtbench", "run", "--model", e.model, "--name", realBase, "--adapter", e.adapter,
		"--max-tokens", "16", "--out", out}, more...)
}

// killed runs the program as a process that is killed as soon as it has written certain numbers of rows, and in the end
// is left alone.
func (e *realEvaluation) killed(out string, args ...string) {
	e.Helper()
	began, before := time.Now(), countRows(e.T, out)
	moments := []int{1 + e.random.IntN(20), 30 + e.random.IntN(60), 90 + e.random.IntN(60)}
	kills := 0
	for {
		cmd, output := process(args...)
		if err := cmd.Start(); err != nil {
			e.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		err := wait(done, func() bool { return kills < len(moments) && countRows(e.T, out)-before >= moments[kills] })
		if err == nil {
			break
		}
		if err != errStillRunning {
			e.Fatalf("%v: %v: %s", args, err, output)
		}
		time.Sleep(time.Duration(e.random.IntN(50)) * time.Millisecond)
		cmd.Process.Kill()
		<-done
		kills++
	}
	e.Logf("%.1f s: veratune %s, killed %d times, at rows %v", time.Since(began).Seconds(), strings.Join(args[:2], " "),
		kills, moments[:kills])
	if kills == 0 {
		e.Error("the process ended before it could be killed")
	}
}

// countRows counts the lines of answers and judgments in a folder.
func countRows(t *testing.T, dir string) (n int) {
	files, _ := filepath.Glob(filepath.Join(dir, "model_*", "*.jsonl"))
	for _, path := range files {
		n += bytes.Count(read(t, path), []byte("\n"))
	}
	return n
}

// same compares the files of two folders, in all but the times at which rows were made.
func (e *realEvaluation) same(got, want string) {
	e.Helper()
	if g, w := evaluationFiles(e.T, got), evaluationFiles(e.T, want); g != w {
		e.Errorf("%s: differs from %s, which was left alone:\n%s\nwant\n%s", got, want, g, w)
	}
}

// jsonLines reads the rows of a file.
func jsonLines[T any](t *testing.T, path ...string) (list []T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(read(t, filepath.Join(path...))))
	for {
		var row T
		switch err := d.Decode(&row); err {
		case nil:
			list = append(list, row)
		case io.EOF:
			return list
		default:
			t.Fatal(err)
		}
	}
}

// answers gives what a model said, by question and turn.
func (e *realEvaluation) answers(dir, model string) map[int][]string {
	e.Helper()
	of := map[int][]string{}
	for _, a := range jsonLines[mtbench.Answer](e.T, dir, "model_answer", model+".jsonl") {
		if _, twice := of[a.QuestionID]; twice || a.ModelID != model {
			e.Errorf("%s: %+v is a duplicate or another's", model, a)
		}
		of[a.QuestionID] = a.Choices[0].Turns
	}
	return of
}

func (e *realEvaluation) checkAnswers(dir string) {
	base, tuned := e.answers(dir, realBase), e.answers(dir, realAdapter)
	differ := 0
	for _, q := range mtbench.Questions() {
		for model, turns := range map[string][]string{realBase: base[q.ID], realAdapter: tuned[q.ID]} {
			if len(turns) != 2 || strings.TrimSpace(turns[0]) == "" || strings.TrimSpace(turns[1]) == "" {
				e.Errorf("%s, question %d: %q", model, q.ID, turns)
			}
		}
		if !slices.Equal(base[q.ID], tuned[q.ID]) {
			differ++
		}
	}
	if len(base) != 80 || len(tuned) != 80 || differ < 40 {
		e.Errorf("%d and %d questions answered, %d in different ways", len(base), len(tuned), differ)
	}
}

// answerFew has one question of each category answered, other numbers of them together: the answers must be those that
// the models gave among 80 questions.
func (e *realEvaluation) answerFew(few, all string) {
	var questions []byte
	var ids []int
	for i, q := range mtbench.Questions() {
		if i%10 != i/10 {
			continue
		}
		line, err := json.Marshal(q)
		if err != nil {
			e.Fatal(err)
		}
		questions, ids = append(append(questions, line...), '\n'), append(ids, q.ID)
	}
	file := write(e.T, "few.jsonl", string(questions))
	e.command(e.runArgs(few, "--parallel", "3", "--questions", file)...)
	for _, model := range []string{realBase, realAdapter} {
		got, want := e.answers(few, model), e.answers(all, model)
		for _, id := range ids {
			if len(got) != len(ids) || !slices.Equal(got[id], want[id]) {
				e.Errorf("%s, question %d, with others than before: %q, want %q", model, id, got[id], want[id])
			}
		}
	}
}

// What the endpoint says follows from hashes of the question, the turn and the answers. Some judgments can be read at a
// second try only, some at none, and in some comparisons the first answer wins in either order.

func hashed(n uint32, values ...any) int {
	h := fnv.New32a()
	fmt.Fprintln(h, values...)
	return int(h.Sum32() / 7 % n)
}

// points is the grade of an answer.
func points(question, turn int, answer string) float64 {
	return 1 + float64(hashed(19, question, turn, answer))/2
}

func unscored(question, turn int, answer string) bool {
	return hashed(15, "unscored", question, turn, answer) == 0
}

func firstPreferred(question, turn int) bool { return hashed(6, "first", question, turn) == 0 }
func undecided(question, turn int) bool      { return hashed(12, "undecided", question, turn) == 0 }

func (e *realEvaluation) serveJudgment(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Messages    []struct{ Content string }
		Temperature float64
		MaxTokens   int `json:"max_tokens"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // killed as it asked
	}
	if err := json.Unmarshal(body, &q); err != nil || q.MaxTokens != 2048 || len(q.Messages) == 0 {
		e.Errorf("%v, %s", err, body)
		return
	}
	question, turn, answers := e.parts(q.Messages[len(q.Messages)-1].Content)
	says := fmt.Sprintf("Grade: [[%g]]", points(question, turn, answers[0]))
	none := unscored(question, turn, answers[0])
	if len(answers) == 2 {
		a, b := points(question, turn, answers[0]), points(question, turn, answers[1])
		switch {
		case a > b || firstPreferred(question, turn):
			says = "[[A]]"
		case a < b:
			says = "[[B]]"
		default:
			says = "[[C]]"
		}
		none = undecided(question, turn)
	}
	if none || q.Temperature == 0 && hashed(5, "at once", question, turn) == 0 {
		says = "I cannot say."
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": `+
		`%q}}]}`, says)
}

// parts takes a judge's prompt apart: the question, the turn, and the answers to it in their order.
func (e *realEvaluation) parts(prompt string) (question, turn int, answers []string) {
	sections := map[string]string{}
	for _, s := range strings.Split("\n"+prompt, "\n=== ") {
		name, text, _ := strings.Cut(s, " ===\n")
		sections[name] = strings.TrimSpace(text)
	}
	turn, first, nth := 1, sections["Question"], ""
	if _, second := sections["Second question"]; second {
		turn, first, nth = 2, sections["First question"], "second "
	}
	for _, name := range []string{"Assistant's ", "A's ", "B's "} {
		if answer, there := sections[name+nth+"answer"]; there {
			answers = append(answers, answer)
		}
	}
	for _, q := range mtbench.Questions() {
		if strings.TrimSpace(q.Turns[0]) == first {
			return q.ID, turn, answers
		}
	}
	e.Errorf("a prompt about no question: %s", prompt)
	return 0, turn, append(answers, "")
}

// expected are the scores that the rule gives a model, computed in the plainest way.
type expected struct {
	sum, n   float64
	turn     [2]struct{ sum, n float64 }
	category map[string]float64 // sums
	of       map[string]float64 // answers
	unscored int
}

func (e *realEvaluation) expect(answers map[int][]string) expected {
	x := expected{category: map[string]float64{}, of: map[string]float64{}}
	for _, q := range mtbench.Questions() {
		for i, text := range answers[q.ID] {
			text = strings.TrimSpace(text)
			if unscored(q.ID, i+1, text) {
				x.unscored++
				continue
			}
			score := points(q.ID, i+1, text)
			x.sum, x.n = x.sum+score, x.n+1
			x.turn[i].sum, x.turn[i].n = x.turn[i].sum+score, x.turn[i].n+1
			x.category[q.Category] += score
			x.of[q.Category]++
		}
	}
	return x
}

// outcome is 1 where the adapter's answer wins, -1 where the model's does.
func outcome(question, turn int, base, tuned string) (v int, ok bool) {
	b, t := points(question, turn, strings.TrimSpace(base)), points(question, turn, strings.TrimSpace(tuned))
	switch {
	case undecided(question, turn):
		return 0, false
	case firstPreferred(question, turn) || t == b:
		return 0, true // the orders disagree, or the answers are equal
	case t > b:
		return 1, true
	}
	return -1, true
}

// checkJudgments holds every row to the rule.
func (e *realEvaluation) checkJudgments(dir string) {
	answers := map[string]map[int][]string{realBase: e.answers(dir, realBase), realAdapter: e.answers(dir, realAdapter)}
	seen := map[string]bool{}
	for _, s := range jsonLines[mtbench.Single](e.T, dir, "model_judgment", "stub_single.jsonl") {
		text := strings.TrimSpace(answers[s.Model][s.QuestionID][s.Turn-1])
		want := points(s.QuestionID, s.Turn, text)
		if unscored(s.QuestionID, s.Turn, text) {
			want = -1
		}
		if s.Score != want {
			e.Errorf("%+v, want %g", s, want)
		}
		seen[fmt.Sprint(s.Model, s.QuestionID, s.Turn)] = true
	}
	for _, p := range jsonLines[mtbench.Pair](e.T, dir, "model_judgment", "stub_pair.jsonl") {
		v, ok := outcome(p.QuestionID, p.Turn, answers[p.Model2][p.QuestionID][p.Turn-1],
			answers[p.Model1][p.QuestionID][p.Turn-1])
		want := [2]string{"tie", "tie"}
		switch {
		case !ok:
			want = [2]string{"error", "error"}
		case firstPreferred(p.QuestionID, p.Turn):
			want = [2]string{"model_1", "model_2"}
		case v > 0:
			want = [2]string{"model_1", "model_1"}
		case v < 0:
			want = [2]string{"model_2", "model_2"}
		}
		if got := [2]string{p.G1Winner, p.G2Winner}; got != want || p.Model1 != realAdapter || p.Model2 != realBase {
			e.Errorf("%+v, want %v", p, want)
		}
		seen[fmt.Sprint("pair", p.QuestionID, p.Turn)] = true
	}
	if rows := countRows(e.T, dir) - 2*80; rows != 3*160 || len(seen) != rows {
		e.Errorf("%d judgments of %d matches, want %d", rows, len(seen), 3*160)
	}
}

// checkReport holds what show prints to the rule.
func (e *realEvaluation) checkReport(dir string) {
	page := filepath.Join(dir, "report.html")
	report := e.report(dir, "stub", "--html", page)
	base, tuned := e.answers(dir, realBase), e.answers(dir, realAdapter)
	want := map[string]expected{realBase: e.expect(base), realAdapter: e.expect(tuned)}
	for _, m := range report.Scores {
		x := want[m.Model]
		// Grades are halves, whose sums are exact.
		if got, mean := float64(m.Overall), x.sum/x.n; got != mean {
			e.Errorf("%s: %v overall, want %v", m.Model, got, mean)
		}
		for i, turn := range x.turn {
			if got, mean := float64(m.Turns[i]), turn.sum/turn.n; got != mean {
				e.Errorf("%s: %v in turn %d, want %v", m.Model, got, i+1, mean)
			}
		}
		for _, c := range mtbench.Categories {
			if got, mean := float64(m.Categories[c].Overall), x.category[c]/x.of[c]; got != mean {
				e.Errorf("%s: %v in %s, want %v", m.Model, got, c, mean)
			}
		}
		if m.Judgments != 160 || m.Unscored != x.unscored || x.unscored == 0 || m.Unjudged != 0 ||
			!(m.Interval[0] < m.Overall && m.Overall < m.Interval[1]) {
			e.Errorf("%+v, want %d without a score", m, x.unscored)
		}
	}
	e.checkDifference(report.Scores, base, tuned)

	var win, tie, loss, none int
	for id := range base {
		for i := range base[id] {
			switch v, ok := outcome(id, i+1, base[id][i], tuned[id][i]); {
			case !ok:
				none++
			case v > 0:
				win++
			case v < 0:
				loss++
			default:
				tie++
			}
		}
	}
	if len(report.Baseline) != 1 || len(report.All) != 0 {
		e.Fatalf("comparisons %+v, %+v", report.Baseline, report.All)
	}
	c, n := report.Baseline[0], float64(win+tie+loss)
	if c.Model != realAdapter || c.Win != win || c.Tie != tie || c.Loss != loss || c.Failed != none ||
		c.Judged != 160 || c.Answered != 160 || c.Unjudged != 0 ||
		float64(c.WinRate) != float64(win)/n || float64(c.LossRate) != float64(loss)/n ||
		float64(c.Adjusted) != (float64(win)+float64(tie)/2)/n {
		e.Errorf("%+v, want %d wins, %d ties, %d losses, %d without a verdict", c, win, tie, loss, none)
	}
	if win == 0 || tie == 0 || loss == 0 || none == 0 {
		e.Errorf("the rule gives %d wins, %d ties, %d losses, %d without a verdict: all should occur", win, tie,
			loss, none)
	}
	if text := read(e.T, page); !bytes.Contains(text, []byte("<html")) || !bytes.Contains(text, []byte(realAdapter)) {
		e.Errorf("the page is %.200s", text)
	}
}

// checkDifference compares the models on the answers for which both have a score.
func (e *realEvaluation) checkDifference(list []mtbench.ModelScores, base, tuned map[int][]string) {
	var sum, n float64
	for id := range base {
		for i := range base[id] {
			b, t := strings.TrimSpace(base[id][i]), strings.TrimSpace(tuned[id][i])
			if !unscored(id, i+1, b) && !unscored(id, i+1, t) {
				sum, n = sum+points(id, i+1, t)-points(id, i+1, b), n+1
			}
		}
	}
	if len(list) != 2 || list[0].Overall < list[1].Overall {
		e.Errorf("%d models, or not the best first", len(list))
	}
	for _, m := range list {
		if (m.Difference != nil) != (m.Model == realAdapter) || m.Difference != nil &&
			float64(m.Difference.Mean) != sum/n {
			e.Errorf("%s: difference %+v, want %v", m.Model, m.Difference, sum/n)
		}
	}
}

// report is what show prints about one judge.
func (e *realEvaluation) report(dir, judge string, more ...string) mtbench.JudgeReport {
	e.Helper()
	var r mtbench.Report
	if err := json.Unmarshal([]byte(
		e.command(append([]string{"mtbench", "show", "--json", "--judge", judge, "--out", dir}, more...)...)),
		&r); err != nil {
		e.Fatal(err)
	}
	if len(r.Judges) != 1 || r.Baseline != realBase {
		e.Fatalf("%+v", r)
	}
	return r.Judges[0]
}

// judgeFew has the model judge itself, which it does so badly that most judgments give nothing: they are there all the
// same, and are counted.
func (e *realEvaluation) judgeFew(dir string) {
	for _, mode := range []string{"single", "pair"} {
		out := e.command("mtbench", "judge", "--judge-model", e.model, "--judge", "smollm2", "--mode", mode,
			"--retries", "0", "--max-tokens", "16", "--out", dir)
		e.Logf("%s", out)
		judged, none := 0, 0
		if _, err := fmt.Sscanf(out, "%d judgments by smollm2, mode "+mode+"; %d of them", &judged, &none); err != nil {
			e.Errorf("%q: %v", out, err)
		}
		counted, rows := 0, 0
		if mode == "single" {
			for _, s := range jsonLines[mtbench.Single](e.T, dir, "model_judgment", "smollm2_single.jsonl") {
				rows++
				if s.Score == -1 {
					counted++
				}
			}
		} else {
			for _, p := range jsonLines[mtbench.Pair](e.T, dir, "model_judgment", "smollm2_pair.jsonl") {
				rows++
				if p.G1Winner == "error" || p.G2Winner == "error" {
					counted++
				}
			}
		}
		if judged != rows || none != counted || rows != map[string]int{"single": 2 * 8 * 2, "pair": 8 * 2}[mode] {
			e.Errorf("%d rows, %d of them without a score or winner; %q", rows, counted, out)
		}
	}
	report := e.report(dir, "smollm2", "--html", filepath.Join(dir, "report.html"))
	if len(report.Scores) != 2 || len(report.Baseline) != 1 {
		e.Errorf("%+v", report)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err != nil {
		e.Error(err)
	}
}
