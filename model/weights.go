package model

import (
	"fmt"

	"github.com/veratune/veratune/bindings"
)

// store holds the model's weights on a device, quantised as in the file: all of them or, where memory is too small, two
// blocks at a time. Then the next block's weights are copied while a block computes.
type store struct {
	backend *bindings.Backend
	fixed   []leaf   // of no block
	blocks  [][]leaf // of each block
	memory  []*bindings.Buffer
	settled bool // whether it is decided where blocks lie

	slots   [2]*bindings.Buffer // nil where all blocks have memory of their own
	holds   [2]int              // the block in each slot, or -1
	loading chan error          // not nil while a block is copied
}

// leaf is a weight and its bytes in the file.
type leaf struct {
	*bindings.Tensor
	data []byte
}

// placeInTurn gives all weights memory: that of no block for good, and two slots for the blocks.
func (s *store) placeInTurn() error {
	err := s.allocate(s.fixed)
	if err != nil {
		return err
	}
	for i := range s.slots {
		if s.slots[i], err = s.backend.NewBuffer(s.slotBytes()); err != nil {
			return fmt.Errorf("weights: %w", err)
		}
		s.holds[i] = -1
	}
	for i, leaves := range s.blocks {
		s.slots[i%2].Reset()
		for _, l := range leaves {
			if _, err := s.slots[i%2].Place(l.Tensor); err != nil {
				return err
			}
		}
	}
	return nil
}

// allocate gives leaves memory for good, and copies their data.
func (s *store) allocate(leaves []leaf) error {
	b, err := s.backend.NewBuffer(s.bytes(leaves))
	if err != nil {
		return fmt.Errorf("weights: %w", err)
	}
	s.memory = append(s.memory, b)
	for _, l := range leaves {
		if _, err := b.Place(l.Tensor); err != nil {
			return err
		}
	}
	return upload(leaves)
}

func upload(leaves []leaf) error {
	for _, l := range leaves {
		if err := l.Upload(l.data); err != nil {
			return err
		}
	}
	return nil
}

// bytes is the memory that leaves take.
func (s *store) bytes(leaves []leaf) (n int64) {
	for _, l := range leaves {
		n += s.backend.Room(l.Tensor)
	}
	return n
}

func (s *store) slotBytes() (n int64) {
	for _, leaves := range s.blocks {
		n = max(n, s.bytes(leaves))
	}
	return n
}

// size is the memory of all weights, with all blocks or two at a time.
func (s *store) size(inTurn bool) int64 {
	n := s.bytes(s.fixed)
	if inTurn {
		return n + 2*s.slotBytes()
	}
	for _, leaves := range s.blocks {
		n += s.bytes(leaves)
	}
	return n
}

// placeAll gives every block memory for good.
func (s *store) placeAll() error {
	s.freeSlots()
	for _, leaves := range s.blocks {
		for _, l := range leaves {
			l.Displace()
		}
		if err := s.allocate(leaves); err != nil {
			return err
		}
	}
	return nil
}

// use makes block i ready to compute. Meanwhile block next is copied, unless it would overwrite i.
func (s *store) use(i, next int) error {
	if s == nil || s.slots[0] == nil {
		return nil
	}
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

func (s *store) load(i int) {
	s.holds[i%2] = i
	done := make(chan error, 1)
	s.loading = done
	go func() { done <- upload(s.blocks[i]) }()
}

// wait returns when nothing is being copied.
func (s *store) wait() error {
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

func (s *store) freeSlots() {
	_ = s.wait()
	for i := range s.slots {
		s.slots[i].Close()
		s.slots[i] = nil
	}
}

func (s *store) close() {
	if s == nil {
		return
	}
	s.freeSlots()
	for _, b := range s.memory {
		b.Close()
	}
	s.memory = nil
}

// placeWeights decides once whether all blocks stay on the device, by what a pass with these samples takes besides
// them.
func (m *Model) placeWeights(passes [][]sample, need func(p pack) (Memory, error)) error {
	if m.store == nil || m.store.settled || len(passes) == 0 {
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
	all, inTurn := m.store.size(false), m.store.size(true)
	rest := most.Total() - most.File
	switch {
	case rest+all <= m.deviceLimit():
		if err := m.store.placeAll(); err != nil {
			return err
		}
	case rest+inTurn > m.deviceLimit():
		return fmt.Errorf("a pass of %d tokens needs %s on %s, even with two blocks' weights there at a time; %s are "+
			"to be used. Use a smaller batch, --max-length or rank",
			most.Rows, gib(rest+inTurn), m.backend.Device().Name, gib(m.deviceLimit()))
	}
	m.store.settled = true
	return nil
}

// deviceLimit is the memory of the device that may be used: what the options say, else nine tenths of what is free,
// since it is not known what a backend takes besides tensors.
func (m *Model) deviceLimit() int64 {
	if m.options.Memory > 0 {
		return m.options.Memory
	}
	return (m.backend.Device().Free + m.driverMemory()) / 10 * 9
}

// driverMemory is what the device's driver has taken for this process, at most 1 GiB; the rest of what is in use is
// other processes'.
func (m *Model) driverMemory() int64 {
	d := m.backend.Device()
	return min(d.Total-d.Free, 1<<30)
}

// resident has all weights on the device at once, for answers.
func (m *Model) resident() error {
	s := m.store
	switch {
	case s == nil || s.settled && s.slots[0] == nil:
		return nil
	case s.settled || s.size(false) > m.deviceLimit():
		return fmt.Errorf("answers need all weights, %s, on %s at once, and %s are to be used; compute them on the CPU",
			gib(s.size(false)), m.backend.Device().Name, gib(m.deviceLimit()))
	}
	s.settled = true
	return s.placeAll()
}
