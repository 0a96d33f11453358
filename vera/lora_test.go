package vera

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/veratune/veratune/bindings"
)

// randomAdapter has random vectors of the size that training gives them.
func randomAdapter(t testing.TB, c Config, base Base) *Adapter {
	t.Helper()
	a := mustNew(t, c, base)
	random := rand.New(rand.NewPCG(11, 3))
	for _, l := range a.Layers {
		for i := range l.LambdaB {
			l.LambdaB[i] = 0.01 * float32(random.NormFloat64())
		}
		for i := range l.LambdaD {
			l.LambdaD[i] += 0.05 * float32(random.NormFloat64())
		}
	}
	a.Facts = map[string]string{"template": "chat"}
	return a
}

// saveLoRA writes a LoRA and opens the file.
func saveLoRA(t *testing.T, a *Adapter, o LoRAOptions) (LoRA, *bindings.GGUF) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lora.gguf")
	lora, err := a.SaveLoRA(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	g, err := bindings.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return lora, g
}

// matrix reads a tensor of a file as rows × columns.
func matrix(t *testing.T, g *bindings.GGUF, name string, rows, columns int) *mat.Dense {
	t.Helper()
	info, ok := g.Tensor(name)
	shape := append(info.Shape, 1)[:2] // a file doesn't keep trailing sizes of 1
	if !ok || !slices.Equal(shape, []int64{int64(columns), int64(rows)}) {
		t.Fatalf("tensor %s is %v, want %d rows of %d", name, info.Shape, rows, columns)
	}
	values := make([]float32, rows*columns)
	if err := bindings.Dequantize(info.Type, g.Data(info), values); err != nil {
		t.Fatal(err)
	}
	return mat.NewDense(rows, columns, widened(values))
}

// delta is ΔW of a layer, dense, in float64 from the adapter's own numbers.
func delta(a *Adapter, l *Layer) *mat.Dense {
	up, down := a.Factors(l)
	var x mat.Dense
	x.Mul(mat.NewDense(l.Out, l.Rank(), widened(up)), mat.NewDense(l.Rank(), l.In, widened(down)))
	return &x
}

// off is the largest difference beside the largest value.
func off(got, want *mat.Dense) float64 {
	var diff mat.Dense
	diff.Sub(got, want)
	return math.Max(mat.Max(&diff), -mat.Min(&diff)) / math.Max(mat.Max(want), -mat.Min(want))
}

// cutBase has layers whose rank is below the adapter's by their height (attn_k), by their width, and by neither.
func cutBase() Base { return llama("cut", 2, 32, 96, 4, 1) }

// LoRAs of every kind must hold ΔW, cut to the rank as a dense singular value decomposition cuts it. Errors are
// relative to the largest number of ΔW: float32 rounds each factor by 6e-8; f16 by 5e-4; q8_0 by 1/254 of the largest
// of a block, in each factor, and the sum over the rank evens out. The dense ΔW here rounds d ⊙ A to float32, which
// moves energies by some 1e-9.
func TestSaveLoRA(t *testing.T) {
	for _, rank := range []int{8, 64} { // less and more than the width of 32
		c := toyConfig()
		c.Rank = rank
		a := randomAdapter(t, c, cutBase())
		for _, test := range []struct {
			rank    int
			kind    string
			threads int
		}{
			{0, "f32", 1}, {rank, "f32", 2}, {rank - 1, "f32", 2}, {rank / 2, "f32", 3}, {3, "f32", 1}, {1, "f32", 1},
			{0, "f16", 2}, {0, "q8_0", 2}, {rank / 2, "q8_0", 2},
		} {
			o := LoRAOptions{Rank: test.rank, Type: test.kind, Threads: test.threads}
			lora, g := saveLoRA(t, a, o)
			k := o.Rank
			if k == 0 {
				k = rank
			}
			if alpha := g.Value("adapter.lora.alpha"); lora.Rank != k || alpha != float32(k) {
				t.Fatalf("%+v: rank %d and alpha %v", o, lora.Rank, alpha)
			}
			tolerance := map[string]float64{"f32": 1e-6, "f16": 2e-3, "q8_0": 3e-2}[o.Type]
			for i := range a.Layers {
				l := &a.Layers[i]
				var got mat.Dense
				got.Mul(matrix(t, g, l.Name()+".weight.lora_b", l.Out, k),
					matrix(t, g, l.Name()+".weight.lora_a", k, l.In))
				want, retained := cut(delta(a, l), k)
				if e := off(&got, want); !(e <= tolerance) {
					t.Errorf("rank %d, %+v: %s is off by %.2g", rank, o, l.Name(), e)
				}
				if e := math.Abs(lora.Layers[i].Retained - retained); !(e <= 1e-7) || lora.Layers[i].Name != l.Name() {
					t.Errorf("rank %d, %+v: %s retains %.12f, want %.12f", rank, o, lora.Layers[i].Name,
						lora.Layers[i].Retained, retained)
				}
			}
		}
	}
}

// cut keeps the k largest singular values of a dense matrix.
func cut(x *mat.Dense, k int) (*mat.Dense, float64) {
	u, s, v := thinSVD(x)
	kept := slices.Clone(s)
	clear(kept[min(k, len(kept)):])
	scaleColumns(u, kept)
	var out mat.Dense
	out.Mul(u, v.T())
	return &out, squares(kept) / squares(s)
}

// thinSVD gives x = U diag(s) Vᵀ with orthonormal columns in U and V, s in descending order.
func thinSVD(x mat.Matrix) (u *mat.Dense, s []float64, v *mat.Dense) {
	var d mat.SVD
	if !d.Factorize(x, mat.SVDThin) {
		panic("no singular value decomposition")
	}
	u, v = new(mat.Dense), new(mat.Dense)
	d.UTo(u)
	d.VTo(v)
	return u, d.Values(nil), v
}

// At the adapter's own rank nothing is cut, and the decomposition must give the product back.
func TestTruncationAtFullRank(t *testing.T) {
	for _, rank := range []int{8, 64} {
		c := toyConfig()
		c.Rank = rank
		a := randomAdapter(t, c, cutBase())
		clear(a.Layers[2].LambdaB) // b as it is before training: ΔW = 0
		tr := newTruncation(a, rank)
		for i := range a.Layers {
			l := &a.Layers[i]
			p, err := tr.factors(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(p.retained-1) > 1e-12 {
				t.Errorf("%s retains %g", l.Name(), p.retained)
			}
			var got mat.Dense
			got.Mul(mat.NewDense(l.Out, rank, widened(p.up)), mat.NewDense(rank, l.In, widened(p.down)))
			if want := delta(a, l); i == 2 && mat.Norm(&got, 2) != 0 || i != 2 && !(off(&got, want) <= 1e-5) {
				t.Errorf("rank %d: %s is off by %.2g", rank, l.Name(), off(&got, want))
			}
			// √σ in both, so that norms are alike.
			if i != 2 && !(math.Abs(mat.Norm(mat.NewDense(l.Out, rank, widened(p.up)),
				2)/mat.Norm(mat.NewDense(rank, l.In, widened(p.down)), 2)-1) <= 1e-5) {
				t.Errorf("%s: the factors are not balanced", l.Name())
			}
		}
	}
}

// What training gives b is below float16's normal range in diag(b) B; balanced factors keep ten bits of it all the
// same.
func TestSmallVectorsInF16(t *testing.T) {
	c := toyConfig()
	a := randomAdapter(t, c, cutBase())
	for _, l := range a.Layers {
		scale(l.LambdaB, 1e-5)
	}
	_, g := saveLoRA(t, a, DefaultLoRA())
	for i := range a.Layers {
		l := &a.Layers[i]
		var got mat.Dense
		got.Mul(matrix(t, g, l.Name()+".weight.lora_b", l.Out, a.Rank),
			matrix(t, g, l.Name()+".weight.lora_a", a.Rank, l.In))
		if e := off(&got, delta(a, l)); !(e <= 2e-3) {
			t.Errorf("%s is off by %.2g", l.Name(), e)
		}
	}
}

func TestLoRAFile(t *testing.T) {
	c := toyConfig()
	c.Rank = 32
	a := randomAdapter(t, c, cutBase())
	numbers := func() (n int64) {
		for _, l := range a.Layers {
			n += int64(c.Rank * (l.In + l.Out))
		}
		return n
	}()
	sizes := map[string]int64{}
	for _, kind := range []string{"f32", "f16", "q8_0"} {
		lora, g := saveLoRA(t, a, LoRAOptions{Rank: 0, Type: kind, Threads: 2})
		for _, info := range g.Tensors() {
			sizes[kind] += info.Size
		}
		if lora.Bytes < sizes[kind] || lora.Bytes > sizes[kind]+1<<16 {
			t.Errorf("%s: a file of %d bytes for %d bytes of tensors", kind, lora.Bytes, sizes[kind])
		}
		for key, want := range map[string]any{
			"general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama",
			"adapter.lora.alpha": float32(32),
			keyBaseName:          a.Base.Name, keyFingerprint: a.Base.Fingerprint, "veratune.template": "chat",
		} {
			if got := g.Value(key); got != want {
				t.Errorf("%s is %v, want %v", key, got, want)
			}
		}
	}
	if sizes["f32"] != 4*numbers || sizes["f16"] != 2*numbers || sizes["q8_0"] != numbers*34/32 {
		t.Errorf("sizes %v for %d numbers", sizes, numbers)
	}
	// Rows of 8 are no whole block.
	lora, g := saveLoRA(t, a, LoRAOptions{Rank: 8, Type: "q8_0", Threads: 2})
	for _, l := range lora.Layers {
		x, _ := g.Tensor(l.Name + ".weight.lora_a")
		y, _ := g.Tensor(l.Name + ".weight.lora_b")
		if l.TypeA != "q8_0" || l.TypeB != "f16" || x.Type != bindings.Q8_0 || y.Type != bindings.F16 {
			t.Errorf("%+v, and in the file %v and %v", l, x.Type, y.Type)
		}
	}
	// The same bytes whatever the number of threads.
	var files [2][]byte
	for i, threads := range []int{1, 5} {
		_, g := saveLoRA(t, a, LoRAOptions{Rank: 5, Type: "f16", Threads: threads})
		files[i] = read(t, g.Path())
	}
	if !slices.Equal(files[0], files[1]) {
		t.Error("one thread and five write different files")
	}
}

func FuzzLoadLoRA(f *testing.F) {
	c := LoRADefault()
	c.Rank, c.Targets, c.Layers = 2, []string{"attn_k"}, []int{1}
	f.Add(read(f, save(f, trained(f, c, toy()))))
	scaled := c
	scaled.Targets, scaled.Layers, scaled.RSLoRA, scaled.Ranks, scaled.Alphas = []string{"attn_k", "ffn_up"}, []int{1},
		true, map[string]int{"blk.1.attn_k": 1}, map[string]float32{"blk.1.ffn_up": 3}
	f.Add(read(f, save(f, trained(f, scaled, toy()))))
	vera := trained(f, Config{Method: MethodVeRA, Rank: 2, Targets: c.Targets, Layers: c.Layers, DInitial: 0.1,
		Init: Uniform}, toy())
	exported := filepath.Join(f.TempDir(), "exported.gguf")
	if _, err := vera.SaveLoRA(f.Context(), exported, DefaultLoRA()); err != nil {
		f.Fatal(err)
	}
	f.Add(read(f, exported))
	path := filepath.Join(f.TempDir(), "fuzz.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		checkLoaded(t, path)
	})
}

func TestLoRAErrors(t *testing.T) {
	a := randomAdapter(t, toyConfig(), cutBase())
	good := LoRAOptions{Rank: 2, Type: "f16", Threads: 1}
	for name, test := range map[string]struct {
		o      LoRAOptions
		change func(l *Layer)
		words  []string
	}{
		"rank":          {LoRAOptions{Rank: 5, Type: "f16", Threads: 1}, nil, []string{"rank 5", "rank 4"}},
		"negative rank": {LoRAOptions{Rank: -1, Type: "f16", Threads: 1}, nil, []string{"rank -1"}},
		"type":          {LoRAOptions{Rank: 2, Type: "q4_0", Threads: 1}, nil, []string{"q4_0", "f32, f16 or q8_0"}},
		"threads":       {LoRAOptions{Rank: 2, Type: "f16", Threads: 0}, nil, []string{"threads 0"}},
		"NaN": {good, func(l *Layer) { l.LambdaB[3] = float32(math.NaN()) },
			[]string{"blk.1.ffn_down", "value 3", "NaN"}},
		"infinite": {good, func(l *Layer) { l.LambdaB[3] = math.MaxFloat32; l.LambdaD[0] = math.MaxFloat32 },
			[]string{"blk.1.ffn_down", "f16", "f32"}},
		"too large": {DefaultLoRA(), func(l *Layer) {
			l.LambdaB[3] = 1e30
		}, []string{"blk.1.ffn_down", "f16", "f32"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "lora.gguf")
			if err := os.WriteFile(path, []byte("what was there"), 0o600); err != nil {
				t.Fatal(err)
			}
			a := randomAdapter(t, a.Config, a.Base)
			if test.change != nil {
				test.change(&a.Layers[len(a.Layers)-1]) // the last, after the others were written
			}
			test.o.Overwrite = true
			_, err := a.SaveLoRA(t.Context(), path, test.o)
			wantError(t, err, append(test.words, "save LoRA")...)
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 ||
				string(read(t, path)) != "what was there" {
				t.Errorf("left in the folder: %v, %v", entries, err)
			}
		})
	}
}

// A folder that cannot be written to, and one that is not there, give an error and stay as they are.
func TestLoRAUnwritable(t *testing.T) {
	a := randomAdapter(t, toyConfig(), cutBase())
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	paths := []string{filepath.Join(dir, "absent", "lora.gguf"), "/proc/lora.gguf"}
	if os.Geteuid() > 0 { // nothing is read-only to root, and no folder on Windows
		paths = append(paths, filepath.Join(dir, "lora.gguf"))
	}
	for _, path := range paths {
		if _, err := a.SaveLoRA(t.Context(), path, DefaultLoRA()); err == nil ||
			!strings.Contains(err.Error(), "save LoRA") {
			t.Errorf("%s: error %v", path, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
