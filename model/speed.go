package model

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/veratune/veratune/bindings"
)

// ISA names the instruction set that the model computes with.
func ISA() string { return bindings.ISA() }

// Forget has Times and Products begin anew.
func (m *Model) Forget() {
	m.backend.Times()
	m.products = bindings.Work{}
}

// Times gives the seconds that each kind of operation of package ggml has taken since the last call.
func (m *Model) Times() map[string]float64 { return m.backend.Times() }

// Products tells how many additions and multiplications the products were that the CPU has computed since Forget, and
// how many seconds they would take at the rate that it reaches on registers alone, in the numbers of each.
func (m *Model) Products() (operations, least float64, err error) {
	w := m.products
	for kind, n := range map[bindings.Type]float64{bindings.F32: w.F32, bindings.BF16: w.BF16,
		bindings.I32: w.Integers} {
		if n == 0 {
			continue
		}
		peak, err := m.peak(kind)
		if err != nil {
			return 0, 0, err
		}
		least += n / 1e9 / peak
	}
	return w.F32 + w.BF16 + w.Integers, least, nil
}

// Speed is how fast one operation is on one of the model's matrices, in GFLOP/s.
type Speed struct {
	Op       string  `json:"op"`
	Numbers  string  `json:"numbers"` // that are multiplied: f32, bf16 or int
	Weight   string  `json:"weight"`  // type of the matrix
	In       int     `json:"in"`
	Out      int     `json:"out"`
	Tokens   int     `json:"tokens"`
	Fused    float64 `json:"fused"`    // one node with a kernel of ours
	Composed float64 `json:"composed"` // the same built of stock ggml operations; 0 where that was not measured
	Peak     float64 `json:"peak"`     // what the processor reaches on registers alone with such numbers
}

// Kernels measures the products of training on the model's own matrices, each shape once, in the model's arithmetic and
// of integers, and gives each result to report.
func (m *Model) Kernels(tokens int, report func(Speed)) error {
	peaks := map[bindings.Type]float64{}
	var err error
	for _, kind := range []bindings.Type{m.kind(), m.backKind(), bindings.I32} {
		if peaks[kind], err = m.peak(kind); err != nil {
			return err
		}
	}
	seen := map[Speed]bool{}
	matrices := []*bindings.Tensor{m.head}
	for _, l := range m.linears() {
		matrices = append(matrices, l.w)
	}
	for _, w := range matrices {
		s := Speed{Weight: w.Type().String(), In: int(w.Ne(0)), Out: int(w.Ne(1)), Tokens: tokens}
		if seen[s] {
			continue
		}
		seen[s] = true
		for _, s.Op = range []string{"linear", "linear back", "weight gradient"} {
			if s.Op == "weight gradient" && w == m.head {
				continue // the head is not trained
			}
			kind := m.kindOfSpeed(s.Op)
			s.Numbers, s.Peak = string(arithmetics[kind]), peaks[kind]
			if s.Fused, err = m.speed(s, w, bindings.Plain, false); err != nil {
				return err
			}
			s.Composed = 0
			if s.Op != "weight gradient" {
				if s.Composed, err = m.speed(s, w, bindings.Plain, true); err != nil {
					return err
				}
			}
			report(s)
			s.Numbers, s.Peak, s.Composed = string(ComputeInt), peaks[bindings.I32], 0
			if s.Fused, err = m.speed(s, w, bindings.Rounded, false); err != nil {
				return err
			}
			report(s)
		}
	}
	return nil
}

// kindOfSpeed is the type of what an operation takes in training.
func (m *Model) kindOfSpeed(op string) bindings.Type {
	if op == "linear" {
		return m.kind()
	}
	return m.backKind()
}

// speed measures one operation on w in a way, with random activations.
func (m *Model) speed(s Speed, w *bindings.Tensor, way bindings.Way, composed bool) (float64, error) {
	g := m.newGraph(s.Tokens).withKind(m.kindOfSpeed(s.Op))
	defer g.Close()
	random := rand.New(rand.NewPCG(1, 2))
	activations := func(n int) *bindings.Tensor {
		values := make([]float32, n*s.Tokens)
		for i := range values {
			values[i] = float32(random.NormFloat64())
		}
		// an output is not overwritten, and the graph runs often
		return input(g, values, int64(n), int64(s.Tokens)).Output()
	}
	product := func(x, y *bindings.Tensor) *bindings.Tensor {
		switch {
		case composed && s.Op == "linear":
			return g.MulMat(g.composed(w, false), x)
		case composed:
			return g.MulMat(g.composed(w, true), y)
		case s.Op == "linear":
			return g.Linear(w, g.rounded(x), bindings.Product{Way: way}, bindings.F32)
		case s.Op == "linear back":
			return g.LinearBack(w, g.rounded(y), bindings.Product{Way: way}, bindings.F32)
		}
		return g.WeightGradient(g.rounded(y), g.rounded(x), bindings.F32, way)
	}
	result := product(activations(s.In), activations(s.Out))
	g.nodes.Expand(result.Output())
	if err := g.run(); err != nil { // warms up
		return 0, err
	}
	// The fastest of many runs is what the kernel can do; the others say what else the machine did.
	const least = 300 * time.Millisecond
	fastest := time.Duration(math.MaxInt64)
	for start := time.Now(); time.Since(start) < least || fastest == math.MaxInt64; {
		began := time.Now()
		if err := m.backend.Compute(g.nodes); err != nil {
			return 0, err
		}
		fastest = min(fastest, time.Since(began))
	}
	return 2 * float64(s.In) * float64(s.Out) * float64(s.Tokens) / fastest.Seconds() / 1e9, nil
}

// composed is w [in, out], or its transpose, as stock ggml takes it for a product in the model's arithmetic.
func (g *graph) composed(w *bindings.Tensor, transposed bool) *bindings.Tensor {
	rows := make([]int32, w.Ne(1))
	for i := range rows {
		rows[i] = int32(i)
	}
	f := w
	if w.Type() != bindings.F32 {
		f = g.GetRows(w, input(g, rows, w.Ne(1)).Output())
	}
	if transposed {
		return g.Cast(g.Transpose(f), g.kind)
	}
	return g.Cast(f, g.kind)
}

// peak measures what the processor reaches on registers alone with numbers of a type, in GFLOP/s; int32 stands for
// bindings.Integers.
func (m *Model) peak(kind bindings.Type) (best float64, err error) {
	g := m.newGraph(1)
	defer g.Close()
	n := g.Peak(g.NewTensor(kind, 1).Output()).Output()
	g.nodes.Expand(n)
	if err := g.run(); err != nil {
		return 0, err
	}
	operations := []float32{0}
	for range 5 {
		start := time.Now()
		if err := m.backend.Compute(g.nodes); err != nil {
			return 0, err
		}
		seconds := time.Since(start).Seconds()
		if err := bindings.Get(n, operations); err != nil {
			return 0, err
		}
		best = max(best, float64(operations[0])/seconds/1e9)
	}
	return best, nil
}
