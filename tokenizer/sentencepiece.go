package tokenizer

import (
	"container/heap"
	"context"
	"strings"
)

// sentencePiece merges neighbours whose text is a token, that with the highest score first.
type sentencePiece struct {
	t      *Tokenizer
	scores []float32
	bytes  [256]int32
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
	return s
}

// pair is two neighbours that could be merged.
type pair struct {
	score     float32
	left      int32
	begin, to int32 // its text
	token     int32
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

// lengths are those of characters by the upper half of their first byte; nothing is checked.
var lengths = [16]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4}

// encode implements encoder.
func (s *sentencePiece) encode(ctx context.Context, tokens []int32, text string, first bool) ([]int32, error) {
	if first && s.t.prefix {
		text = " " + text
	}
	text = strings.ReplaceAll(text, " ", "▁")
	var nodes []node
	for i := 0; i < len(text); {
		n := min(lengths[text[i]>>4], len(text)-i)
		k := int32(len(nodes))
		nodes = append(nodes, node{-1, int32(i), int32(i + n), k - 1, k + 1, -1})
		i += n
	}
	if len(nodes) == 0 {
		return tokens, nil
	}
	nodes[len(nodes)-1].next = -1
	for i := range nodes {
		nodes[i].id = s.t.names.find(text[nodes[i].begin:nodes[i].end])
	}
	var queue pairs
	add := func(left int32, push bool) {
		if left < 0 || nodes[left].next < 0 {
			return
		}
		p := pair{left: left, begin: nodes[left].begin, to: nodes[nodes[left].next].end}
		if p.token = s.t.names.find(text[p.begin:p.to]); p.token < 0 {
			return
		}
		p.score = s.scores[p.token]
		if queue = append(queue, p); push {
			heap.Fix(&queue, len(queue)-1)
		}
	}
	for i := range nodes {
		add(int32(i), false)
	}
	heap.Init(&queue)
	for steps := 0; len(queue) > 0; steps++ {
		if steps&0xffff == 0xffff {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		}
		p := heap.Pop(&queue).(pair)
		n := &nodes[p.left]
		if n.end < 0 || n.next < 0 || nodes[n.next].end != p.to {
			continue
		}
		gone := &nodes[n.next]
		n.id, n.end, n.next = p.token, gone.end, gone.next
		gone.end = -1
		if n.next >= 0 {
			nodes[n.next].prev = p.left
		}
		add(n.prev, true)
		add(p.left, true)
	}
	for i := int32(0); i >= 0; i = nodes[i].next {
		if n := &nodes[i]; n.id >= 0 {
			tokens = append(tokens, n.id)
		} else {
			for _, b := range []byte(text[n.begin:n.end]) {
				tokens = append(tokens, s.bytes[b])
			}
		}
	}
	return tokens, ctx.Err()
}
