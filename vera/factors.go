package vera

// Factors gives ΔW = up · down of an adapted layer, in the row order of the GGUF file: up = diag(b) B [Out × rank] and down = diag(d) A [rank × In], both
// row-major.
func (a *Adapter) Factors(l *Layer) (up, down []float32) {
	rows := a.Rows(l)
	up, down = make([]float32, l.Out*a.Rank), make([]float32, a.Rank*l.In)
	for o, b := range l.B {
		for r := range a.Rank {
			up[o*a.Rank+r] = b * rows[o*a.Rank+r]
		}
	}
	for r, d := range l.D {
		for i := range l.In {
			down[r*l.In+i] = d * l.Pair.A[r*l.Pair.MaxIn+i]
		}
	}
	return up, down
}
