package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// tiny has fewer key heads than heads, a width that is no power of two, and rows of several chunks.
var tiny = shape{name: "tiny", architecture: "llama", blocks: 2, width: 768, hidden: 1280, heads: 6, kvHeads: 3,
	headDim: 128, vocab: 600, context: 64, ropeBase: 10000, normEps: 1e-5}

func TestWritesAModel(t *testing.T) {
	for _, kind := range []bindings.Type{bindings.Q4_0, bindings.Q4_K, bindings.Q8_0, bindings.F16} {
		t.Run(kind.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tiny.gguf")
			if err := tiny.write(path, kind, 1); err != nil {
				t.Fatal(err)
			}
			g, err := bindings.OpenGGUF(path)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if n, _ := g.Uint("llama.block_count"); n != 2 || len(g.Tensors()) != 3+9*2 {
				t.Errorf("%d blocks in %d tensors: 2 in 21 expected", n, len(g.Tensors()))
			}
			head := kind
			if kind == bindings.Q4_0 || kind == bindings.Q4_K {
				head = bindings.Q6_K
			}
			for _, want := range []struct {
				name      string
				kind      bindings.Type
				shape     []int64
				mean, dev float64
			}{
				{"token_embd.weight", kind, []int64{768, 600}, 0, 0.02},
				{"output_norm.weight", bindings.F32, []int64{768}, 1, 0},
				{"output.weight", head, []int64{768, 600}, 0, 0.25 / math.Sqrt(768)},
				{"blk.0.attn_norm.weight", bindings.F32, []int64{768}, 1, 0},
				{"blk.1.attn_q.weight", kind, []int64{768, 768}, 0, 0.02},
				{"blk.1.attn_k.weight", kind, []int64{768, 384}, 0, 0.02},
				{"blk.1.attn_v.weight", kind, []int64{768, 384}, 0, 0.02},
				{"blk.1.attn_output.weight", kind, []int64{768, 768}, 0, 0.01},
				{"blk.1.ffn_norm.weight", bindings.F32, []int64{768}, 1, 0},
				{"blk.1.ffn_gate.weight", kind, []int64{768, 1280}, 0, 0.02},
				{"blk.1.ffn_up.weight", kind, []int64{768, 1280}, 0, 0.02},
				{"blk.1.ffn_down.weight", kind, []int64{1280, 768}, 0, 0.01},
			} {
				info, _ := g.Tensor(want.name)
				if info.Type != want.kind || !slices.Equal(info.Shape, want.shape) {
					t.Errorf("%s: %v %v: %v %v expected", want.name, info.Type, info.Shape, want.kind, want.shape)
					continue
				}
				mean, dev := moments(t, g, info)
				// 4 bits add a few per cent to the deviation; of 295000 values or more the sampling error is below
				// 0.2%, the mean's below dev/500.
				if math.Abs(mean-want.mean) > 0.01*want.dev || math.Abs(dev-want.dev) > 0.05*want.dev {
					t.Errorf("%s: mean %g, standard deviation %g: %g and %g expected", want.name, mean, dev,
						want.mean, want.dev)
				}
			}
		})
	}
}

// TestShapes compares the number of weights with what is published of the models, of Gemma 3 without what looks at
// images, and trains a narrow model of each shape.
func TestShapes(t *testing.T) {
	for name, want := range map[string]int{
		"7b": 6_738_415_616, "13b": 13_015_864_320, "llama3.1-8b": 8_030_261_312, "qwen3-8b": 8_190_735_360,
		"gemma3-12b": 11_766_034_176, "gemma4-e4b": 7_463_013_674, "qwen3.5-4b": 4_205_751_296, "phi4": 14_659_507_200,
	} {
		t.Run(name, func(t *testing.T) {
			s := shapes[name]
			if n := s.numbers(); n != want {
				t.Errorf("%d weights, not %d", n, want)
			}
			s.blocks, s.width, s.hidden, s.heads, s.kvHeads, s.vocab = 1, 256, 512, 2, 1, 600
			if s.qwen35 != nil {
				s.blocks = s.qwen35.every
			}
			path := filepath.Join(t.TempDir(), "narrow.gguf")
			if err := s.write(path, bindings.Q4_0, 1); err != nil {
				t.Fatal(err)
			}
			o := model.Default()
			o.Threads, o.Compute = 1, model.ComputeF32
			m, err := model.Open(path, o)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			config := vera.Default()
			config.Rank = 4
			a, err := vera.New(config, m.Base())
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Attach(a); err != nil {
				t.Fatal(err)
			}
			gradient := make([]float32, len(a.Params))
			tokens, targets := []int32{5, 70, 400, 6}, []int32{70, 400, 6, 2}
			loss, labels, err := m.AddGradient(tokens, targets, []int{len(tokens)}, 0, gradient)
			if err != nil {
				t.Fatal(err)
			}
			if mean, random := loss/float64(labels), math.Log(600); math.Abs(mean-random) > 0.5 {
				t.Errorf("loss %g a token: about %g, of which the model knows nothing, expected", mean, random)
			}
			if !slices.ContainsFunc(gradient, func(v float32) bool { return v != 0 }) {
				t.Error("no gradient")
			}
		})
	}
}

// TestStretch compares with what transformers computes for Llama 3.1: rotations of short waves stay, those of long ones
// take eight times as long.
func TestStretch(t *testing.T) {
	s := shapes["llama3.1-8b"]
	factors := s.stretch.factors(s.ropeBase, s.headDim)
	for i, want := range map[int]float64{0: 1, 28: 1, 29: 1.2075, 34: 5.2573, 35: 8, 63: 8} {
		if got := float64(factors[i]); math.Abs(got-want) > 1e-3 {
			t.Errorf("rotation %d: %.4f, not %.4f", i, got, want)
		}
	}
}

func moments(t *testing.T, g *bindings.GGUF, info bindings.TensorInfo) (mean, deviation float64) {
	t.Helper()
	n := int64(1)
	for _, size := range info.Shape {
		n *= size
	}
	values := make([]float32, n)
	if err := bindings.Dequantize(info.Type, g.Data(info), values); err != nil {
		t.Fatal(err)
	}
	var sum, squares float64
	for _, v := range values {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	mean = sum / float64(n)
	return mean, math.Sqrt(max(0, squares/float64(n)-mean*mean))
}

// TestMatricesDiffer looks for equal rows within a matrix, and for equal matrices.
func TestMatricesDiffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := tiny.write(path, bindings.Q4_0, 1); err != nil {
		t.Fatal(err)
	}
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	data := func(name string) []byte {
		info, _ := g.Tensor(name)
		return g.Data(info)
	}
	gate := data("blk.0.ffn_gate.weight")
	if bytes.Equal(gate, data("blk.0.ffn_up.weight")) || bytes.Equal(gate, data("blk.1.ffn_gate.weight")) {
		t.Error("two matrices are equal")
	}
	seen := map[string]bool{}
	row := int(bindings.Q4_0.RowBytes(768))
	for at := 0; at < len(gate); at += row {
		if r := string(gate[at : at+row]); seen[r] {
			t.Fatalf("row %d is there twice", at/row)
		} else {
			seen[r] = true
		}
	}
}

func TestEqualSeedsGiveEqualFiles(t *testing.T) {
	written := func(seed uint64) []byte {
		path := filepath.Join(t.TempDir(), "tiny.gguf")
		if err := tiny.write(path, bindings.Q4_0, seed); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one := written(1)
	if !bytes.Equal(one, written(1)) {
		t.Error("two files of one seed differ")
	}
	if bytes.Equal(one, written(2)) {
		t.Error("files of two seeds are equal")
	}
}

func TestTokenizer(t *testing.T) {
	s := tiny
	s.vocab = 32000
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := s.write(path, bindings.Q4_0, 1); err != nil {
		t.Fatal(err)
	}
	v, err := model.ReadTokenizer(testutil.OpenGGUF(t, path), "")
	if err != nil {
		t.Fatal(err)
	}
	if v.Size() != 32000 || v.BOS() != 1 || v.EOS() != 2 || !v.AddBOS() {
		t.Errorf("%d tokens, BOS %d, EOS %d, AddBOS %v: Llama 2 has 32000, 1, 2, true", v.Size(), v.BOS(), v.EOS(),
			v.AddBOS())
	}
	for _, c := range []struct {
		text     string
		low, top float64 // characters a token
	}{
		{"The committee met in the old town hall on Monday evening and talked for two hours about the budget of the " +
			"new library.", 4, 6},
		{"Photosynthesis turns carbon dioxide and water into glucose; chlorophyll, a pigment of the chloroplasts, " +
			"absorbs the light.", 2.5, 4.5},
		{"1 + 1 = 2\n\tif x { return \"ünï©ode 😀\" }", 0.5, 2},
	} {
		tokens, err := v.Tokenize(t.Context(), c.text, false, false)
		if err != nil {
			t.Fatal(err)
		}
		if rate := float64(len(c.text)) / float64(len(tokens)); rate < c.low || rate > c.top {
			t.Errorf("%q: %.2f characters a token: %g to %g expected", c.text, rate, c.low, c.top)
		}
		if back, err := v.Detokenize(tokens, false); err != nil || back != c.text {
			t.Errorf("%q came back as %q, %v", c.text, back, err)
		}
		if slices.Contains(tokens, 0) {
			t.Errorf("%q has an unknown token", c.text)
		}
	}
}

func TestErrors(t *testing.T) {
	existing := filepath.Join(t.TempDir(), "there.gguf")
	if err := os.WriteFile(existing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, want string }{
		{"", "--out is missing"},
		{"--out x --shape 70b", "--shape 70b: one of qwen3.5-4b, 7b, gemma4-e4b, llama3.1-8b, qwen3-8b, gemma3-12b, " +
			"13b, phi4 is needed"},
		{"--out x --blocks 33", "--blocks 33: a number from 1 to 32"},
		{"--out x --blocks -1", "--blocks -1: a number from 1 to 32"},
		{"--out x --type q9", "--type q9: ggml has no such type"},
		{"--out x --type i32", "--type i32: ggml cannot write this type"},
		{"--out x y", `"y": options only`},
		{"--nothing", "not defined: -nothing; see --help"},
		{"--out " + existing, "is there already"},
		{"--blocks 1 --out " + filepath.Join(existing, "below"), "not a directory"},
	} {
		if err := run(strings.Fields(c.args), io.Discard, io.Discard); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, not %s", c.args, err, c.want)
		}
	}
	if _, err := tokenizer(300); err == nil || !strings.Contains(err.Error(), fmt.Sprint(259+95)) {
		t.Errorf("a vocabulary of 300: error %v", err)
	}
}
