package serve

import (
	"errors"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"

	"github.com/veratune/veratune/internal/testutil"
)

// client is OpenAI's own for Go.
func (r *running) client(key string) openai.Client {
	return openai.NewClient(option.WithBaseURL(r.url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(0))
}

const testKey = "sk-test-0123456789abcdef"

// question asks an adapter for a short answer.
func question(model string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: model, MaxTokens: openai.Int(12), Temperature: openai.Float(0),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.DeveloperMessage("be brief"),
			openai.UserMessage("add 3"), openai.AssistantMessage("it is 4"), openai.UserMessage("add 5")}}
}

// TestGoClient has OpenAI's client for Go list the models, and ask them.
func TestGoClient(t *testing.T) {
	r := start(t, func(o *Options) { o.Key = testKey })
	c, ctx := r.client(testKey), t.Context()
	page, err := c.Models.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range page.Data {
		ids = append(ids, m.ID)
	}
	if want := []string{baseName, "lora", "one", "two"}; !slices.Equal(ids, want) {
		t.Errorf("models %q, want %q", ids, want)
	}
	if m, err := c.Models.Get(ctx, "two"); err != nil || m.ID != "two" || m.OwnedBy != owner ||
		!strings.Contains(m.RawJSON(), `"rank":64`) {
		t.Errorf("model two: %v, %v", m, err)
	}

	answers := map[string]string{}
	for _, id := range ids {
		whole, err := c.Chat.Completions.New(ctx, question(id))
		if err != nil {
			t.Fatal(err)
		}
		answers[id] = whole.Choices[0].Message.Content
		if whole.Model != id || whole.Usage.CompletionTokens == 0 ||
			whole.Usage.TotalTokens != whole.Usage.PromptTokens+whole.Usage.CompletionTokens {
			t.Errorf("%s: %+v", id, whole.Usage)
		}
		stream := c.Chat.Completions.NewStreaming(ctx, streamed(question(id)))
		var all openai.ChatCompletionAccumulator
		for stream.Next() {
			all.AddChunk(stream.Current())
		}
		if stream.Err() != nil || len(all.Choices) != 1 || all.Choices[0].Message.Content != answers[id] ||
			all.Choices[0].FinishReason != whole.Choices[0].FinishReason ||
			all.Usage.TotalTokens != whole.Usage.TotalTokens {
			t.Errorf("%s: streamed %+v, %v; whole %+v", id, all.ChatCompletion, stream.Err(), whole)
		}
	}
	for _, id := range ids[1:] {
		if answers[id] == answers[baseName] {
			t.Errorf("%s answers as the model alone", id)
		}
	}

	withSeed := question("one")
	withSeed.Temperature, withSeed.Seed, withSeed.N = openai.Float(1.5), openai.Int(7), openai.Int(3)
	first, err := c.Chat.Completions.New(ctx, withSeed)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Chat.Completions.New(ctx, withSeed)
	if err != nil {
		t.Fatal(err)
	}
	for i, choice := range first.Choices {
		if choice.Message.Content != again.Choices[i].Message.Content || int(choice.Index) != i {
			t.Errorf("answer %d of one seed: %q and %q", i, choice.Message.Content, again.Choices[i].Message.Content)
		}
	}
	if len(first.Choices) != 3 || first.Choices[0].Message.Content == first.Choices[1].Message.Content {
		t.Errorf("answers of n = 3: %+v", first.Choices)
	}
	goErrors(t, r)
}

func streamed(p openai.ChatCompletionNewParams) openai.ChatCompletionNewParams {
	p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	return p
}

// goErrors checks what the client makes of errors.
func goErrors(t *testing.T, r *running) {
	c, ctx := r.client(testKey), t.Context()
	image := question("one")
	image.Messages = append(image.Messages, openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
		openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "data:,"})}))
	long := question("one")
	long.Messages = append(long.Messages, openai.UserMessage(strings.Repeat("word ", 600)))
	form := question("one")
	form.ResponseFormat.OfJSONObject = &shared.ResponseFormatJSONObjectParam{}
	for name, x := range map[string]struct {
		key    string
		params openai.ChatCompletionNewParams
		status int
		code   string
		param  string
	}{
		"unknown model":    {testKey, question("three"), http.StatusNotFound, codeModel, "model"},
		"outside":          {testKey, question("../one"), http.StatusNotFound, codeModel, "model"},
		"long name":        {testKey, question(strings.Repeat("x", 10_000)), http.StatusNotFound, codeModel, "model"},
		"NUL":              {testKey, question("one\x00"), http.StatusNotFound, codeModel, "model"},
		"wrong key":        {testKey + "0", question("one"), http.StatusUnauthorized, codeKey, ""},
		"image":            {testKey, image, http.StatusBadRequest, "", "messages"},
		"too long":         {testKey, long, http.StatusBadRequest, codeContext, "messages"},
		"JSON to be given": {testKey, form, http.StatusBadRequest, codeUnsupported, "response_format"},
	} {
		c = r.client(x.key)
		_, err := c.Chat.Completions.New(ctx, x.params)
		var e *openai.Error
		if !errors.As(err, &e) || e.StatusCode != x.status || e.Code != x.code || e.Param != x.param ||
			e.Message == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGoClientLogProbs has the client ask for log probabilities.
func TestGoClientLogProbs(t *testing.T) {
	r := start(t, nil)
	c := r.client("none is needed")
	p := question("two")
	p.Logprobs, p.TopLogprobs = openai.Bool(true), openai.Int(3)
	whole, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	choice := whole.Choices[0]
	if n := len(choice.Logprobs.Content); n != int(whole.Usage.CompletionTokens) {
		t.Errorf("%d tokens with log probabilities, %d in all", n, whole.Usage.CompletionTokens)
	}
	var said []byte
	for _, token := range choice.Logprobs.Content {
		for _, b := range token.Bytes {
			said = append(said, byte(b))
		}
		if len(token.TopLogprobs) != 3 || token.TopLogprobs[0].Token != token.Token ||
			token.TopLogprobs[0].Logprob != token.Logprob || token.TopLogprobs[1].Logprob > token.Logprob {
			t.Errorf("token %q: %v", token.Token, token.RawJSON())
		}
	}
	if got := printable(string(said)); got != choice.Message.Content {
		t.Errorf("the tokens say %q, the answer %q", got, choice.Message.Content)
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), streamed(p))
	n := 0
	for stream.Next() {
		for _, choice := range stream.Current().Choices {
			n += len(choice.Logprobs.Content)
		}
	}
	if n != len(choice.Logprobs.Content) || stream.Err() != nil {
		t.Errorf("%d tokens streamed, %d whole, %v", n, len(choice.Logprobs.Content), stream.Err())
	}
	plain, err := c.Completions.New(t.Context(), openai.CompletionNewParams{Model: "two", MaxTokens: openai.Int(9),
		Temperature: openai.Float(0),
		Prompt:      openai.CompletionNewParamsPromptUnion{OfString: openai.String("it is")}, Logprobs: openai.Int(2)})
	if err != nil {
		t.Fatal(err)
	}
	if l := plain.Choices[0].Logprobs; len(l.Tokens) != 9 || len(l.TokenLogprobs) != 9 || len(l.TopLogprobs) != 9 ||
		len(l.TextOffset) != 9 || l.TextOffset[0] != 0 {
		t.Errorf("%+v", l)
	}
}

// printable is what people see of bytes.
func printable(text string) string {
	return strings.ReplaceAll(string([]rune(text)), "\x00", "\uFFFD")
}

// TestPythonClient has OpenAI's client for Python do the same.
func TestPythonClient(t *testing.T) {
	python := testutil.Python(t)
	if err := exec.Command(python, "-c", "import openai").Run(); err != nil {
		t.Skipf("%s has no package openai: see tools/requirements.txt", python)
	}
	r := start(t, func(o *Options) { o.Key = testKey })
	out, err := exec.Command(python, "testdata/client.py", r.url+"/v1", testKey).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
