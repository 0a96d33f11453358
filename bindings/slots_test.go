package bindings

import (
	"slices"
	"testing"
)

// TestSlots: a column whose factors are a row of a table of float16 comes out as with those factors alone, to the bit,
// and composed as well but for rounding.
func TestSlots(t *testing.T) {
	const in, out, gap, slots = 64, 37, 3, 5
	w := numbersOf(t, matrix{"w", Q8_0, in, 48}, 1)
	whole := make([]float32, slots*(in+out+gap)) // that float16 holds
	for i, v := range normal(2, len(whole)) {
		whole[i] = float32(int(v * 64))
	}
	of := []int32{4, 0, 0, 3, 1, 4, 2}
	product := func(b *bench, way Way, first, n int, asTable bool) *Tensor {
		kind := F32
		if way == Interleaved || way == Bytes {
			kind = Q8_0
		}
		weight := b.NewTensor(kind, in, 48).Input()
		b.graph.Expand(weight)
		b.inputs = append(b.inputs, func() error {
			if kind == F32 {
				return Set(weight, w.values)
			}
			if err := weight.Upload(w.data); err != nil || way != Interleaved {
				return err
			}
			return weight.Interleave()
		})
		part := b.View(weight, [4]int64{in, out, 1, 1}, [4]int64{})
		x := b.f(normal(3, in*len(of))[first*in:(first+n)*in], in, int64(n))
		p := Product{Way: way, Acc: b.f(normal(4, out*len(of))[first*out:(first+n)*out], out, int64(n))}
		if asTable {
			table := b.NewTensor(F16, in+out+gap, slots)
			b.graph.Expand(b.Cpy(b.f(whole, in+out+gap, slots), table))
			p.Slots = b.i(of[first:first+n], int64(n))
			p.In = b.View(table, [4]int64{in, slots, 1, 1}, [4]int64{out + gap})
			p.Out = b.View(table, [4]int64{out, slots, 1, 1}, [4]int64{})
		} else {
			row := whole[int(of[first])*(in+out+gap):]
			p.Out, p.In = b.f(row[:out], out), b.f(row[out+gap:][:in], in)
		}
		return b.Linear(part, x, p, F32)
	}
	everyISA(t, func(t *testing.T) {
		for way, name := range map[Way]string{Plain: "plain", Alike: "alike", Bytes: "bytes",
			Interleaved: "interleaved"} {
			for _, n := range []int{1, 2, len(of)} {
				got := onBackend(t, func(b *bench) []*Tensor { return []*Tensor{product(b, way, 0, n, true)} })[0]
				for i := range n {
					want := onBackend(t, func(b *bench) []*Tensor { return []*Tensor{product(b, way, i, 1, false)} })[0]
					part := got[i*out : (i+1)*out]
					if e := offBy(part, want); !slices.Equal(part, want) && (way != Plain || !(e <= 1e-6)) {
						t.Errorf("%s, %d columns: column %d is off by %.1e", name, n, i, e)
					}
				}
			}
		}
	})
	build := func(b *bench) []*Tensor { return []*Tensor{product(b, Alike, 0, len(of), true)} }
	got, want := computeAll(t, openComposed(t), build)[0], onBackend(t, build)[0]
	if e := offBy(got, want); !(e <= 1e-6) {
		t.Errorf("composed: off by %.1e", e)
	}
}

func TestSlotsRefuse(t *testing.T) {
	backend := openCPU(t, 1)
	for name, change := range map[string]func(c *Context, p *Product){
		"factors of float32": func(c *Context, p *Product) { p.In = c.NewTensor(F32, 32, 4) },
		"no factors":         func(c *Context, p *Product) { p.Out = nil },
		"too few slots":      func(c *Context, p *Product) { p.Slots = c.NewTensor(I32, 2) },
		"slots of float32":   func(c *Context, p *Product) { p.Slots = c.NewTensor(F32, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			c := backend.NewContext()
			defer c.Close()
			p := Product{In: c.NewTensor(F16, 32, 4), Out: c.NewTensor(F16, 16, 4), Slots: c.NewTensor(I32, 3)}
			change(c, &p)
			if c.Linear(c.NewTensor(F32, 32, 16), c.NewTensor(F32, 32, 3), p, F32) != nil || c.Err() == nil {
				t.Error("taken")
			}
		})
	}
}
