package bindings

// #include "guard.h"
import "C"

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A long text is tokenized in pieces: llama.cpp can't be interrupted, and SentencePiece's way takes time with the square of what it has to spell in bytes.
var pieceSize = 2 << 10 // bytes after which a text is cut at the next place

// longestPiece is what is tokenized at once where there is no place to cut.
const longestPiece = 64 << 10

// cuts knows where a text can be cut so that its pieces have the tokens of the whole. Merging begins with two characters that stand side by side, and makes nothing but
// tokens: what is side by side in none of them is never merged. What is merged in byte-level BPE are the words that regular expressions have found before; cuts are made where every one of
// llama.cpp's expressions ends a word, or goes on in it as if it began there.
type cuts struct {
	bytes   bool // byte-level BPE, whose tokens hold a character for each byte
	pairs   map[[2]rune]bool
	ends    map[rune]bool // the last characters of tokens that are looked for before anything is merged
	strips  bool          // some of them take white space along
	nowhere bool          // one of them is no text
}

// add takes note of what a token holds.
func (c *cuts) add(text string) {
	last := rune(-1)
	for _, r := range text {
		r = c.symbol(r)
		if last >= 0 {
			c.pairs[[2]rune{last, r}] = true
		}
		last = r
	}
}

// addMerge takes note of two tokens that are merged, in the form of tokenizer.ggml.merges.
func (c *cuts) addMerge(merge string) {
	if at := strings.IndexByte(merge[min(1, len(merge)):], ' '); at >= 0 {
		left, _ := utf8.DecodeLastRuneInString(merge[:at+1])
		right, _ := utf8.DecodeRuneInString(merge[at+2:])
		c.pairs[[2]rune{left, right}] = true
	}
}

// addSpecial takes note of a token that is looked for in texts before anything is merged.
func (c *cuts) addSpecial(text string, strips bool) {
	last, _ := utf8.DecodeLastRuneInString(text)
	c.ends[last] = true
	c.strips = c.strips || strips
	c.nowhere = c.nowhere || !utf8.ValidString(text)
}

// symbol is what stands for a character in SentencePiece's tokens.
func (c *cuts) symbol(r rune) rune {
	if !c.bytes && r == ' ' {
		return '▁'
	}
	return r
}

// size is that of the pieces. For each, byte-level BPE compiles its regular expressions anew.
func (c *cuts) size() int {
	if c.bytes {
		return 8 * pieceSize
	}
	return pieceSize
}

// split takes a text apart.
func (c *cuts) split(text string) (pieces []string, err error) {
	valid := !c.nowhere && (len(text) <= c.size() || utf8.ValidString(text))
	for len(text) > c.size() {
		at := -1
		if valid {
			at = c.next(text[:min(len(text), longestPiece)])
		}
		if at < 0 && len(text) <= longestPiece {
			break
		}
		if at < 0 {
			return nil, errUnbroken{text[:longestPiece]}
		}
		pieces = append(pieces, text[:at])
		text = text[at:]
	}
	return append(pieces, text), nil
}

// next finds the first place behind the size of a piece where a text can be cut, -1 where there is none.
func (c *cuts) next(text string) int {
	for at := c.size(); at < len(text); at++ {
		if utf8.RuneStart(text[at]) && c.safe(text[:at], text[at:]) {
			return at
		}
	}
	return -1
}

// safe tells whether a text can be cut between two parts.
func (c *cuts) safe(before, behind string) bool {
	x, n := utf8.DecodeLastRuneInString(before)
	y, _ := utf8.DecodeRuneInString(behind)
	if c.ends[x] || c.strips && unicode.IsSpace(x) || c.pairs[[2]rune{c.symbol(x), c.symbol(y)}] {
		return false
	}
	if !c.bytes {
		return true
	}
	if c.pairs[[2]rune{byteSymbols[before[len(before)-1]], byteSymbols[behind[0]]}] {
		return false
	}
	switch {
	case y == ' ':
		return !unicode.IsSpace(x)
	case y == '\n', strings.ContainsRune("，。、", y):
		return unicode.IsLetter(x)
	case x == '\n':
		p, _ := utf8.DecodeLastRuneInString(before[:len(before)-n])
		return len(before) > n && !unicode.IsSpace(p) && (unicode.IsLetter(y) || unicode.IsDigit(y))
	}
	return false
}

// byteSymbols are the characters that stand for bytes in byte-level BPE (GPT-2): printable bytes stand for themselves, the others, in order, for the characters from 256 on.
var byteSymbols = func() (symbols [256]rune) {
	next := rune(256)
	for b := range symbols {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			symbols[b] = rune(b)
		} else {
			symbols[b] = next
			next++
		}
	}
	return symbols
}()

// errUnbroken is why a text is refused: a part of it is too long to be tokenized.
type errUnbroken struct{ part string }

func (e errUnbroken) Error() string {
	const shown = 24
	begin := e.part[:shown]
	for !utf8.ValidString(begin) && len(begin) > shown-utf8.UTFMax {
		begin = begin[:len(begin)-1]
	}
	return fmt.Sprintf("a text goes on from %q for more than %d KiB without a space or line end, too long for the tokenizer; break it up", begin, longestPiece>>10)
}

// newCuts reads a tokenizer's tokens; merges are those of tokenizer.ggml.merges, nil for SentencePiece.
func (v *Vocab) newCuts(merges []string) *cuts {
	const unknown, control, userDefined, stripBefore, stripAfter = 1 << 0, 1 << 3, 1 << 4, 1 << 7, 1 << 8 // of llama.cpp's llama_token_attr
	c := &cuts{bytes: merges != nil, pairs: map[[2]rune]bool{}, ends: map[rune]bool{}}
	for _, m := range merges {
		c.addMerge(m)
	}
	for token := range C.int32_t(v.Size()) {
		text := C.GoString(C.llama_vocab_get_text(v.c, token))
		c.add(text)
		if attr := uint(C.llama_vocab_get_attr(v.c, token)); attr&(unknown|control|userDefined) != 0 {
			c.addSpecial(text, attr&(stripBefore|stripAfter) != 0)
		}
	}
	return c
}
