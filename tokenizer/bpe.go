package tokenizer

import (
	"context"
	"strings"
	"sync"
)

// mergeRule is two symbols that become one. Its rank is its place in the list.
type mergeRule struct{ left, right, made int32 }

// bpe merges neighbours in the order of a list. Symbols are tokens, and behind them what merges make that are none.
type bpe struct {
	t     *Tokenizer
	rules rules
	parts []splitter
	more  names // symbols that are no tokens, numbered from t.Size() on

	merges []mergeRule
	slots  []int32 // a hash table of merges, -1: free
	single [256]int32
	bytes  [256]int32 // the token of a byte that is in no other, -1: none
	joints joints
	caches sync.Pool
}

// noSymbol stands for a character that no merge knows.
const noSymbol = int32(-2)

func newBPE(t *Tokenizer, r rules, list []string) *bpe {
	b := &bpe{t: t, rules: r, parts: r.parts()}
	b.more.init(256, 0)
	if !r.plain {
		for c := range b.single {
			b.single[c] = b.symbol(string([]byte{byte(c)}), true)
		}
	}
	for c := range b.bytes {
		switch {
		case r.plain:
			b.bytes[c] = t.names.find(byteName(byte(c)))
		case c > ' ' && c < 0x7f:
			b.bytes[c] = t.names.find(string(rune(c)))
		default:
			b.bytes[c] = -1
		}
	}
	slots := 16
	for slots < 2*len(list) {
		slots *= 2
	}
	b.slots = make([]int32, slots)
	for i := range b.slots {
		b.slots[i] = -1
	}
	b.merges = make([]mergeRule, len(list))
	var buffer []byte
	for rank, text := range list {
		b.merges[rank] = mergeRule{-1, -1, -1}
		at := -1
		if text, _, _ = strings.Cut(text, "\x00"); text != "" {
			at = strings.IndexByte(text[1:], ' ')
		}
		if at < 0 {
			continue
		}
		left, right := text[:at+1], text[at+2:]
		if !r.plain {
			bytes, ok := toBytes(buffer[:0], left)
			n := len(bytes)
			buffer = bytes
			if !ok {
				continue
			}
			if bytes, ok = toBytes(bytes, right); !ok {
				continue
			}
			buffer = bytes
			left, right = string(bytes[:n]), string(bytes[n:])
		}
		if left == "" || right == "" {
			continue
		}
		m := mergeRule{b.symbol(left, true), b.symbol(right, true), b.symbol(left+right, true)}
		if i := b.slot(m.left, m.right); b.slots[i] < 0 {
			b.slots[i], b.merges[rank] = int32(rank), m
			if r.space {
				b.joints.add(left + right)
			}
		}
	}
	b.caches.New = func() any { return newCache(len(b.parts)) }
	return b
}

func byteName(b byte) string {
	const hex = "0123456789ABCDEF"
	return string([]byte{'<', '0', 'x', hex[b>>4], hex[b&15], '>'})
}

// symbol gives the number of a text; where there is none, noSymbol or a new one.
func (b *bpe) symbol(text string, add bool) int32 {
	if id := b.t.names.find(text); id >= 0 {
		return id
	}
	id := b.more.find(text)
	if id < 0 && add {
		id, _ = b.more.add(text)
	}
	if id < 0 {
		return noSymbol
	}
	return id + int32(b.t.Size())
}

func (b *bpe) slot(left, right int32) int {
	h := (uint64(uint32(left))<<32 | uint64(uint32(right))) * 0x9e3779b97f4a7c15
	for i := int(h>>33) & (len(b.slots) - 1); ; i = (i + 1) & (len(b.slots) - 1) {
		if at := b.slots[i]; at < 0 || b.merges[at].left == left && b.merges[at].right == right {
			return i
		}
	}
}

// encode implements encoder.
func (b *bpe) encode(ctx context.Context, tokens []int32, text string, _ bool) ([]int32, error) {
	text = clean(text)
	if b.rules.space {
		text = strings.ReplaceAll(text, " ", "▁")
	}
	c := b.caches.Get().(*cache)
	defer c.release(&b.caches)
	w := walk{b: b, ctx: ctx, tokens: tokens, cache: c}
	err := w.split(b.parts, text)
	return w.tokens, err
}

// walk goes through a text.
type walk struct {
	b      *bpe
	ctx    context.Context
	tokens []int32
	cache  *cache
	pieces int
}

func (w *walk) split(parts []splitter, s string) error {
	if len(parts) == 0 {
		return w.piece(s)
	}
	m := &w.cache.memories[len(w.b.parts)-len(parts)]
	*m = memory{}
	for s != "" {
		n := parts[0].part(s, m)
		if err := w.split(parts[1:], s[:n]); err != nil {
			return err
		}
		s = s[n:]
	}
	return nil
}

func (w *walk) piece(s string) error {
	if w.pieces++; w.pieces&1023 == 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
	}
	r := &w.b.rules
	switch {
	case r.meta && s[0] != '\n':
		if !strings.HasPrefix(s, "▁") {
			s = "▁" + s
		}
		for s != "" {
			n := strings.Index(s[len("▁"):], "▁")
			if n < 0 {
				return w.word(s)
			}
			if err := w.word(s[:n+len("▁")]); err != nil {
				return err
			}
			s = s[n+len("▁"):]
		}
		return nil
	case r.lines && s[0] == '\n':
		if id := w.b.t.names.find(s); id >= 0 {
			w.tokens = append(w.tokens, id)
			return nil
		}
		return w.word(s)
	case r.space:
		return w.b.joints.split(s, w.word)
	}
	return w.word(s)
}

func (w *walk) word(s string) (err error) {
	w.tokens, err = w.cache.word(w.tokens, s, w)
	return err
}

// merge implements merger.
func (w *walk) merge(tokens []int32, s string) ([]int32, error) {
	b := w.b
	if b.rules.whole {
		if id := b.t.names.find(s); id >= 0 {
			return append(tokens, id), nil
		}
	}
	nodes := w.cache.nodes[:0]
	for i := 0; i < len(s); {
		id, n := int32(0), 1
		if b.rules.plain {
			_, n = decode(s[i:])
			id = b.symbol(s[i:i+n], false)
		} else {
			id = b.single[s[i]]
		}
		k := int32(len(nodes))
		nodes = append(nodes, node{id: id, begin: int32(i), end: int32(i + n), prev: k - 1, next: k + 1, made: -1})
		i += n
	}
	w.cache.nodes = nodes
	if err := mergeAll(w.ctx, nodes, b); err != nil {
		return nil, err
	}
	for i := int32(0); i >= 0; i = nodes[i].next {
		n := &nodes[i]
		if n.id >= 0 && int(n.id) < b.t.Size() {
			tokens = append(tokens, n.id)
			continue
		}
		for _, c := range []byte(s[n.begin:n.end]) {
			if id := b.bytes[c]; id >= 0 {
				tokens = append(tokens, id)
			}
		}
	}
	return tokens, nil
}

// look implements looker.
func (b *bpe) look(nodes []node, i int32) {
	n := &nodes[i]
	n.made = -1
	if rank := b.slots[b.slot(n.id, nodes[n.next].id)]; rank >= 0 {
		n.made, n.order = b.merges[rank].made, uint32(rank)
	}
}
