package model

import "slices"

// pack lays a batch's tokens end to end as rows. Samples are cut into segments, which form a tree: tokens with which
// several samples begin are computed once, in one segment, and the rest of each sample is a child of that segment. A
// row sees all rows of its segment's ancestors, and its own segment up to itself. So every sample sees itself alone,
// and the result is exact: in a causal model a token's result depends on earlier tokens only.
type pack struct {
	segments  []segment
	tokens    []int32 // of each row
	positions []int32 // of each row in its samples
	long      []bool  // whether each row is of a long sample
	labels    labels
	rotations []kept // of these rows, while the pass is computed

	growing             *growing     // of a pass that continues texts of a cache; nil in training
	embeddings          kept         // of the blocks, while the pass is computed
	shared, sharedGrads map[int]kept // by block: keys and values that others take, and their gradients
}

// segment is a run of rows. parent is the index of the segment before it in its samples, or -1; past is the number of
// rows in all its ancestors.
type segment struct{ start, length, parent, past int32 }

// labels are the rows that have a label, the token to be predicted there, and the index of its sample in the batch.
type labels struct{ rows, tokens, samples []int32 }

// sample is a sequence of tokens, with the token to be predicted after each, or -1.
type sample struct {
	tokens, targets []int32
	place           int32 // index in the batch
	long            bool  // it is rotated as long texts are
}

// leastShared is the fewest common tokens that are worth a segment.
const leastShared = 4

// newPack lays samples out. With share, common beginnings without labels become one segment. Otherwise, or if some
// sample is long, every sample is one segment.
func newPack(samples []sample, share bool) pack {
	var p pack
	if !share || slices.ContainsFunc(samples, func(s sample) bool { return s.long }) {
		for _, s := range samples {
			p.add(s, 0, len(s.tokens), -1)
		}
	} else {
		samples = slices.Clone(samples)
		slices.SortStableFunc(samples, func(a, b sample) int { return slices.Compare(a.tokens, b.tokens) })
		p.tree(samples, 0, -1)
	}
	return p
}

// tree lays out sorted samples that are equal up to `from`, as children of the segment parent.
func (p *pack) tree(samples []sample, from int, parent int32) {
	for len(samples) > 0 {
		// Samples are sorted, so those with a common beginning are neighbours.
		first, n, most := samples[0], 1, 0
		for n < len(samples) {
			common := first.shared(samples[n], from)
			if common < leastShared {
				break
			}
			if n == 1 || common < most {
				most = common
			}
			n++
		}
		if n == 1 {
			if len(first.tokens) > from {
				p.add(first, from, len(first.tokens), parent)
			}
		} else {
			p.tree(samples[:n], from+most, p.add(first, from, from+most, parent))
		}
		samples = samples[n:]
	}
}

// shared is the number of tokens, from an index on, that two samples have in common before either has a label.
func (s sample) shared(t sample, from int) int {
	n := 0
	for i := from; i < min(len(s.tokens), len(t.tokens)) && s.tokens[i] == t.tokens[i] && s.targets[i] < 0 &&
		t.targets[i] < 0; i++ {
		n++
	}
	return n
}

// add appends a part of a sample as a segment and gives its index.
func (p *pack) add(s sample, from, to int, parent int32) int32 {
	p.segments = append(p.segments, segment{int32(len(p.tokens)), int32(to - from), parent, int32(from)})
	for i := from; i < to; i++ {
		if s.targets[i] >= 0 {
			p.labels.rows = append(p.labels.rows, int32(len(p.tokens)))
			p.labels.tokens = append(p.labels.tokens, s.targets[i])
			p.labels.samples = append(p.labels.samples, s.place)
		}
		p.tokens = append(p.tokens, s.tokens[i])
		p.positions = append(p.positions, int32(i))
		p.long = append(p.long, s.long)
	}
	return int32(len(p.segments) - 1)
}

func (p pack) rows() int { return len(p.tokens) }

// passRows bounds the tokens of a pass. It does not depend on the memory, so that sums come out the same everywhere.
const passRows = 4096

// passes splits samples into runs of at most passRows tokens; a longer sample is alone.
func passes(samples []sample) [][]sample {
	var all [][]sample
	rows := 0
	for _, s := range samples {
		if rows += len(s.tokens); len(all) == 0 || rows > passRows {
			all, rows = append(all, nil), len(s.tokens)
		}
		all[len(all)-1] = append(all[len(all)-1], s)
	}
	return all
}
