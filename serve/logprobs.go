package serve

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/veratune/veratune/model"
)

// said is a token of an answer, as clients see it.
type said struct {
	token
	Top []token `json:"top_logprobs"`
}

// token is one with its log probability.
type token struct {
	Text    string  `json:"token"`
	LogProb float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"` // of the text, which may be half a character
}

// leastLogProb stands for those that JSON can't write, as OpenAI has it.
const leastLogProb = -9999

func newToken(text string, logProb float32) token {
	t := token{strings.ToValidUTF8(text, "\uFFFD"), max(float64(logProb), leastLogProb), make([]int, len(text))}
	if math.IsNaN(t.LogProb) {
		t.LogProb = leastLogProb
	}
	for i := range len(text) {
		t.Bytes[i] = int(text[i])
	}
	return t
}

// spool keeps the tokens of an answer until their text is given on, which may be held back, or never come. It is empty
// where no log probabilities are asked for.
type spool struct {
	form   *form
	wanted bool
	last   []int32 // the token before, if there is one
	tokens []spooled
	bytes  string // of a character that is not whole yet
	length int    // of the text of all tokens
	given  int    // of it
}

type spooled struct {
	said
	start int // in the text
}

// add takes the next token, whose text follows.
func (s *spool) add(t model.Token) {
	if !s.wanted {
		return
	}
	text := s.text(t.ID)
	x := said{token: newToken(text, t.LogProb), Top: []token{}}
	for _, other := range t.Top {
		alternative := text
		if other.ID != t.ID {
			alternative, _ = s.form.tokenizer.Detokenize([]int32{other.ID}, true)
		}
		x.Top = append(x.Top, newToken(alternative, other.LogProb))
	}
	s.tokens = append(s.tokens, spooled{x, s.length})
	s.grow(text)
}

// text is what a token adds behind the one before. What can't be detokenized, the stream tells of.
func (s *spool) text(id int32) string {
	before, _ := s.form.tokenizer.Detokenize(s.last, false)
	both, _ := s.form.tokenizer.Detokenize(append(s.last, id), false)
	s.last = []int32{id}
	return strings.TrimPrefix(both, before)
}

// grow counts a text as generate.Stream gives it on, with U+FFFD for what is no character.
func (s *spool) grow(text string) {
	for s.bytes += text; s.bytes != "" && utf8.FullRuneInString(s.bytes); {
		r, n := utf8.DecodeRuneInString(s.bytes)
		if r == 0 {
			r = utf8.RuneError
		}
		s.length += utf8.RuneLen(r)
		s.bytes = s.bytes[n:]
	}
}

// take gives the tokens whose texts begin in what is given on now.
func (s *spool) take(text string) (list []said) {
	s.given += len(text)
	n := slices.IndexFunc(s.tokens, func(t spooled) bool { return t.start >= s.given })
	if n < 0 {
		n = len(s.tokens)
	}
	for _, t := range s.tokens[:n] {
		list = append(list, t.said)
	}
	s.tokens = s.tokens[n:]
	return list
}
