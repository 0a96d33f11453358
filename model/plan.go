package model

import (
	"github.com/shirou/gopsutil/v4/mem"
)

// plan decides how many blocks, counted from the last, keep what their backward pass needs, and makes room on the tape: for that, every block's
// input, and one gradient.
func (m *Model) plan(p pack) (keep int, err error) {
	stream, block := m.streamBytes(p), m.savedBytes(p)
	streams := int64(len(m.blocks) + 2)
	trained := len(m.blocks) - m.adapter.lowest
	switch m.options.Recompute {
	case RecomputeNone:
		keep = trained
	case RecomputeAuto:
		keep = min(trained, int(max(0, m.budget()-streams*stream)/block))
	}
	const tensors = 24 // at most, of a block
	return keep, m.tape.reserve(streams*stream+int64(keep)*block, int(streams)+keep*tensors)
}

// savedBytes is the size of what a block keeps for its backward pass (type acts).
func (m *Model) savedBytes(p pack) int64 {
	heads := (m.Heads + 2*m.KVHeads) * m.HeadDim
	numbers := heads + m.Width + 2*m.Hidden // q k v, mid, gate and up
	if m.adapter != nil {
		for _, group := range m.blocks[m.adapter.lowest].groups {
			for _, l := range group {
				numbers += l.out // v
			}
			numbers += m.adapter.Rank // u
		}
	}
	return 4 * int64(numbers) * int64(p.tokens)
}

// budget is the memory for activations: half of what was free when it was first asked for.
func (m *Model) budget() int64 {
	if m.free == 0 {
		m.free = 1
		if v, err := mem.VirtualMemory(); err == nil {
			m.free = int64(v.Available)
		}
	}
	return m.free / 2
}
