package serve_test

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/serve"
	"github.com/veratune/veratune/session"
)

func Example() {
	path, remove := testutil.ExampleModel() // in place of a model of yours
	defer remove()
	s, err := session.Open(session.Options{Model: path, Engine: generate.Engine()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	o := serve.Default()
	o.Name = "example" // Folder names one of adapters
	server, err := serve.New(s, o)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	there := httptest.NewServer(server.Handler()) // or server.Serve with a listener
	defer there.Close()

	client := openai.NewClient(option.WithBaseURL(there.URL+"/v1"), option.WithAPIKey("none"))
	answer, err := client.Chat.Completions.New(context.Background(), openai.ChatCompletionNewParams{Model: "example",
		Messages:  []openai.ChatCompletionMessageParamUnion{openai.UserMessage("add 3")},
		MaxTokens: openai.Int(5)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Model, "answers with", answer.Choices[0].Message.Role)
	// Output: example answers with assistant
}
