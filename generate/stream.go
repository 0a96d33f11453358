package generate

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/veratune/veratune/model"
)

// Stream turns tokens into text as they come, and gives on what is certain: a character may take several tokens, and
// what may become a stop string is held back. Bytes that are no UTF-8, and NUL, which C's strings cannot hold, become
// U+FFFD.
type Stream struct {
	Tokenizer interface {
		Detokenize(tokens []int32, special bool) (string, error)
		IsEOG(token int32) bool
	}
	Stops []string // the text ends before the first of them that is complete
	Emit  func(text string) error
	Token func(t model.Token) // gets each token of the text before its text; nil for none

	last    []int32 // the token before, if there is one
	bytes   string  // of a character that is not whole yet
	held    string  // may become a stop string
	ended   bool    // by an end token or a stop string
	stopped bool    // by a stop string
	tokens  int     // that came, without an end token
	err     error
}

// Server makes the tokens of answers, as a model.Server does.
type Server interface {
	Generate(ctx context.Context, r model.Request, emit func(model.Token) bool) error
}

// Generate continues a prompt, and tells whether the text came to its end or was cut by the sampling's limit or the
// server's room.
func (s *Stream) Generate(ctx context.Context, server Server, r model.Request) (ended bool, err error) {
	err = server.Generate(ctx, r, func(t model.Token) bool {
		if s.Token != nil && !s.Tokenizer.IsEOG(t.ID) {
			s.Token(t)
		}
		return s.add(t.ID)
	})
	if s.finish(); s.err != nil {
		return false, s.err
	}
	return s.ended, err
}

// What ends an answer.
const (
	EndToken       = "end"        // the model's end token
	EndStop        = "stop"       // a stop string
	EndMaxTokens   = "max-tokens" // the limit
	EndContext     = "context"    // the room of the model's context
	EndInterrupted = "interrupted"
)

// ending is what ended the text, of most tokens at most.
func (s *Stream) ending(most int, interrupted bool) string {
	switch {
	case s.stopped:
		return EndStop
	case s.ended:
		return EndToken
	case interrupted:
		return EndInterrupted
	case s.tokens >= most:
		return EndMaxTokens
	}
	return EndContext
}

// add takes the next token, and tells whether the text goes on.
func (s *Stream) add(token int32) bool {
	if s.Tokenizer.IsEOG(token) {
		s.ended = true
		return false
	}
	s.tokens++
	text, err := s.text(token)
	if err != nil {
		s.err = err
		return false
	}
	s.write(s.characters(text))
	return !s.ended && s.err == nil
}

// text is what a token adds. It is detokenized behind the one before: SentencePiece leaves a space out where a text
// begins.
func (s *Stream) text(token int32) (string, error) {
	before, err := s.Tokenizer.Detokenize(s.last, false)
	if err != nil {
		return "", err
	}
	both, err := s.Tokenizer.Detokenize(append(s.last, token), false)
	if err != nil {
		return "", err
	}
	s.last = []int32{token}
	return both[len(before):], nil
}

// characters takes more bytes, and gives the characters that are whole with them.
func (s *Stream) characters(more string) string {
	var text strings.Builder
	for s.bytes += more; s.bytes != "" && utf8.FullRuneInString(s.bytes); {
		r, n := utf8.DecodeRuneInString(s.bytes)
		if r == 0 {
			r = utf8.RuneError
		}
		text.WriteRune(r)
		s.bytes = s.bytes[n:]
	}
	return text.String()
}

// write gives text on up to the first stop string.
func (s *Stream) write(text string) {
	s.held += text
	if offset := s.stop(); offset >= 0 {
		s.give(offset)
		s.held, s.bytes, s.ended, s.stopped = "", "", true, true
		return
	}
	s.give(len(s.held) - s.beginning())
}

func (s *Stream) give(n int) {
	if n > 0 && s.err == nil {
		s.err = s.Emit(s.held[:n])
	}
	s.held = s.held[n:]
}

// stop is where the stop string begins that is complete first, and of those that are complete at once the longest; -1
// if there is none.
func (s *Stream) stop() int {
	start, end := -1, 0
	for _, stop := range s.Stops {
		offset := strings.Index(s.held, stop)
		if offset < 0 {
			continue
		}
		if e := offset + len(stop); start < 0 || e < end || e == end && offset < start {
			start, end = offset, e
		}
	}
	return start
}

// beginning is the length of the longest end of the text that a stop string begins with.
func (s *Stream) beginning() (longest int) {
	for _, stop := range s.Stops {
		for n := min(len(stop)-1, len(s.held)); n > longest; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				longest = n
			}
		}
	}
	return longest
}

// finish gives on what was held back for what did not come.
func (s *Stream) finish() {
	s.write(string([]rune(s.bytes)))
	s.bytes = ""
	s.give(len(s.held))
}
