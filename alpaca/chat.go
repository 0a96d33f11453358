package alpaca

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

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
		pieces, err := e.chatPieces(messages[:i], from, done, added)
		if err != nil {
			return nil, err
		}
		if err := e.chatPrompt(&s, pieces); err != nil {
			return nil, err
		}
		if m.Content == "" && i == len(messages)-1 {
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
	s.close(closing[:end+1])
	s.context(closing[end+1:])
	return nil
}

// chatPrompt adds the pieces of a prompt: the template's own text at even places, messages at odd ones.
func (e *Encoder) chatPrompt(s *sequence, pieces []string) error {
	first := len(s.tokens) == 0
	var tokens []int32
	for i, piece := range pieces {
		tokenize := e.proceed
		if i == 0 && (first || e.tok.IsEOG(s.tokens[len(s.tokens)-1])) {
			tokenize = e.tokenize
		}
		t, err := tokenize(piece, i%2 == 0)
		if err != nil {
			return err
		}
		tokens = append(tokens, t...)
	}
	if first {
		tokens = e.begin(tokens)
	}
	s.context(tokens)
	return nil
}

// chatPieces cuts added, the text that messages[from:] add to the rendered text in done, into the pieces that
// chatPrompt takes: a single one where no message spells a control token out. Else it finds the messages by rendering
// the conversation once more with a mark in place of each.
func (e *Encoder) chatPieces(messages []Message, from int, done, added string) ([]string, error) {
	spelled, err := e.spellsControl(messages[from:])
	if err != nil || !spelled {
		return []string{added}, err
	}
	marked := slices.Clone(messages)
	for i := from; i < len(marked); i++ {
		marked[i].Content = mark(i)
	}
	rest, err := e.render(marked, true)
	if err != nil {
		return nil, err
	}
	errRewritten := errors.New("a message spells a control token out, and the chat template rewrites it")
	rest, ok := strings.CutPrefix(rest, done)
	if !ok {
		return nil, errRewritten
	}
	var pieces []string
	for i, m := range messages[from:] {
		var own string
		if own, rest, ok = strings.Cut(rest, mark(from+i)); !ok {
			return nil, errRewritten
		}
		pieces = append(pieces, own, m.Content)
	}
	pieces = append(pieces, rest)
	if strings.Join(pieces, "") == added {
		return pieces, nil
	}
	for i := 1; i < len(pieces); i += 2 { // many templates trim messages
		pieces[i] = strings.TrimSpace(pieces[i])
	}
	if strings.Join(pieces, "") == added {
		return pieces, nil
	}
	return nil, errRewritten
}

// spellsControl tells whether the text of a message holds that of a control token.
func (e *Encoder) spellsControl(messages []Message) (bool, error) {
	for _, m := range messages {
		plain, err := e.tokenize(m.Content, false)
		if err != nil {
			return false, err
		}
		parsed, err := e.tokenize(m.Content, true)
		if err != nil {
			return false, err
		}
		if !slices.Equal(plain, parsed) {
			return true, nil
		}
	}
	return false, nil
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
