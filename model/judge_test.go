package model

import (
	"encoding/binary"
	"io"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// judge is llama.cpp with a file, beside the engine that it is compared with, and how far their logits may differ. On the 4-bit file llama.cpp rounds
// activations to 8 bits, which alone moves the base model's logits by 1.7 against exact float32, and hides an adapter whose whole effect is 0.05. So it also
// runs the same weights spelt out in float32, where it computes in float32 but for queries, keys and values in float16; and on the 4-bit file it is compared
// with the engine's arithmetic that rounds activations the same way.
type judge struct {
	name      string
	compute   Compute // of the engine
	spelt     bool    // whether llama.cpp gets the weights in float32
	tolerance float64 // of the logits, base and adapted
	greedy    bool    // whether 64 tokens must be the same
}

var judges = []judge{
	{"float32", ComputeF32, true, 5e-2, true},
	{"8-bit activations on both sides", ComputeQ8, false, math.Inf(1), false},
	{"8-bit activations on one side", ComputeF32, false, math.Inf(1), false},
}

// TestLlamaJudge has llama.cpp run SmolLM2 with the reference adapters as LoRAs: its logits on chat prompts must be those of the engine with the adapter
// itself, and its greedy answers too.
func TestLlamaJudge(t *testing.T) {
	path := testutil.SmolLM2(t)
	adapters := testutil.Folders(t, "VERATUNE_ADAPTERS", "refs/peft-vera-*/*_peft")
	prompts := chats(t, path)
	spelt := speltOut(t, path)
	for _, j := range judges {
		t.Run(j.name, func(t *testing.T) {
			o := Default()
			o.Compute = j.compute
			m := open(t, path, o)
			file := path
			if j.spelt {
				file = spelt
			}
			// One thread: token by token, threads wait for each other at every operation, and for a long time where the machine has other work.
			l := openLlama(t, file, bindings.LlamaOptions{Context: 256, Batch: 128, Threads: 1})
			base, theirs := allLogits(t, m, prompts), allLlamaLogits(t, l, prompts)
			j.check(t, "base", theirs, base)
			for _, dir := range adapters {
				a, err := vera.Load(dir, m.Base())
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Attach(a); err != nil {
					t.Fatal(err)
				}
				want := allLogits(t, m, prompts)
				for _, kind := range []string{"f32", "f16"} {
					if err := l.SetLoRA(saveLoRA(t, a, 0, kind), 1); err != nil {
						t.Fatal(err)
					}
					got := allLlamaLogits(t, l, prompts)
					j.check(t, filepath.Base(dir)+" "+kind, got, want)
					t.Logf("  its effect on logits %.3g at most, in llama.cpp %.3g; effects differ by %.3g in L2", maxDiff(want, base), maxDiff(got, theirs),
						relativeL2(minus(got, theirs), minus(want, base)))
					if j.greedy && kind == "f32" {
						sameAnswers(t, m, l, prompts)
					}
				}
			}
		})
	}
}

func (j judge) check(t *testing.T, what string, got, want []float32) {
	t.Helper()
	e := maxDiff(got, want)
	if !(e <= j.tolerance) {
		t.Errorf("%s: logits differ by %.3g, more than %g", what, e, j.tolerance)
	}
	t.Logf("%s: logits differ by %.3g at most, %.2g in L2", what, e, relativeL2(got, want))
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

func minus(x, y []float32) []float32 {
	z := slices.Clone(x)
	for i := range z {
		z[i] -= y[i]
	}
	return z
}

// sameAnswers lets llama.cpp answer greedily, token by token, and asks of the engine, given each answer whole, the same choice at every token.
func sameAnswers(t *testing.T, m *Model, l *bindings.Llama, prompts [][]int32) {
	t.Helper()
	const length = 64
	greedy := func(logits []float32) int32 {
		next, err := DefaultSampling().choose(logits, nil)
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
