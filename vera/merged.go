package vera

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/durable"
)

// Types of the adapted tensors of a merged file, besides ggml's names of types.
const (
	TypeKeep = "keep" // each tensor keeps its own
	TypeAuto = "auto" // tensors whose update suffers most get finer ones, within a budget
)

// MergeOptions say how SaveMerged writes.
type MergeOptions struct {
	Type    string // TypeKeep, TypeAuto, or ggml's name of the type that every adapted tensor gets: "q8_0"
	Budget  int64  // bytes that TypeAuto may add to the adapted tensors
	Threads int    // 1 to 512

	Overwrite bool // replace a file that stands at the path
}

// Validate says what is allowed where an option is not.
func (o MergeOptions) Validate() error {
	_, known := bindings.TypeNamed(o.Type)
	switch {
	case o.Type != TypeKeep && o.Type != TypeAuto && !known:
		return fmt.Errorf("type %q: keep, auto, or a type of ggml such as q4_1, q6_K, q8_0 or f16", o.Type)
	case o.Type == TypeAuto && o.Budget <= 0:
		return fmt.Errorf("type auto: needs a budget, the bytes that may be added")
	case o.Type != TypeAuto && o.Budget != 0:
		return fmt.Errorf("budget: only for the type auto, not for %s", o.Type)
	}
	return nil
}

// Merged tells what SaveMerged has written.
type Merged struct {
	Bytes   int64          `json:"bytes"`   // of the file
	Tensors []MergedTensor `json:"tensors"` // of the adapted layers, in the adapter's order
}

// MergedTensor is the weight of an adapted layer: W in the base file, Q(W + ΔW) in the merged one.
type MergedTensor struct {
	Name   string  `json:"name"`   // "blk.0.attn_q.weight"
	Was    string  `json:"was"`    // type of W
	Type   string  `json:"type"`   // of Q(W + ΔW)
	Bytes  int64   `json:"bytes"`  // of its data
	Added  int64   `json:"added"`  // bytes more than W has
	Update float64 `json:"update"` // ‖ΔW‖², the sum of the squares of all elements
	Kept   float64 `json:"kept"`   // ⟨Q(W + ΔW) − W, ΔW⟩ / ‖ΔW‖²: the share of the update that rounding leaves
	Error  float64 `json:"error"`  // ‖Q(W + ΔW) − (W + ΔW)‖²
}

// Kept is the share of the whole update that rounding leaves, that of each tensor by its ‖ΔW‖²; 1 is all.
func (m Merged) Kept() float64 {
	kept, update := 0.0, 0.0
	for _, t := range m.Tensors {
		kept, update = kept+t.Kept*t.Update, update+t.Update
	}
	if update == 0 {
		return 1
	}
	return kept / update
}

// Keys that SaveMerged adds to those of the base model, beside the adapter's facts.
const (
	keyMergedAdapter = factPrefix + "adapter"
	keyMergedBase    = factPrefix + "base_fingerprint"
)

// SaveMerged writes the base model with W + ΔW, summed in float32, in place of the weight W of every adapted layer,
// requantised by ggml. All else is copied: the order, the other tensors and the metadata, but for what says that this
// is a finetune of the base, with which data, and what is under "veratune.". Rows whose b is 0, and layers whose d is
// 0, keep their bytes where their type is kept. One tensor is worked on at a time, some rows of it at once.
//
// It fails where a tensor does not suit the adapter or cannot be requantised, or ctx ends; then path is as it was and
// nothing is left beside it.
func (a *Adapter) SaveMerged(ctx context.Context, path string, base *bindings.GGUF, o MergeOptions) (Merged, error) {
	merged, err := a.saveMerged(ctx, path, base, o)
	if err != nil {
		return Merged{}, fmt.Errorf("save the merged model: %w", err)
	}
	return merged, nil
}

func (a *Adapter) saveMerged(ctx context.Context, path string, base *bindings.GGUF, o MergeOptions) (merged Merged,
	err error) {
	if err := o.Validate(); err != nil {
		return merged, err
	}
	if err := durable.CheckOutput(path, o.Overwrite, base.Paths()...); err != nil {
		return merged, err
	}
	if err := a.checkFinite(); err != nil {
		return merged, err
	}
	weights, err := a.weights(base, o)
	if err != nil {
		return merged, err
	}
	m, err := newMerger(ctx, a, base, o.Threads)
	if err != nil {
		return merged, err
	}
	defer m.close()
	if o.Type == TypeAuto {
		if err := m.raise(weights, o.Budget); err != nil {
			return merged, err
		}
	}
	w, err := base.Copy()
	if err != nil {
		return merged, err
	}
	defer w.Close()
	if err := a.describe(w, base); err != nil {
		return merged, err
	}
	for _, x := range weights {
		if err := w.Replace(x.info, x.kind, func(out io.Writer) error { return m.write(x, out) }); err != nil {
			return merged, err
		}
	}
	if err := w.WriteOutput(path, o.Overwrite); err != nil {
		return merged, err
	}
	for _, x := range weights {
		merged.Tensors = append(merged.Tensors, x.MergedTensor)
	}
	written, err := os.Stat(path)
	if err != nil {
		return merged, err
	}
	merged.Bytes = written.Size()
	return merged, nil
}

// weight is the weight of an adapted layer in the base file, and what becomes of it.
type weight struct {
	*Layer
	info bindings.TensorInfo // of W
	kind bindings.Type       // that it gets
	MergedTensor
}

// unchanged tells whether ΔW of a row is 0.
func (x *weight) unchanged(row int) bool {
	moved := func(v float32) bool { return v != 0 }
	rank := x.Pair.Rank
	return x.LambdaB[row] == 0 || !slices.ContainsFunc(x.LambdaD, moved) || x.Pair.fileOrder &&
		!slices.ContainsFunc(x.Pair.B[row*rank:][:rank], moved)
}

// become gives the tensor another type.
func (x *weight) become(t bindings.Type) {
	x.kind, x.Type, x.Bytes = t, t.String(), t.RowBytes(int64(x.In))*int64(x.Out)
	x.Added = x.Bytes - x.info.Size
}

// weights finds the weights of all adapted layers in the base file, gives them their types, and checks that they can be
// requantised.
func (a *Adapter) weights(base *bindings.GGUF, o MergeOptions) ([]*weight, error) {
	var list []*weight
	for i := range a.Layers {
		l := &a.Layers[i]
		name := l.Name() + ".weight"
		info, ok := base.Tensor(name)
		if !ok || !slices.Equal(info.Shape, []int64{int64(l.In), int64(l.Out)}) {
			return nil, fmt.Errorf("tensor %s of %d × %d is not in %s", name, l.In, l.Out, base.Path())
		}
		x := &weight{Layer: l, info: info, MergedTensor: MergedTensor{Name: name, Was: info.Type.String()}}
		t := info.Type
		if forced, ok := bindings.TypeNamed(o.Type); ok {
			t = forced
		}
		if err := t.CheckQuantize(int64(l.In)); err != nil {
			return nil, fmt.Errorf("tensor %s: %w; choose another type for the adapted tensors, such as q8_0 or q4_K",
				name, err)
		}
		x.become(t)
		list = append(list, x)
	}
	return list, nil
}

// describe says in the metadata what was merged.
func (a *Adapter) describe(w *bindings.GGUFWriter, base *bindings.GGUF) error {
	if err := a.relabel(w, base); err != nil {
		return err
	}
	entries := append(a.made(), a.facts(keyChatTemplate)...)
	if pre := a.Facts[factPreTokenizer]; pre != "" {
		entries = append(entries, entry{keyPreTokenizer, pre})
	}
	return setAll(w, append(entries,
		entry{keyMergedAdapter, fmt.Sprintf("%s of rank %d, %s", a.Method, a.Rank, a.Digest())},
		entry{keyMergedBase, a.Base.Fingerprint}))
}
