// Package model runs a language model from its GGUF file: forward, hand-written backward for VeRA's vectors, and generation.
//
// The network's mathematics stand here block by block: block.go lists a transformer block forwards and, below it, backwards; architecture.go has what the block of
// each architecture is made of; linear.go does so for a VeRA linear layer, attention.go for attention, head.go for the loss. Weights stay quantised in the file's memory map; an operation
// dequantises the matrix that it needs while it runs.
//
// It must know nothing of data sets, optimisers or run directories.
package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// Options decide how a model computes.
type Options struct {
	Device    string    `json:"device"` // a name that Devices gives, or auto
	Threads   int       `json:"threads"`
	Compute   Compute   `json:"compute"`
	Plan      Plan      `json:"plan"`
	Recompute Recompute `json:"recompute"`
	Memory    int64     `json:"memory"` // limit in bytes that auto recomputes for; 0 is half of what is free, or of a device nine tenths
}

// Default is all processors, bfloat16 products where the processor has them and float32 elsewhere, and recomputing by memory.
func Default() Options {
	o := Options{Device: bindings.CPU, Threads: runtime.GOMAXPROCS(0), Compute: ComputeF32, Plan: PlanAuto, Recompute: RecomputeAuto}
	if bindings.FastBF16() {
		o.Compute = ComputeBF16
	}
	return o
}

// Compute is the arithmetic of the matrix products. Everything else is float32 always.
type Compute string

// The arithmetics that there are.
const (
	ComputeF32  Compute = "f32"  // float32 on the dequantised weights, comparable with references
	ComputeBF16 Compute = "bf16" // weights, pair and activations rounded to bfloat16, sums in float32
	ComputeQ8   Compute = "q8"   // for generation: activations and pair rounded to 8 bits in blocks of 32, keys and values to float16, sums exact or in float32
)

// Plan says how a training pass multiplies with W + ΔW.
type Plan string

// The plans that there are.
const (
	PlanAuto     Plan = "auto"     // for each group of layers with a common input the one with fewer multiplications
	PlanFactored Plan = "factored" // W x + b ⊙ (B (d ⊙ (A x))) for each token
	PlanMerged   Plan = "merged"   // W + diag(b) B diag(d) A is formed once a pass
)

// Recompute says which blocks' intermediate results are computed again in the backward pass instead of being kept.
type Recompute string

// The ways to recompute.
const (
	RecomputeAuto Recompute = "auto" // keep them while they fit into the memory
	RecomputeAll  Recompute = "all"
	RecomputeNone Recompute = "none"
)

// Validate says what is allowed where an option is not.
func (o Options) Validate() error {
	switch {
	case o.Threads < 1 || o.Threads > 512:
		return fmt.Errorf("threads %d: from 1 to 512", o.Threads)
	case o.Compute != ComputeF32 && o.Compute != ComputeBF16 && o.Compute != ComputeQ8:
		return fmt.Errorf("compute %q: f32, bf16 or q8", o.Compute)
	case o.Plan != PlanAuto && o.Plan != PlanFactored && o.Plan != PlanMerged:
		return fmt.Errorf("plan %q: auto, factored or merged", o.Plan)
	case o.Memory < 0:
		return fmt.Errorf("memory %d: 0 or more bytes", o.Memory)
	case o.Recompute != RecomputeAuto && o.Recompute != RecomputeAll && o.Recompute != RecomputeNone:
		return fmt.Errorf("recompute %q: auto, all or none", o.Recompute)
	}
	return nil
}

// block holds the weights of one transformer block.
type block struct {
	attnNorm, ffnNorm *bindings.Tensor   // [width], float32
	headNorms         bindings.HeadNorms // none but where the architecture has them
	straight          bool               // q and k are not rotated
	groups            [4]*group          // q k v, output, gate up, down
}

// Model is an open model. It is not safe for concurrent use.
type Model struct {
	Config
	options     Options
	file        *bindings.GGUF
	backend     *bindings.Backend
	weights     *bindings.Context
	store       *store // nil where weights are used in the file's map
	alloc       *bindings.Allocator
	tape        *tape
	embed       *bindings.Tensor // [width, vocab]
	outNorm     *bindings.Tensor // [width]
	head        *bindings.Tensor // [width, vocab]
	ropeFactors *bindings.Tensor // [dims/2] or nil
	blocks      []*block
	fingerprint string
	adapter     *attached
	attachment  int   // counts the calls of Attach
	free        int64 // memory that was free at the first training step, in bytes
	dry         bool  // graphs are measured and not computed
	work        int64 // memory of the largest graph measured
}

// Open maps a GGUF file and checks that it is a whole model that can be trained: architecture, tensors, shapes and types.
func Open(path string, o Options) (*Model, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	file, err := bindings.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	m := &Model{options: o, file: file}
	if err := m.open(); err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func (m *Model) open() error {
	config, err := readConfig(m.file)
	if err != nil {
		return err
	}
	m.Config = config
	device, err := bindings.FindDevice(m.options.Device)
	if err != nil {
		return err
	}
	if err := multiplies(device, m.options.Compute); err != nil {
		return err
	}
	if m.backend, err = device.Open(m.options.Threads); err != nil {
		return err
	}
	if m.backend.Composed() && m.options.Compute == ComputeBF16 {
		m.backend.RoundProducts()
	}
	if device.Name != bindings.CPU {
		m.store = &store{backend: m.backend}
	}
	if err := m.loadWeights(); err != nil {
		return err
	}
	m.fingerprint = fingerprint(m.file)
	m.alloc = m.backend.NewAllocator()
	m.tape = &tape{backend: m.backend}
	return nil
}

// Close frees everything. Closing twice is harmless.
func (m *Model) Close() {
	m.detach()
	m.tape.close()
	if m.alloc != nil {
		m.alloc.Close()
	}
	m.store.close()
	if m.weights != nil {
		m.weights.Close()
	}
	if m.backend != nil {
		m.backend.Close()
	}
	m.file.Close()
}

// loader finds tensors by name and checks them.
type loader struct {
	m      *Model
	leaves *[]leaf // to which those go that are copied to a device
	seen   map[string]bool
	err    error
}

// tensor gives the tensor of that name and shape, or keeps the first error.
func (l *loader) tensor(name string, shape ...int) *bindings.Tensor {
	info, ok := l.m.file.Tensor(name)
	if l.err != nil {
		return nil
	}
	l.seen[name] = true
	want := make([]int64, len(shape))
	for i, n := range shape {
		want[i] = int64(n)
	}
	switch {
	case !ok:
		l.err = fmt.Errorf("tensor %s is missing", name)
	case len(want) != len(info.Shape) || !equal(want, info.Shape):
		l.err = fmt.Errorf("tensor %s has shape %v, %v is needed", name, info.Shape, want)
	case len(shape) == 1 && info.Type != bindings.F32:
		l.err = fmt.Errorf("tensor %s: type %v, f32 is needed", name, info.Type)
	case !info.Type.Dequantizes():
		l.err = fmt.Errorf("tensor %s: type %v cannot be turned into float32; requantise the model, to Q4_0 or Q4_K for example", name, info.Type)
	}
	if l.err != nil {
		return nil
	}
	if l.m.store == nil {
		t, err := l.m.file.Leaf(l.m.weights, info)
		l.err = err
		return t
	}
	t := l.m.weights.NewTensor(info.Type, info.Shape...)
	if t == nil {
		l.err = l.m.weights.Err()
		return nil
	}
	*l.leaves = append(*l.leaves, leaf{t.SetName(name), l.m.file.Data(info)})
	return t
}

func equal(a, b []int64) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func (m *Model) loadWeights() error {
	infos := m.file.Tensors()
	m.weights = bindings.NewContext(len(infos), 0)
	info, ok := m.file.Tensor("token_embd.weight")
	if !ok || len(info.Shape) != 2 {
		return errors.New("tensor token_embd.weight is missing or no matrix")
	}
	m.Vocab = int(info.Shape[1])
	if err := m.countTokens(m.file); err != nil {
		return err
	}
	var leaves []leaf
	l := &loader{m: m, leaves: &leaves, seen: map[string]bool{}}
	m.embed = l.tensor("token_embd.weight", m.Width, m.Vocab)
	m.outNorm = l.tensor("output_norm.weight", m.Width)
	m.head = m.embed
	if _, ok := m.file.Tensor("output.weight"); ok {
		m.head = l.tensor("output.weight", m.Width, m.Vocab)
	} else {
		m.TiedHead = true
	}
	if _, m.RopeFactor = m.file.Tensor("rope_freqs.weight"); m.RopeFactor {
		m.ropeFactors = l.tensor("rope_freqs.weight", m.Rope.Dims/2)
	}
	fixed := leaves
	qOut, kvOut := m.Heads*m.HeadDim, m.KVHeads*m.HeadDim
	for i := range m.Blocks {
		leaves = nil
		name := func(part string) string { return "blk." + strconv.Itoa(i) + "." + part }
		matrix := func(target string, in, out int) *linear {
			x := &linear{block: i, target: target, in: in, out: out, w: l.tensor(name(target)+".weight", in, out)}
			if _, ok := m.file.Tensor(name(target) + ".bias"); slices.Contains(m.made.biases, target) || ok && slices.Contains(m.made.mayHave, target) {
				x.bias = l.tensor(name(target)+".bias", out)
			}
			return x
		}
		b := &block{
			attnNorm: l.tensor(name("attn_norm.weight"), m.Width),
			ffnNorm:  l.tensor(name("ffn_norm.weight"), m.Width),
			groups: [4]*group{
				newGroup(0, matrix("attn_q", m.Width, qOut), matrix("attn_k", m.Width, kvOut), matrix("attn_v", m.Width, kvOut)),
				newGroup(1, matrix("attn_output", qOut, m.Width)),
				newGroup(2, matrix("ffn_gate", m.Width, m.Hidden), matrix("ffn_up", m.Width, m.Hidden)),
				newGroup(3, matrix("ffn_down", m.Hidden, m.Width)),
			},
		}
		b.straight = m.made.straight > 0 && (i+1)%m.made.straight == 0
		if m.made.headNorms {
			b.headNorms = bindings.HeadNorms{Q: l.tensor(name("attn_q_norm.weight"), m.HeadDim), K: l.tensor(name("attn_k_norm.weight"), m.HeadDim)}
		}
		m.blocks = append(m.blocks, b)
		if l.err != nil {
			return l.err
		}
		if m.store != nil {
			m.store.blocks = append(m.store.blocks, leaves)
		}
	}
	for _, t := range infos {
		// rope_freqs of old conversions stand in every block and say nothing.
		if !l.seen[t.Name] && !strings.HasSuffix(t.Name, "rope_freqs.weight") && !strings.HasSuffix(t.Name, "attn_rot_embd") {
			return fmt.Errorf("tensor %s is not part of a model of architecture %s as it is computed here; its effect would be lost", t.Name, m.Architecture)
		}
	}
	if l.err == nil && m.store != nil {
		m.store.fixed = fixed
		return m.store.place()
	}
	return l.err
}

// fingerprint is a SHA-256 over the names, types and shapes of all tensors and 4 KiB from the beginning and the end of each tensor's data, so that
// a model of gigabytes is known in milliseconds. Metadata do not count.
func fingerprint(g *bindings.GGUF) string {
	h := sha256.New()
	for _, t := range g.Tensors() {
		h.Write([]byte(t.Name))
		binary.Write(h, binary.LittleEndian, []uint32{0, uint32(t.Type)})
		binary.Write(h, binary.LittleEndian, t.Shape)
		data := g.Data(t)
		h.Write(data[:min(4096, len(data))])
		h.Write(data[max(0, len(data)-4096):])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// File is the model's file, open as long as the model is.
func (m *Model) File() *bindings.GGUF { return m.file }

// Base describes the model to an adapter.
func (m *Model) Base() vera.Base {
	b := vera.Base{
		Architecture: m.Architecture, Name: m.Name, Fingerprint: m.fingerprint,
		Blocks: m.Blocks, Heads: m.Heads, KVHeads: m.KVHeads, HeadDim: m.HeadDim, General: vera.General(m.file),
	}
	for _, l := range m.linears() {
		b.Linears = append(b.Linears, vera.Linear{Block: l.block, Target: l.target, In: l.in, Out: l.out})
	}
	return b
}

// linears lists the seven matrices of every block in the order of vera.Targets.
func (m *Model) linears() []*linear {
	var all []*linear
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			all = append(all, gr.layers...)
		}
	}
	return all
}
