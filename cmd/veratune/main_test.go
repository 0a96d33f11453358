package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// asVeratune makes the test program be veratune itself, so that tests can run it as a process and kill it.
const asVeratune = "VERATUNE_TEST_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asVeratune) != "" {
		main()
	}
	// Under nohup processes would begin deaf to it; what is caught here is not when they begin.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	code := m.Run()
	if told := told.unfit(); len(told) > 0 && code == 0 {
		fmt.Fprintf(os.Stderr, "messages that are not for people:\n%s", strings.Join(told, ""))
		code = 1
	}
	os.Exit(code)
}

// told holds all that commands have said on standard error in these tests.
var told messages

type messages struct {
	mu    sync.Mutex
	texts []*bytes.Buffer
}

func (m *messages) keep(text *bytes.Buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.texts = append(m.texts, text)
}

// unfitting are words of Go, of libraries, and names of files that nobody knows.
var unfitting = regexp.MustCompile(`strconv|parse error|go-yaml|[^.a-z]yaml: |flag provided|invalid value|json: ` +
	`(cannot un|unsupported|invalid)|Go (struct|value)|goroutine|nil pointer|interface ` +
	`\{|map\[|\[\]u?int|\bEOF\b|context canceled|` +
	`unmarshal|(stat|lstat|open|mkdir|rename|readlink|read|write) /|\.[^ ` +
	`/]*[0-9]{12,}|\.unfinished|%!|\*?\b(main|train|vera|model|alpaca|mtbench|bindings|durable|errors|fs|os|cli)\.[A-Z]`)

// unfit lists the lines that people can't be told.
func (m *messages) unfit() (lines []string) {
	for _, text := range m.texts {
		for line := range strings.Lines(text.String()) {
			if unfitting.MatchString(line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// veratune runs the program in this process.
func veratune(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"veratune"}, args...), &out, &errs)
	told.keep(&errs)
	return code, out.String(), errs.String()
}

// process is the program as a process of its own.
func process(args ...string) (*exec.Cmd, *bytes.Buffer) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asVeratune+"=1")
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	told.keep(&output)
	return cmd, &output
}

// rows writes n instruction rows and gives the file's path.
func rows(t *testing.T, n int) string {
	t.Helper()
	list := make([]map[string]string, n)
	for i := range list {
		list[i] = map[string]string{"instruction": fmt.Sprintf("add %d", i), "input": strings.Repeat("x", i%3),
			"output": fmt.Sprintf("it is %d", i+1)}
	}
	data, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, "rows.json", string(data))
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// alpacaArgs is a small finetuning of a tiny model.
func alpacaArgs(model, data, out string, more ...string) []string {
	args := []string{"alpaca", "--model", model, "--data", data, "--out", out, "--rank", "8", "--threads", "1",
		"--template", "alpaca",
		"--batch", "2", "--accumulation", "2", "--dropout", "0.1", "--save-every", "1", "--epochs", "2"}
	return append(args, more...)
}

// alpacaFrom is a finetuning that begins with an adapter.
func alpacaFrom(model, data, from string, more ...string) []string {
	return append([]string{"alpaca", "--model", model, "--data", data, "--from", from, "--out", "OUT", "--threads",
		"1"}, more...)
}

// TestAlpacaToLoss trains, and checks that every other command takes the adapter.
func TestAlpacaToLoss(t *testing.T) {
	for name, more := range map[string][]string{
		"vera":         nil,
		"lora":         {"--method", "lora", "--rank", "4", "--lr", "1e-2"},
		"only b":       {"--only", "b"},
		"only d":       {"--only", "d"},
		"unique pairs": {"--unique-pairs"},
	} {
		t.Run(name, func(t *testing.T) { alpacaToLoss(t, more...) })
	}
}

// alpacaToLoss trains, and measures, talks with and looks into what came out.
func alpacaToLoss(t *testing.T, more ...string) {
	model, data, out := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 40),
		filepath.Join(t.TempDir(), "run")
	code, stdout, stderr := veratune(alpacaArgs(model, data, out, more...)...)
	if code != 0 || !strings.Contains(stdout, "held-out loss") {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	adapter := filepath.Join(out, train.AdapterFile)
	var base, adapted evaluate.Loss
	for _, try := range []struct {
		args []string
		into *evaluate.Loss
	}{{nil, &base}, {[]string{"--adapter", adapter}, &adapted}} {
		code, stdout, stderr := veratune(append([]string{"loss", "--json", "--threads", "1", "--model", model, "--data",
			data, "--template", "alpaca"}, try.args...)...)
		if code != 0 {
			t.Fatalf("loss: exit code %d, %q", code, stderr)
		}
		if err := json.Unmarshal([]byte(stdout), try.into); err != nil {
			t.Fatal(err)
		}
	}
	if !(adapted.Loss < base.Loss) {
		t.Errorf("loss %.4f before and %.4f after training on the same rows", base.Loss, adapted.Loss)
	}
	for _, args := range [][]string{
		{"generate", "--model", model, "--adapter", adapter, "--threads", "1", "--max-tokens", "5", "-p", "add 3"},
		{"generate", "--model", model, "--threads", "1", "--max-tokens", "5", "--temperature", "0.8", "--top-p", "0.9",
			"--raw", "-p", "add 3"},
		{"inspect", adapter}, {"inspect", model}, {"inspect", "--json", adapter},
		{"bench", "train", "--model", model, "--data", data, "--rows", "16", "--batch", "2", "--rank", "4", "--threads",
			"1", "--json"},
		{"bench", "train", "--model", model, "--data", data, "--rows", "16", "--batch", "2", "--method", "lora",
			"--threads", "1", "--json"},
		{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out", filepath.Join(out, "lora.gguf"),
			"--data", data, "--threads", "1"},
		{"export", "--model", model, "--adapter", adapter, "--to", "merged", "--out", filepath.Join(out, "merged.gguf"),
			"--threads", "1"},
		{"loss", "--model", model, "--adapter", filepath.Join(out, "lora.gguf"), "--data", data, "--threads", "1"},
		{"compare", out, out},
	} {
		if code, stdout, stderr := veratune(args...); code != 0 || stdout == "" {
			t.Errorf("%v: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}

// TestInterrupt presses Ctrl-C: the run saves, exits with 130, and resumes to the same bytes, also where its data are
// files with weights.
func TestInterrupt(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 60)
	weighted := []string{"--data", rows(t, 7) + ":2.5", "--data", "../../alpaca/testdata/forms.parquet:3",
		"--save-every", "0"}
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, data, whole, weighted...)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	cmd, output := process(alpacaArgs(model, data, out, weighted...)...)
	apart(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The first line of the metrics says that the run is under way.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(filepath.Join(out, train.MetricsFile)); err == nil && info.Size() > 0 ||
			time.Now().After(deadline) {
			break
		}
	}
	if err := interrupt(cmd); err == errSkip {
		cmd.Process.Kill()
		cmd.Wait()
		t.Skip("there is no console")
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Fatalf("%v, want exit code %d: %s", err, exitInterrupted, output)
	}
	if code, _, stderr := veratune("inspect", out); code != 0 || !strings.Contains(stderr, "taking "+out) {
		t.Errorf("what was learnt by then: exit code %d, %s", code, stderr)
	}
	if code, _, stderr := veratune(alpacaArgs(model, data, out, append(weighted, "--resume")...)...); code != 0 {
		t.Fatalf("resume: exit code %d, %q", code, stderr)
	}
	if !bytes.Equal(read(t, filepath.Join(out, train.AdapterFile)), read(t, filepath.Join(whole, train.AdapterFile))) {
		t.Error("the adapter differs from that of the run that was left alone")
	}
}

// Keys of the environment are in no file of a run and no message.
func TestNoSecretIsWritten(t *testing.T) {
	const secret = "hf_secretsecret"
	for _, name := range []string{"HF_TOKEN", "OPENAI_API_KEY"} {
		t.Setenv(name, secret)
	}
	model, data, out := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), filepath.Join(t.TempDir(), "run")
	_, stdout, stderr := veratune(alpacaArgs(model, data, out, "--max-steps", "2")...)
	_, _, failed := veratune(alpacaArgs(model, data, out)...)
	texts := map[string]string{"stdout": stdout, "stderr": stderr, "error": failed}
	err := filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			texts[path] = string(read(t, path))
		}
		return err
	})
	if err != nil || len(texts) < 10 {
		t.Fatalf("%d texts, %v", len(texts), err)
	}
	for name, text := range texts {
		if strings.Contains(text, secret) {
			t.Errorf("%s holds the secret", name)
		}
	}
}

// TestBadInput gives one line, exit code 1 or 2, and neither writes nor loses anything.
func TestBadInput(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20)
	other := testutil.TinyLlama(t, testutil.TinyOptions{Seed: 7})
	wrongArchitecture := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["general.architecture"] = "gemma"
	}})
	truncated := write(t, "truncated.gguf", string(read(t, model)[:20000]))
	finished := filepath.Join(t.TempDir(), "finished")
	if code, _, stderr := veratune(alpacaArgs(model, data, finished)...); code != 0 {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	adapter := filepath.Join(finished, train.AdapterFile)
	kept := read(t, adapter)
	file := write(t, "file", "a file, not a folder")

	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no GGUF":          {alpacaArgs(data, data, "OUT"), exitFailed, "not a GGUF file"},
		"truncated":        {alpacaArgs(truncated, data, "OUT"), exitFailed, "truncated"},
		"architecture":     {alpacaArgs(wrongArchitecture, data, "OUT"), exitFailed, "gemma"},
		"no model":         {alpacaArgs("nowhere.gguf", data, "OUT"), exitFailed, "nowhere.gguf"},
		"adapter as model": {alpacaArgs(adapter, data, "OUT"), exitFailed, "adapter"},
		"export over model": {[]string{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--out",
			model}, exitFailed, "is read by this command"},
		"export over adapter": {[]string{"export", "--model", model, "--adapter", adapter, "--to", "lora", "--rank",
			"1", "--out", adapter}, exitFailed, "belongs to the run"},
		"adapter of another": {[]string{"loss", "--model", other, "--adapter", adapter, "--data", data}, exitFailed,
			"trained on"},
		"model as adapter": {[]string{"loss", "--model", model, "--adapter", model, "--data", data}, exitFailed,
			"no adapter"},
		"empty data": {alpacaArgs(model, write(t, "empty.json", ""), "OUT"), exitFailed, "empty.json"},
		"no rows":    {alpacaArgs(model, write(t, "none.json", "[]"), "OUT"), exitFailed, "none.json"},
		"malformed data": {alpacaArgs(model, write(t, "bad.json", `[{"instruction": "a", `), "OUT"), exitFailed,
			"bad.json"},
		"strict": {alpacaArgs(model,
			write(t, "strict.json", `[{"instruction":"a","output":"b"},{"instruction":"c"}]`), "OUT", "--strict"),
			exitFailed, "row 2"},
		"unwritable": {alpacaArgs(model, data, filepath.Join(file, "run")), exitFailed, "file"},
		"run there":  {alpacaArgs(model, data, finished), exitFailed, "resume"},
		"resume, other weight": {alpacaArgs(model, data+":0.5", finished, "--resume"), exitFailed,
			"the rows to train on have changed"},
		"bad weight":             {alpacaArgs(model, data+":0", "OUT"), exitUsage, "weight"},
		"resume with other rank": {alpacaArgs(model, data, finished, "--resume", "--rank", "4"), exitFailed, "rank"},
		"no run to resume":       {alpacaArgs(model, data, "OUT", "--resume"), exitFailed, "resume"},
		"unknown flag":           {[]string{"alpaca", "--modle", model}, exitUsage, "modle"},
		"no model flag":          {[]string{"alpaca"}, exitUsage, "model"},
		"rank":                   {alpacaArgs(model, data, "OUT", "--rank", "0"), exitUsage, "rank"},
		"method":                 {alpacaArgs(model, data, "OUT", "--method", "qlora"), exitUsage, "vera, lora"},
		"alpha of vera":          {alpacaArgs(model, data, "OUT", "--alpha", "2"), exitUsage, "not for method vera"},
		"init of lora": {alpacaArgs(model, data, "OUT", "--method", "lora", "--init", "uniform"), exitUsage,
			"not for method lora"},
		"merged lora": {alpacaArgs(model, data, "OUT", "--method", "lora", "--plan", "merged"), exitFailed,
			"factored"},
		"only A":       {alpacaArgs(model, data, "OUT", "--only", "A"), exitUsage, "b or d"},
		"from nothing": {alpacaFrom(model, data, "nowhere.gguf"), exitFailed, "nowhere.gguf"},
		"from a model": {alpacaFrom(model, data, model), exitFailed, "no adapter"},
		"from with rank": {alpacaFrom(model, data, adapter, "--rank", "4"), exitUsage,
			"rank: is what the adapter"},
		"from of other method": {alpacaFrom(model, data, adapter, "--method", "lora"), exitUsage,
			"give --method vera"},
		"eval-every": {alpacaArgs(model, data, "OUT", "--eval-every", "0.5"), exitUsage, "0.5epoch"},
		"patience":   {alpacaArgs(model, data, "OUT", "--patience", "-1"), exitUsage, "patience"},
		"patience for nothing": {alpacaArgs(model, data, "OUT", "--patience", "1", "--held-out", "0"), exitUsage,
			"held-out"},
		"max-steps":         {alpacaArgs(model, data, "OUT", "--max-steps", "-1"), exitUsage, "max-steps"},
		"max-time":          {alpacaArgs(model, data, "OUT", "--max-time", "soon"), exitUsage, "max-time"},
		"no number":         {alpacaArgs(model, data, "OUT", "--lr", "fast"), exitUsage, "lr"},
		"lr":                {alpacaArgs(model, data, "OUT", "--lr", "-1"), exitUsage, "lr"},
		"targets":           {alpacaArgs(model, data, "OUT", "--targets", "attn_q,wings"), exitUsage, "ffn_down"},
		"schedule":          {alpacaArgs(model, data, "OUT", "--schedule", "zigzag"), exitUsage, "cosine"},
		"template":          {alpacaArgs(model, data, "OUT", "--template", "poem"), exitUsage, "chat"},
		"init":              {alpacaArgs(model, data, "OUT", "--init", "zeros"), exitUsage, "kaiming_uniform"},
		"compute":           {alpacaArgs(model, data, "OUT", "--compute", "f16"), exitUsage, "f32"},
		"recompute":         {alpacaArgs(model, data, "OUT", "--recompute", "some"), exitUsage, "auto"},
		"plan":              {alpacaArgs(model, data, "OUT", "--plan", "best"), exitUsage, "merged"},
		"memory":            {alpacaArgs(model, data, "OUT", "--memory", "lots"), exitUsage, "6GB"},
		"too little memory": {alpacaArgs(model, data, "OUT", "--memory", "1KB"), exitFailed, "limited"},
		"threads":           {alpacaArgs(model, data, "OUT", "--threads", "0"), exitUsage, "threads"},
		"seed":              {alpacaArgs(model, data, "OUT", "--seed", "4294967296"), exitUsage, "seed"},
		"temperature": {[]string{"generate", "--model", model, "-p", "x", "--temperature", "-1"}, exitUsage,
			"temperature"},
		"top-k": {[]string{"generate", "--model", model, "-p", "x", "--top-k", "-1"},
			exitUsage, "top-k"},
		"min-p": {[]string{"chat", "--model", model, "--min-p", "1.5"}, exitUsage, "min-p"},
		"repetition penalty": {[]string{"chat", "--model", model, "--repetition-penalty", "0"}, exitUsage,
			"repetition-penalty"},
		"stop":                 {[]string{"generate", "--model", model, "-p", "x", "--stop", ""}, exitUsage, "stop"},
		"template of a chat":   {[]string{"chat", "--model", model, "--template", "poem"}, exitUsage, "alpaca"},
		"context":              {[]string{"chat", "--model", model, "--context", "0"}, exitUsage, "context"},
		"context of the model": {[]string{"chat", "--model", model, "--context", "513"}, exitUsage, "512"},
		"prompt too long": {[]string{"generate", "--model", model, "-p", strings.Repeat("~", 600)},
			exitFailed, "511"},
		"argument":        {alpacaArgs(model, data, "OUT", "surplus"), exitUsage, "surplus"},
		"command":         {[]string{"alpca"}, exitUsage, "alpca"},
		"inspect nothing": {[]string{"inspect"}, exitUsage, "file"},
		"inspect text":    {[]string{"inspect", data}, exitFailed, "GGUF"},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			args := append([]string(nil), c.args...)
			for i, a := range args {
				if a == "OUT" {
					args[i] = out
				}
			}
			code, _, stderr := veratune(args...)
			if code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("exit code %d, want %d; %q does not say %q", code, c.code, stderr, c.says)
			}
			if last := strings.Split(strings.TrimSpace(stderr), "\n"); !strings.HasPrefix(last[len(last)-1],
				"veratune: ") {
				t.Errorf("the last line is not the error: %q", stderr)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("the run folder was made")
			}
		})
	}
	if !bytes.Equal(read(t, adapter), kept) {
		t.Error("the finished run's adapter was changed")
	}
}
