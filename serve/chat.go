package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/veratune/veratune/alpaca"
)

// chatRequest is the body of a request for the next message of a conversation.
type chatRequest struct {
	parameters
	Messages            []json.RawMessage          `json:"messages"`
	MaxCompletionTokens *int                       `json:"max_completion_tokens"`
	Tools               json.RawMessage            `json:"tools"`
	ToolChoice          json.RawMessage            `json:"tool_choice"`
	LogProbs            bool                       `json:"logprobs"`
	TopLogProbs         *int                       `json:"top_logprobs"`
	Variables           map[string]json.RawMessage `json:"chat_template_kwargs"` // as vLLM and llama.cpp have them
}

// chat answers a conversation.
func (s *Server) chat(w http.ResponseWriter, r *http.Request) error {
	var q chatRequest
	if err := s.readJSON(w, r, &q); err != nil {
		return err
	}
	messages, err := q.check()
	if err != nil {
		return err
	}
	leave, err := s.places.admit(q.Model, q.answers())
	if err != nil {
		return err
	}
	defer leave()
	ctx, done := s.until(r)
	defer done()
	m, err := s.adapter(ctx, q.Model, q.Variables)
	if err != nil {
		return err
	}
	defer m.release()
	prompt, err := m.Until(ctx).Request(messages, q.tools())
	if err != nil {
		return s.promptError(ctx, "messages", err)
	}
	asks, err := s.asks(m, &q.parameters, prompt, "messages", q.topLogProbs())
	if err != nil {
		return err
	}
	c := &conversation{reply: s.newReply(w, m, &q.parameters, "chat.completion", "chatcmpl-", len(prompt), len(asks)),
		logProbs: q.LogProbs}
	for range asks {
		c.calls = append(c.calls, callReader{form: m.calls, tools: q.tools()})
	}
	return c.run(ctx, s, asks, c)
}

// check reads the messages, and refuses what there is not.
func (q *chatRequest) check() (messages []alpaca.Message, err error) {
	if q.MaxCompletionTokens != nil {
		q.MaxTokens = q.MaxCompletionTokens
	}
	if err := q.parameters.check(); err != nil {
		return nil, err
	}
	choice, size := "", 0
	for name, value := range q.Variables {
		size += len(name) + len(value)
	}
	_ = json.Unmarshal(q.ToolChoice, &choice) // an object stays ""
	switch {
	case len(q.Messages) == 0:
		return nil, invalid("messages", "messages: there must be one at least")
	case q.TopLogProbs != nil && (*q.TopLogProbs < 0 || *q.TopLogProbs > mostLogProbs):
		return nil, invalid("top_logprobs", "top_logprobs: must be from 0 to %d", mostLogProbs)
	case q.TopLogProbs != nil && *q.TopLogProbs > 0 && !q.LogProbs:
		return nil, invalid("top_logprobs", "top_logprobs: is for logprobs; set that, too")
	case size > mostVariables:
		return nil, invalid("chat_template_kwargs", "chat_template_kwargs: may have %d bytes", mostVariables)
	case holds(q.Tools) && bytes.TrimSpace(q.Tools)[0] != '[':
		return nil, invalid("tools", "tools: must be an array")
	case holds(q.ToolChoice) && choice != "auto" && choice != "none":
		return nil, unsupported("tool_choice", "tool_choice: can only be auto or none; a call can't be forced")
	}
	if choice == "none" {
		q.Tools = nil
	}
	for i, raw := range q.Messages {
		m, err := alpaca.ReadMessage(raw)
		if err != nil {
			return nil, invalid("messages", "message %d: %v", i+1, err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// tools are those that the template is given, nil for none.
func (q *chatRequest) tools() json.RawMessage {
	if !holds(q.Tools) {
		return nil
	}
	return q.Tools
}

// topLogProbs is how many tokens each comes with, -1 where log probabilities are not asked for.
func (q *chatRequest) topLogProbs() int {
	switch {
	case !q.LogProbs:
		return -1
	case q.TopLogProbs == nil:
		return 0
	}
	return *q.TopLogProbs
}

// conversation is the reply to a request for messages.
type conversation struct {
	*reply
	logProbs bool
	calls    []callReader // of each answer
}

// chatChoice is one of the answers; Message in a whole reply, Delta in an event.
type chatChoice struct {
	Index        int           `json:"index"`
	Message      *message      `json:"message,omitempty"`
	Delta        *delta        `json:"delta,omitempty"`
	LogProbs     *chatLogProbs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type message struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"` // null where there are calls alone
	Refusal   *string    `json:"refusal"` // OpenAI's; always null
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

// delta is what an event adds to a message.
type delta struct {
	Role      string     `json:"role,omitempty"`
	Content   *string    `json:"content,omitempty"`
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type chatLogProbs struct {
	Content []said `json:"content"`
}

// part is what a piece adds to an answer, in OpenAI's form.
func (c *conversation) part(p piece) (text string, calls []toolCall, ending string) {
	reader := &c.calls[p.answer]
	text, ending = reader.write(p.text), p.ending
	if ending == "" {
		return text, nil, ""
	}
	rest, calls := reader.finish()
	if calls != nil && ending == endStop {
		ending = endCalls
	}
	return text + rest, calls, ending
}

// whole makes the choice of an answer from its pieces.
func (c *conversation) whole(i int, pieces []piece) any {
	m, choice := &message{Role: alpaca.Assistant}, chatChoice{Index: i}
	if c.logProbs {
		choice.LogProbs = &chatLogProbs{Content: []said{}}
	}
	content := ""
	for _, p := range pieces {
		text, calls, ending := c.part(p)
		content += text
		m.ToolCalls = append(m.ToolCalls, calls...)
		if c.logProbs {
			choice.LogProbs.Content = append(choice.LogProbs.Content, p.tokens...)
		}
		if ending != "" {
			choice.FinishReason = &ending
		}
	}
	if choice.Message = m; m.ToolCalls == nil || strings.TrimSpace(content) != "" {
		m.Content = &content
	}
	return choice
}

// begin is the event that an answer begins with.
func (c *conversation) begin(i int) any {
	return chatChoice{Index: i, Delta: &delta{Role: alpaca.Assistant, Content: new(string)}}
}

// events are what a stream tells of a piece.
func (c *conversation) events(p piece) (list []any) {
	text, calls, ending := c.part(p)
	if text != "" || len(p.tokens) > 0 {
		choice := chatChoice{Index: p.answer, Delta: &delta{Content: &text}}
		if c.logProbs {
			choice.LogProbs = &chatLogProbs{Content: append([]said{}, p.tokens...)}
		}
		list = append(list, choice)
	}
	if len(calls) > 0 {
		for i := range calls {
			calls[i].Index = &i
		}
		list = append(list, chatChoice{Index: p.answer, Delta: &delta{ToolCalls: calls}})
	}
	if ending != "" {
		list = append(list, chatChoice{Index: p.answer, Delta: &delta{}, FinishReason: &ending})
	}
	return list
}

// promptError is the error of a prompt that cannot be made of what a request says.
func (s *Server) promptError(ctx context.Context, param string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return invalid(param, "%s: %v", param, err)
}
