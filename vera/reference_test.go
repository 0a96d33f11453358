package vera

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/internal/testutil"
)

// TestReferenceAdapters loads every adapter that PEFT saved for SmolLM2 and compares each of its numbers, and each of
// the projections of its file with the pair of its seed.
func TestReferenceAdapters(t *testing.T) {
	for _, folder := range testutil.Folders(t, "VERATUNE_REFS", "refs/peft-vera-*") {
		configs, err := filepath.Glob(filepath.Join(folder, "*", "adapter_config.json"))
		if err != nil || len(configs) == 0 {
			t.Fatalf("%s holds no adapter: %v", folder, err)
		}
		for _, path := range configs {
			dir := filepath.Dir(path)
			t.Run(filepath.Base(folder)+"/"+filepath.Base(dir), func(t *testing.T) {
				a, err := Load(dir, smolLM2())
				if err != nil {
					t.Fatal(err)
				}
				tensors, err := safetensors.Deserialize(read(t, filepath.Join(dir, "adapter_model.safetensors")))
				if err != nil {
					t.Fatal(err)
				}
				compareWithFile(t, a, tensors)
				b, err := Load(save(t, a), smolLM2())
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(a.Params, b.Params) || a.Pair.SHA256() != b.Pair.SHA256() {
					t.Error("the native file does not keep it")
				}
			})
		}
	}
}

func compareWithFile(t *testing.T, a *Adapter, tensors safetensors.SafeTensors) {
	t.Helper()
	same := func(name string, values []float32) {
		t.Helper()
		if tensor, ok := tensors.Tensor(name); !ok || !bytes.Equal(tensor.Data(), appendFloats(nil, values)) {
			t.Errorf("%s: the values are not those of the file", name)
		}
	}
	n := 2 * len(a.Layers)
	for _, l := range a.Layers {
		b := l.LambdaB
		rows, _ := a.Base.Orders(l.Target)
		b = HFRows(b, l.Out, rows)
		same("base_model.model."+a.Base.Module(l.Linear)+".vera_lambda_b", b)
		same("base_model.model."+a.Base.Module(l.Linear)+".vera_lambda_d", l.LambdaD)
	}
	if _, ok := tensors.Tensor("base_model.vera_A"); ok {
		seeded := NewPair(KaimingUniform, a.Seed, a.Rank, a.MaxIn, a.MaxOut)
		same("base_model.vera_A", seeded.A)
		same("base_model.vera_B", seeded.B)
		n += 2
	}
	if n != tensors.Len() {
		t.Errorf("%d tensors compared of %d", n, tensors.Len())
	}
}

func TestReferencePair(t *testing.T) {
	for _, folder := range testutil.Folders(t, "VERATUNE_REFS", "refs/peft-vera-*") {
		var ref struct {
			AShape [2]int    `json:"A_shape"`
			BShape [2]int    `json:"B_shape"`
			AFirst []float32 `json:"A_first16"`
			BFirst []float32 `json:"B_first16"`
			ALast  []float32 `json:"A_last4"`
			BLast  []float32 `json:"B_last4"`
			ASum   float64   `json:"A_sum"`
			BSum   float64   `json:"B_sum"`
			Count  int       `json:"n_trainable"`
		}
		if err := json.Unmarshal(read(t, filepath.Join(folder, "reference.json")), &ref); err != nil {
			t.Fatal(err)
		}
		if ref.AFirst == nil {
			t.Logf("%s: reference.json says nothing of the pair", folder)
			continue
		}
		dirs, err := filepath.Glob(filepath.Join(folder, "*_peft"))
		if err != nil || len(dirs) == 0 {
			t.Fatalf("%s holds no adapter: %v", folder, err)
		}
		a, err := Load(dirs[0], smolLM2())
		if err != nil {
			t.Fatal(err)
		}
		p := NewPair(KaimingUniform, a.Seed, a.Rank, a.MaxIn, a.MaxOut)
		if ref.AShape != [2]int{p.Rank, p.MaxIn} || ref.BShape != [2]int{p.MaxOut, p.Rank} {
			t.Fatalf("%s: the pair is %d × %d and %d × %d, want %v and %v", folder, p.Rank, p.MaxIn, p.MaxOut, p.Rank,
				ref.AShape, ref.BShape)
		}
		if !slices.Equal(p.A[:16], ref.AFirst) || !slices.Equal(p.B[:16], ref.BFirst) ||
			!slices.Equal(p.A[len(p.A)-4:], ref.ALast) || !slices.Equal(p.B[len(p.B)-4:], ref.BLast) {
			t.Errorf("%s: first or last values differ", folder)
		}
		// The reference's sum has an order of its own: 1e-9 covers the rounding of 10⁵ additions.
		if s := sum(p.A); math.Abs(s-ref.ASum) > 1e-9 {
			t.Errorf("%s: A sums to %v, want %v", folder, s, ref.ASum)
		}
		if s := sum(p.B); math.Abs(s-ref.BSum) > 1e-9 {
			t.Errorf("%s: B sums to %v, want %v", folder, s, ref.BSum)
		}
		if got := TrainableCount(a.Config, smolLM2()); got != ref.Count {
			t.Errorf("%s: %d trained values, want %d", folder, got, ref.Count)
		}
	}
}

func sum(values []float32) float64 {
	s := 0.0
	for _, v := range values {
		s += float64(v)
	}
	return s
}
