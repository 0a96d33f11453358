package tokenizer

const (
	longestWord = 64      // bytes of a word that is kept
	cacheSize   = 1 << 13 // words; one takes the place of another with the same hash
	keptTokens  = 8       // of a word
)

// cache keeps the tokens of words, and what merging them needs.
type cache struct {
	entries []entry
	nodes   []node
}

type entry struct {
	text   [longestWord]byte
	length uint8
	count  uint8 // tokens, keptTokens at most
	tokens [keptTokens]int32
}

func newCache() *cache { return &cache{entries: make([]entry, cacheSize)} }

func (c *cache) entry(s string) *entry {
	h := uint64(len(s))
	i := 0
	for ; i+8 <= len(s); i += 8 {
		h = (h ^ (uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 | uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56)) * 0x9e3779b97f4a7c15
		h ^= h >> 32
	}
	for ; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	h *= 0x9e3779b97f4a7c15
	return &c.entries[h>>(64-13)]
}

func (c *cache) get(e *entry, s string) ([]int32, bool) {
	if string(e.text[:e.length]) != s {
		return nil, false
	}
	return e.tokens[:e.count], true
}

func (c *cache) put(e *entry, s string, tokens []int32) {
	if len(tokens) > keptTokens {
		return
	}
	e.length, e.count = uint8(copy(e.text[:], s)), uint8(copy(e.tokens[:], tokens))
}
