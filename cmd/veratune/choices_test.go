package main

import (
	"encoding/json"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/testutil"
)

// bigram writes a model whose blocks do nothing: its embedding is the identity, so that the head is a table of the
// logit of each token after each other one.
func bigram(t *testing.T, logits map[[2]byte]float64) string {
	const width = 320                               // room for a dimension a token
	token := func(b byte) int { return 3 + int(b) } // behind the control tokens
	return testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Width: width, OwnHead: true, NormEps: 1e-9,
		Change: func(f *testutil.TinyFile) {
			for _, name := range []string{"token_embd.weight", "output.weight", "blk.0.attn_output.weight",
				"blk.0.ffn_down.weight"} {
				clear(f.Tensor(name).Values)
			}
			embedding := f.Tensor("token_embd.weight")
			for i := range int(embedding.Shape[1]) {
				embedding.Values[i*width+i] = 1
			}
			for i := range f.Tensor("output_norm.weight").Values {
				f.Tensor("output_norm.weight").Values[i] = 1
			}
			for pair, logit := range logits {
				// the norm makes √width of the 1
				f.Tensor("output.weight").Values[token(pair[1])*width+token(pair[0])] = float32(
					logit / math.Sqrt(width))
			}
		}})
}

// TestChoicesByHand scores choices of which every token's likelihood is known.
func TestChoicesByHand(t *testing.T) {
	const vocab = 300
	half, other := math.Log(0.5), math.Log(0.5/(vocab-1))
	// the logit of a token that gets half of the probability, the others share the other half
	likely := math.Log(vocab - 1)
	path := bigram(t, map[[2]byte]float64{{'x', 'z'}: likely, {'z', 'x'}: likely, {'\n', 'k'}: likely})
	data := write(t, "questions.jsonl", strings.Join([]string{
		// by the sum alone
		`{"question": "Which?", "choices": ["q", "xzxzxzxz"], "answer": "A"}`,
		// by the byte alone
		`{"question": "Which one?", "choices": {"text": ["xzxzxzxz", "q"], "label": ["1", "2"]}, "answerKey": "1"}`,
		// by both
		`{"ctx": "And then", "endings": ["xz", "zz", "zxz", "k", "xk"], "label": "3"}`,
		// by none
		`{"question": "Which of both?", "choices": ["xk", "xz"], "answer": 0}`,
		// left out
		`{"question": "Which is missing?", "choices": ["x", "y"]}`,
	}, "\n"))
	for _, batch := range []string{"1", "4"} {
		code, stdout, stderr := veratune("loss", "--json", "--threads", "1", "--model", path, "--data", data,
			"--batch", batch)
		if code != 0 || !strings.Contains(stderr, "row 5: answer is missing") {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
		var r evaluate.Choices
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		// The first byte of a response follows a newline.
		logP := (other + (other + 7*half) + half + (other + other)) / 4
		if r.Questions != 4 || r.Acc != 0.5 || r.AccNorm != 0.5 || !(math.Abs(r.LogP-logP) < 1e-4) ||
			!(math.Abs(r.Chance-(0.5+0.5+0.2+0.5)/4) < 1e-12) {
			t.Errorf("batches of %s: %+v, want log p %g", batch, r, logP)
		}
	}
	code, stdout, _ := veratune("loss", "--threads", "1", "--model", path, "--data", data)
	if code != 0 || !strings.HasPrefix(stdout,
		"acc        50.0% (95%: 15.0 to 85.0), by log p of a choice\nacc_norm   50.0%") ||
		!strings.Contains(stdout, "\nquestions  4; guessing would get 42.5%\n") {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for name, args := range map[string][]string{
		"answer is missing": {"loss", "--model", path, "--data", data, "--strict"},
		"one is a multiple-choice question": {"loss", "--model", path, "--data",
			write(t, "mixed.json", `[{"question": "a", "choices": ["b", "c"], "answer": 0}, {"prompt": "a", `+
				`"completion": "b"}]`)},
		"which are for the loss command alone": {"alpaca", "--model", path, "--data", data, "--out",
			filepath.Join(t.TempDir(), "run")},
	} {
		if code, _, stderr := veratune(args...); code != exitFailed || !strings.Contains(stderr, name) {
			t.Errorf("%v: exit code %d, %q does not say %q", args, code, stderr, name)
		}
	}
}
