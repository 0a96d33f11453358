package vera

import "fmt"

// GGUFRows copies heads·headDim rows of equal width from Hugging Face's order of q and k into that of Llama GGUF files. Hugging Face's rope
// rotates dimension i of a head against i + headDim/2, a GGUF file's rotates 2i against 2i + 1; so within each head, row j·headDim/2 + i
// becomes row 2i + j for j = 0, 1. It panics where the rows don't divide so.
func GGUFRows[T any](rows []T, heads, headDim int) []T {
	out := make([]T, len(rows))
	width := rowWidth(len(rows), heads, headDim)
	for row := range heads * headDim {
		copy(out[ggufRow(row, headDim)*width:][:width], rows[row*width:])
	}
	return out
}

// HFRows is the inverse of GGUFRows: from GGUF's order into Hugging Face's.
func HFRows[T any](rows []T, heads, headDim int) []T {
	out := make([]T, len(rows))
	width := rowWidth(len(rows), heads, headDim)
	for row := range heads * headDim {
		copy(out[row*width:][:width], rows[ggufRow(row, headDim)*width:])
	}
	return out
}

// ggufRow is where Hugging Face's row goes.
func ggufRow(row, headDim int) int {
	inHead := row % headDim
	return row - inHead + inHead%(headDim/2)*2 + inHead/(headDim/2)
}

func rowWidth(n, heads, headDim int) int {
	if heads < 1 || headDim < 2 || headDim%2 != 0 || n%(heads*headDim) != 0 {
		panic(fmt.Sprintf("vera: %d values are not rows of %d heads of an even %d", n, heads, headDim))
	}
	return n / (heads * headDim)
}
