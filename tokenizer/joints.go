package tokenizer

import "strings"

// joints are the ends of texts, by their last character's last two bytes, behind which a merge may join a ▁. What
// stands before any other ▁ is merged by itself.
type joints [1 << 10]uint64

// joint is the last byte of a text, or the last two where its last character is beyond ASCII.
func joint(s string) uint32 {
	c := s[len(s)-1]
	if c < 0x80 || len(s) < 2 {
		return uint32(c)
	}
	return uint32(s[len(s)-2])<<8 | uint32(c)
}

// add takes note of what stands before each ▁ within a symbol.
func (j *joints) add(symbol string) {
	for at := 0; ; at += len("▁") {
		i := strings.Index(symbol[at:], "▁")
		if i < 0 {
			return
		}
		if at += i; at > 0 {
			h := joint(symbol[:at])
			j[h>>6] |= 1 << (h & 63)
		}
	}
}

// split gives the parts of a text that are merged by themselves.
func (j *joints) split(s string, word func(string) error) error {
	from := 0
	for at := 1; at < len(s); at++ {
		i := strings.Index(s[at:], "▁")
		if i < 0 {
			break
		}
		at += i
		if h := joint(s[:at]); j[h>>6]>>(h&63)&1 != 0 {
			continue
		}
		if err := word(s[from:at]); err != nil {
			return err
		}
		from = at
	}
	return word(s[from:])
}
