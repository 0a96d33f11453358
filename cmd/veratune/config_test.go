package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestConfigFile trains by a file, and again by the file that the run folder keeps: the adapters are the same, and
// flags go before both.
func TestConfigFile(t *testing.T) {
	model, data, parent := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 40), t.TempDir()
	config := write(t, "run.yaml", "# of a test\nmodel: "+model+"\ndata: "+data+"\nrank: 8\nbatch: 2\nlr: "+
		"2e-3\nthreads: 1\ntargets:\n  - attn_q\n  - ffn_up\nlayers: [1]\nstrict: true\nseed: 5\n")
	first, again, flags := filepath.Join(parent, "first"), filepath.Join(parent, "again"),
		filepath.Join(parent, "flags")
	for _, args := range [][]string{
		{"alpaca", "--config", config, "--rank", "4", "--out", first},
		{"alpaca", "--config", filepath.Join(first, train.OptionsFile), "--out", again},
		{"alpaca", "--model", model, "--data", data, "--rank", "4", "--batch", "2", "--lr", "2e-3", "--threads", "1",
			"--targets", "attn_q,ffn_up", "--layers", "1", "--strict", "--seed", "5", "--out", flags},
	} {
		if code, _, stderr := veratune(args...); code != 0 {
			t.Fatalf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	want := string(read(t, filepath.Join(first, train.AdapterFile)))
	for _, run := range []string{again, flags} {
		if string(read(t, filepath.Join(run, train.AdapterFile))) != want {
			t.Errorf("%s: the adapter is another than that by the file", filepath.Base(run))
		}
	}
	if text := string(read(t, filepath.Join(first, train.ConfigFile))); !strings.Contains(text,
		`"version": "`+version()+`"`) {
		t.Errorf("config.json does not say the version: %s", text)
	}
	if code, _, stderr := veratune("plan", "--config", filepath.Join(first, train.OptionsFile)); code != 0 {
		t.Errorf("plan: exit code %d, %q", code, stderr)
	}
}

// TestConfigOfOtherCommands takes what is required, and lists, from a file.
func TestConfigOfOtherCommands(t *testing.T) {
	model, data := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 4)
	for name, config := range map[string]string{
		"loss":     "model: " + model + "\ndata: " + data + "\ntemplate: alpaca\nthreads: 1\n",
		"generate": "model: " + model + "\nprompt: \"yes: no\"\nmax-tokens: 3\nstop: [\"a, b\", '\\n']\n",
	} {
		if code, stdout, stderr := veratune(name, "--config", write(t, name+".yaml", config)); code != 0 ||
			stdout == "" {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
	for _, name := range []string{"loss", "generate", "export"} {
		if code, _, stderr := veratune(name); code != exitUsage || !strings.Contains(stderr, "model: is missing") {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
}

// TestPrintConfig prints what reads back as the same, of each method, and trains nothing.
func TestPrintConfig(t *testing.T) {
	for name, more := range map[string][]string{
		"defaults":  nil,
		"lora":      {"--method", "lora", "--alpha", "32"},
		"eval data": {"--eval-data", "other rows.json", "--memory", "6GB"},
		"lists":     {"--targets", "attn_q", "--targets", "attn_v", "--layers", "0,3"},
	} {
		out := filepath.Join(t.TempDir(), "run")
		code, first, stderr := veratune(append([]string{"alpaca", "--model", "no: model.gguf", "--out", out,
			"--print-config"}, more...)...)
		if code != 0 {
			t.Fatalf("%s: exit code %d, %q", name, code, stderr)
		}
		code, again, stderr := veratune("alpaca", "--config", write(t, "printed.yaml", first), "--print-config")
		if code != 0 || again != first {
			t.Errorf("%s: exit code %d, %q; %s\nand read back\n%s", name, code, stderr, first, again)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s: the run folder was made", name)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for content, says := range map[string]string{
		"rnk: 3":              "line 1: rnk: no such option of alpaca; is rank meant?",
		"# x\n\nconfig: a":    "line 3: config: no such option",
		"help: true":          "no such option of alpaca\n",
		"m: a":                "line 1: m: no such option",
		"rank: [3, 4]":        "takes one value",
		"rank: fast":          `line 1: rank: "fast"`,
		"rank: 3\nrank: 3":    "line 2: rank: is there twice",
		"rank:":               "line 1: rank: want a value",
		"rank: {a: 1}":        "line 1: rank: want a value",
		"targets: [[a]]":      "line 1: targets: want a value",
		"just words":          "option: value",
		"- rank":              "option: value",
		"rank: {a":            "yaml",
		"rank: 3\n---\nlr: 1": "one document",
		"lr: -1\nmodel: x":    "lr -1",
		"lr: 1e-3":            "model: is missing",
	} {
		path := write(t, "bad.yaml", content)
		code, _, stderr := veratune("alpaca", "--config", path)
		if code != exitUsage || !strings.Contains(stderr, says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: exit code %d; %q does not say %q", content, code, stderr, says)
		}
	}
	if code, _, stderr := veratune("alpaca", "--config", "nowhere.yaml"); code != exitFailed ||
		!strings.Contains(stderr, "nowhere.yaml") {
		t.Errorf("a file that is not there: exit code %d, %q", code, stderr)
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, text := range []string{"", "rank: 3", "a: [1, b]\nc: 'd'", "a: &x 1\nb: *x", "? a\n: b", "a: {b: c}",
		"\xff", "- a"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseConfig(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.name] || !e.list && len(e.values) != 1 {
				t.Errorf("%+v", e)
			}
			seen[e.name] = true
		}
	})
}

// TestCompletion asks as the scripts of the shells do.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, stdout, stderr := veratune("completion", shell); code != 0 || !strings.Contains(stdout, "veratune") {
			t.Errorf("%s: exit code %d, %q", shell, code, stderr)
		}
	}
	if code, _, stderr := veratune("completion", "tcsh"); code != exitUsage || !strings.Contains(stderr, "fish") {
		t.Errorf("another shell: exit code %d, %q", code, stderr)
	}
	const ask = "--generate-bash-completion"
	for _, c := range []struct {
		line []string
		want string
	}{
		{[]string{ask}, "alpaca"},
		{[]string{"mtbench", ask}, "judge"},
		{[]string{"alpaca", "--held", ask}, "--held-out"},
		{[]string{"alpaca", "--rank", "4", "--conf", ask}, "--config"},
	} {
		cmd, output := process(c.line...)
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v: %s", c.line, err, output)
		}
		if !strings.Contains(output.String(), c.want+"\n") {
			t.Errorf("%v: %q does not offer %s", c.line, output, c.want)
		}
	}
}
