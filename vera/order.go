package vera

import "fmt"

// Order is how a converter to GGUF moves the rows of a layer, or its columns, from Hugging Face's places. Behind the
// first Skip, which stay, they come in blocks of A·B·Run, in each of which A groups of B runs become B groups of A
// runs. The zero Order leaves all where they are.
type Order struct{ Skip, A, B, Run int }

// GGUFRows copies rows of equal width from Hugging Face's order into that of the GGUF file; an order that moves none
// gives the values themselves. It panics where the rows are not whole blocks.
func GGUFRows[T any](values []T, rows int, o Order) []T {
	if o == (Order{}) {
		return values
	}
	out := make([]T, len(values))
	width := o.width(len(values), rows)
	for row := range rows {
		copy(out[o.place(row)*width:][:width], values[row*width:])
	}
	return out
}

// HFRows is the inverse of GGUFRows: from GGUF's order into Hugging Face's.
func HFRows[T any](values []T, rows int, o Order) []T {
	if o == (Order{}) {
		return values
	}
	out := make([]T, len(values))
	width := o.width(len(values), rows)
	for row := range rows {
		copy(out[row*width:][:width], values[o.place(row)*width:])
	}
	return out
}

// place is where Hugging Face's row goes.
func (o Order) place(row int) int {
	block := o.A * o.B * o.Run
	if row < o.Skip {
		return row
	}
	in := (row - o.Skip) % block
	run, group := in/o.Run%o.B, in/o.Run/o.B
	return row - in + (run*o.A+group)*o.Run + in%o.Run
}

func (o Order) width(n, rows int) int {
	if block := o.A * o.B * o.Run; rows < 1 || n%rows != 0 || block < 1 || rows < o.Skip || (rows-o.Skip)%block != 0 {
		panic(fmt.Sprintf("vera: %d values are not rows of %+v", n, o))
	}
	return n / rows
}

// columns gives the first columns of rows of that width, in the order of the GGUF file.
func (o Order) columns(values []float32, width, in int) []float32 {
	if o == (Order{}) && in == width {
		return values
	}
	out := make([]float32, 0, len(values)/width*in)
	for ; len(values) > 0; values = values[width:] {
		out = append(out, GGUFRows(values[:in], in, o)...)
	}
	return out
}

// halves is the order of q and k where the file has the numbers that are rotated together side by side, 2i and 2i + 1,
// and Hugging Face i and i + dim/2.
func halves(b Base, target string) (rows, columns Order) {
	if target == "attn_q" || target == "attn_k" {
		rows = Order{A: 2, B: b.HeadDim / 2, Run: 1}
	}
	return rows, columns
}

// valueHeads is the order of a delta net's layers, where Hugging Face has the value heads of one key head side by side,
// and the file those of all key heads in turn.
func valueHeads(b Base, target string) (rows, columns Order) {
	d := b.Delta
	if d.Keys == d.Values {
		return rows, columns
	}
	heads := Order{A: d.Keys, B: d.Values / d.Keys, Run: d.DimV}
	switch target {
	case "attn_qkv":
		heads.Skip = 2 * d.Keys * d.DimK
		rows = heads
	case "attn_gate":
		rows = heads
	case "ssm_alpha", "ssm_beta":
		heads.Run = 1
		rows = heads
	case "ssm_out":
		columns = heads
	}
	return rows, columns
}

// Orders are those of the rows and of the columns of a kind of layer.
func (b Base) Orders(target string) (rows, columns Order) {
	if orders := hfModels[b.Architecture].orders; orders != nil {
		return orders(b, target)
	}
	return rows, columns
}

// Matrix is a matrix in rows of some width.
type Matrix struct {
	Values []float32
	Width  int
}

// Ordered gives what the layers see of the pair that they share: A for every order of columns and B for every order of
// rows that they have, as much of each as the largest of these layers takes.
func (a *Adapter) Ordered() (down, up map[Order]Matrix) {
	ins, outs := map[Order]int{}, map[Order]int{}
	for _, l := range a.Layers {
		rows, columns := a.Base.Orders(l.Target)
		outs[rows], ins[columns] = max(outs[rows], l.Out), max(ins[columns], l.In)
	}
	down, up = map[Order]Matrix{}, map[Order]Matrix{}
	for o, in := range ins {
		down[o] = Matrix{o.columns(a.Pair.A, a.MaxIn, in), in}
	}
	for o, out := range outs {
		up[o] = Matrix{GGUFRows(a.Pair.B[:out*a.Rank], out, o), a.Rank}
	}
	return down, up
}
