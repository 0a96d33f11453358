package alpaca

import (
	"errors"
	"fmt"
	"slices"
)

// Sample is one row ready to train on. Targets[i] is the token to be predicted after Tokens[:i+1], or -1 where no
// loss is taken. The last target is always a label: what follows the last label could not change the loss.
type Sample struct {
	Tokens, Targets []int32
	Row             int  // number of the row in its file, from 1
	Truncated       bool // whether MaxLength cut labels off
	added           bool // the last target is an end token that the template does not write
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
	added           bool // the end that is learnt last is not in the text
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
	from := len(s.tokens)
	s.tokens = append(s.tokens, tokens...)
	s.targets = append(s.targets, slices.Repeat([]int32{-1}, len(tokens))...)
	s.label(from, len(s.tokens))
}

// label has the tokens of a range be predicted. Nothing predicts the first of a text.
func (s *sequence) label(from, to int) {
	for i := max(from, 1); i < to; i++ {
		s.targets[i-1] = s.tokens[i]
	}
}

// unlabel has no token of a range be predicted.
func (s *sequence) unlabel(from, to int) {
	for i := max(from, 1); i < to; i++ {
		s.targets[i-1] = -1
	}
}

// end has a token be predicted behind n tokens that need not follow them in the text.
func (s *sequence) end(n int, token int32) {
	s.targets[n-1] = token
}

// trim drops the positions after the last label.
func (s *sequence) trim() {
	n := len(s.targets)
	for n > 0 && s.targets[n-1] < 0 {
		n--
	}
	s.tokens, s.targets = s.tokens[:n], s.targets[:n]
}

// errNoRoom is why a row has nothing to learn from: its prompt alone is too long.
type errNoRoom struct{ prompt, maxLength int }

func (e errNoRoom) Error() string {
	return fmt.Sprintf("the prompt's %d tokens leave no room for a response within max-length %d", e.prompt,
		e.maxLength)
}

// encode returns the samples of a row, one but where a chat template rewrites earlier turns: each cut from the end to
// at most maxLength tokens, the last target included. Samples whose prompt leaves no room for a label are left out and
// counted; it is an error where all are.
func (e *Encoder) encode(r row, maxLength int) (samples []Sample, noRoom int, err error) {
	list, err := e.sequences(r)
	if err != nil {
		return nil, 0, err
	}
	return cutAll(list, r.number, maxLength)
}

// cutAll cuts the sequences of a row, and leaves them as they are.
func cutAll(list []*sequence, row, maxLength int) (samples []Sample, noRoom int, err error) {
	for _, s := range list {
		s := *s
		sample, wrong := s.sample(row, maxLength)
		if wrong == nil {
			samples = append(samples, sample)
			continue
		}
		err = wrong
		if errors.As(wrong, new(errNoRoom)) {
			noRoom++
		}
	}
	if len(samples) > 0 {
		err = nil
	}
	return samples, noRoom, err
}

func (s *sequence) sample(row, maxLength int) (Sample, error) {
	first := slices.IndexFunc(s.targets, func(t int32) bool { return t >= 0 })
	if first < 0 {
		return Sample{}, errors.New("no token of it is learnt")
	}
	s.trim()
	truncated := len(s.tokens) > maxLength-1
	if truncated {
		s.tokens, s.targets = s.tokens[:maxLength-1], s.targets[:maxLength-1]
		s.trim()
	}
	if len(s.tokens) == 0 {
		return Sample{}, errNoRoom{first + 1, maxLength}
	}
	return Sample{Tokens: slices.Clip(s.tokens), Targets: slices.Clip(s.targets), Row: row, Truncated: truncated,
		added: s.added && !truncated}, nil
}

// sequences renders a row that is no raw text.
func (e *Encoder) sequences(r row) ([]*sequence, error) {
	if r.messages == nil && r.completion == "" && e.chat != nil {
		r.messages = []Message{{Role: User, Content: question(r.instruction, r.input)},
			{Role: Assistant, Content: r.output}}
	}
	if r.messages != nil && e.chat != nil {
		return e.chatSequences(conversation{r.messages, r.tools, r.documents})
	}
	s, err := e.sequence(r)
	if err != nil {
		return nil, err
	}
	switch e.trainOn {
	case TrainAll:
		s.label(0, len(s.tokens))
	case TrainLast:
		s.unlabel(0, s.prompt)
	}
	return []*sequence{s}, nil
}

// sequence renders a row that takes no chat template.
func (e *Encoder) sequence(r row) (*sequence, error) {
	switch {
	case r.messages != nil && r.tools != nil:
		return nil, errors.New("it has tools, for which the alpaca template has no place; choose a chat template")
	case r.messages != nil:
		return e.alpacaTurns(r.messages)
	case r.completion != "":
		prompt, err := e.Verbatim(r.prompt)
		return e.answered(prompt, r.completion, err)
	}
	prompt, err := e.Prompt(r.instruction, r.input)
	return e.answered(prompt, r.output, err)
}

// answered is a prompt with its response, which EOS ends.
func (e *Encoder) answered(prompt []int32, response string, err error) (*sequence, error) {
	if err != nil {
		return nil, err
	}
	tokens, err := e.proceed(response)
	if err != nil {
		return nil, err
	}
	var s sequence
	s.context(prompt)
	s.response(tokens)
	s.close([]int32{e.tok.EOS()})
	return &s, nil
}

// alpacaTurns renders a conversation up to the assistant's last message. An empty one leaves the response out.
func (e *Encoder) alpacaTurns(messages []Message) (*sequence, error) {
	var s sequence
	pending := preamble
	for i, m := range messages {
		switch m.Role {
		case System:
			if i > 0 {
				return nil, fmt.Errorf("message %d: in the alpaca template, a system message comes first", i+1)
			}
			pending = m.Content
		case User:
			pending += instructionHeader + m.Content
		case Assistant:
			if i == 0 || messages[i-1].Role != User {
				return nil, fmt.Errorf("message %d: in the alpaca template, the assistant answers the user", i+1)
			}
			tokenize := e.Verbatim
			if len(s.tokens) > 0 {
				tokenize = e.proceed
			}
			prompt, err := tokenize(pending + responseHeader)
			if err != nil {
				return nil, err
			}
			s.context(prompt)
			if m.Content == "" && i == len(messages)-1 {
				return &s, nil
			}
			response, err := e.proceed(m.Content)
			if err != nil {
				return nil, err
			}
			from := len(s.tokens)
			s.response(response)
			s.close([]int32{e.tok.EOS()})
			if m.weightless() {
				s.unlabel(from, len(s.tokens))
			}
			pending = ""
		default:
			return nil, fmt.Errorf("message %d: the alpaca template has no place for the role %s", i+1, m.Role)
		}
	}
	return &s, nil
}
