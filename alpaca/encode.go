package alpaca

import (
	"fmt"
	"slices"
)

// Sample is one row ready to train on. Targets[i] is the token to be predicted after Tokens[:i+1], or -1 where no
// loss is taken. The last target is always a label: what follows the last label could not change the loss.
type Sample struct {
	Tokens, Targets []int32
	Row             int  // number of the row in its file, from 1
	Truncated       bool // whether MaxLength cut labels off
}

func (s Sample) labelled() (n int) {
	for _, t := range s.Targets {
		if t >= 0 {
			n++
		}
	}
	return n
}

// sequence grows a sample. prompt counts the tokens before the last response, answer those before the end of its turn.
type sequence struct {
	tokens, targets []int32
	prompt, answer  int
}

func (s *sequence) context(tokens []int32) {
	for _, t := range tokens {
		s.tokens = append(s.tokens, t)
		s.targets = append(s.targets, -1)
	}
	s.prompt = len(s.tokens)
}

func (s *sequence) response(tokens []int32) {
	s.close(tokens)
	s.answer = len(s.tokens)
}

// close adds what ends a response's turn.
func (s *sequence) close(tokens []int32) {
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
		return Sample{}, errNoRoom(first+1, maxLength)
	}
	return Sample{Tokens: slices.Clip(s.tokens), Targets: slices.Clip(s.targets), Row: r.number, Truncated: truncated}, nil
}

func errNoRoom(prompt, maxLength int) error {
	return fmt.Errorf("the prompt's %d tokens leave no room for a response within max-length %d", prompt, maxLength)
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
	return e.turns([]Message{{Role: User, Content: question(r.instruction, r.input)}, {Role: Assistant, Content: r.output}})
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
	s.response(tokens)
	s.close([]int32{e.tok.EOS()})
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
	for i, m := range messages {
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
			if m.Content == "" && i == len(messages)-1 {
				return &s, nil
			}
			response, err := e.proceed(m.Content, false)
			if err != nil {
				return nil, err
			}
			s.response(response)
			s.close([]int32{e.tok.EOS()})
			pending = ""
		}
	}
	return &s, nil
}
