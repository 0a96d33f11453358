package tokenizer

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// The classes of characters that rules tell apart. A character has exactly one.
const (
	letter  uint8 = 1 << iota // \p{L}
	number                    // \p{N}
	mark                      // \p{M}
	punct                     // \p{P}
	symbol                    // \p{S}
	white                     // \s, before all others
	other                     // control characters and those that are not assigned
	control                   // \p{C}, of which WordPiece takes out what is assigned; not in rules
)

const anyClass = letter | number | mark | punct | symbol | white | other

// classes are those of blocks of 256 characters, equal blocks once.
var classes = sync.OnceValue(func() *[0x1100]*[256]uint8 {
	all := make([]uint8, 0x110000)
	for i := range all {
		all[i] = other
	}
	set := func(t *unicode.RangeTable, class uint8) {
		for _, r := range t.R16 {
			for c := uint32(r.Lo); c <= uint32(r.Hi); c += uint32(r.Stride) {
				all[c] = class
			}
		}
		for _, r := range t.R32 {
			for c := r.Lo; c <= r.Hi; c += r.Stride {
				all[c] = class
			}
		}
	}
	set(unicode.Cc, other|control)
	set(unicode.Cf, other|control)
	set(unicode.Cs, other|control)
	set(unicode.Co, other|control)
	set(unicode.L, letter)
	set(unicode.N, number)
	set(unicode.M, mark)
	set(unicode.P, punct)
	set(unicode.S, symbol)
	set(unicode.White_Space, white)
	fill := func(from, to int, class uint8) { // what Unicode 15.1 added to 15.0
		for c := from; c <= to; c++ {
			all[c] = class
		}
	}
	fill(0x2ebf0, 0x2ee5d, letter)
	fill(0x2ffc, 0x2fff, symbol)
	fill(0x31ef, 0x31ef, symbol)
	table, blocks := new([0x1100]*[256]uint8), map[[256]uint8]*[256]uint8{}
	for i := range table {
		block := [256]uint8(all[256*i:])
		if blocks[block] == nil {
			blocks[block] = &block
		}
		table[i] = blocks[block]
	}
	return table
})

// decode reads the character at the begin of a text that clean has made.
func decode(s string) (rune, int) {
	switch b := s[0]; {
	case b < 0x80:
		return rune(b), 1
	case b < 0xe0:
		return rune(b&0x1f)<<6 | rune(s[1]&0x3f), 2
	case b < 0xf0:
		return rune(b&0xf)<<12 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), 3
	default:
		return rune(b&7)<<18 | rune(s[1]&0x3f)<<12 | rune(s[2]&0x3f)<<6 | rune(s[3]&0x3f), 4
	}
}

// clean makes well-formed UTF-8 of a text as llama.cpp does: bytes that begin no character become U+FFFD each, overlong
// forms short ones, and surrogates stay what they are.
func clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	out := make([]byte, 0, len(s)+len(s)/2)
	follows := func(n int) bool {
		for i := 1; i < n; i++ {
			if i >= len(s) || s[i]&0xc0 != 0x80 {
				return false
			}
		}
		return true
	}
	for len(s) > 0 {
		n := 0
		switch b := s[0]; {
		case b < 0x80:
			n = 1
		case b < 0xc0:
		case b < 0xe0:
			n = 2
		case b < 0xf0:
			n = 3
		case b < 0xf8:
			n = 4
		}
		r := rune(0x110000)
		if n > 0 && follows(n) {
			r, _ = decode(s)
		}
		switch {
		case r >= 0x110000:
			out, n = append(out, "\ufffd"...), 1
		case r >= 0xd800 && r < 0xe000:
			out = append(out, s[:3]...)
		default:
			out = utf8.AppendRune(out, r)
		}
		s = s[n:]
	}
	return string(out)
}
