package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
)

// scripted is an engine that says a text, with a pause before each token.
type scripted struct {
	engine
	text      string
	pause     time.Duration
	tokenizer interface {
		Tokenize(ctx context.Context, text string, addBOS, special bool) ([]int32, error)
		EOS() int32
	}
}

func (s *scripted) Generate(ctx context.Context, r model.Request, emit func(model.Token) bool) error {
	tokens := []int32{70, 71, 72, 73}
	if s.tokenizer != nil {
		var err error
		if tokens, err = s.tokenizer.Tokenize(ctx, s.text, false, false); err != nil {
			return err
		}
		tokens = append(tokens, s.tokenizer.EOS())
	}
	for i := range r.MaxTokens {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(s.pause):
		}
		if s.tokenizer != nil && i == len(tokens) {
			return errors.New("the script is over")
		}
		if !emit(model.Token{ID: tokens[i%len(tokens)]}) {
			return nil
		}
	}
	return nil
}

// What models say that call tools, in all forms that are known.
const (
	hermes = "I look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\", \"days\": " +
		"2}}\n</tool_call>\n" +
		"<tool_call>\n{\"name\": \"now\"}\n</tool_call>"
	qwen = "<tool_call>\n<function=weather>\n<parameter=city>\n42\n</parameter>\n<parameter=days>\n2\n</parameter>\n" +
		"</function>\n</tool_call>"
	llama = `{"name": "weather", "parameters": {"city": "Bern"}}`
)

// TestCalls reads calls in pieces of every length.
func TestCalls(t *testing.T) {
	tools := json.RawMessage(`[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
		"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]`)
	for name, c := range map[string]struct {
		form  callForm
		said  string
		text  string
		calls string // names and arguments
	}{
		"Hermes":          {jsonCalls, hermes, "I look.\n", `weather{"city": "Bern", "days": 2} now{}`},
		"Qwen":            {functionCalls, qwen, "", `weather{"city":"42","days":2}`},
		"Llama":           {bareCalls, llama, "", `weather{"city": "Bern"}`},
		"text":            {jsonCalls, "just <tool> and <tool_", "just <tool> and <tool_", ""},
		"text of Llama's": {bareCalls, "a {b}", "a {b}", ""},
		"other JSON":      {bareCalls, `{"a": 1}`, `{"a": 1}`, ""},
		"cut":             {jsonCalls, hermes[:50], hermes[:50], ""},
		"broken":          {jsonCalls, "<tool_call>{name}</tool_call>", "<tool_call>{name}</tool_call>", ""},
		"no end":          {jsonCalls, `<tool_call>{"name": "now", "arguments": {}}`, "", "now{}"},
		"with text behind": {jsonCalls, `<tool_call>{"name": "a"}</tool_call> so`,
			`<tool_call>{"name": "a"}</tool_call> so`, ""},
		"arguments no object": {jsonCalls, `<tool_call>{"name": "a", "arguments": 3}</tool_call>`,
			`<tool_call>{"name": "a", "arguments": 3}</tool_call>`, ""},
		"unknown": {unknownCalls, llama, llama, ""},
	} {
		for size := 1; size <= len(c.said); size++ {
			reader := callReader{form: c.form, tools: tools}
			text := ""
			for rest := c.said; rest != ""; {
				n := min(size, len(rest))
				text += reader.write(rest[:n])
				rest = rest[n:]
			}
			rest, calls := reader.finish()
			var said []string
			for _, call := range calls {
				said = append(said, call.Function.Name+call.Function.Arguments)
				if !json.Valid([]byte(call.Function.Arguments)) || !strings.HasPrefix(call.ID, "call_") {
					t.Errorf("%s: %+v", name, call)
				}
			}
			if text+rest != c.text || strings.Join(said, " ") != c.calls {
				t.Fatalf("%s in pieces of %d: text %q, calls %q", name, size, text+rest, said)
			}
		}
	}
	without := callReader{form: jsonCalls}
	if got := without.write(hermes); got != hermes {
		t.Errorf("without tools: %q", got)
	}
}

// TestCallForms are found in the templates of real models.
func TestCallForms(t *testing.T) {
	want := map[string]callForm{"Qwen3-8B-Q8_0": jsonCalls, "Qwen3.5-35B-A3B-Q8_0": functionCalls,
		"Llama-3.2-1B-Instruct-GGUF": bareCalls, "gpt-oss-20b-Q8_0": unknownCalls, "GLM-5.2": unknownCalls,
		"Ministral-3-14B-Instruct-2512-Q4_0": unknownCalls, "gemma-4-26B-A4B-it-UD-Q8_K_XL": unknownCalls}
	for _, path := range testutil.Shared(t, "refs/templates/*.jinja") {
		name := strings.TrimSuffix(filepath.Base(path), ".jinja")
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if form, known := want[name]; known && callFormOf(string(source)) != form {
			t.Errorf("%s: form %d, want %d", name, callFormOf(string(source)), form)
		}
	}
}

// callingTemplate writes tools and calls as Hermes does.
const callingTemplate = `{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}{% for c in m.tool_calls %}<tool_call>{"name": "{{ c.function.name }}", "arguments": ` +
	`{{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|im_end|>
{% endfor %}<|im_start|>assistant
`

// TestGoClientTools has OpenAI's client give tools, get calls, and send what came of them.
func TestGoClientTools(t *testing.T) {
	r := start(t, nil)
	saveAdapter(t, r.base, filepath.Join(r.folder, "calling.gguf"), 1, nil,
		map[string]string{"template": "calling.jinja", "chat_template": callingTemplate})
	r.engine = &scripted{engine: r.engine, text: hermes, tokenizer: r.base.Tokenizer}
	c := r.client("")
	p := question("calling")
	p.MaxTokens = openai.Int(300)
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(
		openai.FunctionDefinitionParam{Name: "weather", Parameters: openai.FunctionParameters{"type": "object"}})}
	whole, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	m := whole.Choices[0].Message
	if len(m.ToolCalls) != 2 || m.ToolCalls[0].Function.Arguments != `{"city": "Bern", "days": 2}` ||
		whole.Choices[0].FinishReason != "tool_calls" || m.Content != "I look.\n" {
		t.Errorf("%s", whole.RawJSON())
	}
	stream := c.Chat.Completions.NewStreaming(t.Context(), p)
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		if !all.AddChunk(stream.Current()) {
			t.Errorf("a chunk that does not fit: %s", stream.Current().RawJSON())
		}
	}
	if got := all.Choices[0].Message; stream.Err() != nil || len(got.ToolCalls) != 2 ||
		got.ToolCalls[1].Function.Name != "now" || got.Content != m.Content ||
		all.Choices[0].FinishReason != "tool_calls" {
		t.Errorf("streamed %+v, %v", all.ChatCompletion, stream.Err())
	}
	p.Messages = append(p.Messages, m.ToParam(), openai.ToolMessage("sunny", m.ToolCalls[0].ID))
	p.ToolChoice.OfAuto = openai.String("none")
	after, err := c.Chat.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if after.Choices[0].Message.Content != hermes || after.Usage.PromptTokens <= whole.Usage.PromptTokens/2 {
		t.Errorf("%s", after.RawJSON())
	}
	p.Model = "one" // whose template has no form of calls
	if text, err := c.Chat.Completions.New(t.Context(), p); err != nil || text.Choices[0].Message.Content != hermes {
		t.Errorf("%v, %v", text, err)
	}
	alpaca := question("alpaca")
	saveAdapter(t, r.base, filepath.Join(r.folder, "alpaca.gguf"), 1, nil, map[string]string{"template": "alpaca"})
	alpaca.Tools = p.Tools
	var refused *openai.Error
	if _, err := c.Chat.Completions.New(t.Context(), alpaca); !errors.As(err, &refused) ||
		refused.StatusCode != http.StatusBadRequest {
		t.Errorf("tools in the alpaca template: %v", err)
	}
}
