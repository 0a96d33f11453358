package model

import (
	"errors"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// change is of the file of a model that is about to be written.
type change func(t *testing.T, w *bindings.GGUFWriter)

func with(key string, value any) change {
	return func(t *testing.T, w *bindings.GGUFWriter) {
		if err := w.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
}

func without(key string) change {
	return func(_ *testing.T, w *bindings.GGUFWriter) { w.Unset(key) }
}

// vector adds n numbers from about low to high.
func vector(name string, n int, low, high float64) change {
	return func(t *testing.T, w *bindings.GGUFWriter) {
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(low + (high-low)*(1+math.Sin(float64(3*i+len(name))))/2)
		}
		data, err := bindings.Quantize(bindings.F32, values, int64(n))
		if err = errors.Join(err, w.AddTensor(name, bindings.F32, []int64{int64(n)}, data)); err != nil {
			t.Fatal(err)
		}
	}
}

// variants are models that differ from the references in what files of these architectures may have.
var variants = []struct {
	name, of string
	changes  []change
}{
	{"a window in every block", "llama", []change{with("llama.attention.sliding_window", uint32(7))}},
	{"tokens that see themselves alone", "llama", []change{with("llama.attention.sliding_window", uint32(1))}},
	{"a window in every block", "starcoder2", []change{with("starcoder2.attention.sliding_window", uint32(5))}},
	{"a window in every block", "phi3", []change{with("phi3.attention.sliding_window", uint32(17))}},
	{"short and long texts, part of a head rotated", "phi3", []change{
		with("phi3.rope.scaling.original_context_length", uint32(21)),
		with("phi3.rope.scaling.attn_factor", float32(1.19)), with("phi3.rope.dimension_count", uint32(12)),
		with("phi3.attention.sliding_window", uint32(17)), vector("rope_factors_short.weight", 6, 1, 2),
		vector("rope_factors_long.weight", 6, 1, 30),
	}},
	{"linear scaling and capped logits", "gemma3", []change{
		with("gemma3.rope.scaling.type", "linear"), with("gemma3.rope.scaling.factor", float32(8)),
		with("gemma3.final_logit_softcapping", float32(2)), without("gemma3.rope.freq_base_swa"),
	}},
	{"every second block sees all", "gemma3", []change{with("gemma3.attention.sliding_window_pattern", uint32(2))}},
	{"windows block by block", "gemma2",
		[]change{with("gemma2.attention.sliding_window_pattern", []bool{false, true, true, false})}},
	{"YaRN", "qwen3", []change{
		with("qwen3.rope.scaling.type", "yarn"), with("qwen3.rope.scaling.factor", float32(4)),
		with("qwen3.rope.scaling.original_context_length", uint32(32)),
	}},
	{"YaRN of its own size, and ramp", "llama", []change{
		with("llama.rope.scaling.type", "yarn"), with("llama.rope.scaling.factor", float32(4)),
		with("llama.rope.scaling.original_context_length", uint32(32)), with("llama.rope.scaling.yarn_attn_factor",
			float32(0.8)), with("llama.rope.scaling.yarn_beta_fast", float32(8)),
	}},
	{"YaRN of two scales", "qwen2", []change{
		with("qwen2.rope.scaling.type", "yarn"), with("qwen2.rope.scaling.factor", float32(4)),
		with("qwen2.rope.scaling.original_context_length", uint32(32)), with("qwen2.rope.scaling.yarn_log_multiplier",
			float32(0.7)),
	}},
	{"YaRN", "olmo3", []change{
		with("olmo2.rope.scaling.type", "yarn"), with("olmo2.rope.scaling.factor", float32(4)),
		with("olmo2.rope.scaling.original_context_length", uint32(32)),
	}},
	{"another scale", "mistral3", []change{
		with("mistral3.rope.scaling.yarn_log_multiplier", float32(0.3)), with("mistral3.attention.temperature_scale",
			float32(0.5)), with("mistral3.attention.sliding_window", uint32(20)),
	}},
	{"one length of tokens", "mistral3", []change{without("mistral3.attention.temperature_scale")}},
	{"another rotation", "qwen35", []change{with("qwen35.rope.dimension_count", uint32(10)),
		with("qwen35.rope.freq_base", float32(100)), vector("blk.3.attn_q.bias", 256, -0.3, 0.3),
		vector("blk.3.attn_output.bias", 64, -0.3, 0.3)}},
	{"biases", "seed-oss", []change{vector("blk.0.attn_output.bias", 64, -0.3, 0.3)}},
	{"biases", "granite", []change{
		vector("blk.0.attn_q.bias", 64, -0.3, 0.3), vector("blk.0.ffn_gate.bias", 96, -0.3, 0.3),
		vector("blk.1.attn_v.bias", 32, -0.3, 0.3), vector("blk.1.ffn_down.bias", 64, -0.3, 0.3),
	}},
	{"biases", "smollm3", []change{vector("blk.0.attn_k.bias", 32, -0.3, 0.3),
		vector("blk.3.attn_q.bias", 64, -0.3, 0.3), vector("blk.1.attn_output.bias", 64, -0.3, 0.3)}},
	{"biases", "olmo2", []change{vector("blk.0.attn_k.bias", 32, -0.3, 0.3),
		vector("blk.1.attn_output.bias", 64, -0.3, 0.3)}},
	{"biases", "gemma3", []change{vector("blk.0.attn_q.bias", 128, -0.3, 0.3),
		vector("blk.5.attn_v.bias", 64, -0.3, 0.3)}},
	{"biases", "llama", []change{vector("blk.0.attn_k.bias", 32, -0.3, 0.3), vector("blk.1.attn_output.bias", 64, -0.3,
		0.3), vector("blk.1.ffn_up.bias", 96, -0.3, 0.3)}},
}

// changed is s with a copy of the model with other matrices' type and other changes. Its sequences are more by three
// beginnings of the first, which are computed once where they are the same.
func (s small) changed(t *testing.T, kind bindings.Type, changes ...change) small {
	t.Helper()
	file, err := bindings.OpenGGUF(s.model)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := file.Copy()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, info := range file.Tensors() {
		const router = "ffn_gate_inp.weight" // float32 in all files
		if len(info.Shape) < 2 || info.Shape[0]%kind.BlockSize() != 0 || strings.HasSuffix(info.Name, router) {
			continue
		}
		values := make([]float32, info.Shape[0]*info.Rows())
		err := bindings.Dequantize(info.Type, file.Data(info), values)
		data, failed := bindings.Quantize(kind, values, info.Shape[0])
		err = errors.Join(err, failed, w.Replace(info, kind, func(out io.Writer) error {
			_, err := out.Write(data)
			return err
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range changes {
		c(t, w)
	}
	s.model = filepath.Join(t.TempDir(), "model.gguf")
	if err := w.WriteFile(s.model); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{30, 20, 1} {
		n = min(n, len(s.Sequences[0]))
		s.Sequences, s.Targets = append(slices.Clone(s.Sequences), s.Sequences[0][:n]),
			append(slices.Clone(s.Targets), s.Targets[0][:n])
	}
	return s
}

// checkNaive compares the base model, and the adapted one, with the tests' own float64, in every arithmetic and plan of
// training.
func (s small) checkNaive(t *testing.T) {
	t.Helper()
	var base, adapted *answer
	want := func(a **answer, m *Model) answer {
		if *a == nil {
			made := newNaive(t, m).run(s.batch())
			*a = &made
		}
		return **a
	}
	for _, compute := range []Compute{ComputeF32, ComputeBF16, ComputeInt} {
		for _, plan := range []Plan{PlanFactored, PlanMerged} {
			o := options()
			o.Compute, o.Plan = compute, plan
			m := open(t, s.model, o)
			s.check(t, m, want(&base, m), smallTolerances[compute])
			s.attach(t, m)
			s.check(t, m, want(&adapted, m), smallTolerances[compute])
		}
	}
}

// TestArchitecturesQuantised holds the reference models with quantised matrices to float64 on the same numbers.
func TestArchitecturesQuantised(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		kinds := []bindings.Type{bindings.Q8_0, bindings.Q4_0}
		if filepath.Base(s.dir) == "gpt-oss" {
			kinds = append(kinds, bindings.MXFP4)
		}
		for _, kind := range kinds {
			t.Run(kind.String(), func(t *testing.T) { s.changed(t, kind).checkNaive(t) })
		}
	})
}

// TestArchitecturesLong does so with texts of several spans of a delta net, two of which begin alike.
func TestArchitecturesLong(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		if !m.recurrent() {
			t.Skip("has attention alone")
		}
		b := randomBatch(5, m.Vocab, 150, 90)
		copy(b.tokens[150:220], b.tokens)
		s.Sequences, s.Targets = [][]int32{b.tokens[:150], b.tokens[150:]}, [][]int32{b.targets[:150], b.targets[150:]}
		s.model = filepath.Join(s.dir, "model.gguf")
		s.checkNaive(t)
	})
}

// TestArchitectureVariants does so for what the reference models don't have, and answers with them.
func TestArchitectureVariants(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, v := range variants {
			if v.of != filepath.Base(s.dir) {
				continue
			}
			t.Run(v.name, func(t *testing.T) {
				plain := s.expected(t, nil).logits
				s := s.changed(t, bindings.F32, v.changes...)
				if e := maxDiff(plain, s.logits(t, s.open(t, ComputeF32))); e < 0.01 {
					t.Errorf("logits differ by %.1g only from those of the reference model", e)
				}
				s.checkNaive(t)
				s.checkAnswers(t)
			})
		}
	})
}
