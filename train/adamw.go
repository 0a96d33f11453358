package train

import "math"

// AdamW is the optimiser of Loshchilov and Hutter (arXiv 1711.05101) as PyTorch computes it: decoupled weight decay,
// both moments corrected for their bias, eps added outside the root.
type AdamW struct {
	Beta1       float64
	Beta2       float64
	Eps         float64
	WeightDecay float64
	Updates     int       // made so far
	M           []float32 // mean of the gradient, one value a parameter
	V           []float32 // mean of its square
}

// NewAdamW makes the optimiser of n parameters.
func NewAdamW(n int, c Config) *AdamW {
	return &AdamW{Beta1: c.Beta1, Beta2: c.Beta2, Eps: c.Eps, WeightDecay: c.WeightDecay, M: make([]float32, n),
		V: make([]float32, n)}
}

// Update moves params against grad, both as long as the moments, by the learning rate lr.
//
// The scalars are computed in float64 and rounded to float32 once; then, with every operation rounded to float32 and
// none fused,
//
//	p ← p · (1 - lr·λ)                    where λ ≠ 0
//	m ← m + (g - m) · (1-β1)
//	v ← v·β2 + ((1-β2) · g) · g
//	p ← p + (-lr/(1-β1ᵗ) · m) / (√v / √(1-β2ᵗ) + ε)
//
// These are PyTorch's formulas, though its kernels round some terms differently. The conversions to float32 keep the
// compiler from fusing an addition with a multiplication, which it does on some processors only.
func (o *AdamW) Update(params, grad []float32, lr float64) {
	o.Updates++
	t := float64(o.Updates)
	keep := float32(1 - lr*o.WeightDecay)
	gain1, beta2, gain2 := float32(1-o.Beta1), float32(o.Beta2), float32(1-o.Beta2)
	rate := float32(-lr / (1 - math.Pow(o.Beta1, t)))
	root2 := float32(math.Sqrt(1 - math.Pow(o.Beta2, t)))
	eps := float32(o.Eps)
	for i, g := range grad {
		p, m, v := params[i], o.M[i], o.V[i]
		if o.WeightDecay != 0 {
			p = float32(p * keep)
		}
		m += float32((g - m) * gain1)
		v = float32(v*beta2) + float32(float32(gain2*g)*g)
		p += float32(rate*m) / (float32(math.Sqrt(float64(v)))/root2 + eps)
		params[i], o.M[i], o.V[i] = p, m, v
	}
}
