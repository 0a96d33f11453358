package evaluate_test

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/session"
)

func ExampleMeasureLoss() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	s, err := session.Open(session.Options{Model: path, Engine: evaluate.Engine()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	rows, err := s.Rows(nil, alpaca.Default(), session.Report{}) // nil: the built-in starter set
	if err != nil {
		fmt.Println(err)
		return
	}
	rows.Cut(8)
	loss, err := evaluate.MeasureLoss(context.Background(), s, rows, 4, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(loss.Rows, "rows, perplexity above 1:", loss.Perplexity > 1)
	// Output:
	// 8 rows, perplexity above 1: true
}

func ExampleAnswer() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	s, err := session.Open(session.Options{Model: path, Engine: generate.Engine()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	questions, err := mtbench.Create(filepath.Join(filepath.Dir(path), "mtbench"),
		[]mtbench.Question{{ID: 1, Category: "math", Turns: []string{"add 3", "and 4"}, Reference: []string{"4", "8"}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer questions.Close()
	o := mtbench.DefaultRunOptions()
	o.Name, o.MaxTokens = "tiny", 8
	o.Progress = func(p mtbench.Progress) { fmt.Println(p.Done, "of", p.Total, "answered") }
	if err := evaluate.Answer(context.Background(), s, questions, alpaca.Form{Template: alpaca.Auto}, o,
		session.Report{}); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 1 of 1 answered
}
