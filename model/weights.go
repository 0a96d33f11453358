package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// weights are the model's, quantised as in the file, where a backend computes with them.
type weights interface {
	// use makes block i ready to compute. Meanwhile block next may be copied, unless it would overwrite i.
	use(i, next int) error
	// Size is the memory that they take, in bytes.
	Size() int64
	// close gives back what of it is not the file's.
	close()
}

// mapped weights lie in the file's map.
type mapped struct{ *bindings.GGUF }

func (mapped) use(int, int) error { return nil }

func (mapped) close() {}

// uploaded weights lie in a device's memory.
type uploaded struct {
	backend *bindings.Backend
	memory  []*bindings.Buffer
}

// streamed weights take turns in a device's memory, where that is too small for all: of two blocks, one is copied while
// the other computes. Weights of no block stay.
type streamed struct {
	uploaded
	blocks  [][]leaf
	slots   [2]*bindings.Buffer
	holds   [2]int     // the block in each slot, or -1
	loading chan error // not nil while a block is copied
	settled bool       // it is decided that not all are uploaded
}

// leaf is a weight and its bytes in the file.
type leaf struct {
	*bindings.Tensor
	data []byte
}

func (u *uploaded) use(int, int) error { return nil }

// Size is the memory of all weights.
func (u *uploaded) Size() (n int64) {
	for _, b := range u.memory {
		n += b.Size()
	}
	return n
}

func (u *uploaded) close() {
	for _, b := range u.memory {
		b.Close()
	}
	u.memory = nil
}

// room is the memory that leaves take.
func (u *uploaded) room(leaves []leaf) (n int64) {
	for _, l := range leaves {
		n += u.backend.Room(l.Tensor)
	}
	return n
}

// add gives leaves memory for good, and copies their data.
func (u *uploaded) add(leaves []leaf) error {
	b, err := u.backend.NewBuffer(u.room(leaves))
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	u.memory = append(u.memory, b)
	if err := place(b, leaves); err != nil {
		return err
	}
	return upload(leaves)
}

func place(b *bindings.Buffer, leaves []leaf) error {
	for _, l := range leaves {
		if _, err := b.Place(l.Tensor); err != nil {
			return err
		}
	}
	return nil
}

func upload(leaves []leaf) error {
	for _, l := range leaves {
		if err := l.Upload(l.data); err != nil {
			return err
		}
	}
	return nil
}

// newStreamed gives all weights memory: those of no block for good, and two slots for the blocks. It is to be closed
// even after an error.
func newStreamed(backend *bindings.Backend, fixed []leaf, blocks [][]leaf) (*streamed, error) {
	s := &streamed{uploaded: uploaded{backend: backend}, blocks: blocks, holds: [2]int{-1, -1}}
	if err := s.add(fixed); err != nil {
		return s, err
	}
	most := int64(0)
	for _, leaves := range blocks {
		most = max(most, s.room(leaves))
	}
	for i := range s.slots {
		var err error
		if s.slots[i], err = backend.NewBuffer(most); err != nil {
			return s, fmt.Errorf("weights: %w", err)
		}
	}
	for i, leaves := range blocks {
		s.slots[i%2].Reset()
		if err := place(s.slots[i%2], leaves); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Size is that of the weights of no block, and of two blocks.
func (s *streamed) Size() int64 { return s.uploaded.Size() + s.slots[0].Size() + s.slots[1].Size() }

func (s *streamed) close() {
	s.freeSlots()
	s.uploaded.close()
}

// uploadedSize is the memory that all of them would take.
func (s *streamed) uploadedSize() int64 {
	n := s.uploaded.Size()
	for _, leaves := range s.blocks {
		n += s.room(leaves)
	}
	return n
}

// upload gives every block memory for good.
func (s *streamed) upload() (*uploaded, error) {
	s.freeSlots()
	for _, leaves := range s.blocks {
		for _, l := range leaves {
			l.Displace()
		}
		if err := s.add(leaves); err != nil {
			return nil, err
		}
	}
	return &s.uploaded, nil
}

func (s *streamed) use(i, next int) error {
	if err := s.wait(); err != nil {
		return err
	}
	if s.holds[i%2] != i {
		s.load(i)
		if err := s.wait(); err != nil {
			return err
		}
	}
	if next >= 0 && next < len(s.blocks) && next%2 != i%2 && s.holds[next%2] != next {
		s.load(next)
	}
	return nil
}

func (s *streamed) load(i int) {
	s.holds[i%2] = i
	done := make(chan error, 1)
	s.loading = done
	go func() { done <- upload(s.blocks[i]) }()
}

// wait returns when nothing is being copied.
func (s *streamed) wait() error {
	if s.loading == nil {
		return nil
	}
	err := <-s.loading
	s.loading = nil
	if err != nil {
		s.holds = [2]int{-1, -1}
	}
	return err
}

func (s *streamed) freeSlots() {
	_ = s.wait()
	for _, b := range s.slots {
		b.Close()
	}
}

// placeWeights decides once whether all blocks stay on the device, by what a pass with these samples takes besides
// them.
func (m *Model) placeWeights(passes [][]sample, need func(p pack) (Memory, error)) error {
	s, ok := m.weights.(*streamed)
	if !ok || s.settled || len(passes) == 0 {
		return nil
	}
	var most Memory
	for _, pass := range passes {
		n, err := need(newPack(pass, m.adapter == nil || m.adapter.Dropout == 0))
		if err != nil {
			return err
		}
		if n.Total() > most.Total() {
			most = n
		}
	}
	return m.settleWeights(s, most.Total()-most.File, fmt.Sprintf("a pass of %d tokens needs", most.Rows),
		"a smaller batch, --max-length or rank")
}

// settleWeights uploads all weights if there is room for them beside the rest, else they stay streamed. An error says
// what needs so much, and what to use instead.
func (m *Model) settleWeights(s *streamed, rest int64, what, instead string) error {
	limit := m.deviceLimit()
	if rest+s.uploadedSize() <= limit {
		return m.uploadWeights(s)
	}
	if rest+s.Size() > limit {
		return fmt.Errorf("%s %s on %s, even with two blocks' weights there at a time; %s are to be used. Use %s", what,
			gib(rest+s.Size()), m.backend.Name, gib(limit), instead)
	}
	s.settled = true
	return nil
}

func (m *Model) uploadWeights(s *streamed) error {
	u, err := s.upload()
	if err == nil {
		m.weights = u
	}
	return err
}

// deviceLimit is the memory of the device that may be used: what the options say, else nine tenths of what is free,
// since it is not known what a backend takes besides tensors.
func (m *Model) deviceLimit() int64 {
	if m.options.Memory > 0 {
		return m.options.Memory
	}
	return (m.backend.Free + m.driverMemory()) / 10 * 9
}

// driverMemory is what the device's driver has taken for this process, at most 1 GiB; the rest of what is in use is
// other processes'.
func (m *Model) driverMemory() int64 {
	return min(m.backend.Total-m.backend.Free, 1<<30)
}
