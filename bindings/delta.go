package bindings

// A gated delta net (Yang, Kautz and Hatamizadeh, arXiv 2412.06464), as Qwen3-Next and Qwen 3.5 have it: attention whose memory of a text is one matrix S a value head,
// [DimV, DimK], of zeros where the text begins. With q and k divided by √(Σ x² + Eps), and q also by √DimK, a token makes
//
//	S ← e^g S       u = β (v − S k)       S ← S + u kᵀ       y = S q       g = A · log(1 + e^(a + bias))       β = σ(b)
//
// Everything is computed in float32. There are gradients of q, k, v, a and b; A and bias are frozen.

// DeltaHeads say what is in a row of a delta net. Value head i goes with key head i mod Keys, as GGUF files have them (transformers: i / (Values / Keys)).
type DeltaHeads struct {
	Keys, Values int     // how many; Values is a multiple of Keys
	DimK, DimV   int     // numbers of a head of q and k, and of v
	Eps          float32 // of the norm of q and k
}

// Delta is what a delta net takes of n tokens: QKV [DimK · 2 · Keys + DimV · Values, n] has the heads of q, then those of k, then those of v (behind the convolution
// and its SiLU), A and B [Values, n] the projections a and b as they are, all float32 or bfloat16. Decay [Values] is A, below 0, and Bias [Values], both float32.
type Delta struct{ QKV, A, B, Decay, Bias *Tensor }

// DeltaNet is y [DimV · Values, n], of type t. Texts begin where segments without a parent do; those with one continue it.
func (c *Context) DeltaNet(d Delta, s *Segments, h DeltaHeads, t Type) *Tensor {
	return c.fail("delta_net", "comes soon")
}

// DeltaNetBack gives the gradients of QKV, A and B, float32 of their shapes, for the gradient dy of DeltaNet's result. They are columns of one tensor: their rows have gaps between them.
func (c *Context) DeltaNetBack(dy *Tensor, d Delta, s *Segments, h DeltaHeads) (qkv, a, b *Tensor) {
	return c.fail("delta_net_back", "comes soon"), nil, nil
}

// DeltaNetCached is DeltaNet of rows that continue texts. A row's result does not depend on the rows that are computed with it.
//
// states [DimK · DimV · Values, texts], float32, are the texts' memories, which the rows change; one of position 0 begins with zeros, whatever is there. rows [2, n],
// int32, has the text of each column and its position there; those of a text must follow each other without a gap, from the first position that its state has not seen;
// that is not checked.
func (c *Context) DeltaNetCached(d Delta, states, rows *Tensor, h DeltaHeads, t Type) *Tensor {
	return c.fail("delta_net_cached", "comes soon")
}

// GatedNorm is Norm of every head of x [dim · heads, n], for w [dim], times SiLU(z), of type t: x and z, of the same shape, are float32 or bfloat16.
func (c *Context) GatedNorm(x, z, w *Tensor, eps float32, t Type) *Tensor {
	return c.fail("gated_norm", "comes soon")
}

// GatedNormBack gives the gradients of x and z, of type t, for the gradient dy of GatedNorm's result. They are columns of one tensor: their rows have gaps between them.
func (c *Context) GatedNormBack(dy, x, z, w *Tensor, eps float32, t Type) (dx, dz *Tensor) {
	return c.fail("gated_norm_back", "comes soon"), nil
}
