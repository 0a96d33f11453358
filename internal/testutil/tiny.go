package testutil

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// TinyOptions describe a tiny random Llama. What is left out gets a default: 2 blocks, 4 query heads that share 2 key
// heads, all matrices in float32, the output head tied to the embedding; width 64 and feed-forward length 96, or 256
// and 512 for types with blocks of 256.
type TinyOptions struct {
	Type        bindings.Type // of all matrices, the embedding included
	Blocks      int
	Width       int
	Hidden      int // feed-forward length
	Heads       int
	KVHeads     int
	HeadDim     int // default: width / heads
	Seed        uint64
	OwnHead     bool // a head of its own in place of the tied one
	RopeFactors bool // rope_freqs.weight, as Llama 3.1 has it
	NormEps     float32
	AddBOS      bool
	// SentencePiece gives the model a tokenizer of Llama 1 and 2's kind, of as many tokens, in place of byte-level BPE.
	SentencePiece bool
	// Change, when set, sees all that is about to be written, to break or vary it.
	Change func(*TinyFile)
}

// TinyFile is what a tiny model's file will hold.
type TinyFile struct {
	Metadata map[string]any
	Tensors  []TinyTensor
}

// TinyTensor is a tensor of a TinyFile, shape in ggml's order.
type TinyTensor struct {
	Name   string
	Type   bindings.Type
	Shape  []int64
	Values []float32
}

// Tensor finds a tensor by name, to change it; it panics where there is none.
func (f *TinyFile) Tensor(name string) *TinyTensor {
	i := slices.IndexFunc(f.Tensors, func(t TinyTensor) bool { return t.Name == name })
	return &f.Tensors[i]
}

// Remove takes a tensor out; it panics where there is none.
func (f *TinyFile) Remove(name string) {
	i := slices.IndexFunc(f.Tensors, func(t TinyTensor) bool { return t.Name == name })
	f.Tensors = slices.Delete(f.Tensors, i, i+1)
}

// TinyLlama writes a tiny random Llama into a folder that goes with the test, and returns its path.
func TinyLlama(t testing.TB, o TinyOptions) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := WriteTinyLlama(path, o); err != nil {
		t.Fatal(err)
	}
	return path
}

// ExampleModel is a tiny random Llama in a new folder, for examples, which have no testing.TB. They must remove it.
func ExampleModel() (path string, remove func()) {
	folder, err := os.MkdirTemp("", "veratune-example-")
	if err != nil {
		panic(err)
	}
	path = filepath.Join(folder, "model.gguf")
	if err := WriteTinyLlama(path, TinyOptions{}); err != nil {
		panic(err)
	}
	return path, func() { os.RemoveAll(folder) }
}

// WriteTinyLlama writes a tiny random Llama whose tokenizer of 300 tokens can spell every text. Equal options give
// equal files.
func WriteTinyLlama(path string, o TinyOptions) error {
	o = o.filled()
	f := &TinyFile{Metadata: o.metadata(), Tensors: o.tensors()}
	if o.Change != nil {
		o.Change(f)
	}
	w := bindings.NewGGUFWriter()
	defer w.Close()
	for _, key := range slices.Sorted(maps.Keys(f.Metadata)) {
		if err := w.Set(key, f.Metadata[key]); err != nil {
			return err
		}
	}
	for _, t := range f.Tensors {
		data, err := bindings.Quantize(t.Type, t.Values, t.Shape[0])
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		if err := w.AddTensor(t.Name, t.Type, t.Shape, data); err != nil {
			return err
		}
	}
	return w.WriteFile(path)
}

func (o TinyOptions) filled() TinyOptions {
	width, hidden := 64, 96
	if o.Type.BlockSize() > 32 {
		width, hidden = 256, 512
	}
	set := func(v *int, otherwise int) {
		if *v == 0 {
			*v = otherwise
		}
	}
	set(&o.Blocks, 2)
	set(&o.Width, width)
	set(&o.Hidden, hidden)
	set(&o.Heads, 4)
	set(&o.KVHeads, 2)
	set(&o.HeadDim, o.Width/o.Heads)
	if o.NormEps == 0 {
		o.NormEps = 1e-5
	}
	return o
}

func (o TinyOptions) metadata() map[string]any {
	m := map[string]any{
		"general.architecture":                   "llama",
		"general.type":                           "model",
		"general.name":                           "tiny random Llama",
		"llama.block_count":                      uint32(o.Blocks),
		"llama.context_length":                   uint32(512),
		"llama.embedding_length":                 uint32(o.Width),
		"llama.feed_forward_length":              uint32(o.Hidden),
		"llama.attention.head_count":             uint32(o.Heads),
		"llama.attention.head_count_kv":          uint32(o.KVHeads),
		"llama.attention.key_length":             uint32(o.HeadDim),
		"llama.attention.value_length":           uint32(o.HeadDim),
		"llama.attention.layer_norm_rms_epsilon": o.NormEps,
		"llama.rope.dimension_count":             uint32(o.HeadDim),
		"llama.rope.freq_base":                   float32(10000),
		"llama.vocab_size":                       uint32(len(tinyTokens())),
	}
	if o.SentencePiece {
		maps.Copy(m, tinySentencePiece(o.AddBOS))
	} else {
		maps.Copy(m, tinyTokenizer(o.AddBOS))
	}
	return m
}

// tensors draws matrices from N(0, 1/in), so that activations keep their size, and norm weights from N(1, 0.1²).
func (o TinyOptions) tensors() []TinyTensor {
	random := rand.New(rand.NewPCG(o.Seed, 1))
	var list []TinyTensor
	draw := func(name string, t bindings.Type, mean, deviation float64, shape ...int) {
		n, ne := 1, make([]int64, len(shape))
		for i, s := range shape {
			n, ne[i] = n*s, int64(s)
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(mean + deviation*random.NormFloat64())
		}
		list = append(list, TinyTensor{name, t, ne, values})
	}
	matrix := func(name string, in, out int) { draw(name, o.Type, 0, 1/math.Sqrt(float64(in)), in, out) }
	norm := func(name string) { draw(name, bindings.F32, 1, 0.1, o.Width) }

	vocab, q, kv := len(tinyTokens()), o.Heads*o.HeadDim, o.KVHeads*o.HeadDim
	matrix("token_embd.weight", o.Width, vocab)
	norm("output_norm.weight")
	if o.OwnHead {
		matrix("output.weight", o.Width, vocab)
	}
	if o.RopeFactors {
		draw("rope_freqs.weight", bindings.F32, 3, 0.5, o.HeadDim/2)
	}
	for i := range o.Blocks {
		name := func(part string) string { return fmt.Sprintf("blk.%d.%s.weight", i, part) }
		norm(name("attn_norm"))
		matrix(name("attn_q"), o.Width, q)
		matrix(name("attn_k"), o.Width, kv)
		matrix(name("attn_v"), o.Width, kv)
		matrix(name("attn_output"), q, o.Width)
		norm(name("ffn_norm"))
		matrix(name("ffn_gate"), o.Width, o.Hidden)
		matrix(name("ffn_up"), o.Width, o.Hidden)
		matrix(name("ffn_down"), o.Hidden, o.Width)
	}
	return list
}
