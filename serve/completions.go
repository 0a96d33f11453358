package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// completionRequest is the body of a request to continue texts.
type completionRequest struct {
	parameters
	Prompt   prompts `json:"prompt"`
	LogProbs *int    `json:"logprobs"`
	Echo     bool    `json:"echo"`
	Suffix   string  `json:"suffix"`
	BestOf   *int    `json:"best_of"`
}

// completionTokens is how long a continuation is that says nothing, as OpenAI has it.
const completionTokens = 16

// prompts are texts or lists of tokens, one of them or more.
type prompts []prompt

type prompt struct {
	text   string
	tokens []int32 // in place of the text
}

// UnmarshalJSON reads a string, a list of strings, a list of tokens, or a list of such lists.
func (p *prompts) UnmarshalJSON(data []byte) error {
	var some texts
	var tokens []int32
	var lists [][]int32
	switch data = bytes.TrimSpace(data); {
	case string(data) == "null" || string(data) == "[]":
		return nil
	case some.UnmarshalJSON(data) == nil:
		for _, text := range some {
			*p = append(*p, prompt{text: text})
		}
	case json.Unmarshal(data, &tokens) == nil:
		lists = [][]int32{tokens}
	case json.Unmarshal(data, &lists) != nil:
		return invalid("prompt", "prompt: must be a string, a list of tokens, or a list of such")
	}
	for _, tokens := range lists {
		*p = append(*p, prompt{tokens: tokens})
	}
	return nil
}

// complete continues texts as they stand, without a template.
func (s *Server) complete(w http.ResponseWriter, r *http.Request) error {
	var q completionRequest
	if err := s.readJSON(w, r, &q); err != nil {
		return err
	}
	if err := q.check(); err != nil {
		return err
	}
	leave, err := s.places.admit(q.Model, q.answers()*len(q.Prompt))
	if err != nil {
		return err
	}
	defer leave()
	ctx, done := s.until(r)
	defer done()
	m, err := s.adapter(ctx, q.Model, nil)
	if err != nil {
		return err
	}
	defer m.release()
	c := &continuation{logProbs: q.LogProbs != nil}
	var asks []ask
	n := 0
	for _, p := range q.Prompt {
		tokens, text, err := s.tokens(ctx, m, p)
		if err != nil {
			return err
		}
		more, err := s.asks(m, &q.parameters, tokens, "prompt", q.topLogProbs())
		if err != nil {
			return err
		}
		if !q.Echo {
			text = ""
		}
		asks, n = append(asks, more...), n+len(tokens)
		c.offsets = append(c.offsets, slices.Repeat([]int{len([]rune(text))}, len(more))...)
		c.echo = append(c.echo, slices.Repeat([]string{text}, len(more))...)
	}
	c.reply = s.newReply(w, m, &q.parameters, "text_completion", "cmpl-", n, len(asks))
	return c.run(ctx, s, asks, c)
}

// check refuses what there is not, and fills in what OpenAI's API has by default.
func (q *completionRequest) check() error {
	if q.MaxTokens == nil {
		n := completionTokens
		q.MaxTokens = &n
	}
	if err := q.parameters.check(); err != nil {
		return err
	}
	switch {
	case len(q.Prompt) == 0:
		return invalid("prompt", "prompt: is missing")
	case len(q.Prompt)*q.answers() > mostAnswers:
		return invalid("prompt", "prompt: %d prompts of %d answers are more than %d answers", len(q.Prompt),
			q.answers(),
			mostAnswers)
	case q.LogProbs != nil && (*q.LogProbs < 0 || *q.LogProbs > mostLogProbs):
		return invalid("logprobs", "logprobs: must be from 0 to %d", mostLogProbs)
	case q.Echo && q.LogProbs != nil:
		return unsupported("echo", "echo: with logprobs is not supported; there are none of prompts")
	case q.Suffix != "":
		return unsupported("suffix", "suffix: is not supported")
	case q.BestOf != nil && *q.BestOf != q.answers():
		return unsupported("best_of", "best_of: can only be n")
	}
	return nil
}

func (q *completionRequest) topLogProbs() int {
	if q.LogProbs == nil {
		return -1
	}
	return *q.LogProbs
}

// tokens are those of a prompt, with its text.
func (s *Server) tokens(ctx context.Context, m *chosen, p prompt) (tokens []int32, text string, err error) {
	if p.tokens == nil {
		tokens, err = m.Until(ctx).Verbatim(p.text)
		if err != nil {
			return nil, "", s.promptError(ctx, "prompt", err)
		}
		if len(tokens) == 0 {
			return nil, "", invalid("prompt", "prompt: is empty, and this model has no token to begin with")
		}
		return tokens, p.text, nil
	}
	for _, t := range p.tokens {
		if t < 0 || int(t) >= m.tokenizer.Size() {
			return nil, "", invalid("prompt", "prompt: token %d is none of the model's, from 0 to %d", t,
				m.tokenizer.Size()-1)
		}
	}
	if len(p.tokens) == 0 {
		return nil, "", invalid("prompt", "prompt: a list of tokens is empty")
	}
	text, err = m.tokenizer.Detokenize(p.tokens, false)
	return p.tokens, strings.ToValidUTF8(text, "\uFFFD"), err
}

// continuation is the reply to a request to continue texts.
type continuation struct {
	*reply
	logProbs bool
	echo     []string // what each answer begins with
	offsets  []int    // of the next token in the text of each answer, in characters
}

// textChoice is one of the answers, or a part of it in an event.
type textChoice struct {
	Index        int           `json:"index"`
	Text         string        `json:"text"`
	LogProbs     *textLogProbs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type textLogProbs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogProbs []float64            `json:"token_logprobs"`
	TopLogProbs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

func newTextLogProbs() *textLogProbs {
	return &textLogProbs{[]string{}, []float64{}, []map[string]float64{}, []int{}}
}

// add takes tokens of an answer.
func (c *continuation) add(l *textLogProbs, p piece) {
	for _, t := range p.tokens {
		l.Tokens, l.TokenLogProbs = append(l.Tokens, t.Text), append(l.TokenLogProbs, t.LogProb)
		top := map[string]float64{}
		for _, other := range slices.Backward(t.Top) { // of texts that are equal, the more likely one stays
			top[other.Text] = other.LogProb
		}
		l.TopLogProbs, l.TextOffset = append(l.TopLogProbs, top), append(l.TextOffset, c.offsets[p.answer])
		c.offsets[p.answer] += len([]rune(t.Text))
	}
}

func (c *continuation) whole(i int, pieces []piece) any {
	choice := textChoice{Index: i, Text: c.echo[i]}
	if c.logProbs {
		choice.LogProbs = newTextLogProbs()
	}
	for _, p := range pieces {
		choice.Text += p.text
		if c.logProbs {
			c.add(choice.LogProbs, p)
		}
		if p.ending != "" {
			choice.FinishReason = &p.ending
		}
	}
	return choice
}

func (c *continuation) begin(i int) any {
	if c.echo[i] == "" {
		return nil
	}
	return textChoice{Index: i, Text: c.echo[i]}
}

func (c *continuation) events(p piece) []any {
	choice := textChoice{Index: p.answer, Text: p.text}
	if c.logProbs && len(p.tokens) > 0 {
		choice.LogProbs = newTextLogProbs()
		c.add(choice.LogProbs, p)
	}
	if p.ending != "" {
		choice.FinishReason = &p.ending
	}
	return []any{choice}
}
