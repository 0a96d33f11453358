package main

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
)

// bigram writes a model whose blocks do nothing: its embedding is the identity, so that the head is a table of the logit of each token after each other one.
func bigram(t *testing.T, logits map[[2]byte]float64) string {
	const width = 320                               // room for a dimension a token
	token := func(b byte) int { return 3 + int(b) } // behind the control tokens
	return testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Width: width, OwnHead: true, NormEps: 1e-9, Change: func(f *testutil.TinyFile) {
		for _, name := range []string{"token_embd.weight", "output.weight", "blk.0.attn_output.weight", "blk.0.ffn_down.weight"} {
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
			f.Tensor("output.weight").Values[token(pair[1])*width+token(pair[0])] = float32(logit / math.Sqrt(width)) // the norm makes √width of the 1
		}
	}})
}

// TestChoicesByHand scores choices of which every token's likelihood is known.
func TestChoicesByHand(t *testing.T) {
	const vocab = 300
	half, other := math.Log(0.5), math.Log(0.5/(vocab-1))
	likely := math.Log(vocab - 1) // the logit of a token that gets half of the probability, the others share the other half
	path := bigram(t, map[[2]byte]float64{{'x', 'z'}: likely, {'z', 'x'}: likely, {'\n', 'k'}: likely})
	data := write(t, "questions.jsonl", strings.Join([]string{
		`{"question": "Which?", "choices": ["q", "xzxzxzxz"], "answer": "A"}`,                                       // by the sum alone
		`{"question": "Which one?", "choices": {"text": ["xzxzxzxz", "q"], "label": ["1", "2"]}, "answerKey": "1"}`, // by the byte alone
		`{"ctx": "And then", "endings": ["xz", "zz", "zxz", "k", "xk"], "label": "3"}`,                              // by both
		`{"question": "Which of both?", "choices": ["xk", "xz"], "answer": 0}`,                                      // by none
		`{"question": "Which is missing?", "choices": ["x", "y"]}`,                                                  // left out
	}, "\n"))
	for _, batch := range []string{"1", "4"} {
		code, stdout, stderr := veratune("loss", "--json", "--threads", "1", "--model", path, "--data", data, "--batch", batch)
		if code != 0 || !strings.Contains(stderr, "row 5: answer is missing") {
			t.Fatalf("exit code %d, %q", code, stderr)
		}
		var r choicesResult
		if err := json.Unmarshal([]byte(stdout), &r); err != nil {
			t.Fatal(err)
		}
		// The first byte of a response follows a newline.
		logP := (other + (other + 7*half) + half + (other + other)) / 4
		if r.Questions != 4 || r.Acc != 0.5 || r.AccNorm != 0.5 || !(math.Abs(r.LogP-logP) < 1e-4) || !(math.Abs(r.Chance-(0.5+0.5+0.2+0.5)/4) < 1e-12) {
			t.Errorf("batches of %s: %+v, want log p %g", batch, r, logP)
		}
	}
	code, stdout, _ := veratune("loss", "--threads", "1", "--model", path, "--data", data)
	if code != 0 || !strings.HasPrefix(stdout, "acc        50.0% (95%: 15.0 to 85.0), by log p of a choice\nacc_norm   50.0%") || !strings.Contains(stdout, "\nquestions  4; guessing would get 42.5%\n") {
		t.Errorf("exit code %d, %q", code, stdout)
	}
	for name, args := range map[string][]string{
		"answer is missing":                    {"loss", "--model", path, "--data", data, "--strict"},
		"one is a multiple-choice question":    {"loss", "--model", path, "--data", write(t, "mixed.json", `[{"question": "a", "choices": ["b", "c"], "answer": 0}, {"prompt": "a", "completion": "b"}]`)},
		"which are for the loss command alone": {"alpaca", "--model", path, "--data", data, "--out", filepath.Join(t.TempDir(), "run")},
	} {
		if code, _, stderr := veratune(args...); code != exitFailed || !strings.Contains(stderr, name) {
			t.Errorf("%v: exit code %d, %q does not say %q", args, code, stderr, name)
		}
	}
}

func TestGrade(t *testing.T) {
	question := func(answer int, bytes ...int) alpaca.Question {
		return alpaca.Question{Choices: make([]alpaca.Sample, len(bytes)), Bytes: bytes, Answer: answer}
	}
	for name, c := range map[string]struct {
		question alpaca.Question
		logP     []float64
		acc      float64
		accNorm  float64
	}{
		"likeliest":             {question(1, 5, 5, 5), []float64{-3, -2, -4}, 1, 1},
		"not the likeliest":     {question(0, 5, 5, 5), []float64{-3, -2, -4}, 0, 0},
		"short":                 {question(0, 1, 10), []float64{-3, -10}, 1, 0},
		"long":                  {question(1, 1, 10), []float64{-3, -10}, 0, 1},
		"tie with a wrong one":  {question(0, 1, 1), []float64{-3, -3}, 0, 0},
		"tie of the wrong ones": {question(2, 1, 1, 1), []float64{-3, -3, -1}, 1, 1},
		"certain":               {question(0, 1, 1), []float64{0, -1}, 1, 1},
	} {
		r := grade([]alpaca.Question{c.question}, [][]float64{c.logP})
		if r.Acc != c.acc || r.AccNorm != c.accNorm || r.LogP != c.logP[c.question.Answer] || r.Chance != 1/float64(len(c.logP)) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestProportion holds Wilson's interval to values from the literature (Newcombe, Statistics in Medicine 17, 1998, table I).
func TestProportion(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718}, {20, 20, 1 - 0.1611, 1}} {
		p, interval := proportion(c.k, c.n)
		if p != float64(c.k)/float64(c.n) || !(math.Abs(interval[0]-c.low) < 5e-5) || !(math.Abs(interval[1]-c.high) < 5e-5) {
			t.Errorf("%d of %d: %g, %v, want %v to %v", c.k, c.n, p, interval, c.low, c.high)
		}
	}
}

// TestChoicesOfSmolLM2 asks the real model what everybody knows. The order of the choices must not matter.
func TestChoicesOfSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("computes thousands of tokens")
	}
	data := filepath.Join("testdata", "questions.jsonl")
	random := rand.New(rand.NewPCG(1, 1))
	var lines, shuffled []string
	var orders [][]int // orders[i][j] is where the choice at place j of the shuffled question i was
	for line := range bytes.Lines(read(t, data)) {
		var q struct {
			Question string   `json:"question"`
			Choices  []string `json:"choices"`
			Answer   int      `json:"answer"`
		}
		if err := json.Unmarshal(line, &q); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
		order := random.Perm(len(q.Choices))
		choices := slices.Clone(q.Choices)
		for j, from := range order {
			q.Choices[j] = choices[from]
		}
		q.Answer = slices.Index(order, q.Answer)
		again, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		shuffled, orders = append(shuffled, string(again)), append(orders, order)
	}
	e := newEngine(measuring)
	e.path, e.options.Compute = testutil.SmolLM2(t), model.ComputeF32
	s, err := e.open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	score := func(path string) ([]alpaca.Question, [][]float64) {
		d, err := s.load(dataFiles{{Path: path, Weight: 1}}, alpaca.Default(), os.Stderr)
		if err != nil {
			t.Fatal(err)
		}
		logP, err := s.choices(cli.NewContext(&cli.App{ErrWriter: io.Discard}, nil, nil), d.Questions, 4)
		if err != nil {
			t.Fatal(err)
		}
		return d.Questions, logP
	}
	questions, logP := score(data)
	r := grade(questions, logP)
	t.Logf("%+v", r)
	if !(r.AccInterval[0] > r.Chance && r.AccNormInterval[0] > r.Chance) {
		t.Errorf("not clearly above chance: %+v", r)
	}
	const some = 12 // whole batches, so that the same is computed together
	_, others := score(write(t, "shuffled.jsonl", strings.Join(shuffled[:some], "\n")))
	for i, order := range orders[:some] {
		for j, from := range order {
			if others[i][j] != logP[i][from] {
				t.Errorf("%s choice %d: log p %.9g, %.9g at another place", lines[i], from, logP[i][from], others[i][j])
			}
		}
	}
}
