package vera

// Factors gives ΔW = up · down of an adapted layer, in the order of the GGUF file: up = diag(b) B [Out × rank] and
// down = diag(d) A [rank × In], both row-major.
func (a *Adapter) Factors(l *Layer) (up, down []float32) {
	rows, columns, rank := a.Rows(l), a.Columns(l), l.Rank()
	up, down = make([]float32, l.Out*rank), make([]float32, rank*l.In)
	for o, b := range l.LambdaB {
		for r := range rank {
			up[o*rank+r] = b * rows[o*rank+r]
		}
	}
	for r, d := range l.LambdaD {
		for i := range l.In {
			down[r*l.In+i] = d * columns[r*l.In+i]
		}
	}
	return up, down
}
