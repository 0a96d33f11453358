package vera

import (
	"slices"
	"testing"
)

func TestRowOrder(t *testing.T) {
	// Two heads of four rows: within each head the halves (0 1) and (2 3) are interleaved.
	hf := []int{0, 1, 2, 3, 4, 5, 6, 7}
	if got, want := GGUFRows(hf, 2, 4), []int{0, 2, 1, 3, 4, 6, 5, 7}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	wide := []int{0, 0, 1, 1, 2, 2, 3, 3}
	if got, want := GGUFRows(wide, 1, 4), []int{0, 0, 2, 2, 1, 1, 3, 3}; !slices.Equal(got, want) {
		t.Errorf("rows of two: %v, want %v", got, want)
	}
}

func TestRowOrdersAreInverse(t *testing.T) {
	for _, size := range []struct{ heads, headDim, width int }{{1, 2, 1}, {3, 6, 5}, {9, 64, 1}, {3, 64, 64}} {
		rows := make([]float32, size.heads*size.headDim*size.width)
		for i := range rows {
			rows[i] = float32(i)
		}
		if !slices.Equal(HFRows(GGUFRows(rows, size.heads, size.headDim), size.heads, size.headDim), rows) ||
			!slices.Equal(GGUFRows(HFRows(rows, size.heads, size.headDim), size.heads, size.headDim), rows) {
			t.Errorf("%+v: there and back is not the same", size)
		}
	}
}

// Rows of B go where the values of b go, so that b ⊙ (B u) is only reordered.
func TestPermutedB(t *testing.T) {
	const heads, headDim, rank, out = 3, 4, 5, 20
	p := NewPair(KaimingUniform, 1, rank, 8, out)
	order := make([]int, heads*headDim)
	for i := range order {
		order[i] = i
	}
	order = GGUFRows(order, heads, headDim)
	b := p.PermutedB(heads, headDim)
	if len(b) != len(order)*rank {
		t.Fatalf("%d values, want %d rows of %d", len(b), len(order), rank)
	}
	for row, from := range order {
		if !slices.Equal(b[row*rank:][:rank], p.B[from*rank:][:rank]) {
			t.Errorf("row %d is not row %d of B", row, from)
		}
	}
}

func TestRowsThatDoNotDivide(t *testing.T) {
	for _, size := range []struct{ n, heads, headDim int }{{7, 2, 4}, {6, 2, 3}, {8, 0, 4}, {8, 2, 0}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", size)
				}
			}()
			GGUFRows(make([]float32, size.n), size.heads, size.headDim)
		}()
	}
}
