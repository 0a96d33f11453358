package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/mtbench"
)

// evaluationFolder writes an evaluation of two models; the second is twice as good.
func evaluationFolder(t *testing.T, judged bool) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"question.jsonl": `{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}` + "\n",
		"model_answer/base.jsonl": `{"question_id": 81, "answer_id": "a", "model_id": "base", "choices": [{"index": ` +
			`0, "turns": ["One", "Two"]}], "tstamp": 1}` + "\n",
		"model_answer/tuned.jsonl": `{"question_id": 81, "answer_id": "b", "model_id": "tuned", "choices": ` +
			`[{"index": 0, "turns": ["Eins", "Zwei"]}], "tstamp": 1}` + "\n",
	}
	if judged {
		row := `{"question_id": 81, "model": "MODEL", "judge": ["gpt-4", "single-v1"], "user_prompt": "", ` +
			`"judgment": "[[SCORE]]", "score": SCORE, "turn": 1, "tstamp": 1}` + "\n"
		files["model_judgment/gpt-4_single.jsonl"] = strings.NewReplacer("MODEL", "base", "SCORE", "4").Replace(row) +
			strings.NewReplacer("MODEL", "tuned", "SCORE", "8").Replace(row)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMTBenchShow(t *testing.T) {
	show := func(args ...string) (string, error) {
		var out bytes.Buffer
		app := &cli.App{Writer: &out, ErrWriter: &out, Commands: []*cli.Command{mtbenchShowCommand()},
			ExitErrHandler: func(*cli.Context, error) {}}
		err := app.Run(append([]string{"veratune", "show"}, args...))
		return out.String(), err
	}
	dir := evaluationFolder(t, true)
	out, err := show("--out", dir)
	if err != nil || !strings.Contains(out, "tuned    8.00") || !strings.Contains(out, "+4.00") {
		t.Errorf("%s, %v", out, err)
	}

	page := filepath.Join(dir, "report.html")
	if err := os.WriteFile(page, []byte("older"), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err = show("--out", dir, "--baseline", "tuned", "--html", page, "--overwrite", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Baseline string
		Judges   []struct {
			Scores []struct {
				Overall    float64
				Difference *struct{ Mean float64 }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Baseline != "tuned" ||
		r.Judges[0].Scores[0].Overall != 8 || r.Judges[0].Scores[1].Difference.Mean != -4 {
		t.Errorf("%s, %v", out, err)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "Zwei") {
		t.Errorf("%.100s, %v", text, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 4 {
		t.Errorf("files are left behind: %v", files)
	}

	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--out", filepath.Join(dir, "none")}, "`veratune mtbench run`"},
		{[]string{"--out", evaluationFolder(t, false)}, "`veratune mtbench judge`"},
		{[]string{"--out", dir, "--judge", "nobody"}, "gpt-4"},
		{[]string{"--out", dir, "--baseline", "nothing"}, "base, tuned"},
		{[]string{"--out", dir, "--html", filepath.Join(dir, "no", "page.html")}, "there is no folder"},
		{[]string{"--out", dir, "more"}, "unexpected argument"},
	} {
		if _, err := show(c.args...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.args, err, c.says)
		}
	}
}

// TestMTBenchShowIsPlain has names and errors that would control the terminal.
func TestMTBenchShowIsPlain(t *testing.T) {
	dir := evaluationFolder(t, true)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.WriteFile(path, bytes.ReplaceAll(read(t, path), []byte(`"tuned"`),
			[]byte(`"tuned\u001b[2J\u009b2J\u007f"`)), 0o666)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--json"}, {"--judge", "no\x1b[2J\u009b2Jbody"},
		{"--baseline", "no\x1b[2J\u009b2Jbody"}, {"--out", "no\x1b[2J\u009b2Jwhere"}} {
		code, stdout, stderr := veratune(append([]string{"mtbench", "show", "--out", dir}, args...)...)
		if strings.ContainsAny(stdout+stderr, "\x1b\x7f\u009b") || !strings.Contains(stdout+stderr, `[2J\u009b2J`) {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
		if len(args) > 0 && args[0] == "--json" && !json.Valid([]byte(stdout)) {
			t.Errorf("no JSON: %s", stdout)
		}
	}
}

// TestReporterIsPlain reports the words of a server.
func TestReporterIsPlain(t *testing.T) {
	var out bytes.Buffer
	r := newReporter(&out, "judgments by a\x1b[2Jb")
	r.report(mtbench.Progress{Done: 1, Total: 2, Failed: 1,
		Err: fmt.Errorf("question 1: %w", errors.New("503 \x1b]0;x\a\rno"))})
	r.line.End()
	if strings.ContainsAny(out.String(), "\x1b\a\r") || !strings.Contains(out.String(), `a\x1b[2Jb 1/2`) ||
		!strings.Contains(out.String(), `503 \x1b]0;x\x07\x0dno`) {
		t.Errorf("%q", out.String())
	}
}
