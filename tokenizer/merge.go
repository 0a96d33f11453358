package tokenizer

import "context"

// node is a symbol of a word that is merged.
type node struct {
	id         int32
	begin, end int32 // in the word
	prev, next int32 // -1: none
	made       int32 // what it and the next become, -1: they are not merged
	order      uint32
}

// looker finds made and order of a symbol that has a next one.
type looker interface{ look(nodes []node, i int32) }

// mergeAll merges neighbours until none can be: each time those with the least order, and of several the first.
func mergeAll(ctx context.Context, nodes []node, l looker) error {
	nodes[len(nodes)-1].next = -1
	for i := range nodes[:len(nodes)-1] {
		l.look(nodes, int32(i))
	}
	if len(nodes) > 64 {
		return mergeLong(ctx, nodes, l)
	}
	for {
		best := int32(-1)
		for i := int32(0); i >= 0; i = nodes[i].next {
			if n := &nodes[i]; n.made >= 0 && (best < 0 || n.order < nodes[best].order) {
				best = i
			}
		}
		if best < 0 {
			return nil
		}
		merge(nodes, best, l)
	}
}

// merge merges a symbol with the next.
func merge(nodes []node, i int32, l looker) {
	n := &nodes[i]
	gone := &nodes[n.next]
	n.id, n.end, n.next, n.made = n.made, gone.end, gone.next, -1
	gone.made = -1
	if n.next >= 0 {
		nodes[n.next].prev = i
		l.look(nodes, i)
	}
	if n.prev >= 0 {
		l.look(nodes, n.prev)
	}
}

// mergeLong keeps what can be merged in order.
func mergeLong(ctx context.Context, nodes []node, l looker) error {
	var w waiting
	for i := range nodes {
		w.push(nodes, int32(i))
	}
	for steps := 0; len(w) > 0; steps++ {
		if steps&0xffff == 0xffff {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		top := w.pop()
		i := int32(uint32(top))
		if nodes[i].made < 0 || uint64(nodes[i].order) != top>>32 { // something else has become of it
			continue
		}
		merge(nodes, i, l)
		w.push(nodes, nodes[i].prev)
		w.push(nodes, i)
	}
	return nil
}

// waiting is a heap of what can be merged: its order, and below it the place of the first of the two.
type waiting []uint64

// push adds a symbol, where it is one and is merged with the next.
func (w *waiting) push(nodes []node, i int32) {
	if i < 0 || nodes[i].made < 0 {
		return
	}
	key := uint64(nodes[i].order)<<32 | uint64(i)
	h := append(*w, key)
	*w = h
	at := len(h) - 1
	for at > 0 && h[(at-1)/2] > key {
		h[at] = h[(at-1)/2]
		at = (at - 1) / 2
	}
	h[at] = key
}

// pop takes the least.
func (w *waiting) pop() uint64 {
	h := *w
	top, key := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	*w = h
	if len(h) == 0 {
		return top
	}
	at := 0
	for {
		child := 2*at + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if h[child] >= key {
			break
		}
		h[at] = h[child]
		at = child
	}
	h[at] = key
	return top
}
