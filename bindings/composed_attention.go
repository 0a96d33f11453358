package bindings

import "math"

// Composed attention: a masked softmax of all pairs of tokens of a piece of the pack.

// pieceRows is how many tokens of unrelated samples share a piece: more would compute more masked pairs, fewer would
// make more operations.
const pieceRows = 256

// pieceBytes bounds the scores that are computed at once; if need be, KV heads are computed one after the other.
const pieceBytes = 128 << 20

// piece is some whole trees of segments: its tokens see no others.
type piece struct {
	begin, end  int // of its runs
	first, rows int64
	// by window, [rows, rows]: 0 where the token of the second index sees that of the first, else −∞
	masks map[int]*Tensor
}

// pieces cuts a pack where trees of segments begin.
func pieces(runs [][4]int32) (list []piece) {
	begin := 0
	cut := func(end int) {
		first, last := int64(runs[begin][0]), runs[end-1]
		list = append(list, piece{begin, end, first, int64(last[0]+last[1]) - first, map[int]*Tensor{}})
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

// mask is the input that holds which token of a piece sees which.
func (c *Context) mask(p piece, window int) *Tensor {
	if p.masks[window] == nil {
		p.masks[window] = c.NewTensor(F32, p.rows, p.rows).Input()
	}
	return p.masks[window]
}

// masked gives the values of the mask.
func masked(runs [][4]int32, p piece, window int) []float32 {
	mask := make([]float32, p.rows*p.rows)
	for i := range mask {
		mask[i] = float32(math.Inf(-1))
	}
	for _, run := range runs[p.begin:p.end] {
		for i := range int64(run[1]) {
			token := int64(run[0]) - p.first + i
			row := mask[token*p.rows : (token+1)*p.rows]
			lowest := int64(0) // the first token of the text that is seen
			if window > 0 {
				lowest = int64(run[3]) + i + 1 - int64(window)
			}
			for s := run; ; s = runs[s[2]] {
				from, before := int64(s[0])-p.first, int64(s[3])
				end := min(int64(s[1]), token+1-from)
				clear(row[from+min(max(lowest-before, 0), end) : from+end])
				if s[2] < 0 {
					break
				}
			}
		}
	}
	return mask
}

// headGroup is some heads that are computed together. Queries of the heads that share a KV head lie one after the
// other.
type headGroup struct {
	dim, n, kv, shared int64   // numbers of a head, tokens, KV heads, heads for each
	q, k, v            *Tensor // [dim, n · shared, kv] and [dim, n, kv]
	p                  *Tensor // [n, n · shared, kv]: the probabilities
	t                  *Tensor // the same of the scores or, with a cap, of tanh(score / cap)
}

// heads computes the probabilities of count KV heads of a piece, from the first on.
func (c *Context) heads(qkv *Tensor, p piece, h Heads, first, count int64) headGroup {
	g := headGroup{dim: int64(h.Dim), n: p.rows, kv: count, shared: int64(h.Query / h.KV)}
	x := c.Reshape(qkv, g.dim, int64(h.Query+2*h.KV), qkv.Ne(1))
	take := func(first, count int64) *Tensor { return c.byHead(x, p, first, count) }
	g.q = c.Reshape(take(first*g.shared, count*g.shared), g.dim, g.n*g.shared, g.kv)
	g.k, g.v = take(int64(h.Query)+first, count), take(int64(h.Query+h.KV)+first, count)
	var scale float32
	g.t, scale = c.capped(c.times(g.k, g.q), h)
	sinks := h.Sinks
	if sinks != nil {
		sinks = c.View(sinks, [4]int64{count * g.shared, 1, 1, 1}, [4]int64{first * g.shared})
	}
	scores := c.Reshape(g.t, g.n, g.n, g.kv*g.shared)
	g.p = c.Reshape(c.softMaxMasked(scores, c.mask(p, h.Window), sinks, scale), g.n, g.n*g.shared, g.kv)
	return g
}

// capped is what the softmax takes of scores Q Kᵀ, and by which scale.
func (c *Context) capped(scores *Tensor, h Heads) (*Tensor, float32) {
	if h.Cap == 0 {
		return scores, h.Scale
	}
	return c.tanh(c.ScaleBias(scores, h.Scale/h.Cap, 0)), h.Cap
}

// byHead gives some heads of a piece's tokens, [dim, rows, count], of x [dim, heads, tokens].
func (c *Context) byHead(x *Tensor, p piece, first, count int64) *Tensor {
	return c.Cont(c.Permute(c.View(x, [4]int64{x.Ne(0), count, p.rows, 1}, [4]int64{0, first, p.first}), 0, 2, 1, 3))
}

// headsAtOnce is the number of KV heads whose scores stay below pieceBytes, at least one; they divide all.
func headsAtOnce(p piece, h Heads) int64 {
	n := int64(h.KV)
	for n > 1 && (n*int64(h.Query/h.KV)*p.rows*p.rows*4 > pieceBytes || int64(h.KV)%n != 0) {
		n--
	}
	return n
}

func (c *Context) composeAttention(qkv *Tensor, s *Segments, h Heads, t Type) *Tensor {
	if !c.composable("attention", t, qkv) {
		return nil
	}
	qkv = c.unbroken(qkv)
	var all []*Tensor
	for _, p := range s.pieces {
		var parts []*Tensor
		for first, n := int64(0), headsAtOnce(p, h); first < int64(h.KV); first += n {
			g := c.heads(qkv, p, h, first, n)
			y := c.times(c.transposed(g.v), g.p) // [dim, n · shared, kv]
			parts = append(parts, c.Reshape(y, g.dim, g.n, g.kv*g.shared))
		}
		y := c.Cont(c.Permute(c.joined(parts, 2), 0, 2, 1, 3)) // [dim, heads, n]
		all = append(all, c.Reshape(y, int64(h.Dim*h.Query), p.rows))
	}
	return c.joined(all, 1)
}

// composeAttentionBack has, for the gradient g of a head's result: ∂V = Pᵀ g, D = scale · P ⊙ (g Vᵀ − rowsum(P ⊙ g
// Vᵀ)), ∂Q = D K, ∂K = Dᵀ Q. With a cap, D ⊙ (1 − tanh²) takes the place of D.
func (c *Context) composeAttentionBack(dout, qkv *Tensor, s *Segments, h Heads) *Tensor {
	if !c.composable("attention_back", F32, dout, qkv) {
		return nil
	}
	qkv = c.unbroken(qkv)
	dout = c.Reshape(c.unbroken(dout), int64(h.Dim), int64(h.Query), dout.Ne(1))
	var all []*Tensor
	for _, p := range s.pieces {
		var dq, dk, dv []*Tensor
		for first, n := int64(0), headsAtOnce(p, h); first < int64(h.KV); first += n {
			g := c.heads(qkv, p, h, first, n)
			dy := c.Reshape(c.byHead(dout, p, first*g.shared, n*g.shared), g.dim, g.n*g.shared, g.kv)
			dp := c.times(g.v, dy)
			ds := c.ScaleBias(c.Mul(g.p, c.sub(dp, c.sumRows(c.Mul(g.p, dp)))), h.Scale, 0)
			if h.Cap != 0 {
				ds = c.Mul(ds, c.ScaleBias(c.Mul(g.t, g.t), -1, 1))
			}
			// The sums over the heads that share a KV head are those over their queries.
			dsT := c.transposed(ds)
			dq = append(dq, c.Reshape(c.times(c.transposed(g.k), ds), g.dim, g.n, g.kv*g.shared))
			dk = append(dk, c.times(c.transposed(g.q), dsT))
			dv = append(dv, c.times(c.transposed(dy), c.transposed(g.p)))
		}
		d := c.Cont(c.Permute(c.joined(append(append(dq, dk...), dv...), 2), 0, 2, 1, 3))
		all = append(all, c.Reshape(d, qkv.Ne(0), p.rows))
	}
	return c.joined(all, 1)
}

// joined concatenates tensors in a dimension, by halves.
func (c *Context) joined(list []*Tensor, dim int) *Tensor {
	if len(list) == 1 {
		return list[0]
	}
	return c.concat(c.joined(list[:len(list)/2], dim), c.joined(list[len(list)/2:], dim), dim)
}
