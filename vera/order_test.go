package vera

import (
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
)

func TestOrders(t *testing.T) {
	for _, test := range []struct {
		order    Order
		rows     int
		hf, gguf []int
	}{
		{Order{}, 4, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}},
		// Two heads of four rows: within each head the halves (0 1) and (2 3) are interleaved.
		{Order{A: 2, B: 2, Run: 1}, 8, []int{0, 1, 2, 3, 4, 5, 6, 7}, []int{0, 2, 1, 3, 4, 6, 5, 7}},
		// Rows of two.
		{Order{A: 2, B: 2, Run: 1}, 4, []int{0, 0, 1, 1, 2, 2, 3, 3}, []int{0, 0, 2, 2, 1, 1, 3, 3}},
		// Behind one row, three key heads with two value heads each, of two rows.
		{Order{Skip: 1, A: 3, B: 2, Run: 2}, 13, []int{9, 0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51},
			[]int{9, 0, 1, 20, 21, 40, 41, 10, 11, 30, 31, 50, 51}},
	} {
		if got := GGUFRows(test.hf, test.rows, test.order); !slices.Equal(got, test.gguf) {
			t.Errorf("%+v: %v, want %v", test.order, got, test.gguf)
		}
		if got := HFRows(test.gguf, test.rows, test.order); !slices.Equal(got, test.hf) {
			t.Errorf("%+v, back: %v, want %v", test.order, got, test.hf)
		}
	}
}

// Rows of B go where the values of b go, and columns of A where the inputs go, so that b ⊙ (B (d ⊙ (A x))) is only
// reordered.
func TestOrderedPair(t *testing.T) {
	b := Base{Architecture: "qwen35", Blocks: 1, Delta: bindings.DeltaHeads{Keys: 2, Values: 6, DimK: 3, DimV: 2},
		Linears: []Linear{
			{0, "attn_qkv", 8, 24}, {0, "attn_gate", 8, 12}, {0, "ssm_alpha", 8, 6}, {0, "ssm_beta", 8, 6},
			{0, "ssm_out", 12, 8}, {0, "ffn_up", 8, 20},
		}}
	for _, unique := range []bool{false, true} {
		c := Default()
		c.Rank, c.UniquePairs = 5, unique
		a, err := New(c, b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range a.Layers {
			l := &a.Layers[i]
			rowOrder, columnOrder := b.Orders(l.Target)
			rows, columns := a.Rows(l), a.Columns(l)
			for row := range l.Out {
				if to := rowOrder.at(row); !slices.Equal(rows[to*c.Rank:][:c.Rank], l.Pair.B[row*c.Rank:][:c.Rank]) {
					t.Errorf("%s: row %d of B is not at %d", l.Name(), row, to)
				}
			}
			for column := range l.In {
				for r := range c.Rank {
					if to := columnOrder.at(column); columns[r*l.In+to] != l.Pair.A[r*l.Pair.MaxIn+column] {
						t.Errorf("%s: column %d of A is not at %d", l.Name(), column, to)
					}
				}
			}
			if unique {
				continue
			}
			down, up := a.Ordered()
			if m := up[rowOrder]; !slices.Equal(m.Values[:l.Out*m.Width], rows) {
				t.Errorf("%s: other rows of B", l.Name())
			}
			for r, m := 0, down[columnOrder]; r < c.Rank; r++ {
				if !slices.Equal(m.Values[r*m.Width:][:l.In], columns[r*l.In:][:l.In]) {
					t.Errorf("%s: other columns of A", l.Name())
				}
			}
		}
	}
}

// at is place, also of an order that moves nothing.
func (o Order) at(row int) int {
	if o == (Order{}) {
		return row
	}
	return o.place(row)
}

func TestRowsThatDoNotDivide(t *testing.T) {
	for _, test := range []struct {
		n, rows int
		order   Order
	}{{7, 4, Order{A: 2, B: 2, Run: 1}}, {6, 6, Order{A: 2, B: 2, Run: 1}}, {8, 0, Order{A: 2, B: 2, Run: 1}},
		{8, 8, Order{A: 2, B: 0, Run: 1}}, {8, 8, Order{Skip: 9, A: 1, B: 1, Run: 1}}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", test)
				}
			}()
			GGUFRows(make([]float32, test.n), test.rows, test.order)
		}()
	}
}
