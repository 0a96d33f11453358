package model

import (
	"errors"
	"fmt"
	"math"

	"github.com/veratune/veratune/bindings"
)

// DeviceAdamW is a model with the optimiser of its adapter on the device that computes: parameters, gradient and the
// two moments stay there, and a step brings back a loss and a norm. The formula is that of bindings.OptStepAdamW. It is
// a train.Resident.
type DeviceAdamW struct {
	*Model
	beta1, beta2, eps, weightDecay float64
}

// moments are the optimiser's state beside the parameters and their gradient.
type moments struct {
	context *bindings.Context
	memory  *bindings.Buffer
	m, v    *bindings.Tensor // [parameters] each
	trained *bindings.Tensor // 1 where training changes a parameter, else 0; nil where it changes all
}

// A norm sums the squares of a row of gradientRow numbers first, then the rows; params and grads are padded to whole
// rows. At most gradientRows rows, 64 MiB, are squared at a time.
const (
	gradientRow  = 1024
	gradientRows = 16384
)

// MakeDeviceAdamW makes room for the moments, which EstimateMemory then counts. They last until another adapter is
// attached.
func (m *Model) MakeDeviceAdamW(beta1, beta2, eps, weightDecay float64) (*DeviceAdamW, error) {
	a := m.adapter
	if a == nil {
		return nil, errors.New("adamw: no adapter is attached")
	}
	a.moments.close()
	o := &moments{context: bindings.NewContext(3)}
	a.moments = o
	n := a.params.Ne(0)
	o.m, o.v = o.context.NewTensor(bindings.F32, n), o.context.NewTensor(bindings.F32, n)
	all := true
	for _, x := range a.parameters {
		all = all && x.offset >= 0
	}
	if !all {
		o.trained = o.context.NewTensor(bindings.F32, n)
	}
	var err error
	if o.memory, err = m.backend.Allocate(o.context); err != nil {
		return nil, fmt.Errorf("adamw: %w", err)
	}
	if !all {
		ones := make([]float32, len(a.Params))
		for i := range ones {
			ones[i] = 1
		}
		if err := a.write(o.trained, ones); err != nil {
			return nil, err
		}
	}
	return &DeviceAdamW{m, beta1, beta2, eps, weightDecay}, nil
}

func (o *moments) close() {
	if o != nil {
		o.memory.Close()
		o.context.Close()
	}
}

// size is the memory of the moments, in bytes.
func (o *moments) size() int64 {
	if o == nil {
		return 0
	}
	return o.memory.Size()
}

// GradientNorm is the L2 norm of the gradient that ComputeGradient left. Parts of up to 16 Mi numbers are summed in
// float32, the parts in float64.
func (m *Model) GradientNorm() (float64, error) {
	g := m.newGraph(0)
	defer g.Close()
	sums := m.adapter.squares(g)
	if err := g.run(); err != nil || m.dryRun {
		return 0, err
	}
	total, part := 0.0, []float32{0}
	for _, s := range sums {
		if err := bindings.Get(s, part); err != nil {
			return 0, err
		}
		total += float64(part[0])
	}
	return math.Sqrt(total), nil
}

// squares are the sums of squares of the gradient's parts. It also sets the gradient of what is not trained to 0.
func (a *attached) squares(g *graph) (sums []*bindings.Tensor) {
	grads := a.grads
	if a.moments != nil && a.moments.trained != nil {
		grads = g.MulInplace(grads, a.moments.trained)
	}
	whole := grads.Ne(0) / gradientRow
	for first := int64(0); first < whole; first += gradientRows {
		rows := min(gradientRows, whole-first)
		part := g.View(grads, [4]int64{rows * gradientRow, 1, 1, 1}, [4]int64{first * gradientRow})
		sum := g.SumOfSquares(g.Reshape(part, gradientRow, rows)).Output()
		g.nodes.Expand(sum)
		sums = append(sums, sum)
	}
	return sums
}

// Step makes update number t, from 1, by the learning rate lr with scale times the gradient. GradientNorm must have
// been called before; the gradient is lost. The first step sets the moments to 0.
func (o *DeviceAdamW) Step(t int, lr, scale float64) error {
	a := o.adapter
	if t == 1 {
		if err := errors.Join(a.moments.m.Zero(), a.moments.v.Zero()); err != nil {
			return err
		}
	}
	g := o.newGraph(0)
	defer g.Close()
	params, decay := a.params, o.weightDecay
	if a.moments.trained != nil && decay != 0 {
		params, decay = g.MulInplace(params, g.ScaleBias(a.moments.trained, float32(-lr*decay), 1)), 0
	}
	grads := g.MulInplace(a.grads, input(g, []float32{float32(scale)}, 1))
	// The device has β in float32, and takes 1−β of that.
	beta1, beta2 := float32(o.beta1), float32(o.beta2)
	unbiased := func(beta float32) float32 { return float32(1 / (1 - math.Pow(float64(beta), float64(t)))) }
	scalars := []float32{float32(lr), beta1, beta2, float32(o.eps), float32(decay), unbiased(beta1), unbiased(beta2)}
	g.nodes.Expand(g.OptStepAdamW(params, grads, a.moments.m, a.moments.v, input(g, scalars, 7)))
	a.stale = true
	return g.run()
}

// CopyGradient copies the gradient to grad, in the order of the adapter's Params.
func (o *DeviceAdamW) CopyGradient(grad []float32) error {
	return o.adapter.read(o.adapter.grads, grad)
}

// State copies the parameters and the moments, in the order of the adapter's Params. params may be these Params
// themselves.
func (o *DeviceAdamW) State(params, m, v []float32) error {
	a := o.adapter
	return errors.Join(a.read(a.params, params), a.read(a.moments.m, m), a.read(a.moments.v, v))
}

// SetMoments replaces the moments, in the order of the adapter's Params.
func (o *DeviceAdamW) SetMoments(m, v []float32) error {
	a := o.adapter
	return errors.Join(a.write(a.moments.m, m), a.write(a.moments.v, v))
}

// read copies the parameters' part of t, a tensor like params, in the order of the adapter's Params.
func (a *attached) read(t *bindings.Tensor, to []float32) error {
	if len(to) != len(a.Params) {
		return fmt.Errorf("room for %d numbers, the adapter has %d", len(to), len(a.Params))
	}
	return a.each(t, func(offset int, values []float32) { copy(to[offset:], values) })
}

// each calls do with the values that t, a tensor like params, has of each parameter, and their offset in the adapter's
// Params.
func (a *attached) each(t *bindings.Tensor, do func(offset int, values []float32)) error {
	all := make([]float32, t.Ne(0))
	if err := bindings.Get(t, all); err != nil {
		return err
	}
	for _, n := range a.parameters {
		if n.offset >= 0 {
			do(n.offset, all[:len(n.values)])
		}
		all = all[len(n.values):]
	}
	return nil
}

// write is the reverse of read; what is not trained becomes 0.
func (a *attached) write(t *bindings.Tensor, from []float32) error {
	if len(from) != len(a.Params) {
		return fmt.Errorf("%d numbers, the adapter has %d", len(from), len(a.Params))
	}
	all := make([]float32, t.Ne(0))
	rest := all
	for _, n := range a.parameters {
		if n.offset >= 0 {
			copy(rest, from[n.offset:n.offset+len(n.values)])
		}
		rest = rest[len(n.values):]
	}
	return bindings.Set(t, all)
}
