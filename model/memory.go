package model

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/process"

	"github.com/veratune/veratune/bindings"
)

// Memory is an estimate of what a training pass needs, in bytes: of the process or, where another device computes, of
// that device.
type Memory struct {
	// The model's file, mapped: read-only pages that the system may drop. On a device, the weights.
	File int64 `json:"file"`
	// Held already: tokenizer, rows, adapter, shared pair. On a device: adapter, pair and its driver.
	Process int64 `json:"process"`
	Merged  int64 `json:"merged"`  // matrices with ΔW added
	Streams int64 `json:"streams"` // every block's input, a gradient, and the rotations
	Saved   int64 `json:"saved"`   // what blocks keep for the backward pass
	Work    int64 `json:"work"`    // the operations' results and scratch memory
	Answers int64 `json:"answers"` // made between passes, as PlanAnswers was told
	Rows    int   `json:"rows"`    // tokens of the pass
	Keeping int   `json:"keeping"` // blocks that keep what the backward pass needs; the others compute it again
	InTurn  bool  `json:"in_turn"` // the device holds two blocks' weights at a time
}

// Total is the peak.
func (m Memory) Total() int64 {
	return m.File + m.Process + m.Merged + m.Streams + m.Saved + m.Work + m.Answers
}

// EstimateMemory estimates what the gradient of a batch needs, without computing it. It fails where that is more than
// the process can have.
func (m *Model) EstimateMemory(tokens, targets []int32, lengths []int) (Memory, error) {
	if m.adapter == nil {
		return Memory{}, errors.New("plan: no adapter is attached")
	}
	samples, err := m.splitBatch(tokens, targets, lengths)
	if err != nil {
		return Memory{}, err
	}
	if err := m.planMerging(); err != nil {
		return Memory{}, err
	}
	all := passes(samples)
	if err := m.placeWeights(all, m.gradientMemory); err != nil {
		return Memory{}, err
	}
	var most Memory
	for _, pass := range all {
		p := newPack(pass, m.adapter.Dropout == 0)
		keep, err := m.blocksToKeep(p)
		if err != nil {
			return Memory{}, err
		}
		n, err := m.passMemory(p, keep)
		if err != nil {
			return Memory{}, err
		}
		if n.Total() > most.Total() {
			most = n
		}
		if m.backend.Host {
			if err := m.checkFits(p); err != nil {
				return Memory{}, err
			}
		}
	}
	return most, nil
}

// passMemory estimates a pass in which the last keep blocks keep what their backward pass needs.
func (m *Model) passMemory(p pack, keep int) (Memory, error) {
	n := Memory{File: m.weights.Size(), Process: m.heldMemory(), Rows: p.rows(), Keeping: keep}
	n.InTurn = m.inTurn()
	saved, _, err := m.saved(p)
	if err != nil {
		return n, err
	}
	n.Streams, n.Saved = m.betweenBytes(p), int64(keep)*saved
	n.Merged = m.mergedBytes()
	work, err := m.measureGraphs(func() error {
		if _, err := m.passGradient(p, keep, 0); err != nil || m.adapter.moments == nil {
			return err
		}
		_, err := m.GradientNorm()
		return err
	})
	if err != nil {
		return n, err
	}
	n.Work, n.Answers = max(work, m.answers.work)+m.scratchMemory(), m.answers.held
	return n, nil
}

// mergedBytes is the size of the merged matrices.
func (m *Model) mergedBytes() (n int64) {
	for _, gr := range m.mergedGroups() {
		n += m.kindOf(gr).RowBytes(int64(gr.in)) * int64(gr.out)
	}
	return n
}

// gradientMemory is the least that the gradient of a pass takes.
func (m *Model) gradientMemory(p pack) (Memory, error) {
	if err := m.planMerging(); err != nil {
		return Memory{}, err
	}
	return m.passMemory(p, 0)
}

// lossMemory is what the loss of a pass takes.
func (m *Model) lossMemory(p pack) (n Memory, err error) {
	n = Memory{File: m.weights.Size(), Process: m.heldMemory(), Streams: 2*m.streamBytes(p) + m.tableBytes(p),
		Rows: p.rows()}
	if m.adapter != nil {
		if err := m.planMerging(); err != nil {
			return n, err
		}
		n.Merged = m.mergedBytes()
	}
	work, err := m.measureGraphs(func() error { _, err := m.lossOf(p, nil); return err })
	n.Work, n.Answers = max(work, m.answers.work)+m.scratchMemory(), m.answers.held
	return n, err
}

// heldMemory is what is held before a pass, besides weights: by the process, or on the device.
func (m *Model) heldMemory() int64 {
	switch a := m.adapter; {
	case m.backend.Host:
		return a.held
	case a == nil:
		return m.driverMemory()
	default:
		return m.driverMemory() + a.memory.Size() + a.moments.size()
	}
}

// residentMemory is the memory that the process holds now. Where the system does not tell (a chroot without /proc), it
// is what Go holds.
func residentMemory() int64 {
	self, err := process.NewProcess(int32(os.Getpid()))
	if err == nil {
		var info *process.MemoryInfoStat
		if info, err = self.MemoryInfo(); err == nil {
			return int64(info.RSS)
		}
	}
	var of runtime.MemStats
	runtime.ReadMemStats(&of)
	return int64(of.Sys - of.HeapReleased)
}

// measureGraphs is the memory of the largest graph of a pass. All graphs are built as for computing, but only measured.
func (m *Model) measureGraphs(pass func() error) (int64, error) {
	real := m.alloc
	m.alloc, m.dryRun, m.workBytes, m.largest = m.backend.NewAllocator(), true, 0, bindings.Largest{}
	defer func() {
		m.alloc.Close()
		m.alloc, m.dryRun = real, false
	}()
	err := pass()
	return m.workBytes, err
}

// scratchMemory is what the kernels of the measured graphs take besides their results. On the CPU: 2 MiB a thread for a
// strip and its sums, a delta net's states, and one operand transposed. On a device: the largest matrix unpacked, 64 Mi
// numbers at a time, with 16 MiB on the way there; a product of the pair; and cuBLAS's own 64 MiB.
func (m *Model) scratchMemory() int64 {
	size, most := m.kind().RowBytes(1), m.largest
	switch {
	case !m.backend.Fused:
		return 0
	case !m.backend.Host:
		return size*min(64<<20, most.Matrix) + 16<<20 + 64<<20 + bindings.F32.RowBytes(most.Pair)
	}
	threads := int64(m.options.Threads)
	return threads*(2<<20+bindings.F32.RowBytes(most.States)) + size*max(most.Operand, most.Pair)
}

// betweenBytes is the size of what lives between the blocks of a pass: every residual stream, and what blocks share.
func (m *Model) betweenBytes(p pack) int64 {
	return m.streams()*m.streamBytes(p) + m.tableBytes(p) + m.sharedBytes(p)
}

// streams is the number of residual streams that live between the blocks of a pass.
func (m *Model) streams() int64 { return int64(len(m.blocks) + 2) }

// blocksToKeep decides how many blocks, from the last one down, keep what their backward pass needs.
func (m *Model) blocksToKeep(p pack) (int, error) {
	trained := len(m.blocks) - m.adapter.lowest
	switch m.options.Recompute {
	case RecomputeNone:
		return trained, nil
	case RecomputeAll:
		return 0, nil
	}
	saved, _, err := m.saved(p)
	if err != nil {
		return 0, err
	}
	if m.backend.Host && m.options.Memory == 0 {
		return min(trained, int(max(0, m.budget()-m.betweenBytes(p))/saved)), nil
	}
	n, err := m.passMemory(p, 0)
	if err != nil {
		return 0, err
	}
	left := m.deviceLimit() - n.Total()
	if left < 0 {
		return 0, fmt.Errorf("a pass of %d tokens needs %s, memory is limited to %s; %s", p.rows(), gib(n.Total()),
			gib(m.deviceLimit()), smallerPass)
	}
	return min(trained, int(left/saved)), nil
}

// smallerPass says what helps where a pass does not fit into memory.
const smallerPass = "use a smaller batch or accumulation, or a smaller --max-length"

func gib(bytes int64) string { return fmt.Sprintf("%.2f GiB", float64(bytes)/(1<<30)) }

// reserveTape makes room on the tape for every block's input, one gradient, and what keep blocks keep.
func (m *Model) reserveTape(p pack, keep int) error {
	saved, results, err := m.saved(p)
	if err != nil {
		return err
	}
	err = m.tape.reserve(m.betweenBytes(p)+int64(keep)*saved,
		int(m.streams())+m.tableCount()+len(m.kvSources())+keep*results)
	if err != nil {
		return fmt.Errorf("%w; use a smaller batch, a smaller --max-length, or --recompute all", err)
	}
	return nil
}

// saved is the size of what the block that keeps most keeps for its backward pass (type acts), and the largest number
// of tensors in it. The blocks' graphs are built, not computed.
func (m *Model) saved(p pack) (bytes int64, results int, err error) {
	type made struct {
		shape
		down [4]int64 // of each group
	}
	seen := map[made]bool{}
	for _, b := range m.blocks[m.adapter.lowest:] {
		like := made{shape: b.shape}
		for i, gr := range b.groups {
			if gr.merged == nil && gr.adapter != nil {
				like.down[i] = gr.adapter.matrixA.Ne(1)
			}
		}
		if seen[like] {
			continue
		}
		seen[like] = true
		g := m.passGraph(p, 0)
		_, a := g.forward(b, g.NewTensor(bindings.F32, int64(m.Width), int64(p.rows())), nil)
		size, n := int64(0), 0
		for _, t := range a.tensors() {
			if *t != nil {
				size, n = size+(*t).Bytes(), n+1
			}
		}
		bytes, results = max(bytes, size), max(results, n)
		err = errors.Join(err, g.Err())
		g.Close()
	}
	return bytes, results, err
}

// budget is the memory for activations: half of what was free when it was first asked for.
func (m *Model) budget() int64 {
	if m.free == 0 {
		m.free = max(1, available())
	}
	return m.free / 2
}

// available is the memory that the process could still take: what is free in the machine, and what it may have at most;
// 0 where neither is known.
func available() int64 {
	var free int64
	if v, err := mem.VirtualMemory(); err == nil {
		free = int64(v.Available)
	}
	if most, _ := memoryLimit(); most > 0 {
		free = min(free, most-residentMemory())
	}
	return free
}

// memoryLimit is the most memory that the process can have, and what sets that: the machine, or the limit of a
// container's cgroup. It is 0 where neither is known.
func memoryLimit() (bytes int64, by string) {
	if v, err := mem.VirtualMemory(); err == nil {
		bytes, by = int64(v.Total+v.SwapTotal), "this machine has"
	}
	if limit, err := memlimit.FromCgroup(); err == nil && limit < uint64(bytes) {
		bytes, by = int64(limit), "the limit of this container, of its cgroup, is"
	}
	return bytes, by
}

// checkFits fails where a pass needs more than the process can have even if it recomputes everything. The model's file
// does not count, since the system may drop its pages.
func (m *Model) checkFits(p pack) error {
	n, err := m.passMemory(p, 0)
	if err != nil {
		return err
	}
	least := n.Total() - n.File
	if most, by := memoryLimit(); most > 0 && least > most {
		return fmt.Errorf("a pass of %d tokens needs %s, and %s %s; %s", n.Rows, gib(least), by, gib(most), smallerPass)
	}
	return nil
}
