package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestPreTokenizer opens a model whose file names a pre-tokenizer that there is not, with another in its place: in
// training, which the adapter remembers, and in what is made of it.
func TestPreTokenizer(t *testing.T) {
	set := func(pre string) string {
		return testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
			f.Metadata["tokenizer.ggml.pre"] = pre
		}})
	}
	unknown, digits, sentencePiece := set("smol-lm3"), set("smollm"),
		testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true})
	data, dir := rows(t, 12), t.TempDir()
	run, merged := filepath.Join(dir, "run"), filepath.Join(dir, "merged.gguf")
	adapter := filepath.Join(run, train.AdapterFile)
	show := func(model string) []string { return []string{"data", "show", "--ids", "--model", model, data} }
	_, want, _ := veratune(show(digits)...)
	learn := []string{"alpaca", "--model", unknown, "--data", data, "--template", "alpaca", "--steps", "2", "--rank",
		"4", "--threads", "1", "--out", run}
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{1, `tokenizer.ggml.pre: pre-tokenizer "smol-lm3": not known; the nearest that are: smollm`, show(unknown)},
		{1, "--pre-tokenizer", show(unknown)},
		{0, want, append(show(unknown)[:2:2], append([]string{"--pre-tokenizer", "smollm"}, show(unknown)[2:]...)...)},
		{2, `pre-tokenizer "smolm": not known; the nearest that are: smollm`,
			append([]string{"data", "show", "--pre-tokenizer", "smolm"}, show(digits)[2:]...)},
		{1, `tokenizer.ggml.model is "llama"`, append([]string{"data", "show", "--pre-tokenizer", "smollm"},
			show(sentencePiece)[2:]...)},
		{0, "pre-tokenizer smol-lm3", []string{"inspect", unknown}},
		{0, "pre-tokenizer: smollm", append(learn, "--pre-tokenizer", "smollm", "--print-config")},
		{1, "smol-lm3", learn},
		{0, "adapter:", append(learn, "--pre-tokenizer", "smollm", "--max-steps", "1")},
		{1, "pre_tokenizer", append(learn, "--pre-tokenizer", "gpt-2", "--resume")},
		{0, "adapter:", append(learn, "--pre-tokenizer", "smollm", "--resume")},
		{0, "smollm", []string{"inspect", adapter}},
		{0, "", []string{"generate", "--model", unknown, "--adapter", adapter, "--max-tokens", "2", "add 3"}},
		{1, "smol-lm3", []string{"generate", "--model", unknown, "--max-tokens", "2", "add 3"}},
		{0, "", []string{"export", "--model", unknown, "--adapter", adapter, "--to", "merged", "--out", merged}},
		{0, "pre-tokenizer smollm", []string{"inspect", merged}},
		{0, "", []string{"generate", "--model", merged, "--max-tokens", "2", "add 3"}},
	} {
		if code, stdout, stderr := veratune(c.args...); code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%q: exit code %d, want %d and %q\n%s%s", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}
