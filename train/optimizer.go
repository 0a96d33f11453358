package train

// Resident is an Engine that keeps the gradient and AdamW's moments where it computes, and makes the update there. So a
// step on another device moves only the batch and a few numbers over the bus. Parameters and moments are copied back
// when they are asked for.
type Resident interface {
	Engine
	// ComputeGradient is AddGradient into the gradient that is kept, in place of the one before.
	ComputeGradient(tokens, targets []int32, lengths []int, seed uint64) (sum float64, n int, err error)
	// GradientNorm is the L2 norm of that gradient.
	GradientNorm() (float64, error)
	// Step makes AdamW's update number t, from 1, by the learning rate lr with scale times that gradient.
	Step(t int, lr, scale float64) error
	// CopyGradient copies the gradient to grad.
	CopyGradient(grad []float32) error
	// State copies the parameters, as the engine has them, and the moments. None is longer than the parameters.
	State(params, m, v []float32) error
	// SetMoments replaces the moments. The parameters are what Update finds.
	SetMoments(m, v []float32) error
}

// optimizer holds the gradient of a step and the moments, and makes the update.
type optimizer interface {
	// computeGradient computes the gradient of the summed loss over a batch's samples.
	computeGradient(b batch) (loss float64, n int, err error)
	// takeMean makes it that of the mean over n labelled tokens, and returns its L2 norm.
	takeMean(n int) (norm float64, err error)
	// fetchGradient gives the gradient as it is now.
	fetchGradient() ([]float32, error)
	// update makes a step by the learning rate lr with scale times the gradient.
	update(lr, scale float64) error
	// fetch copies the parameters back, and returns the moments.
	fetch() (m, v []float32, err error)
	// adopt goes on from a state.
	adopt(s *state) error
}

// newOptimizer uses a Resident engine, except in a group: several processes sum their gradients in their own memory.
func newOptimizer(engine Engine, params []float32, c Config, group Group) optimizer {
	o := hostOptimizer{engine: engine, params: params, grad: make([]float32, len(params)),
		AdamW: NewAdamW(len(params), c)}
	if r, ok := engine.(Resident); ok && group.Size() == 1 {
		return &deviceOptimizer{hostOptimizer: o, resident: r}
	}
	return &o
}

// hostOptimizer is the optimizer in the memory of this process.
type hostOptimizer struct {
	*AdamW
	engine       Engine
	params, grad []float32
}

func (o *hostOptimizer) computeGradient(b batch) (float64, int, error) {
	clear(o.grad)
	if len(b.lengths) == 0 {
		return 0, 0, nil
	}
	return o.engine.AddGradient(b.tokens, b.targets, b.lengths, b.seed, o.grad)
}

func (o *hostOptimizer) takeMean(n int) (float64, error) {
	divide(o.grad, n)
	return l2Norm(o.grad), nil
}

func (o *hostOptimizer) fetchGradient() ([]float32, error) { return o.grad, nil }

func (o *hostOptimizer) update(lr, scale float64) error {
	if scale != 1 {
		for i := range o.grad {
			o.grad[i] *= float32(scale)
		}
	}
	o.Update(o.params, o.grad, lr)
	return o.engine.Update()
}

func (o *hostOptimizer) fetch() (m, v []float32, err error) { return o.M, o.V, nil }

func (o *hostOptimizer) adopt(s *state) error {
	copy(o.params, s.params)
	o.M, o.V, o.Updates = s.m, s.v, s.Step
	return o.engine.Update()
}

// deviceOptimizer is the optimizer of a Resident engine. Its hostOptimizer has copies.
type deviceOptimizer struct {
	hostOptimizer
	resident Resident
	labelled int  // tokens, whose summed loss the gradient is of
	stale    bool // the copies are of an earlier step
}

func (o *deviceOptimizer) computeGradient(b batch) (loss float64, n int, err error) {
	loss, o.labelled, err = o.resident.ComputeGradient(b.tokens, b.targets, b.lengths, b.seed)
	return loss, o.labelled, err
}

func (o *deviceOptimizer) takeMean(n int) (float64, error) {
	norm, err := o.resident.GradientNorm()
	return norm / float64(n), err
}

func (o *deviceOptimizer) fetchGradient() ([]float32, error) {
	err := o.resident.CopyGradient(o.grad)
	divide(o.grad, o.labelled)
	return o.grad, err
}

func (o *deviceOptimizer) update(lr, scale float64) error {
	o.Updates++
	o.stale = true
	return o.resident.Step(o.Updates, lr, scale/float64(o.labelled))
}

func (o *deviceOptimizer) fetch() (m, v []float32, err error) {
	if o.stale {
		err = o.resident.State(o.params, o.M, o.V)
		o.stale = err != nil
	}
	return o.M, o.V, err
}

func (o *deviceOptimizer) adopt(s *state) error {
	if err := o.hostOptimizer.adopt(s); err != nil {
		return err
	}
	o.stale = false
	return o.resident.SetMoments(s.m, s.v)
}

// divide makes the gradient of a sum over n labelled tokens that of their mean.
func divide(grad []float32, n int) {
	for i := range grad {
		grad[i] /= float32(n)
	}
}

// clipping is the factor that shortens a gradient of that norm to the limit; 1 where it is short enough, or the limit
// is 0. 1e-6 is PyTorch's (clip_grad_norm_).
func clipping(norm, limit float64) float64 {
	if scale := limit / (norm + 1e-6); limit > 0 && scale < 1 {
		return scale
	}
	return 1
}
