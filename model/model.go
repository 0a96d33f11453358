// Package model runs a language model from its GGUF file: forward, hand-written backward for VeRA's vectors, and
// generation.
//
// The network's mathematics stand here block by block: block.go lists a transformer block forwards and, below it,
// backwards; architecture.go has what the block of each architecture is made of; linear.go does so for a VeRA linear
// layer, attention.go for attention, head.go for the loss. Weights stay quantised in the file's memory map; an
// operation dequantises the matrix that it needs while it runs.
//
// It must know nothing of data sets, optimisers or run directories.
package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
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
	// Limit in bytes for --recompute auto. 0: half of what is free, or nine tenths on a device.
	Memory int64 `json:"memory"`
}

// Default takes all processors, the arithmetic that trains best on them, and recomputes by memory.
func Default() Options {
	return Options{Device: CPU, Threads: runtime.GOMAXPROCS(0), Compute: ComputeAuto, Plan: PlanAuto,
		Recompute: RecomputeAuto}
}

// Compute is the arithmetic of the matrix products. Everything else is float32 always.
type Compute string

// The arithmetics that there are.
const (
	ComputeAuto Compute = "auto" // what the device trains best in
	ComputeF32  Compute = "f32"  // float32 on the dequantised weights, comparable with references
	ComputeBF16 Compute = "bf16" // weights, pair and activations rounded to bfloat16, sums in float32
	// for training: rounded to integers, with a scale for each block, where that is exact enough (ways.go); the rest is
	// as in bf16 where the processor multiplies it, else as in f32
	ComputeInt Compute = "int"
	// for generation: activations and pair rounded to 8 bits in blocks of 32, keys and values to float16, sums exact or
	// in float32
	ComputeQ8 Compute = "q8"
)

// Plan says how a training pass multiplies by W + ΔW.
type Plan string

// The plans that there are.
const (
	PlanAuto     Plan = "auto"     // for each group of layers with one input, what takes fewer multiplications
	PlanFactored Plan = "factored" // W x + b ⊙ (B (d ⊙ (A x))) for each token
	PlanMerged   Plan = "merged"   // W + diag(b) B diag(d) A is formed once a pass
)

// Recompute says which blocks compute their intermediate results again in the backward pass instead of keeping them.
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
	case !slices.Contains([]Compute{ComputeAuto, ComputeInt, ComputeBF16, ComputeF32, ComputeQ8}, o.Compute):
		return fmt.Errorf("compute %q: auto, int, bf16, f32 or q8", o.Compute)
	case o.Plan != PlanAuto && o.Plan != PlanFactored && o.Plan != PlanMerged:
		return fmt.Errorf("plan %q: auto, factored or merged", o.Plan)
	case o.Memory < 0:
		return fmt.Errorf("memory %d: 0 or more bytes", o.Memory)
	case o.Recompute != RecomputeAuto && o.Recompute != RecomputeAll && o.Recompute != RecomputeNone:
		return fmt.Errorf("recompute %q: auto, all or none", o.Recompute)
	}
	return nil
}

// norm is the weights of a norm, [width], float32. The zero value is no norm; a layer norm has a bias.
type norm struct{ weight, bias *bindings.Tensor }

// block holds the weights of one transformer block.
type block struct {
	shape
	attnNorm, ffnNorm   norm               // of the inputs of attention and feed-forward
	attnAfter, ffnAfter norm               // of their results
	qkNorms             bindings.HeadNorms // of q and k
	conv                *bindings.Tensor   // [taps, width]: of a short convolution
	delta               *delta             // of a delta net
	// q k v, or q alone where keys and values are another block's; output; gate up; down. A substitute for attention
	// has an input and an output group; with experts the last two are missing.
	groups    []*group
	experts   *experts         // nil where the feed-forward is dense
	sinks     *bindings.Tensor // [heads]: see bindings.Heads; nil without
	embedding *blockEmbedding  // nil without
	scale     float32          // of the block's result
}

// shape is what may differ between the blocks of a model.
type shape struct {
	nope         bool // q and k are not rotated
	local        bool // it has a window
	mixer        mixer
	rotation     int // index of its rotary
	headDim      int
	kvHeads      int
	hidden       int  // feed-forward length
	kvFrom       int  // the block whose keys and values it takes; -1 where it makes its own
	sharesKV     bool // others take its keys and values
	keysAsValues bool // its values are its keys before their norm
}

// rotary is a way to rotate: with rope_freqs.weight, or with factors for short and for long texts.
type rotary struct {
	bindings.Rope
	factors     *bindings.Tensor // [dims/2] or nil
	computed    []float32        // the same, for factors that are in no file
	longFactors *bindings.Tensor // of texts longer than OrigContext; nil where they have the same
}

// Model is an open model. It is not safe for concurrent use.
type Model struct {
	Config
	options     Options
	file        *bindings.GGUF
	backend     *bindings.Backend
	tensors     *bindings.Context // of the weights
	weights     weights
	alloc       *bindings.Allocator
	tape        *tape
	embed       *bindings.Tensor // [width, vocab]
	positions   *bindings.Tensor // [width, context], learned; nil without
	embeddings  *embeddings      // of the blocks; nil without
	outNorm     norm
	head        *bindings.Tensor // [width, vocab]
	rotaries    []rotary         // that blocks use
	blocks      []*block
	fingerprint string
	adapter     *attached
	pairs       *vera.Pairs
	attachment  int              // counts the calls of Attach
	free        int64            // memory that was free at the first training step, in bytes
	dryRun      bool             // graphs are measured, not computed
	probe       *Device          // collects the operations that the device lacks; nothing is computed
	workBytes   int64            // memory of the largest graph measured
	products    bindings.Work    // computed since Products was last asked
	largest     bindings.Largest // of all graphs measured
	answers     answersMemory    // what PlanAnswers found
}

// Open maps a GGUF file and checks that it is a whole model that can be trained: its architecture, tensors, shapes and
// types.
func Open(path string, o Options) (*Model, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	file, err := bindings.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	m := &Model{options: o, file: file, pairs: new(vera.Pairs)}
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
	if m.options.Compute == ComputeAuto {
		m.options.Compute = trainsBestIn(device)
	}
	if err := multiplies(device, m.options.Compute); err != nil {
		return err
	}
	if m.backend, err = device.Open(m.options.Threads); err != nil {
		return err
	}
	if !m.backend.Fused && m.options.Compute != ComputeF32 && slices.Contains(m.backend.Arithmetics, bindings.BF16) {
		m.backend.RoundProducts()
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
	if m.weights != nil {
		m.weights.close()
	}
	if m.tensors != nil {
		m.tensors.Close()
	}
	if m.backend != nil {
		m.backend.Close()
	}
	m.file.Close()
}

// loader finds and checks tensors by name, and keeps the first error.
type loader struct {
	m      *Model
	leaves []leaf // the last tensors that are to be copied to a device
	seen   map[string]bool
	err    error
}

// tensor gives the tensor of that name and shape, or nil after an error.
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
	case !slices.Equal(want, info.Shape):
		l.err = fmt.Errorf("tensor %s has shape %v, %v is needed", name, info.Shape, want)
	case len(shape) == 1 && info.Type != bindings.F32:
		l.err = fmt.Errorf("tensor %s: type %v, f32 is needed", name, info.Type)
	case !info.Type.Dequantizes():
		l.err = fmt.Errorf("tensor %s: type %v cannot be turned into float32; requantise the model, to Q4_0 or Q4_K "+
			"for example", name, info.Type)
	}
	if l.err != nil {
		return nil
	}
	if l.m.backend.Host {
		t, err := l.m.file.Leaf(l.m.tensors, info)
		l.err = err
		return t
	}
	t := l.m.tensors.NewTensor(info.Type, info.Shape...)
	if t == nil {
		l.err = l.m.tensors.Err()
		return nil
	}
	l.leaves = append(l.leaves, leaf{t.SetName(name), l.m.file.Data(info)})
	return t
}

// f32Tensor is tensor for operations that take float32 alone.
func (l *loader) f32Tensor(name string, shape ...int) *bindings.Tensor {
	if info, ok := l.m.file.Tensor(name); ok && info.Type != bindings.F32 && l.err == nil {
		l.err = fmt.Errorf("tensor %s: type %v, f32 is needed", name, info.Type)
	}
	return l.tensor(name, shape...)
}

func (m *Model) loadWeights() error {
	infos := m.file.Tensors()
	m.tensors = bindings.NewContext(len(infos))
	info, ok := m.file.Tensor("token_embd.weight")
	if !ok || len(info.Shape) != 2 {
		return errors.New("tensor token_embd.weight is missing or no matrix")
	}
	m.Vocab = int(info.Shape[1])
	if err := m.countTokens(m.file); err != nil {
		return err
	}
	l := &loader{m: m, seen: map[string]bool{}}
	m.embed = l.tensor("token_embd.weight", m.Width, m.Vocab)
	if m.arch.learnedPositions {
		m.positions = l.tensor("position_embd.weight", m.Width, m.Context)
	}
	if m.Embedding > 0 {
		m.embeddings = l.embeddings()
	}
	m.outNorm = l.norm(cmp.Or(m.arch.outNorm, "output_norm"), true)
	m.head = m.embed
	if m.TiedHead = !l.has("output.weight"); !m.TiedHead {
		m.head = l.tensor("output.weight", m.Width, m.Vocab)
	}
	m.rotaries = l.rotaries()
	fixed, blocks := l.leaves, [][]leaf{}
	for i := range m.Blocks {
		l.leaves = nil
		m.blocks = append(m.blocks, l.block(i))
		if l.err != nil {
			return l.err
		}
		blocks = append(blocks, l.leaves)
	}
	for _, t := range infos {
		if m.inFurtherBlock(t.Name) {
			continue
		}
		// rope_freqs of old conversions stand in every block and say nothing.
		if !l.seen[t.Name] && !strings.HasSuffix(t.Name, "rope_freqs.weight") &&
			!strings.HasSuffix(t.Name, "attn_rot_embd") {
			return fmt.Errorf("tensor %s is not part of a model of architecture %s as it is computed here; its "+
				"effect would be lost", t.Name, m.Architecture)
		}
	}
	switch {
	case l.err != nil:
	case m.backend.Host:
		m.weights = mapped{m.file}
	case m.probe == nil:
		m.weights, l.err = newStreamed(m.backend, fixed, blocks)
	}
	return l.err
}

// has tells whether the file has a tensor.
func (l *loader) has(name string) bool {
	_, ok := l.m.file.Tensor(name)
	return ok
}

// norm loads a norm of the model's kind, or is none where it is not present.
func (l *loader) norm(name string, present bool) (n norm) {
	if !present {
		return n
	}
	n.weight = l.tensor(name+".weight", l.m.Width)
	if l.m.arch.layerNorm {
		n.bias = l.tensor(name+".bias", l.m.Width)
	}
	return n
}

// rotaries loads what the blocks rotate by: the first, and another for blocks with windows if theirs differs.
func (l *loader) rotaries() []rotary {
	const freqs, short, long = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
	m := l.m
	if m.arch.learnedPositions {
		return nil
	}
	all := rotary{Rope: m.Rope}
	if m.arch.smoothRamp && m.Rope.ExtFactor != 0 {
		all.Rope, all.computed = smoothYaRN(m.Rope)
	}
	switch {
	case l.has(freqs):
		m.RopeFactor = true
		all.factors = l.tensor(freqs, m.Rope.Dims/2)
	case l.has(short) || l.has(long):
		m.RopeFactor = true
		all.factors, all.longFactors = l.tensor(short, m.Rope.Dims/2), l.tensor(long, m.Rope.Dims/2)
	}
	list := []rotary{all}
	if m.local != nil && (m.localRope != m.Rope || m.arch.localBase != 0 && m.RopeFactor) {
		list = append(list, rotary{Rope: m.localRope})
	}
	return list
}

// block loads block i.
func (l *loader) block(i int) *block {
	m := l.m
	name := func(part string) string { return "blk." + strconv.Itoa(i) + "." + part }
	matrix := func(target string, in, out int) *linear {
		x := &linear{block: i, target: target, in: in, out: out, w: l.tensor(name(target)+".weight", in, out)}
		if bias := name(target) + ".bias"; slices.Contains(m.arch.biases, target) || l.has(bias) &&
			slices.Contains(m.arch.mayHave, target) {
			x.bias = l.tensor(bias, out)
		}
		return x
	}
	ffnNorm := cmp.Or(m.arch.ffnNorm, "ffn_norm")
	b := &block{
		shape: m.shape(i), scale: 1,
		attnNorm:  l.norm(name("attn_norm"), m.arch.norms != after),
		ffnNorm:   l.norm(name(ffnNorm), m.arch.norms != after),
		attnAfter: l.norm(name("post_attention_norm"), m.arch.norms != before),
		ffnAfter:  l.norm(name("post_ffw_norm"), m.arch.norms != before),
	}
	add := func(layers ...*linear) { b.groups = append(b.groups, newGroup(len(b.groups), layers...)) }
	switch b.mixer {
	case shortConvolution:
		b.conv = l.f32Tensor(name("shortconv.conv.weight"), m.Taps, m.Width)
		add(matrix("shortconv.in_proj", m.Width, 3*m.Width))
		add(matrix("shortconv.out_proj", m.Width, m.Width))
	case deltaNet:
		b.delta = l.delta(name)
		heads := m.Delta.Values
		add(matrix("attn_qkv", m.Width, m.deltaQKV()), matrix("attn_gate", m.Width, m.deltaOut()),
			matrix("ssm_alpha", m.Width, heads), matrix("ssm_beta", m.Width, heads))
		add(matrix("ssm_out", m.deltaOut(), m.Width))
	default:
		l.attention(b, name, matrix, add)
	}
	if m.arch.experts {
		b.experts = l.experts(name)
		return b
	}
	up, _ := m.file.Tensor(name("ffn_up.weight"))
	switch {
	case m.arch.ungated:
		add(matrix("ffn_up", m.Width, b.hidden))
	case len(up.Shape) == 2 && up.Shape[1] == int64(2*b.hidden):
		add(matrix("ffn_up", m.Width, 2*b.hidden))
	default:
		add(matrix("ffn_gate", m.Width, b.hidden), matrix("ffn_up", m.Width, b.hidden))
	}
	add(matrix("ffn_down", b.hidden, m.Width))
	return b
}

// attention loads the attention of block b.
func (l *loader) attention(b *block, name func(part string) string, matrix func(target string, in, out int) *linear,
	add func(layers ...*linear)) {
	m := l.m
	q, kv := m.Heads*b.headDim, b.kvHeads*b.headDim
	if m.arch.sinks {
		b.sinks = l.tensor(name("attn_sinks.weight"), m.Heads)
	}
	switch m.arch.qkNorms {
	case head:
		b.qkNorms.Q = l.tensor(name("attn_q_norm.weight"), b.headDim)
		if b.kvFrom < 0 {
			b.qkNorms.K = l.tensor(name("attn_k_norm.weight"), b.headDim)
		}
	case row:
		b.qkNorms = bindings.HeadNorms{Q: l.tensor(name("attn_q_norm.weight"), q),
			K: l.tensor(name("attn_k_norm.weight"), kv)}
	}
	if m.embeddings != nil {
		b.embedding = l.blockEmbedding(name)
	}
	if scale := name("layer_output_scale.weight"); m.arch.blockEmbeddings && l.has(scale) {
		b.scale = l.scalar(scale)
	}
	gates := 0
	if m.arch.gatedAttention {
		gates = q
	}
	// A converter that permutes the rows of q and k does so in matrices of their own.
	switch one := l.has(name("attn_qkv.weight")); {
	case b.kvFrom >= 0:
		add(matrix("attn_q", m.Width, q))
		l.unused(name("attn_k.weight"), name("attn_v.weight"), name("attn_k_norm.weight"))
	case one && gates == 0 && (m.arch.learnedPositions || m.arch.pairs == bindings.Halves):
		add(matrix("attn_qkv", m.Width, q+2*kv))
	case m.arch.keysAsValues && !l.has(name("attn_v.weight")):
		b.keysAsValues = true
		add(matrix("attn_q", m.Width, q), matrix("attn_k", m.Width, kv))
	default:
		add(matrix("attn_q", m.Width, q+gates), matrix("attn_k", m.Width, kv), matrix("attn_v", m.Width, kv))
	}
	add(matrix("attn_output", q, m.Width))
}

// shape derives the shape of block i from the model's constants.
func (m *Model) shape(i int) shape {
	s := shape{
		local: m.windowed(i), headDim: m.HeadDim, kvHeads: m.kvHeads[i], mixer: m.mixers[i], hidden: m.Hidden,
		kvFrom: m.kvFrom(i),
	}
	if m.hidden != nil {
		s.hidden = m.hidden[i]
	}
	s.nope = m.arch.learnedPositions || m.arch.nopeEvery > 0 && (i+1)%m.arch.nopeEvery == 0 || m.arch.nopeGlobal &&
		m.local != nil && !s.local
	if s.local {
		s.rotation, s.headDim = len(m.rotaries)-1, m.LocalHeadDim
	}
	for taker := m.Blocks - m.kvSharing; taker < m.Blocks; taker++ {
		s.sharesKV = s.sharesKV || m.kvFrom(taker) == i
	}
	return s
}

// unused lets a file have tensors that are not computed with.
func (l *loader) unused(names ...string) {
	for _, name := range names {
		l.seen[name] = true
	}
}

// scalar is the number of a tensor that has one.
func (l *loader) scalar(name string) float32 {
	if l.tensor(name, 1) == nil {
		return 1
	}
	info, _ := l.m.file.Tensor(name)
	return math.Float32frombits(binary.LittleEndian.Uint32(l.m.file.Data(info)))
}

// fingerprint is a SHA-256 over the names, types and shapes of all tensors and 4 KiB from the beginning and the end of
// each one's data. So a model of gigabytes takes milliseconds. Metadata do not count.
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
		Blocks: m.Blocks, HeadDim: m.HeadDim, Delta: m.Delta, General: vera.General(m.file),
		Pairs: m.pairs,
	}
	for _, l := range m.linears() {
		b.Linears = append(b.Linears, vera.Linear{Block: l.block, Target: l.target, In: l.in, Out: l.out})
	}
	return b
}

// linears lists the linear layers of every block in the order of vera.Targets.
func (m *Model) linears() []*linear {
	var all []*linear
	for _, b := range m.blocks {
		for _, gr := range b.groups {
			all = append(all, gr.layers...)
		}
	}
	return all
}
