package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/train"
)

const someQuestions = `{"question_id": 5, "category": "writing", "turns": ["Sing a song.", "Once more."]}
{"question_id": 2, "category": "math", "turns": ["1+1?", "2+2?"], "reference": ["2", "4"]}
`

// judgeStub is an endpoint that grades every answer with 7 and prefers the first, but fails where told to.
func judgeStub(t *testing.T, fail func(prompt string) bool) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Messages []struct{ Content string } }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		if fail(q.Messages[len(q.Messages)-1].Content) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error": {"message": "no more, %s"}}`, r.Header.Get("Authorization"))
			return
		}
		io.WriteString(w, `{"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", `+
			`"content": "Rating: [[7]], winner: [[A]]"}}]}`)
	}))
	t.Cleanup(s.Close)
	return s
}

var timestamp = regexp.MustCompile(`"tstamp":[0-9.e+]+`)

// evaluationFiles gives the files of a folder, without the times at which rows were made.
func evaluationFiles(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			fmt.Fprintf(&all, "%s\n%s\n", strings.TrimPrefix(path, dir),
				timestamp.ReplaceAllString(string(read(t, path)), ""))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestMTBench answers with a model and an adapter, and has the answers judged over an endpoint and by the model itself.
func TestMTBench(t *testing.T) {
	const key = "sk-of-the-test"
	t.Setenv("JUDGE_KEY", key)
	model, work := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), t.TempDir()
	trained := filepath.Join(work, "mine")
	if code, _, stderr := veratune(alpacaArgs(model, rows(t, 20), trained)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	questions, out := write(t, "questions.jsonl", someQuestions), filepath.Join(work, "evaluation")
	run := []string{"mtbench", "run", "--model", model, "--adapter", filepath.Join(trained, train.AdapterFile),
		"--questions", questions, "--max-tokens", "6", "--threads", "1", "--out", out}
	code, stdout, stderr := veratune(run...)
	if code != 0 || !strings.Contains(stdout, "tiny: all 2") || !strings.Contains(stdout, "mine: all 2") ||
		!strings.Contains(stderr, "answers of mine 2/2") {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	answers := evaluationFiles(t, out)

	var mu sync.Mutex
	healthy := false
	server := judgeStub(t, func(prompt string) bool {
		mu.Lock()
		defer mu.Unlock()
		return !healthy && strings.Contains(prompt, "Once more.")
	})
	judge := []string{"mtbench", "judge", "--out", out, "--endpoint", server.URL + "/v1", "--judge", "a/judge",
		"--key-env", "JUDGE_KEY"}
	code, stdout, stderr = veratune(judge...)
	if code != exitFailed || !strings.Contains(stdout, "6 judgments by a/judge") ||
		strings.Count(stderr, "question 5, turn 2, ") != 2+1 || !strings.Contains(stderr, "no more, Bearer [key]") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	mu.Lock()
	healthy = true
	mu.Unlock()
	for _, more := range [][]string{nil, {"--mode", "pair"}} {
		if code, stdout, stderr := veratune(append(judge, more...)...); code != 0 ||
			!strings.Contains(stdout, "0 of them give no") {
			t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
		}
	}
	code, stdout, stderr = veratune("mtbench", "judge", "--out", out, "--judge-model", model, "--judge", "itself",
		"--retries", "1", "--threads", "1", "--parallel", "2")
	if !strings.Contains(stdout+stderr, "itself") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}

	e, err := mtbench.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Models, []string{"tiny", "mine"}) || len(e.Singles["a/judge"]) != 8 ||
		len(e.Pairs["a/judge"]) != 4 {
		t.Errorf("%v, %d grades, %d comparisons", e.Models, len(e.Singles["a/judge"]), len(e.Pairs["a/judge"]))
	}
	for _, s := range e.Singles["a/judge"] {
		if s.Score != 7 {
			t.Errorf("%+v", s)
		}
	}
	for _, p := range e.Pairs["a/judge"] {
		if p.Model1 != "mine" || p.Model2 != "tiny" || p.G1Winner != "model_1" || p.G2Winner != "model_2" {
			t.Errorf("%+v", p)
		}
	}

	// The same once more changes nothing; in another folder it makes the same answers.
	before := evaluationFiles(t, out)
	if code, _, stderr := veratune(run...); code != 0 || evaluationFiles(t, out) != before ||
		strings.Contains(before, key) {
		t.Errorf("exit code %d, %q; the files changed, or hold the key", code, stderr)
	}
	run[len(run)-1] = filepath.Join(work, "another")
	if code, _, stderr := veratune(append(run, "--parallel", "1")...); code != 0 ||
		evaluationFiles(t, run[len(run)-1]) != answers {
		t.Errorf("exit code %d, %q; the answers differ", code, stderr)
	}
}

// TestMTBenchKilled kills a run with SIGKILL, and once with an interrupt, at several moments; the same command then
// makes the files that it makes when it is left alone.
func TestMTBenchKilled(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	var list strings.Builder
	for i := range 20 {
		fmt.Fprintf(&list, `{"question_id": %d, "category": "roleplay", "turns": ["Be number %d.", "Be it again."]}`+"\n", 40-i, i)
	}
	questions := write(t, "questions.jsonl", list.String())
	args := func(out string) []string {
		return []string{"mtbench", "run", "--model", model, "--questions", questions, "--max-tokens", "30", "--threads",
			"1", "--parallel", "3", "--template", "alpaca", "--out", out}
	}
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "killed")
	if code, _, stderr := veratune(args(whole)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	answers := filepath.Join(out, "model_answer", "tiny.jsonl")
	for kept := 0; ; kept++ {
		cmd, output := process(args(out)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		signal := syscall.SIGKILL
		if kept == 0 {
			signal = syscall.SIGINT
		}
		// Every attempt may keep some answers more, so that the last one is left to end.
		err := wait(done, func() bool {
			data, _ := os.ReadFile(answers)
			return kept < 5 && bytes.Count(data, []byte("\n")) > 3*kept
		})
		if err == errStillRunning {
			cmd.Process.Signal(signal)
			err = <-done
			var exit *exec.ExitError
			if signal == syscall.SIGINT && (!errors.As(err, &exit) || exit.ExitCode() != exitInterrupted ||
				!strings.Contains(output.String(), "are kept")) {
				t.Errorf("%v after an interrupt: %s", err, output)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		break
	}
	if got, want := evaluationFiles(t, out), evaluationFiles(t, whole); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

var errStillRunning = errors.New("still running")

// wait waits for the end of a process, or for something to happen before.
func wait(done <-chan error, happened func() bool) error {
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(time.Millisecond):
			if happened() {
				return errStillRunning
			}
		}
	}
}

func TestMTBenchBadInput(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	questions := write(t, "questions.jsonl", someQuestions)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no model": {[]string{"run"}, exitUsage, "model"},
		"same names": {[]string{"run", "--model", model, "--adapter", "a/mine/adapter.gguf", "--adapter",
			"b/mine/adapter.gguf"}, exitUsage, "NAME=b/mine/adapter.gguf"},
		"name of the model": {[]string{"run", "--model", model, "--adapter", "Tiny=other.gguf"}, exitUsage,
			"called Tiny"},
		"no adapter": {[]string{"run", "--model", model, "--adapter", "x=nowhere.gguf", "--questions",
			questions}, exitFailed, "nowhere.gguf"},
		"no questions": {[]string{"run", "--model", model, "--questions", "nowhere.jsonl"}, exitFailed,
			"nowhere.jsonl"},
		"references": {[]string{"run", "--model", model, "--references", questions}, exitUsage, "--questions"},
		"parallel":   {[]string{"run", "--model", model, "--parallel", "0"}, exitUsage, "parallel"},
		"max-tokens": {[]string{"run", "--model", model, "--max-tokens", "0"}, exitUsage, "max-tokens"},
		"template":   {[]string{"run", "--model", model, "--template", "poem"}, exitUsage, "chat"},
		"argument":   {[]string{"run", "--model", model, "surplus"}, exitUsage, "surplus"},
		"no judge":   {[]string{"judge"}, exitUsage, "give one of them"},
		"two judges": {[]string{"judge", "--judge-model", model, "--endpoint", "http://localhost:1/v1"},
			exitUsage, "give one of them"},
		"nameless": {[]string{"judge", "--endpoint", "http://localhost:1/v1"}, exitUsage, "--judge"},
		"no URL":   {[]string{"judge", "--endpoint", "localhost:1", "--judge", "x"}, exitUsage, "http://"},
		"no key": {[]string{"judge", "--endpoint", "http://localhost:1/v1", "--judge", "x", "--key-env",
			"NO_SUCH_VARIABLE"}, exitUsage, "NO_SUCH_VARIABLE"},
		"timeout": {[]string{"judge", "--endpoint", "http://localhost:1/v1", "--judge", "x", "--timeout",
			"0s"}, exitUsage, "timeout"},
		"timeout of none": {[]string{"judge", "--judge-model", model, "--timeout", "1s"}, exitUsage, "timeout"},
		"threads of none": {[]string{"judge", "--endpoint", "http://localhost:1/v1", "--judge", "x", "--threads",
			"1"}, exitUsage, "threads"},
		"mode": {[]string{"judge", "--judge-model", model, "--mode", "triple"}, exitUsage,
			"single or pair"},
		"baseline":          {[]string{"judge", "--judge-model", model, "--baseline", "x"}, exitUsage, "pair"},
		"retries":           {[]string{"judge", "--judge-model", model, "--retries", "-1"}, exitUsage, "retries"},
		"judgment's tokens": {[]string{"judge", "--judge-model", model, "--max-tokens", "0"}, exitUsage, "max-tokens"},
		"repeat":            {[]string{"judge", "--judge-model", model, "--repeat", "0"}, exitUsage, "repeat"},
		"no answers":        {[]string{"judge", "--judge-model", model}, exitFailed, "mtbench run"},
		"command":           {[]string{"jugde"}, exitUsage, "jugde"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "evaluation")
			args := slices.Concat([]string{"mtbench", c.args[0], "--out", out}, c.args[1:])
			code, stdout, stderr := veratune(args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d; %q does not say %q; %q", code, c.code, stderr, c.says, stdout)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("the evaluation folder was made")
			}
		})
	}
}
