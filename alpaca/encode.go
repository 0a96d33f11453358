package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sample is one row ready to train on. Targets[i] is the token to be predicted after Tokens[:i+1], or -1 where no
// loss is taken. The last target is always a label: what follows the last label could not change the loss.
type Sample struct {
	Tokens, Targets []int32
	Row             int  // number of the row in its file, from 1
	Truncated       bool // whether MaxLength cut labels off
}

// sequence grows a sample. prompt counts the tokens before the last response.
type sequence struct {
	tokens, targets []int32
	prompt          int
}

func (s *sequence) context(tokens []int32) {
	for _, t := range tokens {
		s.tokens = append(s.tokens, t)
		s.targets = append(s.targets, -1)
	}
	s.prompt = len(s.tokens)
}

func (s *sequence) response(tokens []int32) {
	for _, t := range tokens {
		s.end(t)
		s.tokens = append(s.tokens, t)
		s.targets = append(s.targets, -1)
	}
}

// end labels the last position with a token that need not follow it in the text.
func (s *sequence) end(token int32) {
	s.targets[len(s.targets)-1] = token
}

// trim drops the positions after the last label.
func (s *sequence) trim() {
	n := len(s.targets)
	for n > 0 && s.targets[n-1] < 0 {
		n--
	}
	s.tokens, s.targets = s.tokens[:n], s.targets[:n]
}

// encode returns the sample of a row, cut from the end to at most maxLength tokens, the last target included.
func (e *Encoder) encode(r row, maxLength int) (Sample, error) {
	s, err := e.sequence(r)
	if err != nil {
		return Sample{}, err
	}
	first := slices.IndexFunc(s.targets, func(t int32) bool { return t >= 0 })
	s.trim()
	truncated := len(s.tokens) > maxLength-1
	if truncated {
		s.tokens, s.targets = s.tokens[:maxLength-1], s.targets[:maxLength-1]
		s.trim()
	}
	if len(s.tokens) == 0 {
		return Sample{}, fmt.Errorf("the prompt's %d tokens leave no room for a response within max-length %d", first+1, maxLength)
	}
	return Sample{Tokens: slices.Clip(s.tokens), Targets: slices.Clip(s.targets), Row: r.number, Truncated: truncated}, nil
}

func (e *Encoder) sequence(r row) (*sequence, error) {
	switch {
	case r.messages != nil:
		return e.turns(r.messages)
	case r.completion != "":
		prompt, err := e.Verbatim(r.prompt)
		return e.answered(prompt, r.completion, err)
	case e.template == Alpaca:
		prompt, err := e.Prompt(r.instruction, r.input)
		return e.answered(prompt, r.output, err)
	}
	return e.turns([]Message{{User, question(r.instruction, r.input)}, {Assistant, r.output}})
}

// answered is a prompt with its response, which EOS ends.
func (e *Encoder) answered(prompt []int32, response string, err error) (*sequence, error) {
	if err != nil {
		return nil, err
	}
	tokens, err := e.proceed(response, false)
	if err != nil {
		return nil, err
	}
	var s sequence
	s.context(prompt)
	s.response(append(tokens, e.tok.EOS()))
	return &s, nil
}

// turns renders a conversation that ends with the assistant. An empty last message leaves the response out.
func (e *Encoder) turns(messages []Message) (*sequence, error) {
	if e.template == Chat {
		return e.chatTurns(messages)
	}
	return e.alpacaTurns(messages)
}

func (e *Encoder) alpacaTurns(messages []Message) (*sequence, error) {
	var s sequence
	pending := preamble
	for _, m := range messages {
		switch m.Role {
		case System:
			pending = m.Content
		case User:
			pending += instructionHeader + m.Content
		case Assistant:
			tokenize := e.Verbatim
			if len(s.tokens) > 0 {
				tokenize = func(text string) ([]int32, error) { return e.proceed(text, false) }
			}
			prompt, err := tokenize(pending + responseHeader)
			if err != nil {
				return nil, err
			}
			s.context(prompt)
			if m.Content == "" {
				return &s, nil
			}
			response, err := e.proceed(m.Content, false)
			if err != nil {
				return nil, err
			}
			s.response(append(response, e.tok.EOS()))
			pending = ""
		}
	}
	return &s, nil
}

// chatTurns renders the conversation up to each assistant's message and through it: the first is the prompt, what the
// second adds is the response and what closes it. A template that takes earlier text back can't be masked this way.
func (e *Encoder) chatTurns(messages []Message) (*sequence, error) {
	var s sequence
	var done string // rendered text that s holds
	from := 0       // first message that isn't in done
	for i, m := range messages {
		if m.Role != Assistant {
			continue
		}
		prompt, err := e.render(messages[:i], true)
		if err != nil {
			return nil, err
		}
		added, ok := strings.CutPrefix(prompt, done)
		if !ok {
			return nil, fmt.Errorf("the chat template changes the text before message %d as the conversation goes on", i+1)
		}
		tokens, err := e.chatPrompt(messages[:i], from, done, added)
		if err != nil {
			return nil, err
		}
		if from == 0 {
			tokens = e.begin(tokens)
		}
		s.context(tokens)
		if m.Content == "" {
			return &s, nil
		}
		if done, err = e.render(messages[:i+1], false); err != nil {
			return nil, err
		}
		if added, ok = strings.CutPrefix(done, prompt); !ok {
			return nil, fmt.Errorf("the chat template renders the assistant's message %d unlike its prompt", i+1)
		}
		if err := e.chatResponse(&s, added, m.Content); err != nil {
			return nil, err
		}
		from = i + 1
	}
	return &s, nil
}

// chatResponse adds what a template made of an assistant's message: its content, then the text that closes the turn,
// labelled up to the token that ends generation. Where no such token closes it, the model learns to say EOS there.
func (e *Encoder) chatResponse(s *sequence, rendered, content string) error {
	at := strings.Index(rendered, content)
	if at < 0 { // many templates trim messages
		content = strings.TrimSpace(content)
		at = strings.Index(rendered, content)
	}
	if at < 0 {
		return errors.New("the chat template rewrites the assistant's message")
	}
	at += len(content)
	response, err := e.proceed(rendered[:at], false)
	if err != nil {
		return err
	}
	closing, err := e.proceed(rendered[at:], true)
	if err != nil {
		return err
	}
	s.response(response)
	end := slices.IndexFunc(closing, e.tok.IsEOG)
	if end < 0 {
		s.end(e.tok.EOS())
	}
	s.response(closing[:end+1])
	s.context(closing[end+1:])
	return nil
}

// chatPrompt returns the tokens of added, the text that messages[from:] add to the rendered text in done.
func (e *Encoder) chatPrompt(messages []Message, from int, done, added string) ([]int32, error) {
	for _, m := range messages[from:] {
		plain, err := e.tokenize(m.Content, false)
		if err != nil {
			return nil, err
		}
		parsed, err := e.tokenize(m.Content, true)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(plain, parsed) {
			return e.chatPieces(messages, from, done, added)
		}
	}
	return e.tokenize(added, true)
}

// chatPieces tokenizes added in pieces, the messages apart from the template's own text. It finds them by rendering
// the conversation once more with a mark in place of each.
func (e *Encoder) chatPieces(messages []Message, from int, done, added string) ([]int32, error) {
	marked := slices.Clone(messages)
	for i := from; i < len(marked); i++ {
		marked[i].Content = mark(i)
	}
	rest, err := e.render(marked, true)
	if err != nil {
		return nil, err
	}
	rest, ok := strings.CutPrefix(rest, done)
	var tokens []int32
	// take tokenizes the next piece of added, which must be text.
	take := func(text string, own bool) {
		if err != nil || !ok {
			return
		}
		if added, ok = strings.CutPrefix(added, text); !ok {
			return
		}
		tokenize := e.proceed
		if len(tokens) == 0 {
			tokenize = e.tokenize
		}
		var piece []int32
		piece, err = tokenize(text, own)
		tokens = append(tokens, piece...)
	}
	for i, m := range messages[from:] {
		own, after, found := strings.Cut(rest, mark(from+i))
		ok = ok && found
		take(own, true)
		content := m.Content
		if !strings.HasPrefix(added, content) {
			content = strings.TrimSpace(content)
		}
		take(content, false)
		rest = after
	}
	take(rest, true)
	if err == nil && (!ok || added != "") {
		err = errors.New("a message spells a control token out, and the chat template rewrites it")
	}
	return tokens, err
}

// mark stands for message i: characters of a private use area, which no template trims or splits.
func mark(i int) string { return "\ue000" + strconv.Itoa(i) + "\ue001" }

func (e *Encoder) render(messages []Message, addAssistant bool) (string, error) {
	roles, contents := make([]string, len(messages)), make([]string, len(messages))
	for i, m := range messages {
		roles[i], contents[i] = m.Role, m.Content
	}
	text, err := e.tok.ApplyChat(roles, contents, addAssistant)
	if err != nil {
		return "", fmt.Errorf("applying the chat template: %w", err)
	}
	return text, nil
}
