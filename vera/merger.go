package vera

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/veratune/veratune/bindings"
)

// merger computes W + ΔW of the base file's tensors, some rows at a time, and rounds them to types.
type merger struct {
	*Adapter
	ctx     context.Context
	base    *bindings.GGUF
	threads int
	backend *bindings.Backend
	pair    *bindings.Context
	memory  *bindings.Buffer // of the pair
	scratch *bindings.Buffer // of one chunk

	// Of the shared pair, in each order that layers see: A [in, rank] and B [rank, out]; nil where each layer has its
	// own.
	down, up map[Order]*bindings.Tensor
}

// chunkValues is about how many values of a tensor are worked on at once: rows enough for the product, in some tens of
// megabytes.
const chunkValues = 4 << 20

func newMerger(ctx context.Context, a *Adapter, base *bindings.GGUF, threads int) (*merger, error) {
	backend, err := bindings.NewCPU(threads)
	if err != nil {
		return nil, err
	}
	m := &merger{Adapter: a, ctx: ctx, base: base, threads: threads, backend: backend, pair: bindings.NewContext(16)}
	if err := m.load(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// load puts the pair where the backend computes with it.
func (m *merger) load() (err error) {
	rank := int64(m.Rank)
	scratch := int64(chunkValues + m.MaxIn + m.MaxOut + m.Rank + 1024)
	if m.Pair == nil {
		m.scratch, err = m.backend.NewBuffer(4 * (scratch + rank*int64(m.MaxIn+m.MaxOut)))
		return err
	}
	var set []func() error
	place := func(all map[Order]Matrix) map[Order]*bindings.Tensor {
		placed := map[Order]*bindings.Tensor{}
		for o, x := range all {
			t := m.pair.NewTensor(bindings.F32, int64(x.Width), int64(len(x.Values)/x.Width))
			placed[o] = t
			set = append(set, func() error { return bindings.Set(t, x.Values) })
		}
		return placed
	}
	down, up := m.Ordered()
	m.down, m.up = place(down), place(up)
	if m.memory, err = m.backend.Allocate(m.pair); err != nil {
		return err
	}
	if m.scratch, err = m.backend.NewBuffer(4 * scratch); err != nil {
		return err
	}
	for _, f := range set {
		err = errors.Join(err, f())
	}
	return err
}

func (m *merger) close() {
	m.scratch.Close()
	m.memory.Close()
	m.pair.Close()
	m.backend.Close()
}

// chunks calls visit for all rows of W + ΔW in order, as many at once as chunkValues lets; start is the first one's
// number.
func (m *merger) chunks(x *weight, visit func(start int, merged []float32) error) error {
	most := max(1, chunkValues/x.In)
	values := make([]float32, min(most, x.Out)*x.In)
	for start := 0; start < x.Out; start += most {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		part := values[:min(most, x.Out-start)*x.In]
		if err := m.merge(x, start, part); err != nil {
			return fmt.Errorf("tensor %s: %w", x.Name, err)
		}
		if err := visit(start, part); err != nil {
			return err
		}
	}
	return nil
}

// merge computes rows of W + ΔW, from start on, in exact float32 arithmetic.
func (m *merger) merge(x *weight, start int, merged []float32) error {
	c := m.backend.NewContext()
	defer c.Close()
	in, n, out, rank := int64(x.In), int64(len(merged)/x.In), int64(x.Out), int64(x.Rank())
	dst, b, d := c.NewTensor(bindings.F32, in, n), c.NewTensor(bindings.F32, out), c.NewTensor(bindings.F32, rank)
	m.scratch.Reset()
	parts := []*bindings.Tensor{dst, b, d}
	rowOrder, columnOrder := m.Base.Orders(x.Target)
	a, rows := m.down[columnOrder], m.up[rowOrder]
	if m.Pair == nil {
		a, rows = c.NewTensor(bindings.F32, in, rank), c.NewTensor(bindings.F32, rank, out)
		parts = append(parts, a, rows)
	}
	for _, t := range parts {
		if _, err := m.scratch.Place(t); err != nil {
			return err
		}
	}
	w, err := m.base.Leaf(c, x.info)
	if err := errors.Join(err, bindings.Set(b, x.LambdaB), bindings.Set(d, x.LambdaD)); err != nil {
		return err
	}
	if m.Pair == nil {
		if err := errors.Join(bindings.Set(a, m.Columns(x.Layer)), bindings.Set(rows, m.Rows(x.Layer))); err != nil {
			return err
		}
	}
	from := func(t *bindings.Tensor, width int64) *bindings.Tensor {
		return c.View(t, [4]int64{width, n, 1, 1}, [4]int64{0, int64(start)})
	}
	g := c.NewGraph()
	g.Expand(c.Merge(dst, from(w, in), &bindings.Vectors{
		A: c.View(a, [4]int64{in, rank, 1, 1}, [4]int64{}), B: from(rows, rank),
		LambdaB: c.View(b, [4]int64{n, 1, 1, 1}, [4]int64{int64(start)}), LambdaD: d,
	}, bindings.Plain))
	if err := c.Err(); err != nil {
		return err
	}
	if err := m.backend.Compute(g); err != nil {
		return err
	}
	return bindings.Get(dst, merged)
}

// write writes W + ΔW in the tensor's type, and sums up what becomes of the update.
func (m *merger) write(x *weight, out io.Writer) error {
	var total rounding
	err := m.chunks(x, func(start int, merged []float32) error {
		data, part, err := m.round(x, x.kind, start, merged)
		if err != nil {
			return err
		}
		total.add(part)
		_, err = out.Write(data)
		return err
	})
	x.Update, x.Kept, x.Error = total.update, total.kept(), total.err
	return err
}

// rounding sums up, over the elements of a matrix, what happens to an update when M = W + ΔW is rounded to M + E.
type rounding struct {
	size   float64 // ‖M‖²
	update float64 // ‖ΔW‖²
	along  float64 // ⟨E, ΔW⟩
	err    float64 // ‖E‖²
}

func (r *rounding) add(s rounding) {
	r.size, r.update, r.along, r.err = r.size+s.size, r.update+s.update, r.along+s.along, r.err+s.err
}

// count adds a row: W, M and M + E.
func (r *rounding) count(w, merged, rounded []float32) {
	for i, v := range merged {
		m, e := float64(v), float64(rounded[i])-float64(v)
		update := m - float64(w[i])
		r.add(rounding{m * m, update * update, e * update, e * e})
	}
}

// kept is ⟨ΔW + E, ΔW⟩ / ‖ΔW‖², the share of the update that is left: 1 is all of it, 0 none. What E has besides is
// noise.
func (r *rounding) kept() float64 {
	if r.update == 0 {
		return 1
	}
	return 1 + r.along/r.update
}

// round turns rows of W + ΔW into a type. Rows without an update have the base file's bytes in its own type. Rows are
// shared out among threads, and what they sum up to is added in their order.
func (m *merger) round(x *weight, t bindings.Type, start int, merged []float32) (data []byte, total rounding,
	err error) {
	n, size, was := len(merged)/x.In, int(t.RowBytes(int64(x.In))), int(x.info.Type.RowBytes(int64(x.In)))
	data = make([]byte, n*size)
	original := m.base.Data(x.info)[start*was:]
	sums, errs := make([]rounding, n), make([]error, m.threads)
	var all sync.WaitGroup
	for thread := range m.threads {
		all.Go(func() {
			w, rounded := make([]float32, x.In), make([]float32, x.In)
			for row := thread; row < n && errs[thread] == nil; row += m.threads {
				from, to, values := original[row*was:][:was], data[row*size:][:size], merged[row*x.In:][:x.In]
				if t == x.info.Type && x.unchanged(start+row) {
					copy(to, from)
				} else if q, err := bindings.Quantize(t, values, int64(x.In)); err != nil {
					errs[thread] = err
					break
				} else {
					copy(to, q)
				}
				errs[thread] = errors.Join(bindings.Dequantize(x.info.Type, from, w),
					bindings.Dequantize(t, to, rounded))
				sums[row].count(w, values, rounded)
			}
		})
	}
	all.Wait()
	for _, s := range sums {
		total.add(s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, total, fmt.Errorf("tensor %s: %w", x.Name, err)
	}
	if total.err-total.err != 0 {
		return nil, total, fmt.Errorf("tensor %s: a weight becomes infinite or no number in %v; the adapter is "+
			"damaged, or the type too small for it", x.Name, t)
	}
	return data, total, nil
}
