package tokenizer

import "sync"

const (
	longestWord = 30 // bytes of a word that is kept
	cacheBits   = 14 // of the number of words; one takes the place of another with the same hash
	keptTokens  = 6  // of a word
)

// cache keeps the tokens of words, and what merging them needs.
type cache struct {
	entries  []entry
	nodes    []node
	memories []memory // of each of a pre-tokenizer's parts
}

type entry struct {
	text   [longestWord]byte
	length uint8
	count  uint8 // tokens, keptTokens at most
	tokens [keptTokens]int32
}

func newCache(parts int) *cache {
	return &cache{entries: make([]entry, 1<<cacheBits), memories: make([]memory, parts)}
}

// release gives the cache back, without the room that a long word took.
func (c *cache) release(to *sync.Pool) {
	const most = 1 << 16
	if cap(c.nodes) > most {
		c.nodes = nil
	}
	to.Put(c)
}

func (c *cache) entry(s string) *entry {
	h := uint64(len(s))
	i := 0
	for ; i+8 <= len(s); i += 8 {
		h = (h ^ (uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 | uint64(
			s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	for ; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	h *= 0x9e3779b97f4a7c15
	return &c.entries[h>>(64-cacheBits)]
}

// merger appends the tokens of what is merged by itself.
type merger interface {
	merge(tokens []int32, word string) ([]int32, error)
}

// word appends the tokens of a word, which are merged where the cache does not have them.
func (c *cache) word(tokens []int32, s string, m merger) ([]int32, error) {
	if len(s) > longestWord {
		return m.merge(tokens, s)
	}
	e := c.entry(s)
	if string(e.text[:e.length]) == s {
		return append(tokens, e.tokens[:e.count]...), nil
	}
	n := len(tokens)
	tokens, err := m.merge(tokens, s)
	if err == nil && len(tokens)-n <= keptTokens {
		e.length, e.count = uint8(copy(e.text[:], s)), uint8(copy(e.tokens[:], tokens[n:]))
	}
	return tokens, err
}
