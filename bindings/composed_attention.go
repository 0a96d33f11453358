package bindings

import "math"

// Composed attention: a masked softmax of all pairs of tokens of a piece of the pack.

// pieceRows is how many tokens of samples without a common beginning share a piece: more would compute more masked pairs, fewer more operations.
const pieceRows = 256

// pieceBytes bounds the scores of all pairs that are computed at once, if need be those of one KV head after the other's.
const pieceBytes = 128 << 20

// piece is a run of whole trees of segments: its tokens see no others.
type piece struct {
	first, rows int64
	mask        *Tensor // [rows, rows]: 0 where the token of the second index sees that of the first, else −∞
	values      []float32
}

// pieces cuts a pack where a tree of segments begins.
func (c *Context) pieces(runs [][4]int32) (list []piece) {
	begin := 0
	cut := func(end int) {
		last := runs[end-1]
		first := int64(runs[begin][0])
		p := piece{first: first, rows: int64(last[0]+last[1]) - first}
		p.values = masked(runs[begin:end], begin, p)
		p.mask = c.NewTensor(F32, p.rows, p.rows).Input()
		list = append(list, p)
		begin = end
	}
	for i, r := range runs {
		if i > begin && r[2] < 0 {
			next := i + 1 // the end of the tree that begins here
			for next < len(runs) && runs[next][2] >= 0 {
				next++
			}
			if int(runs[next-1][0]+runs[next-1][1]-runs[begin][0]) > pieceRows {
				cut(i)
			}
		}
	}
	cut(len(runs))
	return list
}

// masked tells which token of a piece sees which. The runs are numbered from base.
func masked(runs [][4]int32, base int, p piece) []float32 {
	mask := make([]float32, p.rows*p.rows)
	for i := range mask {
		mask[i] = float32(math.Inf(-1))
	}
	for _, own := range runs {
		for i := int64(own[0]) - p.first; i < int64(own[0]+own[1])-p.first; i++ {
			row := mask[i*p.rows : (i+1)*p.rows]
			for s := own; ; s = runs[int(s[2])-base] {
				from := int64(s[0]) - p.first
				clear(row[from:min(from+int64(s[1]), i+1)])
				if s[2] < 0 {
					break
				}
			}
		}
	}
	return mask
}

// heads is the shape of the heads that are computed together: queries of several heads that share a KV head lie one after the other.
type headGroup struct {
	dim, n, kv, shared int64   // numbers of a head, tokens, KV heads, heads for each
	q, k, v            *Tensor // [dim, n · shared, kv] and [dim, n, kv]
	p                  *Tensor // [n, n · shared, kv]: the probabilities
}

// heads computes the probabilities of count KV heads of a piece, from the first on.
func (c *Context) heads(qkv *Tensor, p piece, heads, kvHeads, headDim int, first, count int64, scale float32) headGroup {
	h := headGroup{dim: int64(headDim), n: p.rows, kv: count, shared: int64(heads / kvHeads)}
	x := c.Reshape(qkv, h.dim, int64(heads+2*kvHeads), qkv.Ne(1))
	take := func(first, count int64) *Tensor { return c.byHead(x, p, first, count) }
	h.q = c.Reshape(take(first*h.shared, count*h.shared), h.dim, h.n*h.shared, h.kv)
	h.k, h.v = take(int64(heads)+first, count), take(int64(heads+kvHeads)+first, count)
	scores := c.Reshape(c.times(h.k, h.q), h.n, h.n, h.kv*h.shared)
	h.p = c.Reshape(c.softMaxMasked(scores, p.mask, scale), h.n, h.n*h.shared, h.kv)
	return h
}

// byHead gives some heads of a piece's tokens, [dim, rows, count], of x [dim, heads, tokens].
func (c *Context) byHead(x *Tensor, p piece, first, count int64) *Tensor {
	return c.Cont(c.Permute(c.View(x, [4]int64{x.Ne(0), count, p.rows, 1}, [4]int64{0, first, p.first}), 0, 2, 1, 3))
}

// headsAtOnce is the number of KV heads whose scores stay below pieceBytes, at least one; they divide all.
func headsAtOnce(p piece, heads, kvHeads int) int64 {
	n := int64(kvHeads)
	for n > 1 && (n*int64(heads/kvHeads)*p.rows*p.rows*4 > pieceBytes || int64(kvHeads)%n != 0) {
		n--
	}
	return n
}

func (c *Context) composeAttention(qkv *Tensor, s *Segments, heads, kvHeads, headDim int, scale float32, t Type) *Tensor {
	if !c.float32s("attention", t, qkv) {
		return nil
	}
	qkv = c.unbroken(qkv)
	var all []*Tensor
	for _, p := range s.pieces {
		var parts []*Tensor
		for first, n := int64(0), headsAtOnce(p, heads, kvHeads); first < int64(kvHeads); first += n {
			h := c.heads(qkv, p, heads, kvHeads, headDim, first, n, scale)
			y := c.times(c.turned(h.v), h.p) // [dim, n · shared, kv]
			parts = append(parts, c.Reshape(y, h.dim, h.n, h.kv*h.shared))
		}
		y := c.Cont(c.Permute(c.joined(parts, 2), 0, 2, 1, 3)) // [dim, heads, n]
		all = append(all, c.Reshape(y, int64(headDim*heads), p.rows))
	}
	return c.joined(all, 1)
}

// composeAttentionBack has, for the gradient g of a head's result: ∂V = Pᵀ g, D = scale · P ⊙ (g Vᵀ − rowsum(P ⊙ g Vᵀ)), ∂Q = D K, ∂K = Dᵀ Q.
func (c *Context) composeAttentionBack(dout, qkv *Tensor, s *Segments, heads, kvHeads, headDim int, scale float32) *Tensor {
	if !c.float32s("attention_back", F32, dout, qkv) {
		return nil
	}
	qkv = c.unbroken(qkv)
	g := c.Reshape(c.unbroken(dout), int64(headDim), int64(heads), dout.Ne(1))
	var all []*Tensor
	for _, p := range s.pieces {
		var dq, dk, dv []*Tensor
		for first, n := int64(0), headsAtOnce(p, heads, kvHeads); first < int64(kvHeads); first += n {
			h := c.heads(qkv, p, heads, kvHeads, headDim, first, n, scale)
			dy := c.Reshape(c.byHead(g, p, first*h.shared, n*h.shared), h.dim, h.n*h.shared, h.kv)
			dp := c.times(h.v, dy)
			ds := c.ScaleBias(c.Mul(h.p, c.sub(dp, c.sumRows(c.Mul(h.p, dp)))), scale, 0)
			// The sums over the heads that share a KV head are those over their queries.
			turned := c.turned(ds)
			dq = append(dq, c.Reshape(c.times(c.turned(h.k), ds), h.dim, h.n, h.kv*h.shared))
			dk = append(dk, c.times(c.turned(h.q), turned))
			dv = append(dv, c.times(c.turned(dy), c.turned(h.p)))
		}
		d := c.Cont(c.Permute(c.joined(append(append(dq, dk...), dv...), 2), 0, 2, 1, 3))
		all = append(all, c.Reshape(d, qkv.Ne(0), p.rows))
	}
	return c.joined(all, 1)
}

// joined puts tensors one after the other in a dimension, by halves.
func (c *Context) joined(list []*Tensor, dim int) *Tensor {
	if len(list) == 1 {
		return list[0]
	}
	return c.concat(c.joined(list[:len(list)/2], dim), c.joined(list[len(list)/2:], dim), dim)
}
