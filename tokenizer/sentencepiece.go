package tokenizer

import (
	"context"
	"math"
	"strings"
	"sync"
	"unicode/utf8"
)

// sentencePiece merges neighbours whose text is a token, that with the highest score first.
type sentencePiece struct {
	t      *Tokenizer
	orders []uint32 // of tokens: the higher their score, the less
	bytes  [256]int32
	joints joints
	caches sync.Pool
}

func newSentencePiece(t *Tokenizer, scores []float32) *sentencePiece {
	s := &sentencePiece{t: t, orders: make([]uint32, t.Size())}
	for i := range min(len(scores), t.Size()) {
		bits := math.Float32bits(scores[i] + 0) // no -0
		if bits>>31 == 0 {
			bits ^= 1<<31 - 1
		}
		s.orders[i] = bits
	}
	for b := range s.bytes {
		if s.bytes[b] = t.names.find(byteName(byte(b))); s.bytes[b] < 0 {
			s.bytes[b] = t.names.find(string([]byte{byte(b)}))
		}
		if s.bytes[b] < 0 {
			s.bytes[b] = t.ids["unknown"]
		}
	}
	for i := range int32(t.Size()) {
		s.joints.add(t.names.name(i))
	}
	s.caches.New = func() any { return newCache(0) }
	return s
}

// lengths are those of characters by the upper half of their first byte; nothing is checked.
var lengths = [16]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4}

// encode implements encoder.
func (s *sentencePiece) encode(ctx context.Context, tokens []int32, text string, first bool) ([]int32, error) {
	if first && s.t.prefix {
		text = " " + text
	}
	if text == "" {
		return tokens, nil
	}
	c := s.caches.Get().(*cache)
	defer c.release(&s.caches)
	spell, words := &spelling{sentencePiece: s, ctx: ctx, cache: c}, 0
	word := func(word string) (err error) {
		if words++; words&1023 == 0 {
			err = ctx.Err()
		}
		if err == nil {
			tokens, err = c.word(tokens, word, spell)
		}
		return err
	}
	whole := strings.ReplaceAll(text, " ", "▁")
	if !utf8.ValidString(text) { // a byte that begins no character takes those behind it along, a ▁ too
		return tokens, word(whole)
	}
	err := s.joints.split(whole, word)
	return tokens, err
}

// spelling goes through a text.
type spelling struct {
	*sentencePiece
	ctx   context.Context
	cache *cache
	text  string // the word
}

// merge implements merger.
func (s *spelling) merge(tokens []int32, text string) ([]int32, error) {
	nodes := s.cache.nodes[:0]
	for i := 0; i < len(text); {
		n := min(lengths[text[i]>>4], len(text)-i)
		k := int32(len(nodes))
		nodes = append(nodes, node{id: -1, begin: int32(i), end: int32(i + n), prev: k - 1, next: k + 1, made: -1})
		i += n
	}
	s.cache.nodes = nodes
	s.text = text
	if err := mergeAll(s.ctx, nodes, s); err != nil {
		return nil, err
	}
	for i := int32(0); i >= 0; i = nodes[i].next {
		n := &nodes[i]
		if n.id < 0 { // a character that nothing was merged with
			n.id = s.t.names.find(text[n.begin:n.end])
		}
		if n.id >= 0 {
			tokens = append(tokens, n.id)
			continue
		}
		for _, b := range []byte(text[n.begin:n.end]) {
			tokens = append(tokens, s.bytes[b])
		}
	}
	return tokens, nil
}

// look implements looker.
func (s *spelling) look(nodes []node, i int32) {
	n := &nodes[i]
	if n.made = s.t.names.find(s.text[n.begin:nodes[n.next].end]); n.made >= 0 {
		n.order = s.orders[n.made]
	}
}
