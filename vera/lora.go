package vera

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// LoRAOptions say how an adapter becomes a LoRA.
type LoRAOptions struct {
	// of the LoRA: keeps (nearly) the largest singular values of every ΔW whose rank is larger; 0 is the adapter's own,
	// exact
	Rank    int
	Type    string // of the factors: "f32", "f16" or "q8_0"
	Threads int    // layers that are computed at the same time, each in memory of its own

	Overwrite bool // replace a file that stands at the path

	Progress func(done, total int) // called after each layer that is written; nil for no reports
}

// DefaultLoRA is exact, in f16: half the bytes of f32, for an error that is small beside that of any 4-bit weight.
func DefaultLoRA() LoRAOptions { return LoRAOptions{Type: "f16", Threads: 1} }

// What llama.cpp's converter calls the types, and the version of ggml's formats that it notes.
var fileTypes = map[string]uint32{"f32": 0, "f16": 1, "q8_0": 7}

const quantizationVersion = 2

var loraTypes = map[string]bindings.Type{"f32": bindings.F32, "f16": bindings.F16, "q8_0": bindings.Q8_0}

// Validate says what is allowed where an option is not.
func (o LoRAOptions) Validate() error {
	_, known := loraTypes[o.Type]
	switch {
	case o.Rank < 0 || o.Rank > maxRank:
		return fmt.Errorf("rank %d: from 1 to the adapter's own, or 0 for that", o.Rank)
	case !known:
		return fmt.Errorf("type %q: f32, f16 or q8_0", o.Type)
	case o.Threads < 1:
		return fmt.Errorf("threads %d: at least 1", o.Threads)
	}
	return nil
}

// LoRA tells what SaveLoRA has written.
type LoRA struct {
	Rank   int         `json:"rank"`
	Bytes  int64       `json:"bytes"` // of the file
	Layers []LoRALayer `json:"layers"`
}

// LoRALayer is a layer of a LoRA file.
type LoRALayer struct {
	Name string `json:"name"` // "blk.0.attn_q"
	Rank int    `json:"rank"` // its own, where those of the adapter differ
	// the sum of the squares of what is kept of ΔW, of that of ΔW: Σ_{i≤k} σ² / Σ σ² at best; 1 is all
	Retained float64 `json:"retained"`
	TypeA    string  `json:"type_a"` // of lora_a
	TypeB    string  `json:"type_b"`
}

// SaveLoRA writes the adapter as a LoRA of llama.cpp: for each adapted layer lora_a, ne [In, rank], and lora_b, ne
// [rank, Out], in the row order of the GGUF file. llama.cpp scales their product by alpha/rank, with one alpha for the
// file and the rank of the tensor; where that is not the layer's scale, lora_b holds the rest. The alpha of VeRA, and
// of what is cut, is the rank; a LoRA keeps its own, and its matrices where no scale is left over. A row whose length
// is no multiple of q8_0's block is written in f16. Tensors are made while the file is written, so that memory holds no
// more than a few layers. It fails, and leaves what was at path, where the file cannot be written, a value is NaN or
// beyond the type, or ctx is cancelled.
func (a *Adapter) SaveLoRA(ctx context.Context, path string, o LoRAOptions) (LoRA, error) {
	lora, err := a.saveLoRA(ctx, path, o)
	if err != nil {
		return LoRA{}, fmt.Errorf("save LoRA: %w", err)
	}
	return lora, nil
}

func (a *Adapter) saveLoRA(ctx context.Context, path string, o LoRAOptions) (LoRA, error) {
	if err := o.Validate(); err != nil {
		return LoRA{}, err
	}
	if o.Rank > a.Rank {
		return LoRA{}, fmt.Errorf("rank %d: the adapter has rank %d, and a larger LoRA would hold nothing more",
			o.Rank, a.Rank)
	}
	if err := a.checkFinite(); err != nil {
		return LoRA{}, err
	}
	if o.Rank == 0 {
		o.Rank = a.Rank
	}
	w := bindings.NewGGUFWriter()
	defer w.Close()
	f := newFactory(ctx, a, o)
	entries := append(a.loraHeader("lora", f.alpha), a.made()...)
	entries = append(entries, entry{"general.file_type", fileTypes[o.Type]},
		entry{"general.quantization_version", uint32(quantizationVersion)})
	if err := setAll(w, append(entries, a.origins(keyChatTemplate)...)); err != nil {
		return LoRA{}, err
	}
	lora := LoRA{Rank: o.Rank, Layers: make([]LoRALayer, len(a.Layers))}
	for i := range a.Layers {
		if err := f.add(w, i, &lora.Layers[i]); err != nil {
			return LoRA{}, err
		}
	}
	if err := w.WriteOutput(path, o.Overwrite); err != nil {
		return LoRA{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return LoRA{}, err
	}
	lora.Bytes = info.Size()
	return lora, nil
}

// factory makes the layers of a LoRA ahead of the file that takes them, in order, a few at a time.
type factory struct {
	ctx     context.Context
	a       *Adapter
	o       LoRAOptions
	kind    bindings.Type
	alpha   float32     // of the file
	cut     *truncation // nil where all is exact
	begun   int         // layers
	results []chan madeLayer
}

// product is ΔW = alpha/rank · up · down of a layer in float32, row-major: up Out × rank, down rank × In; and the part
// of ΔW's energy that is in it.
type product struct {
	up, down []float32
	rank     int
	alpha    float32
	retained float64
}

// madeLayer is a layer in the bytes of its file.
type madeLayer struct {
	up, down []byte
	retained float64
	err      error
}

func newFactory(ctx context.Context, a *Adapter, o LoRAOptions) *factory {
	f := &factory{ctx: ctx, a: a, o: o, kind: loraTypes[o.Type], alpha: float32(o.Rank),
		results: make([]chan madeLayer, len(a.Layers))}
	switch {
	case o.Rank < a.Rank:
		f.cut = newTruncation(a, o.Rank)
	case a.Method == MethodLoRA:
		f.alpha = a.plainAlpha(a.Layers[0].Linear)
	}
	for i := range f.results {
		f.results[i] = make(chan madeLayer, 1)
	}
	return f
}

// exactFactors are the adapter's own: a LoRA's matrices as they are trained.
func (a *Adapter) exactFactors(l *Layer) product {
	if a.Method == MethodLoRA {
		return product{slices.Clone(l.Pair.B), slices.Clone(l.Pair.A), l.Rank(), a.plainAlpha(l.Linear), 1}
	}
	up, down := a.Factors(l)
	return product{up, down, l.Rank(), float32(l.Rank()), 1}
}

// rank is that of a layer in the file.
func (f *factory) rank(l *Layer) int { return min(l.Rank(), f.o.Rank) }

// factors cuts a layer where its rank is more than the file's, and gives lora_b what the file's alpha lacks.
func (f *factory) factors(l *Layer) (p product, err error) {
	if l.Rank() <= f.o.Rank {
		p = f.a.exactFactors(l)
	} else if p, err = f.cut.factors(f.ctx, l); err != nil {
		return p, err
	}
	if p.alpha != f.alpha {
		scale(p.up, float32(float64(p.alpha)/float64(f.alpha)))
	}
	return p, nil
}

// add adds both tensors of a layer. When the file comes to the first, layers up to Threads ahead are begun, and it
// waits for its own; the second frees it.
func (f *factory) add(w *bindings.GGUFWriter, i int, said *LoRALayer) error {
	l := &f.a.Layers[i]
	rank := f.rank(l)
	typeA, typeB := f.rowType(l.In), f.rowType(rank)
	*said = LoRALayer{Name: l.Name(), Rank: rank, TypeA: typeA.String(), TypeB: typeB.String()}
	var made madeLayer
	down := func(out io.Writer) error {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		f.begin(i + f.o.Threads)
		select {
		case made = <-f.results[i]:
		case <-f.ctx.Done():
			return f.ctx.Err()
		}
		if made.err != nil {
			return made.err
		}
		said.Retained = made.retained
		_, err := out.Write(made.down)
		return err
	}
	up := func(out io.Writer) error {
		_, err := out.Write(made.up)
		made = madeLayer{}
		if err == nil && f.o.Progress != nil {
			f.o.Progress(i+1, len(f.results))
		}
		return err
	}
	if err := w.AddTensorFunc(l.Name()+endLoRAA, typeA, []int64{int64(l.In), int64(rank)}, down); err != nil {
		return err
	}
	return w.AddTensorFunc(l.Name()+endLoRAB, typeB, []int64{int64(rank), int64(l.Out)}, up)
}

// rowType is the type of rows of that length.
func (f *factory) rowType(width int) bindings.Type {
	if int64(width)%f.kind.BlockSize() != 0 {
		return bindings.F16
	}
	return f.kind
}

// begin starts every layer before that one that isn't made yet.
func (f *factory) begin(end int) {
	for ; f.begun < min(end, len(f.a.Layers)); f.begun++ {
		go func(l *Layer, result chan<- madeLayer) { result <- f.compute(l) }(&f.a.Layers[f.begun], f.results[f.begun])
	}
}

func (f *factory) compute(l *Layer) madeLayer {
	p, err := f.factors(l)
	if err != nil {
		return madeLayer{err: err}
	}
	if f.kind != bindings.F32 {
		p.balance()
	}
	down, err := encode(l.Name()+endLoRAA, f.rowType(l.In), p.down, l.In)
	if err != nil {
		return madeLayer{err: err}
	}
	up, err := encode(l.Name()+endLoRAB, f.rowType(p.rank), p.up, p.rank)
	return madeLayer{up, down, p.retained, err}
}

// balance multiplies up by a power of two and divides down by it, so that their largest values are alike: the product
// keeps its bits, and small values of b stay clear of float16's smallest, 6e-5, below which it loses digits. The scales
// of q8_0's blocks are float16 too.
func (p product) balance() {
	up, down := largest(p.up), largest(p.down)
	if up == 0 || down == 0 {
		return
	}
	shift := int(math.Round(math.Log2(float64(down)/float64(up)) / 2))
	scale(p.up, float32(math.Ldexp(1, shift)))
	scale(p.down, float32(math.Ldexp(1, -shift)))
}

// largest is the largest of finite values without their signs: the bits of a float32 but the first are in its order.
func largest(values []float32) float32 {
	most := uint32(0)
	for _, v := range values {
		most = max(most, math.Float32bits(v)&math.MaxInt32)
	}
	return math.Float32frombits(most)
}

func scale(values []float32, by float32) {
	for i := range values {
		values[i] *= by
	}
}

// encode turns rows into a type. It fails where a value is NaN or more than the type holds.
func encode(name string, t bindings.Type, values []float32, width int) ([]byte, error) {
	const largestF16 = 65504
	if err := checkFinite(name, values); err != nil {
		return nil, err
	}
	if most := largest(values); t != bindings.F32 && most > largestF16 {
		return nil, fmt.Errorf("%s: %g is beyond %v; write the LoRA in f32", name, most, t)
	}
	return bindings.Quantize(t, values, int64(width))
}
