package vera

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/veratune/veratune/bindings"
)

// methods are the configurations beside plain VeRA.
var methods = map[string]func(*Config){
	"lora": func(c *Config) {
		seed := c.Seed
		*c = LoRADefault()
		c.Rank, c.Seed = 4, seed
	},
	"lora of some layers": func(c *Config) {
		*c = LoRADefault()
		c.Rank, c.Targets, c.Layers, c.Dropout = 3, []string{"attn_q", "attn_k", "ffn_up"}, []int{0, 2}, 0.125
	},
	"lora of ranks": func(c *Config) {
		*c = LoRADefault()
		c.Rank, c.Ranks = 5, map[string]int{"blk.0.attn_q": 2, "blk.0.attn_v": 1, "blk.1.attn_k": 4,
			"blk.1.ffn_down": 3}
	},
	"lora of alphas": func(c *Config) {
		*c = LoRADefault()
		c.Rank, c.Alphas = 3, map[string]float32{"blk.1.attn_q": 7, "blk.1.ffn_up": 0.3}
	},
	"rslora of ranks and alphas": func(c *Config) {
		*c = LoRADefault()
		c.Rank, c.RSLoRA = 3, true
		c.Ranks, c.Alphas = map[string]int{"blk.0.attn_output": 2, "blk.1.attn_q": 1},
			map[string]float32{"blk.1.attn_q": 7}
	},
	"lora of rank 1": func(c *Config) { *c = LoRADefault(); c.Rank = 1 },
	"only b":         func(c *Config) { c.Only = "b" },
	"only d":         func(c *Config) { c.Only = "d" },
	"unique pairs":   func(c *Config) { c.UniquePairs = true },
}

func TestMethodsComeBack(t *testing.T) {
	for name, change := range methods {
		t.Run(name, func(t *testing.T) {
			c := toyConfig()
			change(&c)
			a := trained(t, c, toy())
			if len(a.Params) != TrainableCount(c, toy()) {
				t.Errorf("%d numbers, want %d", len(a.Params), TrainableCount(c, toy()))
			}
			path := save(t, a)
			b, err := Load(path, toy())
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(a.Config, b.Config) {
				t.Errorf("%+v comes back as %+v", a.Config, b.Config)
			}
			for i, l := range a.Layers {
				other := b.Layers[i]
				if !slices.Equal(l.LambdaB, other.LambdaB) || !slices.Equal(l.LambdaD, other.LambdaD) ||
					!slices.Equal(l.Pair.A, other.Pair.A) || !slices.Equal(l.Pair.B, other.Pair.B) {
					t.Errorf("%s has other numbers", l.Name())
				}
			}
			if !slices.Equal(read(t, save(t, b)), read(t, path)) {
				t.Error("saved again it is another file")
			}
			if s, err := Summarize(path); err != nil || s.Trained != len(a.Params) || s.Rank != c.Rank {
				t.Errorf("summary %+v: %v", s, err)
			}
		})
	}
}

// TestMethodsBegin checks that a new adapter changes nothing, and that something can move.
func TestMethodsBegin(t *testing.T) {
	for name, change := range methods {
		c := toyConfig()
		change(&c)
		a := mustNew(t, c, toy())
		for i := range a.Layers {
			l := &a.Layers[i]
			up, down := a.Factors(l)
			if largest(up) != 0 && largest(down) != 0 {
				t.Errorf("%s: %s is changed before training", name, l.Name())
			}
			if largest(up) == 0 && largest(down) == 0 {
				t.Errorf("%s: %s has no gradient", name, l.Name())
			}
		}
	}
	lora, other := mustNew(t, LoRADefault(), toy()), mustNew(t, LoRADefault(), toy())
	if !slices.Equal(lora.Params, other.Params) {
		t.Error("the same seed draws another LoRA")
	}
	bound, a := 1/math.Sqrt(16), lora.Layers[0].Pair.A
	if most := float64(largest(a)); most > bound || most < 0.95*bound {
		t.Errorf("A is drawn up to %g, want ±%g", most, bound)
	}
	unique := toyConfig()
	unique.UniquePairs = true
	if v := mustNew(t, unique, toy()); slices.Equal(v.Layers[0].Pair.A, v.Layers[1].Pair.A) {
		t.Error("two layers have the same pair")
	}
}

// TestSeedsOfUniquePairs holds the pairs to those of adapters that are in use.
func TestSeedsOfUniquePairs(t *testing.T) {
	c := toyConfig()
	c.UniquePairs = true
	if got := mustNew(t, c, toy()).pairDigest(); got !=
		"43d4bbc7b43fc8c45ac58216f8be01b203e25df18ee2901f0633644f39d56513" {
		t.Errorf("other pairs: %s", got)
	}
	base := fused()
	for _, l := range mustNew(t, c, base).Layers {
		if want := NewPair(c.Init, c.Seed+uint32(7*l.Block+map[string]int{"attn_qkv": 0, "attn_output": 3, "ffn_up": 5,
			"ffn_down": 6}[l.Target]), c.Rank, l.In, l.Out); !slices.Equal(l.Pair.A, want.A) {
			t.Errorf("%s has another pair", l.Name())
		}
	}
}

// TestMethodsExport exports an adapter of each method.
func TestMethodsExport(t *testing.T) {
	for name, change := range methods {
		t.Run(name, func(t *testing.T) {
			base, b := tinyBase(t, bindings.F32)
			c := toyConfig()
			change(&c)
			c.Layers = nil
			checkExports(t, c, b, base)
		})
	}
}

// checkExports holds the factors, the LoRA of llama.cpp and the merged file of a random adapter to ΔW = diag(b) B
// diag(d) A.
func checkExports(t *testing.T, c Config, b Base, file *bindings.GGUF) {
	t.Helper()
	a := mustNew(t, c, b)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range a.Params {
		a.Params[i] = float32(random.NormFloat64()) / 4
	}
	_, g := saveLoRA(t, a, LoRAOptions{Type: "f32", Threads: 1})
	again, err := Load(g.Path(), b)
	if err != nil {
		t.Fatal(err)
	}
	merged, _ := saveMerged(t, a, file, keep())
	for i := range a.Layers {
		l := &a.Layers[i]
		want := delta(a, l)
		if e := off(delta(again, again.Layer(l.Block, l.Target)), want); e > 1e-6 {
			t.Errorf("%s as a LoRA is off by %.1g", l.Name(), e)
		}
		w, got := floats(t, file, l.Name()+".weight"), floats(t, merged, l.Name()+".weight")
		for j := range got {
			if e := math.Abs(float64(got[j]-w[j]) - want.At(j/l.In, j%l.In)); e > 1e-5 {
				t.Fatalf("%s merged: element %d is off by %.1g", l.Name(), j, e)
			}
		}
	}
}

func TestMethodsRefuse(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		words  []string
	}{
		{func(c *Config) { c.Method = "qlora" }, []string{"qlora", "vera, lora"}},
		{func(c *Config) { *c = LoRADefault(); c.Alpha = 0 }, []string{"alpha 0"}},
		{func(c *Config) { *c = LoRADefault(); c.Only = "b" }, []string{"only", "VeRA"}},
		{func(c *Config) { c.RSLoRA = true }, []string{"rslora", "VeRA"}},
		{func(c *Config) { *c = LoRADefault(); c.Ranks = map[string]int{"blk.0.attn_q": 0} },
			[]string{"rank 0", "blk.0.attn_q"}},
		{func(c *Config) { *c = LoRADefault(); c.Ranks = map[string]int{"blk.9.attn_q": 2} },
			[]string{"blk.9.attn_q", "adapted layer"}},
		{func(c *Config) { *c = LoRADefault(); c.Alphas = map[string]float32{"blk.1.ffn_up": -1} },
			[]string{"alpha -1", "blk.1.ffn_up"}},
		{func(c *Config) { c.Only = "A" }, []string{`only "A"`, "b or d"}},
	} {
		config := toyConfig()
		c.change(&config)
		_, err := New(config, toy())
		wantError(t, err, c.words...)
	}
	c := toyConfig()
	c.UniquePairs = true
	wantError(t, mustNew(t, c, toy()).SavePEFT(filepath.Join(t.TempDir(), "p"), true), "one for each", "LoRA")

	// A LoRA of other weights than the linear layers of blocks.
	a := trained(t, LoRADefault(), toy())
	path := changed(t, save(t, a), func(f *content) {
		first := &f.tensors[0]
		f.data["token_embd.weight.lora_a"] = f.data[first.Name]
		first.Name = "token_embd.weight.lora_a"
	})
	_, err := Load(path, toy())
	wantError(t, err, "token_embd.weight.lora_a", "no linear layer")
	path = changed(t, path, func(f *content) {
		for i := range 5 {
			f.data["blk."+strconv.Itoa(i)+".attn_norm.weight"] = f.data["token_embd.weight.lora_a"]
			extra := f.tensors[0]
			extra.Name = "blk." + strconv.Itoa(i) + ".attn_norm.weight"
			f.tensors = append(f.tensors, extra)
		}
	})
	_, err = Load(path, toy())
	wantError(t, err, "tensors blk.0.attn_norm.weight, blk.1.attn_norm.weight", "and 2 more")
	a.Layers[2].Pair.B[3] = float32(math.NaN())
	wantError(t, a.Save(filepath.Join(t.TempDir(), "a.gguf")), "blk.0.attn_v.weight.lora_b", "NaN")
}

// What is trained lies in Params end to end, and nothing else does.
func TestTrained(t *testing.T) {
	for name, change := range methods {
		c := toyConfig()
		change(&c)
		a := mustNew(t, c, toy())
		at := 0
		var parts []string
		for p := range a.Trained {
			if &p.Values[0] != &a.Params[at] || a.Offset(p.Values) != at {
				t.Fatalf("%s: %s of %s is not at %d", name, p.Part, p.Name(), at)
			}
			at += len(p.Values)
			parts = append(parts, p.Part)
		}
		want := []string{"b", "d"}
		switch {
		case c.Method == MethodLoRA:
			want = []string{"lora_a", "lora_b"}
		case c.Only != "":
			want = []string{c.Only}
		}
		if at != len(a.Params) || len(parts) != len(want)*len(a.Layers) || !slices.Equal(parts[:len(want)], want) {
			t.Errorf("%s: %d parts that begin with %v, %d of %d numbers", name, len(parts), parts[:len(want)], at,
				len(a.Params))
		}
	}
}
