package alpaca

import (
	"slices"
	"strings"
	"unicode"
)

// fragment is a piece of a text that is tokenized by itself: a control token, or what stands between two.
type fragment struct {
	span
	tokens  []int32
	first   int // index of its first token in the whole text's
	control bool
}

// fragments cuts a text at its control tokens, as llama.cpp does, and tokenizes it; what begins at a place in plain
// stays text.
func (e *Encoder) fragments(text string, plain []int) ([]fragment, error) {
	var list []fragment
	tokens, done := 0, 0
	add := func(end int) error {
		if end <= done {
			return nil
		}
		t, err := e.tokenize(text[done:end])
		if err != nil {
			return err
		}
		list = append(list, fragment{span{done, end}, t, tokens, false})
		tokens += len(t)
		return nil
	}
	for _, m := range e.controls.find(text, plain) {
		control := e.controls.list[m.control]
		if control.stripBefore {
			before := strings.TrimRightFunc(text[done:max(done, m.start)], unicode.IsSpace)
			if err := add(done + len(before)); err != nil {
				return nil, err
			}
		} else if err := add(m.start); err != nil {
			return nil, err
		}
		list = append(list, fragment{m.span, []int32{control.token}, tokens, true})
		tokens++
		if done = m.end; control.stripAfter {
			done = len(text) - len(strings.TrimLeftFunc(text[done:], unicode.IsSpace))
		}
	}
	return list, add(len(text))
}

func joinFragments(list []fragment) (tokens []int32) {
	for _, f := range list {
		tokens = append(tokens, f.tokens...)
	}
	return tokens
}

// tokenAt returns the index of the token that holds byte at of a text, or of the next where none does.
func (e *Encoder) tokenAt(list []fragment, text string, offset int) (int, error) {
	i, _ := slices.BinarySearchFunc(list, offset, func(f fragment, at int) int {
		if f.end <= at {
			return -1
		}
		return 1
	})
	if i == len(list) {
		if i == 0 {
			return 0, nil
		}
		return list[i-1].first + len(list[i-1].tokens), nil
	}
	f := list[i]
	if f.control || offset <= f.start {
		return f.first, nil
	}
	n, err := e.tokensBefore(f, text, offset-f.start)
	return f.first + n, err
}

// tokensBefore counts the tokens of a fragment that end at or before a byte of it.
func (e *Encoder) tokensBefore(f fragment, text string, offset int) (int, error) {
	pieces := make([]string, len(f.tokens))
	whole := ""
	for i, t := range f.tokens {
		var err error
		if pieces[i], err = e.tok.Piece(t); err != nil {
			return 0, err
		}
	}
	whole = strings.Join(pieces, "")
	own := text[f.start:f.end]
	if len(whole) == len(own)+1 && whole[0] == ' ' { // SentencePiece has put a space before it
		offset++
		own = " " + own
	}
	if whole == own {
		n := 0
		for ; n < len(pieces) && offset >= len(pieces[n]); n++ {
			offset -= len(pieces[n])
		}
		return n, nil
	}
	// Pieces that aren't the text's own, as of characters that the vocabulary lacks, don't say where they are; the
	// tokens of the text before do.
	before, err := e.tokenize(text[f.start : f.start+offset])
	n := 0
	for n < min(len(before), len(f.tokens)) && before[n] == f.tokens[n] {
		n++
	}
	return n, err
}
