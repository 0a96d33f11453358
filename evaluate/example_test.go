package evaluate_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
)

func ExampleMeasureLoss() {
	folder, err := os.MkdirTemp("", "veratune-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "model.gguf")
	if err := testutil.WriteTinyLlama(path, testutil.TinyOptions{}); err != nil { // in place of a model of yours
		fmt.Println(err)
		return
	}
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
