package tokenizer

import (
	"context"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// wordPiece takes words for the longest tokens that make them up, or for the unknown one.
type wordPiece struct {
	t              *Tokenizer
	longest        int // bytes of a token
	lower, accents bool
}

func newWordPiece(t *Tokenizer, v Vocabulary) *wordPiece {
	w := &wordPiece{t: t, lower: true}
	for i := range t.types {
		w.longest = max(w.longest, len(t.names.name(int32(i))))
	}
	if lower, ok := v.Flags["normalizer.lowercase"]; ok {
		w.lower = lower
	}
	w.accents = w.lower
	if strip, ok := v.Flags["normalizer.strip_accents"]; ok {
		w.accents = strip
	}
	return w
}

// encode implements encoder.
func (w *wordPiece) encode(ctx context.Context, tokens []int32, text string, _ bool) ([]int32, error) {
	text = clean(text)
	var word []byte
	end := func() {
		if len(word) > 0 {
			tokens = w.word(tokens, "▁"+string(word))
			word = word[:0]
		}
	}
	for i, steps := 0, 0; i < len(text); steps++ {
		if steps&0xffff == 0xffff {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		r, n := decode(text[i:])
		i += n
		if w.accents && r >= 0x80 && utf8.ValidRune(r) { // the first of the characters that it is made of
			r, _ = decode(norm.NFD.String(string(r)))
		}
		class := classes()[r>>8][r&255]
		switch {
		case class == white:
			end()
		case r == 0 || r == 0xfffd || class&control != 0, w.accents && class == mark:
		default:
			alone := class == punct || r < 0x7f && class == symbol || chinese(r)
			if w.lower {
				r = unicode.ToLower(r)
			}
			if alone {
				end()
			}
			word = append(word, string(r)...)
			if alone {
				end()
			}
		}
	}
	end()
	return tokens, ctx.Err()
}

func (w *wordPiece) word(tokens []int32, s string) []int32 {
	begin := len(tokens)
	for i := 0; i < len(s); {
		j := min(len(s), i+w.longest+1)
		id := int32(-1)
		for ; j > i; j-- {
			if id = w.t.names.find(s[i:j]); id >= 0 {
				break
			}
		}
		if id < 0 {
			tokens = tokens[:begin]
			break
		}
		tokens = append(tokens, id)
		i = j
	}
	if len(tokens) == begin {
		tokens = append(tokens, w.t.ids["unknown"])
	}
	return tokens
}

// chinese are the characters that are words each. One range begins later than its block, as in BERT's own tokenizer.
func chinese(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0x20000 && r <= 0x2a6df || r >= 0x2a700 &&
		r <= 0x2b73f ||
		r >= 0x2b740 && r <= 0x2b81f || r >= 0x2b920 && r <= 0x2ceaf || r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 &&
		r <= 0x2fa1f
}
