package generate_test

import (
	"context"
	"fmt"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
)

func Example() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	s, err := session.Open(session.Options{Model: path, Engine: generate.Engine()}) // Adapter names one
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	o := generate.Default()
	o.Sampling.MaxTokens = 5
	pieces := ""
	answer, err := generate.Run(context.Background(), s, generate.Prompt{Text: "add 3"}, o, func(text string) error {
		pieces += text // as it is made
		return nil
	}, session.Report{Note: func(line string) { fmt.Println(line) }})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("the pieces are the answer:", pieces == answer.Text)
	// Output:
	// template: the model's own chat template
	// the pieces are the answer: true
}
