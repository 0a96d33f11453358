package model

import "github.com/veratune/veratune/bindings"

// gradientWay is how gradients are computed from that of a merged matrix.
//
// Integers of 13 bits are as good as floats, so ComputeInt takes them for all products. Bytes are not, so they are here
// and in merging alone, where they save most: on SmolLM2, whose whole gradient is off by 0.018 in bfloat16, they make
// that 0.024. The inputs' gradients would make that 0.038.
func (m *Model) gradientWay() bindings.Way {
	if m.options.Compute == ComputeInt {
		return bindings.Rounded
	}
	return bindings.Plain
}

// trainingWay is how the other products of blocks are computed backwards.
func (m *Model) trainingWay() bindings.Way {
	if integersAreBytes() {
		return bindings.Plain
	}
	return m.gradientWay()
}

// forwardWay is how a group's layers multiply forwards. Nothing is rounded where kindOf rounds nothing.
func (m *Model) forwardWay(gr *group) bindings.Way {
	if m.exact(gr) {
		return bindings.Plain
	}
	return m.trainingWay()
}

// mergingWay is how a group's merged matrix is formed. Norms of layers' results feel bytes more: the whole gradient of
// a tiny Gemma 3 would be off by 0.033, which is 0.022 in bfloat16.
func (m *Model) mergingWay(gr *group) bindings.Way {
	b := m.blocks[gr.block]
	normed := b.attnAfter.weight != nil || b.ffnAfter.weight != nil
	if m.exact(gr) || normed && integersAreBytes() {
		return bindings.Plain
	}
	return m.gradientWay()
}

func integersAreBytes() bool {
	limit, _, _ := bindings.Integers(1)
	return limit < 1<<7
}

// Products says in words what the products of training multiply.
func (c Compute) Products() string {
	float := "float32"
	if bindings.FastBF16() {
		float = "bfloat16"
	}
	switch {
	case c == ComputeF32:
		return "float32"
	case c == ComputeBF16:
		return "bfloat16"
	case integersAreBytes():
		return "8-bit integers for merged matrices and their gradients, " + float + " for the rest"
	default:
		return "16-bit integers"
	}
}
