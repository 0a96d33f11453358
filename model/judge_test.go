package model

import (
	"encoding/binary"
	"io"
	"path/filepath"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// A judge is llama.cpp with a file, run beside the engine's exact float32 on the 4-bit file, and how far their logits may differ.
type judge struct {
	name   string
	spelt  bool    // whether the file's weights are in float32; then greedy answers must be the same too
	logits float64 // largest difference
	l2     float64 // norm of the difference beside that of the logits
}

// On the 4-bit file llama.cpp rounds activations to 8 bits. That alone moves the base model's logits by 1.7 (3% in L2), and any small change moves them
// as much again, so that adapters whose whole effect is 0.05 and 0.9 are lost in it: there is no more to ask than that the adapted model is no further off
// than the base model is. With the same weights spelt out in float32, llama.cpp computes in float32 but for queries, keys and values in float16; so that
// is where a LoRA is judged: there the base model is off by 0.035, and the adapted ones by 0.03 to 0.045.
var judges = []judge{
	{"float32 weights", true, 5e-2, 1e-3},
	{"4-bit weights", false, 3, 5e-2},
}

// TestLlamaJudge has llama.cpp run SmolLM2 with the reference adapters as LoRAs: its logits on chat prompts must be those of the engine with the adapter
// itself, and its greedy answers too.
func TestLlamaJudge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes, and 540 MB for the weights in float32")
	}
	path := testutil.SmolLM2(t)
	o := Default()
	o.Compute = ComputeF32
	m, prompts := open(t, path, o), chats(t, path)
	for _, j := range judges {
		file := path
		if j.spelt {
			file = speltOut(t, path)
		}
		// One thread: token by token, threads wait for each other at every operation, and for a long time where the machine has other work.
		l := openLlama(t, file, bindings.LlamaOptions{Context: 256, Batch: 128, Threads: 1})
		if err := m.Attach(nil); err != nil {
			t.Fatal(err)
		}
		j.compare(t, "base", m, l, prompts)
		for _, dir := range testutil.Folders(t, "VERATUNE_ADAPTERS", "refs/peft-vera-*/*_peft") {
			a, err := vera.Load(dir, m.Base())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Attach(a); err != nil {
				t.Fatal(err)
			}
			for _, kind := range []string{"f32", "f16"} {
				if err := l.SetLoRA(saveLoRA(t, a, 0, kind), 1); err != nil {
					t.Fatal(err)
				}
				j.compare(t, filepath.Base(dir)+" in "+kind, m, l, prompts)
			}
		}
	}
}

func (j judge) compare(t *testing.T, what string, m *Model, l *bindings.Llama, prompts [][]int32) {
	t.Helper()
	got, want := allLlamaLogits(t, l, prompts), allLogits(t, m, prompts)
	worst, l2 := maxDiff(got, want), relativeL2(got, want)
	if !(worst <= j.logits && l2 <= j.l2) {
		t.Errorf("%s, %s: more than %g at most and %g in L2", j.name, what, j.logits, j.l2)
	}
	t.Logf("%s, %s: logits differ by %.3g at most, %.2g in L2", j.name, what, worst, l2)
	if j.spelt {
		sameAnswers(t, m, l, prompts)
	}
}

// chats are the tokens of questions in the model's chat template.
func chats(t *testing.T, path string) (prompts [][]int32) {
	t.Helper()
	v, err := bindings.OpenVocab(path)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, question := range []string{
		"Name three things that a small boat needs on a long trip.",
		"What is the capital of Sweden, and on how many islands does it lie?",
		"Rewrite this sentence in the past tense: The children play in the garden while it rains.",
	} {
		text, err := v.ApplyChatTemplate([]bindings.ChatMessage{{Role: "user", Content: question}}, true)
		if err != nil {
			t.Fatal(err)
		}
		tokens, err := v.Tokenize(text, false, true)
		if err != nil {
			t.Fatal(err)
		}
		prompts = append(prompts, tokens)
	}
	return prompts
}

// speltOut writes a copy of a model whose weights are all in float32.
func speltOut(t *testing.T, path string) string {
	t.Helper()
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w := bindings.NewGGUFWriter()
	defer w.Close()
	for _, key := range g.Keys() {
		if err := w.Set(key, g.Value(key)); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range g.Tensors() {
		if err := w.AddTensorFunc(x.Name, bindings.F32, x.Shape, func(out io.Writer) error {
			n := int64(1)
			for _, s := range x.Shape {
				n *= s
			}
			values := make([]float32, n)
			if err := bindings.Dequantize(x.Type, g.Data(x), values); err != nil {
				return err
			}
			return binary.Write(out, binary.LittleEndian, values)
		}); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(t.TempDir(), "f32.gguf")
	if err := w.WriteFile(copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// allLogits are those of every position of every prompt.
func allLogits(t *testing.T, m *Model, prompts [][]int32) (all []float32) {
	t.Helper()
	for _, p := range prompts {
		all = append(all, ownLogits(t, m, p)...)
	}
	return all
}

func allLlamaLogits(t *testing.T, l *bindings.Llama, prompts [][]int32) (all []float32) {
	t.Helper()
	for _, p := range prompts {
		all = append(all, fresh(t, l, p, len(p))...)
	}
	return all
}

// sameAnswers lets llama.cpp answer greedily, token by token, and asks of the engine, given each answer whole, the same choice at every token.
func sameAnswers(t *testing.T, m *Model, l *bindings.Llama, prompts [][]int32) {
	t.Helper()
	const length = 64
	greedy := func(logits []float32) int32 {
		next, err := DefaultSampling().choose(logits, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	for i, p := range prompts {
		text := slices.Clone(p)
		logits := fresh(t, l, p, 1)
		for range length {
			next := greedy(logits)
			text = append(text, next)
			var err error
			if logits, err = l.Decode([]int32{next}, 1); err != nil {
				t.Fatal(err)
			}
		}
		own, err := m.Logits(text[:len(text)-1], length)
		if err != nil {
			t.Fatal(err)
		}
		for n := range length {
			if got := greedy(own[n*m.Vocab:][:m.Vocab]); got != text[len(p)+n] {
				t.Errorf("prompt %d: token %d of the answer is %d, and %d in llama.cpp", i, n, got, text[len(p)+n])
				break
			}
		}
	}
}
