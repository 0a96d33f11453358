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
	file    *bindings.Buffer // the base file's map
	pair    *bindings.Context
	memory  *bindings.Buffer // of the pair
	scratch *bindings.Buffer // of one chunk

	// Of the shared pair; nil where each layer has its own.
	a, rows, rotated *bindings.Tensor // A [MaxIn, rank]; B [rank, MaxOut]; B in the order of attn_q and attn_k, or nil
}

// chunkValues is about how many values of a tensor are worked on at once: rows enough for the product, in some tens of megabytes.
const chunkValues = 4 << 20

// graphSize holds the one operation and the tensors that it reads.
const graphSize = 16

func newMerger(ctx context.Context, a *Adapter, base *bindings.GGUF, threads int) (*merger, error) {
	backend, err := bindings.NewCPU(threads)
	if err != nil {
		return nil, err
	}
	m := &merger{Adapter: a, ctx: ctx, base: base, threads: threads, backend: backend, file: base.Buffer(), pair: bindings.NewContext(3, 0)}
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
	m.a, m.rows = m.pair.NewTensor(bindings.F32, int64(m.MaxIn), rank), m.pair.NewTensor(bindings.F32, rank, int64(m.MaxOut))
	heads := 0 // k's rows are the first of q's, since the order is a head's own
	for _, l := range m.Layers {
		heads = max(heads, m.Base.RotaryHeads(l.Target))
	}
	if heads > 0 {
		m.rotated = m.pair.NewTensor(bindings.F32, rank, int64(heads*m.Base.HeadDim))
	}
	if m.memory, err = m.backend.Allocate(m.pair); err != nil {
		return err
	}
	if m.scratch, err = m.backend.NewBuffer(4 * scratch); err != nil {
		return err
	}
	if heads > 0 {
		err = bindings.Set(m.rotated, m.Pair.PermutedB(heads, m.Base.HeadDim))
	}
	return errors.Join(err, bindings.Set(m.a, m.Pair.A), bindings.Set(m.rows, m.Pair.B))
}

func (m *merger) close() {
	m.scratch.Close()
	m.memory.Close()
	m.pair.Close()
	m.file.Close()
	m.backend.Close()
}

// chunks calls visit for all rows of W + ΔW in order, as many at once as chunkValues lets; start is the first one's number.
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
	c := m.backend.NewContext(16, graphSize)
	defer c.Close()
	in, n, out, rank := int64(x.In), int64(len(merged)/x.In), int64(x.Out), int64(m.Rank)
	dst, b, d := c.NewTensor(bindings.F32, in, n), c.NewTensor(bindings.F32, out), c.NewTensor(bindings.F32, rank)
	m.scratch.Reset()
	parts := []*bindings.Tensor{dst, b, d}
	a, rows := m.a, m.rows
	switch {
	case m.Pair == nil:
		a, rows = c.NewTensor(bindings.F32, in, rank), c.NewTensor(bindings.F32, rank, out)
		parts = append(parts, a, rows)
	case m.Base.RotaryHeads(x.Target) > 0:
		rows = m.rotated
	}
	for _, t := range parts {
		if _, err := m.scratch.Place(t); err != nil {
			return err
		}
	}
	w, err := m.base.Leaf(c, m.file, x.info)
	if err := errors.Join(err, bindings.Set(b, x.B), bindings.Set(d, x.D)); err != nil {
		return err
	}
	if m.Pair == nil {
		if err := errors.Join(bindings.Set(a, x.Pair.A), bindings.Set(rows, m.Rows(x.Layer))); err != nil {
			return err
		}
	}
	from := func(t *bindings.Tensor, width int64) *bindings.Tensor {
		return c.View(t, [4]int64{width, n, 1, 1}, [4]int64{0, int64(start)})
	}
	g := c.NewGraph(graphSize)
	g.Expand(c.Merge(dst, from(w, in), &bindings.Vectors{
		A: c.View(a, [4]int64{in, rank, 1, 1}, [4]int64{}), Rows: from(rows, rank),
		B: c.View(b, [4]int64{n, 1, 1, 1}, [4]int64{int64(start)}), D: d,
	}))
	if err := c.Err(); err != nil {
		return err
	}
	if err := m.backend.Compute(g); err != nil {
		return err
	}
	return bindings.Get(dst, merged)
}

// write writes W + ΔW in the tensor's type, and counts what is lost of the update.
func (m *merger) write(x *weight, out io.Writer) error {
	x.Update, x.Lost = 0, 0
	return m.chunks(x, func(start int, merged []float32) error {
		data, lost, err := m.round(x, x.kind, start, merged)
		if err != nil {
			return err
		}
		update, err := m.update(x, start, merged)
		if err != nil {
			return err
		}
		x.Update, x.Lost = x.Update+update, x.Lost+lost
		_, err = out.Write(data)
		return err
	})
}

// round turns rows of W + ΔW into a type: lost is ‖Q(W + ΔW) − (W + ΔW)‖². Rows without an update have the base file's bytes in its type.
func (m *merger) round(x *weight, t bindings.Type, start int, merged []float32) (data []byte, lost float64, err error) {
	size := int(t.RowBytes(int64(x.In)))
	data = make([]byte, len(merged)/x.In*size)
	original := m.base.Data(x.info)[start*int(x.info.Type.RowBytes(int64(x.In))):]
	lost, err = m.sum(x, merged, func(row int, values, back []float32) error {
		place := data[row*size:][:size]
		if t == x.info.Type && x.still(start+row) {
			copy(place, original[row*size:])
			copy(back, values)
			return nil
		}
		q, err := bindings.Quantize(t, values, int64(x.In))
		if err != nil {
			return err
		}
		copy(place, q)
		return bindings.Dequantize(t, place, back)
	})
	return data, lost, err
}

// update is ‖ΔW‖² of rows of W + ΔW.
func (m *merger) update(x *weight, start int, merged []float32) (float64, error) {
	size := int(x.info.Type.RowBytes(int64(x.In)))
	original := m.base.Data(x.info)[start*size:]
	return m.sum(x, merged, func(row int, _, w []float32) error {
		return bindings.Dequantize(x.info.Type, original[row*size:][:size], w)
	})
}

// sum is ‖merged − other‖², where f gives each row of the other matrix. Rows are shared out among threads, and their sums added in order.
func (m *merger) sum(x *weight, merged []float32, f func(row int, values, other []float32) error) (float64, error) {
	n := len(merged) / x.In
	sums, errs := make([]float64, n), make([]error, m.threads)
	var all sync.WaitGroup
	for thread := range m.threads {
		all.Go(func() {
			other := make([]float32, x.In)
			for row := thread; row < n && errs[thread] == nil; row += m.threads {
				values := merged[row*x.In:][:x.In]
				errs[thread] = f(row, values, other)
				sums[row] = distance(values, other)
			}
		})
	}
	all.Wait()
	total := 0.0
	for _, s := range sums {
		total += s
	}
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("tensor %s: %w", x.Name, err)
	}
	if total-total != 0 {
		return 0, fmt.Errorf("tensor %s: a weight becomes infinite or no number; the adapter is damaged, or f16 too small for it", x.Name)
	}
	return total, nil
}

// distance is ‖x − y‖².
func distance(x, y []float32) float64 {
	sum := 0.0
	for i, v := range x {
		e := float64(v) - float64(y[i])
		sum += e * e
	}
	return sum
}
