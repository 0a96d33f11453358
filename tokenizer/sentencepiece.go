package tokenizer

import (
	"container/heap"
	"context"
	"strings"
	"sync"
	"unicode/utf8"
)

// sentencePiece merges neighbours whose text is a token, that with the highest score first.
type sentencePiece struct {
	t      *Tokenizer
	scores []float32
	bytes  [256]int32
	joints joints
	caches sync.Pool
}

func newSentencePiece(t *Tokenizer, scores []float32) *sentencePiece {
	s := &sentencePiece{t: t, scores: scores}
	if s.scores == nil {
		s.scores = make([]float32, t.Size())
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
	spell, words := &spelling{s, ctx, c}, 0
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
}

// merge implements merger.
func (s *spelling) merge(tokens []int32, text string) ([]int32, error) {
	nodes := s.cache.nodes[:0]
	for i := 0; i < len(text); {
		n := min(lengths[text[i]>>4], len(text)-i)
		k := int32(len(nodes))
		nodes = append(nodes, node{id: -1, begin: int32(i), end: int32(i + n), prev: k - 1, next: k + 1, rank: -1})
		i += n
	}
	s.cache.nodes = nodes
	nodes[len(nodes)-1].next = -1
	for i := range nodes[:len(nodes)-1] {
		s.look(nodes, int32(i), text)
	}
	if len(nodes) <= 64 {
		s.mergeShort(nodes, text)
	} else if err := s.mergeLong(nodes, text); err != nil {
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

// look finds what a symbol and the next would become: rank is that token.
func (s *sentencePiece) look(nodes []node, i int32, text string) {
	n := &nodes[i]
	if n.rank = -1; n.next < 0 {
		return
	}
	if n.rank = s.t.names.find(text[n.begin:nodes[n.next].end]); n.rank >= 0 {
		n.score = s.scores[n.rank]
	}
}

// merged merges a symbol with the next.
func (s *sentencePiece) merged(nodes []node, i int32, text string) {
	n := &nodes[i]
	gone := &nodes[n.next]
	n.id, n.end, n.next = n.rank, gone.end, gone.next
	gone.end = -1
	if n.next >= 0 {
		nodes[n.next].prev = i
	}
	s.look(nodes, i, text)
	if n.prev >= 0 {
		s.look(nodes, n.prev, text)
	}
}

// mergeShort looks for the best pair each time.
func (s *sentencePiece) mergeShort(nodes []node, text string) {
	for {
		best := int32(-1)
		for i := int32(0); i >= 0; i = nodes[i].next {
			if n := &nodes[i]; n.rank >= 0 && (best < 0 || n.score > nodes[best].score) {
				best = i
			}
		}
		if best < 0 {
			return
		}
		s.merged(nodes, best, text)
	}
}

// pair is two neighbours that could be merged.
type pair struct {
	score float32
	left  int32
	to    int32 // the end of its text
}

type pairs []pair

func (p pairs) Len() int { return len(p) }
func (p pairs) Less(i, j int) bool {
	return p[i].score > p[j].score || p[i].score == p[j].score && p[i].left < p[j].left
}
func (p pairs) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *pairs) Push(x any)   { *p = append(*p, x.(pair)) }
func (p *pairs) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// mergeLong keeps the pairs in order.
func (s *spelling) mergeLong(nodes []node, text string) error {
	var queue pairs
	add := func(i int32) bool {
		if i < 0 || nodes[i].rank < 0 {
			return false
		}
		queue = append(queue, pair{nodes[i].score, i, nodes[nodes[i].next].end})
		return true
	}
	for i := range nodes {
		add(int32(i))
	}
	heap.Init(&queue)
	for steps := 0; len(queue) > 0; steps++ {
		if steps&0xffff == 0xffff {
			if err := s.ctx.Err(); err != nil {
				return err
			}
		}
		p := heap.Pop(&queue).(pair)
		if n := &nodes[p.left]; n.end < 0 || n.rank < 0 || nodes[n.next].end != p.to {
			continue
		}
		s.merged(nodes, p.left, text)
		for _, i := range []int32{nodes[p.left].prev, p.left} {
			if add(i) {
				heap.Fix(&queue, len(queue)-1)
			}
		}
	}
	return nil
}
