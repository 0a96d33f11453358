package bindings

import (
	"fmt"
	"slices"
	"testing"
)

// answering is a bench for products of answers.
type answering struct {
	*bench
	t *testing.T
}

// matrix is a matrix of a type, packed for its way.
func (b answering) matrix(kind Type, way Way, in, out int, seed uint64) *Tensor {
	rows := (out + InterleavedRows - 1) / InterleavedRows * InterleavedRows
	w := numbersOf(b.t, matrix{fmt.Sprint("w", seed), kind, in, rows}, seed)
	x := b.NewTensor(kind, int64(in), int64(rows)).Input()
	b.graph.Expand(x)
	b.inputs = append(b.inputs, func() error {
		if err := x.Upload(w.data); err != nil || way != Interleaved {
			return err
		}
		return x.Interleave()
	})
	return b.View(x, [4]int64{int64(in), int64(out), 1, 1}, [4]int64{})
}

// zeros is a place for results.
func (b answering) zeros(width, n int) *Tensor {
	return b.f(make([]float32, width*n), int64(width), int64(n))
}

// TestLinears: matrices of several types and ways, some with few of the columns of x, give what Linear gives for each
// of them, to the bit, however many columns there are.
func TestLinears(t *testing.T) {
	const in, columns = 64, 19
	type part struct {
		kind            Type
		way             Way
		out, first, end int
		second          bool
	}
	for name, parts := range map[string][]part{
		"bytes": {{Q4_1, Bytes, 37, 0, columns, false}, {Q6_K, Bytes, 8, 0, columns, false},
			{Q8_0, Interleaved, 33, 0, 5, true}, {Q8_0, Interleaved, 48, 5, columns, true}},
		"mixed": {{F32, Bytes, 5, 0, columns, false}, {Q4_0, Bytes, 64, 0, columns, false},
			{F32, Bytes, 3, 2, 4, true}},
		"alike": {{Q4_0, Alike, 40, 0, columns, false}, {BF16, Alike, 33, 0, columns, false}},
	} {
		in, width, seconds := int64(in), 0, 0
		if name == "bytes" {
			in = 256
		}
		for _, p := range parts {
			if p.second {
				seconds = max(seconds, p.out)
			} else {
				width += p.out
			}
		}
		x, acc := normal(3, int(in)*columns), normal(4, width*columns)
		for _, n := range []int{1, 2, 4, columns} {
			everyISA(t, func(t *testing.T) {
				of := func(b *bench) (answering, *Tensor) {
					return answering{b, t}, b.f(x[:int(in)*n], in, int64(n))
				}
				got := onBackend(t, func(raw *bench) []*Tensor {
					b, x := of(raw)
					y, u := b.zeros(width, n), b.zeros(max(1, seconds), n)
					var list []Part
					column := 0
					for i, p := range parts {
						first, end := min(p.first, n), min(p.end, n)
						if first == end {
							continue
						}
						l := Part{W: b.matrix(p.kind, p.way, int(in), p.out, uint64(i)), Way: p.way, Second: p.second,
							First: int64(first), Rows: int64(end - first)}
						if !p.second {
							l.Column = int64(column)
							column += p.out
						}
						list = append(list, l)
					}
					b.graph.Expand(b.Linears(list, x, y, u, b.f(acc[:width*n], int64(width), int64(n)))...)
					return []*Tensor{y, u}
				})
				column := 0
				for i, p := range parts {
					first, end := min(p.first, n), min(p.end, n)
					want := onBackend(t, func(raw *bench) []*Tensor {
						b, x := of(raw)
						product := Product{Way: p.way}
						if !p.second {
							product.Acc = b.View(b.f(acc[:width*n], int64(width), int64(n)),
								[4]int64{int64(p.out), int64(n), 1, 1}, [4]int64{int64(column)})
						}
						return []*Tensor{b.Linear(b.matrix(p.kind, p.way, int(in), p.out, uint64(i)), x, product, F32)}
					})[0]
					for c := first; c < end; c++ {
						result := got[0][c*width+column:]
						if p.second {
							result = got[1][c*seconds:]
						}
						if !slices.Equal(result[:p.out], want[c*p.out:][:p.out]) {
							t.Errorf("%s, %d columns: part %d differs in column %d", name, n, i, c)
							break
						}
					}
					if !p.second {
						column += p.out
					}
				}
			})
		}
	}
}

// factoredBench is what TestAddFactored adds to y: two layers of one group.
func factoredBench(raw *bench, t *testing.T, way Way, first, n int, asTable bool) []*Tensor {
	const rank, slots = 64, 5
	outs := []int{37, 16}
	numbers := 3 + 37 + rank + 16 + rank
	whole := make([]float32, slots*numbers) // that float16 holds
	for i, v := range normal(2, len(whole)) {
		whole[i] = float32(int(v * 64))
	}
	of := []int32{4, 0, 0, 3, 1, 4, 2}
	b, kind := answering{raw, t}, F32
	if way != Alike {
		kind = Q8_0
	}
	u := b.f(normal(3, 2*rank*len(of))[first*2*rank:][:n*2*rank], 2*rank, int64(n))
	y := b.f(normal(4, 53*len(of))[first*53:][:n*53], 53, int64(n))
	var vectors, of32 *Tensor
	if asTable {
		vectors, of32 = b.NewTensor(F16, int64(numbers), slots), b.i(of[first:first+n], int64(n))
		b.graph.Expand(b.Cpy(b.f(whole, int64(numbers), slots), vectors))
	} else {
		vectors = b.f(whole[int(of[first])*numbers:][:numbers], int64(numbers))
	}
	b.graph.Expand(b.AddFactored([]Factored{
		{B: b.matrix(kind, way, rank, outs[0], 7), Offset: 3, Rank: rank},
		{B: b.matrix(kind, way, rank, outs[1], 8), Offset: 3 + 37 + rank, Column: 37},
	}, y, u, vectors, of32, way)...)
	return []*Tensor{y}
}

// TestAddFactored: a column whose vectors are a row of a table comes out as with those vectors alone, to the bit, and
// composed as well but for rounding. That it is VeRA's sum is for TestForward to say.
func TestAddFactored(t *testing.T) {
	const columns = 7
	everyISA(t, func(t *testing.T) {
		for way, name := range map[Way]string{Alike: "alike", Bytes: "bytes", Interleaved: "interleaved"} {
			for _, n := range []int{1, 2, columns} {
				got := onBackend(t, func(b *bench) []*Tensor { return factoredBench(b, t, way, 0, n, true) })[0]
				for i := range n {
					want := onBackend(t, func(b *bench) []*Tensor { return factoredBench(b, t, way, i, 1, false) })[0]
					if !slices.Equal(got[i*53:][:53], want) {
						t.Errorf("%s, %d columns: column %d differs", name, n, i)
					}
				}
			}
		}
	})
	for _, asTable := range []bool{true, false} {
		build := func(b *bench) []*Tensor { return factoredBench(b, t, Alike, 4, 1, asTable) }
		got, want := computeAll(t, openComposed(t), build)[0], onBackend(t, build)[0]
		if e := offBy(got, want); !(e <= 1e-6) {
			t.Errorf("composed: off by %.1e", e)
		}
	}
}

func TestAddFactoredRefuses(t *testing.T) {
	backend := openCPU(t, 1)
	for name, change := range map[string]func(c *Context, l *Factored, vectors, slots **Tensor){
		"a table of float32": func(c *Context, _ *Factored, v, _ **Tensor) { *v = c.NewTensor(F32, 48, 4) },
		"too few vectors":    func(_ *Context, l *Factored, _, _ **Tensor) { l.Offset = 1 },
		"too few slots":      func(c *Context, _ *Factored, _, s **Tensor) { *s = c.NewTensor(I32, 2) },
		"slots of float32":   func(c *Context, _ *Factored, _, s **Tensor) { *s = c.NewTensor(F32, 3) },
		"a column too far":   func(_ *Context, l *Factored, _, _ **Tensor) { l.Column = 1 },
		"a rank too far":     func(_ *Context, l *Factored, _, _ **Tensor) { l.Rank = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := backend.NewContext()
			defer c.Close()
			l := Factored{B: c.NewTensor(F32, 32, 16)}
			vectors, slots := c.NewTensor(F16, 48, 4), c.NewTensor(I32, 3)
			change(c, &l, &vectors, &slots)
			if c.AddFactored([]Factored{l}, c.NewTensor(F32, 16, 3), c.NewTensor(F32, 32, 3), vectors, slots,
				Alike) != nil || c.Err() == nil {
				t.Error("taken")
			}
		})
	}
}
