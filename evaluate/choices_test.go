package evaluate

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

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
		if r.Acc != c.acc || r.AccNorm != c.accNorm || r.LogP != c.logP[c.question.Answer] ||
			r.Chance != 1/float64(len(c.logP)) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// TestProportion holds Wilson's interval to values from the literature (Newcombe, Statistics in Medicine 17, 1998,
// table I).
func TestProportion(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718},
		{20, 20, 1 - 0.1611, 1}} {
		p, interval := proportion(c.k, c.n)
		if p != float64(c.k)/float64(c.n) || !(math.Abs(interval[0]-c.low) < 5e-5) ||
			!(math.Abs(interval[1]-c.high) < 5e-5) {
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
	text, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
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
		written := slices.Clone(q.Choices)
		for j, from := range order {
			q.Choices[j] = written[from]
		}
		q.Answer = slices.Index(order, q.Answer)
		again, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		shuffled, orders = append(shuffled, string(again)), append(orders, order)
	}
	o := session.Options{Model: testutil.SmolLM2(t), Engine: model.Default()}
	o.Engine.Compute = model.ComputeF32
	s, err := session.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	score := func(path string) ([]alpaca.Question, [][]float64) {
		d, err := s.Data([]alpaca.Part{{Path: path, Weight: 1}}, alpaca.Default(), session.Report{})
		if err != nil {
			t.Fatal(err)
		}
		logP, err := choices(context.Background(), s, d.Questions, 4, nil)
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
	other := filepath.Join(t.TempDir(), "shuffled.jsonl")
	if err := os.WriteFile(other, []byte(strings.Join(shuffled[:some], "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	_, others := score(other)
	for i, order := range orders[:some] {
		for j, from := range order {
			if others[i][j] != logP[i][from] {
				t.Errorf("%s choice %d: log p %.9g, %.9g at another place", lines[i], from, logP[i][from], others[i][j])
			}
		}
	}
}
