package vera

import (
	"math"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// The same adapter says the same of itself in both forms.
func TestSummaryOfVeRA(t *testing.T) {
	c := toyConfig()
	c.Targets, c.Layers = []string{"ffn_up", "attn_q"}, []int{0, 2}
	a := trained(t, c, toy())
	paths := map[string]string{"native": save(t, a), "PEFT": savePEFT(t, a, true),
		"PEFT's own": withoutOwn(t, savePEFT(t, a, false))}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			s, err := Summarize(path)
			if err != nil {
				t.Fatal(err)
			}
			if s.Method != "vera" || s.Rank != 4 || s.Seed != "7" || s.Base != "toy" || s.DInitial != 0.1 ||
				s.Dropout != 0.25 || s.Trained != len(a.Params) {
				t.Errorf("%+v", s)
			}
			bytes := 4 * int64(len(a.Params))
			if s.Pair {
				bytes += 4 * int64(len(a.Pair.A)+len(a.Pair.B))
			}
			if s.Pair != (name == "PEFT") || s.Types["f32"] != bytes || s.Bytes < bytes {
				t.Errorf("pair %v, types %v, %d bytes; want %d of numbers", s.Pair, s.Types, s.Bytes, bytes)
			}
			if name != "PEFT's own" && !reflect.DeepEqual(s.Facts, a.Facts) {
				t.Errorf("facts %v", s.Facts)
			}
			for i, l := range a.Layers {
				got := s.Layers[i]
				if got.Block != l.Block || got.Target != l.Target || math.Abs(got.Norms["b"]-norm(l.LambdaB)) > 1e-6 ||
					got.Norms["d"] != norm(l.LambdaD) {
					t.Errorf("layer %d is %+v; want %s with %v and %v", i, got, l.Name(), norm(l.LambdaB),
						norm(l.LambdaD))
				}
			}
		})
	}
}

// loraFile is a LoRA of llama.cpp with two layers, of rank 1 and 2, the second in float16.
func loraFile(t *testing.T, change func(*bindings.GGUFWriter)) string {
	t.Helper()
	w := bindings.NewGGUFWriter()
	defer w.Close()
	ones := func(kind bindings.Type, n int64) []byte {
		values := make([]float32, n)
		for i := range values {
			values[i] = 1
		}
		data, err := bindings.Quantize(kind, values, n)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for key, value := range map[string]any{"general.type": "adapter", "general.architecture": "llama",
		"adapter.type": "lora", "adapter.lora.alpha": float32(8)} {
		if err := w.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, tensor := range []struct {
		name  string
		kind  bindings.Type
		shape []int64
	}{
		{"blk.10.attn_q.weight.lora_a", bindings.F32, []int64{16, 1}}, {"blk.10.attn_q.weight.lora_b", bindings.F32,
			[]int64{1, 25}},
		{"blk.2.ffn_up.weight.lora_b", bindings.F16, []int64{2, 18}}, {"blk.2.ffn_up.weight.lora_a", bindings.F16,
			[]int64{32, 2}},
	} {
		if err := w.AddTensor(tensor.name, tensor.kind, tensor.shape,
			ones(tensor.kind, tensor.shape[0]*tensor.shape[1])); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(w)
	}
	path := filepath.Join(t.TempDir(), "lora.gguf")
	if err := w.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSummaryOfLoRA(t *testing.T) {
	s, err := Summarize(loraFile(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	if s.Method != "lora" || s.Rank != 2 || s.Alpha != 8 || s.Trained != 16+25+36+64 || s.Types["f32"] != 4*41 ||
		s.Types["f16"] != 2*100 {
		t.Errorf("%+v", s)
	}
	want := []LayerNorms{
		{"blk.2.ffn_up", 2, "ffn_up", map[string]float64{"lora_a": 8, "lora_b": 6}},
		{"blk.10.attn_q", 10, "attn_q", map[string]float64{"lora_a": 4, "lora_b": 5}},
	}
	if !reflect.DeepEqual(s.Layers, want) {
		t.Errorf("layers %+v, want %+v", s.Layers, want)
	}
}

func TestSummaryRefuses(t *testing.T) {
	set := func(key string, value any) func(*bindings.GGUFWriter) {
		return func(w *bindings.GGUFWriter) {
			if err := w.Set(key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	add := func(name string) func(*bindings.GGUFWriter) {
		return func(w *bindings.GGUFWriter) {
			if err := w.AddTensor(name, bindings.F32, []int64{1}, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*bindings.GGUFWriter)
		words  []string
	}{
		"another kind": {set("adapter.type", "ia3"), []string{`"ia3"`, `"lora"`}},
		"alpha":        {set("adapter.lora.alpha", "8"), []string{"adapter.lora.alpha", "float32"}},
		"half a layer": {add("blk.1.attn_k.weight.lora_a"), []string{"blk.1.attn_k", "lora_b"}},
		"surplus":      {add("blk.2.attn_norm.weight"), []string{"blk.2.attn_norm", "lora_a"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := loraFile(t, test.change)
			_, err := Summarize(path)
			wantError(t, err, append(test.words, path)...)
		})
	}
}
