package vera

import (
	"bytes"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// baseOf describes a model to an adapter by what its file has.
func baseOf(t *testing.T, g *bindings.GGUF) Base {
	t.Helper()
	b := Base{Name: g.Path(), Fingerprint: "fingerprint of " + g.Path()}
	b.Architecture, _ = g.String("general.architecture")
	size := func(key string) int {
		n, _ := g.Uint(b.Architecture + "." + key)
		return int(n)
	}
	b.Blocks, b.HeadDim = size("block_count"), size("attention.key_length")
	if b.HeadDim == 0 {
		b.HeadDim = size("embedding_length") / size("attention.head_count")
	}
	if values := size("ssm.time_step_rank"); values > 0 {
		b.Delta = bindings.DeltaHeads{Keys: size("ssm.group_count"), Values: values, DimK: size("ssm.state_size"),
			DimV: size("ssm.inner_size") / values}
	}
	for block := range b.Blocks {
		for _, target := range Targets {
			l := Linear{Block: block, Target: target}
			if w, ok := g.Tensor(l.Name() + ".weight"); ok {
				l.In, l.Out = int(w.Shape[0]), int(w.Shape[1])
				b.Linears = append(b.Linears, l)
			}
		}
	}
	return b
}

// TestReferenceArchitectures reads PEFT's adapter of each architecture and writes the same, and exports adapters of all
// its layers.
func TestReferenceArchitectures(t *testing.T) {
	for _, folder := range testutil.Architectures(t) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			g := testutil.OpenGGUF(t, filepath.Join(folder, "model.gguf"))
			base, dir := baseOf(t, g), filepath.Join(folder, "peft")
			if _, known := hfModels[base.Architecture]; !known {
				t.Skipf("architecture %s is not in the table", base.Architecture)
			}
			a, err := Load(dir, base)
			if err != nil {
				t.Fatal(err)
			}
			tensors, err := safetensors.Deserialize(read(t, filepath.Join(dir, peftWeightsFile)))
			if err != nil {
				t.Fatal(err)
			}
			compareWithFile(t, a, tensors)
			out := savePEFT(t, a, true)
			if got, want := readConfig(t, out), readConfig(t, dir); !reflect.DeepEqual(got, want) {
				t.Errorf("configuration %v, want %v", got, want)
			}
			if !bytes.Equal(tensorBytes(t, out), tensorBytes(t, dir)) {
				t.Error("other bytes of the tensors")
			}
			checkRoundTrip(t, a, true)

			for name, c := range map[string]Config{"vera": toyConfig(),
				"lora": {Method: MethodLoRA, Rank: 3, Alpha: 5}} {
				t.Run(name, func(t *testing.T) {
					checkRoundTrip(t, trained(t, c, base), false)
					checkExports(t, c, base, g)
				})
			}
		})
	}
}

// A summary, which knows no model, finds the targets of each architecture's names.
func TestModulesBack(t *testing.T) {
	for name, h := range hfModels {
		for target := range h.modules {
			l := Linear{Block: 3, Target: target}
			for _, blocks := range append(slices.Clone(withImages), h.blocks) {
				h.blocks = blocks
				if block, found := place(h.path(l)); block != 3 || found != target {
					t.Errorf("%s: %s is block %d, %s", name, h.path(l), block, found)
				}
			}
		}
	}
	if block, target := place("vision_tower.layers.0.self_attn.q_proj"); block != -1 {
		t.Errorf("a layer outside the blocks is block %d, %s", block, target)
	}
}

// gpt2Base describes a GPT-2 of two blocks.
func gpt2Base() Base {
	b := Base{Architecture: "gpt2", Blocks: 2, HeadDim: 4, Name: "gpt2", Fingerprint: "fingerprint of gpt2"}
	for i := range b.Blocks {
		b.Linears = append(b.Linears, Linear{i, "attn_qkv", 16, 48}, Linear{i, "attn_output", 16, 16},
			Linear{i, "ffn_up", 16, 64}, Linear{i, "ffn_down", 64, 16})
	}
	return b
}

// Both c_proj of GPT-2 have one name, and are told apart where only one is adapted.
func TestModulesOfOneName(t *testing.T) {
	for _, test := range []struct {
		change  func(*Config)
		modules []string
	}{
		{func(*Config) {}, []string{"c_attn", "c_proj", "c_fc"}},
		{func(c *Config) { c.Targets = []string{"ffn_down", "attn_qkv"} }, []string{"c_attn", "mlp.c_proj"}},
		{func(c *Config) { c.Targets, c.Layers = []string{"attn_output"}, []int{1} }, []string{"attn.c_proj"}},
		{func(c *Config) { c.Targets = []string{"ffn_up", "blk.1.ffn_down"} },
			[]string{"c_fc", "transformer.h.1.mlp.c_proj"}},
	} {
		c := toyConfig()
		test.change(&c)
		a := trained(t, c, gpt2Base())
		if got := a.peftTargets(); !slices.Equal(got, test.modules) {
			t.Errorf("%v are written as %v, want %v", a.Targets, got, test.modules)
		}
		checkRoundTrip(t, a, false)
	}
	lora := Config{Method: MethodLoRA, Rank: 4, Alpha: 8, Ranks: map[string]int{"blk.0.attn_output": 2,
		"blk.1.attn_output": 2, "blk.1.ffn_down": 3}}
	a := trained(t, lora, gpt2Base())
	if got := peftPattern(a, a.Ranks); !reflect.DeepEqual(got, map[string]int{"attn.c_proj": 2, "h.1.mlp.c_proj": 3}) {
		t.Errorf("ranks are written as %v", got)
	}
	checkRoundTrip(t, a, false)
}

// TestPEFTOfArchitectures selects layers by PEFT's names of other architectures than Llama's.
func TestPEFTOfArchitectures(t *testing.T) {
	for name, test := range map[string]struct {
		base    Base
		modules any
		targets []string
		layers  []int
	}{
		"fused":      {fused(), []string{"qkv_proj", "gate_up_proj"}, []string{"attn_qkv", "ffn_up"}, nil},
		"fused, all": {fused(), "all-linear", fused().Targets(), nil},
		"pattern": {gpt2Base(), `transformer\.h\.1\.(attn\.c_attn|mlp\.c_fc)`,
			[]string{"attn_qkv", "ffn_up"}, []int{1}},
		"one name": {gpt2Base(), []string{"c_proj"}, []string{"attn_output", "ffn_down"}, nil},
		"single paths": {gpt2Base(), []string{"transformer.h.0.attn.c_proj", "h.1.mlp.c_fc"},
			[]string{"blk.0.attn_output", "blk.1.ffn_up"}, nil},
		"all-linear": {gpt2Base(), "all-linear", gpt2Base().Targets(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := toyConfig()
			c.Targets, c.Layers = test.targets, test.layers
			a := trained(t, c, test.base)
			p := peftOf(t, a)
			p.config["target_modules"], p.config["layers_to_transform"] = test.modules, nil
			b, err := Load(p.write(t), test.base)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Params, b.Params) || !slices.Equal(a.Targets, b.Targets) ||
				!slices.Equal(a.Config.Layers, b.Config.Layers) {
				t.Errorf("%v of blocks %v", b.Targets, b.Config.Layers)
			}
		})
	}
	p := peftOf(t, trained(t, toyConfig(), fused()))
	p.config["target_modules"] = []string{"q_proj", "v_proj"}
	_, err := Load(p.write(t), fused())
	wantError(t, err, "no linear layer", "fused")
	p = peftOf(t, trained(t, toyConfig(), gpt2Base()))
	p.config["target_modules"] = []string{"c_attn", "wte"}
	_, err = Load(p.write(t), gpt2Base())
	wantError(t, err, "transformer.wte", "embedding")
}

// Where the model is part of one that also takes images, its blocks have another path.
func TestPEFTBesideImages(t *testing.T) {
	base := toy()
	base.Architecture = "gemma3"
	for method, a := range map[string]*Adapter{"vera": trained(t, toyConfig(), base),
		"lora": trained(t, LoRADefault(), base)} {
		for _, blocks := range withImages {
			t.Run(method+" "+blocks, func(t *testing.T) {
				out := savePEFT(t, a, false)
				p := peft{config: readConfig(t, out), tensors: map[string]safetensors.TensorView{}}
				p.config["target_modules"] = `.*language_model.*\.[a-z]+_proj`
				tensors, err := safetensors.Deserialize(read(t, filepath.Join(out, peftWeightsFile)))
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range tensors.Names() {
					p.tensors[strings.Replace(name, "model.layers", blocks, 1)], _ = tensors.Tensor(name)
				}
				dir := p.write(t)
				b, err := Load(dir, base)
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(a.Params, b.Params) {
					t.Error("other numbers")
				}
				if s, err := Summarize(dir); err != nil || s.Layers[0].Target != "attn_q" {
					t.Errorf("summary %+v: %v", s, err)
				}
				p.tensors[strings.Replace(peftPrefix+blocks, "language_model", "vision_tower",
					1)+".0.self_attn.q_proj.vera_lambda_b"] = tensor(t, make([]float32, 4), 4)
				_, err = Load(p.write(t), base)
				wantError(t, err, "vision_tower")
			})
		}
	}
}
