package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// stepAdapter writes an adapter that says after how many steps.
func stepAdapter(t *testing.T, base vera.Base, path, step string, facts ...string) {
	t.Helper()
	a, err := vera.Load(randomAdapter(t, base, 0.1, nil), base)
	if err != nil {
		t.Fatal(err)
	}
	a.Facts["steps"] = step
	for _, name := range facts {
		a.Facts[name] = "true"
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
}

// TestFoundAdapter names folders of runs in every state where an adapter is wanted.
func TestFoundAdapter(t *testing.T) {
	base := exact(t, testutil.TinyLlama(t, testutil.TinyOptions{})).Base()
	const (
		best, last = train.BestFile, train.AdapterFile
		second     = "checkpoints/step-9/" + train.AdapterFile
		third      = "checkpoints/step-10/" + train.AdapterFile
	)
	for name, c := range map[string]struct {
		files map[string]string // steps of the adapters there
		want  string            // the adapter, or a part of the error
		which string
	}{
		"best": {map[string]string{best: "4", last: "12", third: "10"}, best,
			"step 4, the lowest held-out loss"},
		"last": {map[string]string{last: "12", third: "10"}, last, "step 12, the last"},
		"killed after a halt": {map[string]string{last: "8", second: "9", third: "10"}, third,
			"step 10, the newest checkpoint"},
		"interrupted": {map[string]string{last: "10 interrupted", third: "10"}, last,
			"step 10, where training was interrupted"},
		"checkpoints":  {map[string]string{second: "9", third: "10"}, third, "step 10, the newest checkpoint"},
		"a checkpoint": {map[string]string{last: "9"}, last, "step 9, the last"},
		"begun":        {map[string]string{train.ConfigFile: ""}, "has no adapter yet", ""},
		"empty": {nil, "is no run, and holds none; want an adapter file, a run folder or a folder " +
			"of PEFT", ""},
		"a folder of runs": {map[string]string{"a/" + train.ConfigFile: "", "b/" + train.ConfigFile: ""},
			"is no run, but holds some; name one of them: ", ""},
		"sweep": {map[string]string{
			train.SweepFile: `{"best":{"options":{"lr":"1e-3"},"run":"elsewhere/runs/2"}}`, "runs/1/" + best: "3",
			"runs/2/" + best: "5",
		}, "runs/2/" + best, "step 5, the lowest held-out loss, of the sweep's best run: lr 1e-3"},
		"sweep that goes on": {map[string]string{train.SweepFile: `{"best":null}`, "runs/1/" + best: "3"},
			"has no best run", ""},
		"sweep that is broken": {map[string]string{train.SweepFile: `{`}, "sweep ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for path, content := range c.files {
				path = filepath.Join(folder, path)
				if strings.HasSuffix(path, ".gguf") {
					words := strings.Fields(content)
					stepAdapter(t, base, path, words[0], words[1:]...)
					continue
				}
				os.MkdirAll(filepath.Dir(path), 0o777)
				if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			var report strings.Builder
			got, err := found(folder, &report)
			if c.which == "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%q, %v", got, err)
				}
				return
			}
			want := filepath.Join(folder, c.want)
			if line := fmt.Sprintf("taking %s (%s)\n", want, c.which); err != nil || got != want ||
				report.String() != line {
				t.Errorf("%q, %v, %q; want %q", got, err, report.String(), line)
			}
		})
	}
}

// TestRunFolderIsTaken names a run where commands take an adapter, and a folder of runs where they take runs.
func TestRunFolderIsTaken(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	base := exact(t, path).Base()
	parent := t.TempDir()
	run, data := filepath.Join(parent, "deep", "a"), rows(t, 20)
	if code, _, stderr := veratune(alpacaArgs(path, data, run, "--max-steps", "2")...); code != 0 {
		t.Fatal(stderr)
	}
	stepAdapter(t, base, filepath.Join(run, train.BestFile), "2")
	other := filepath.Join(parent, "b")
	if code, _, stderr := veratune(alpacaArgs(path, data, other, "--max-steps", "2")...); code != 0 {
		t.Fatal(stderr)
	}
	taking := "taking " + filepath.Join(run, train.BestFile) + " (step 2, the lowest held-out loss)\n"
	for _, args := range [][]string{
		{"inspect", run}, {"inspect", run + "/", "--json"},
		{"generate", "--model", path, "--adapter", run, "--max-tokens", "2", "--threads", "1", "-p", "add"},
		{"loss", "--model", path, "--adapter", run, "--data", data, "--threads", "1"},
		{"export", "--model", path, "--adapter", run, "--to", "lora", "--out", filepath.Join(t.TempDir(), "lora.gguf"),
			"--threads", "1", "--data", data},
		{"export", "--model", path, "--adapter", run, "--to", "peft", "--out", filepath.Join(t.TempDir(), "peft"),
			"--threads", "1"},
		{"bench", "generate", "--model", path, "--adapter", run, "--threads", "1", "--rounds", "1", "--tokens", "2",
			"--prompt", "2", "--parallel", "1"},
		{"mtbench", "run", "--model", path, "--adapter", "mine=" + run, "--out", t.TempDir(), "--max-tokens", "2",
			"--threads", "1", "--questions", write(t, "question.jsonl", someQuestions)},
		{"alpaca", "--model", path, "--data", data, "--from", run, "--out", filepath.Join(t.TempDir(), "next"),
			"--threads", "1", "--max-steps", "1"},
		{"plan", "--model", path, "--data", data, "--from", run, "--threads", "1"},
	} {
		code, stdout, stderr := veratune(args...)
		if code != 0 || !strings.Contains(stderr, taking) || strings.Contains(stdout, "taking ") {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
	code, stdout, stderr := veratune("compare", "--json", parent)
	var reports []train.Report
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || code != 0 || len(reports) != 2 ||
		reports[0].Folder != other || reports[1].Folder != run {
		t.Errorf("%v, exit code %d, %+v, %s", err, code, reports, stderr)
	}
	page := filepath.Join(t.TempDir(), "page.html")
	code, _, stderr = veratune("watch", "--html", page, parent)
	if code != 0 || !strings.Contains(string(read(t, page)), `"name":"`+run+`"`) ||
		!strings.Contains(string(read(t, page)), `"name":"`+other+`"`) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

// TestFoundData names files of rows in every way, in every command that takes them.
func TestFoundData(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	folder := t.TempDir()
	row := func(i int) string { return fmt.Sprintf(`{"instruction":"add %d","output":"it is %d"}`+"\n", i, i+1) }
	for name, content := range map[string]string{
		"b.jsonl": row(1) + row(2), "a.json": row(3), "c.CSV": "instruction,output\nadd 4,it is 5\n",
		"README.md": "# Rows\n", ".hidden": "", "part-0": row(6), "x,y.jsonl": row(7),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(folder, "below.jsonl"), 0o777); err != nil {
		t.Fatal(err)
	}
	in := func(names ...string) string {
		for i, name := range names {
			names[i] = filepath.Join(folder, name)
		}
		return strings.Join(names, ", ")
	}
	for _, c := range []struct {
		named   string
		files   string
		skipped string
		wrong   string
	}{
		{named: in("a.json"), files: in("a.json")},
		{named: in("a.json") + ":0.5", files: in("a.json:0.5")},
		{named: in("x,y.jsonl"), files: in("x,y.jsonl")},
		{named: in("part-0"), files: in("part-0")},
		{named: folder, files: in("a.json", "b.jsonl", "c.CSV", "x,y.jsonl"),
			skipped: in(".hidden", "README.md", "below.jsonl", "part-0")},
		{named: folder + "/:2", files: in("a.json:2", "b.jsonl:2", "c.CSV:2", "x,y.jsonl:2"),
			skipped: in(".hidden", "README.md", "below.jsonl", "part-0")},
		{named: in("*.json*"), files: in("a.json", "b.jsonl", "x,y.jsonl"), skipped: in("below.jsonl")},
		{named: in("[ab].*:0.25"), files: in("a.json:0.25", "b.jsonl:0.25")},
		{named: filepath.Dir(folder) + "/**/{a,b}.json*", files: in("a.json", "b.jsonl")},
		{named: in("b.jsonl") + "," + in("a.json"), files: in("b.jsonl", "a.json")},
		{named: in("b.jsonl") + ":3," + in("a.json") + ":0.5", files: in("b.jsonl:3", "a.json:0.5")},
		{named: in("below.jsonl"), wrong: "no file in this folder is called as data are: .json, .jsonl"},
		{named: in("*.parquet"), wrong: "no file matches"},
		{named: in("[ab.json"), wrong: "a bracket in it has no end"},
		{named: in("a.json") + "," + in("none.json"), files: in("a.json", "none.json")},
	} {
		var d dataFiles
		if err := d.Set(c.named); err != nil {
			t.Fatal(err)
		}
		var report strings.Builder
		list, err := session.Find(d, reportTo(&report))
		files := dataFiles(list)
		if c.wrong != "" {
			if err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%s: %v", c.named, err)
			}
			continue
		}
		if skipped := either(c.skipped == "", "", "skipped: "+c.skipped+"\n"); err != nil ||
			files.String() != c.files || report.String() != skipped {
			t.Errorf("%s: %v, %v, %q", c.named, files.String(), err, report.String())
		}
	}
	five := []string{"--model", model, "--threads", "1", "--data", folder}
	for _, c := range []struct {
		args []string
		want string
	}{
		{slices.Concat([]string{"loss", "--json"}, five), `"rows":5`},
		{slices.Concat([]string{"alpaca", "--out", filepath.Join(t.TempDir(), "run"), "--rank", "2", "--max-steps", "1",
			"--eval-data", in("*.json")}, five), "held-out loss"},
		{slices.Concat([]string{"plan"}, five), "largest pass"},
		{slices.Concat([]string{"bench", "train", "--rank", "2", "--batch", "2", "--accumulation", "1"}, five),
			"tokens/s"},
		{[]string{"data", "check", "--model", model, "--json", folder}, `"rows":5`},
		{[]string{"data", "show", "--model", model, "--json", in("*.json")}, `"file":"` + in("a.json") + `"`},
		{[]string{"data", "convert", in("{a,b}.json*")}, `it is 2`},
	} {
		if code, stdout, stderr := veratune(c.args...); code != 0 || !strings.Contains(stdout, c.want) {
			t.Errorf("%v: exit code %d, %q, %q", c.args, code, stdout, stderr)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"loss", "--model", model, "--data", in("a.json") + ":2"}, "a weight is for training"},
		{[]string{"alpaca", "--model", model, "--data", in("a.json"), in("b.jsonl")}, "each file has --data before it"},
		{[]string{"data", "check", "--model", model}, "data check takes one file of rows or more"},
		{[]string{"loss", "--model", model}, "data: is missing"},
	} {
		if code, _, stderr := veratune(c.args...); code != exitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %q", c.args, code, stderr)
		}
	}
}

// TestAdapterNames calls adapters after their runs.
func TestAdapterNames(t *testing.T) {
	for path, want := range map[string]string{
		"runs/a/adapter.gguf": "a", "runs/a/best.gguf": "a-best", "runs/a/checkpoints/step-9/adapter.gguf": "a-step-9",
		"mine.gguf": "mine", "peft": "peft",
	} {
		if got := adapterName(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
