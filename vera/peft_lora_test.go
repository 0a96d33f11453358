package vera

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nlpodyssey/safetensors"
	"gonum.org/v1/gonum/mat"
)

// foreignLoRA is the folder of a LoRA in memory, as PEFT saves one of a rank for each module.
func foreignLoRA(t testing.TB, base Base, ranks map[string]int, options string) peft {
	t.Helper()
	p := peft{config: map[string]any{}, tensors: map[string]safetensors.TensorView{}}
	common := `{"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "toy-hf", "peft_version": ` +
		`"0.21.2", "bias": "none", "init_lora_weights": true, "use_dora": false, "eva_config": null}`
	for _, text := range []string{common, "{" + options + "}"} {
		raw := map[string]json.RawMessage{} // keeps the order of patterns
		if err := json.Unmarshal([]byte(text), &raw); err != nil {
			t.Fatal(err)
		}
		for key, value := range raw {
			p.config[key] = value
		}
	}
	random := rand.New(rand.NewPCG(7, 7))
	for _, l := range base.Linears {
		rank := ranks[base.Module(l)]
		if rank == 0 {
			continue
		}
		draw := func(n int) []float32 {
			values := make([]float32, n)
			for i := range values {
				values[i] = float32(random.NormFloat64())
			}
			return values
		}
		p.tensors[peftPrefix+base.Module(l)+peftLoRAA] = tensor(t, draw(rank*l.In), uint64(rank), uint64(l.In))
		p.tensors[peftPrefix+base.Module(l)+peftLoRAB] = tensor(t, draw(l.Out*rank), uint64(l.Out), uint64(rank))
	}
	return p
}

// of is a matrix of the file.
func (p peft) of(name string) *mat.Dense {
	v := p.tensors[name]
	values := make([]float32, v.DataLen()/4)
	for i := range values {
		values[i] = float32FromBytes(v.Data()[4*i:])
	}
	return mat.NewDense(int(v.Shape()[0]), int(v.Shape()[1]), widened(values))
}

func float32FromBytes(b []byte) float32 {
	return math.Float32frombits(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
}

// hfPath is a module's path.
func hfPath(block int, target string) string {
	return toy().Module(Linear{Block: block, Target: target})
}

// some gives modules a rank each.
func some(rank int, blocks []int, targets ...string) map[string]int {
	ranks := map[string]int{}
	for _, block := range blocks {
		for _, target := range targets {
			ranks[hfPath(block, target)] = rank
		}
	}
	return ranks
}

// TestPEFTLoRAIsRead compares ΔW of every layer with scale · B A, in the row order of Hugging Face's weights, for each
// of PEFT's options.
func TestPEFTLoRAIsRead(t *testing.T) {
	all, mixed := []int{0, 1, 2}, some(4, []int{0, 1, 2}, "attn_q", "attn_k")
	mixed[hfPath(1, "attn_k")], mixed[hfPath(2, "attn_q")], mixed[hfPath(2, "attn_k")] = 2, 6, 6
	scales := func(alpha float64) func(string, int) float64 {
		return func(_ string, rank int) float64 { return alpha / float64(rank) }
	}
	for name, test := range map[string]struct {
		options string
		ranks   map[string]int
		scale   func(path string, rank int) float64
	}{
		"PEFT's defaults": {`"target_modules": ["q_proj"]`, some(8, all, "attn_q"), scales(8)},
		"rank and alpha": {`"target_modules": ["q_proj", "v_proj"], "r": 3, "lora_alpha": 16`,
			some(3, all, "attn_q", "attn_v"), scales(16)},
		"alpha of half": {`"target_modules": ["q_proj"], "r": 2, "lora_alpha": 0.5`, some(2, all, "attn_q"),
			scales(0.5)},
		"rslora": {`"target_modules": ["q_proj", "k_proj"], "r": 3, "lora_alpha": 16, "use_rslora": true`,
			some(3, all, "attn_q", "attn_k"),
			func(_ string, rank int) float64 { return 16 / math.Sqrt(float64(rank)) }},
		"patterns": {`"target_modules": ["q_proj", "k_proj"], "r": 4, "lora_alpha": 16, "rank_pattern": {"layers.1.self_attn.k_proj": 2, "^model\\.layers\\.2.*": 6},
			"alpha_pattern": {"k_proj": 5}`, mixed, func(path string, rank int) float64 {
			if strings.HasSuffix(path, "k_proj") {
				return 5 / float64(rank)
			}
			return 16 / float64(rank)
		}},
		"patterns of rslora": {`"target_modules": ["q_proj", "k_proj"], "r": 4, "lora_alpha": 16, "use_rslora": ` +
			`true, "rank_pattern": {"model.layers.1.self_attn.k_proj": 2, "layers.2.self_attn.(q|k)_proj": 6}`,
			mixed, func(_ string, rank int) float64 { return 16 / math.Sqrt(float64(rank)) }},
		"first pattern": {`"target_modules": ["q_proj"], "r": 4, "lora_alpha": 16, "rank_pattern": {"z|q_proj": 2, ` +
			`"self_attn.q_proj": 3, "proj": 9}`, some(2, all, "attn_q"), scales(16)},
		"layer 0": {`"target_modules": ["q_proj"], "layers_to_transform": 0`, some(8, []int{0}, "attn_q"),
			scales(8)},
		"layers 0": {`"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"`,
			some(8, []int{0}, "attn_q"), scales(8)},
		"regex": {`"target_modules": ".*layers\\.[02]\\.(self_attn\\.k_proj|mlp\\.(up|down)_proj)"`,
			some(8, []int{0, 2}, "attn_k", "ffn_up", "ffn_down"), scales(8)},
		"all but": {`"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj", "gate_proj", ` +
			`"down_proj", "o_proj"]`, some(8, all, "attn_q", "attn_k", "attn_v"), scales(8)},
		"not by regex": {`"target_modules": ["q_proj", "k_proj"], "exclude_modules": ".*\\.1\\..*"`,
			some(8, []int{0, 2}, "attn_q", "attn_k"), scales(8)},
		"EVA": {`"target_modules": ["q_proj"], "init_lora_weights": "eva", "eva_config": {"rho": 2.0}`,
			some(8, all, "attn_q"), scales(8)},
	} {
		t.Run(name, func(t *testing.T) {
			p := foreignLoRA(t, toy(), test.ranks, test.options)
			a, err := Load(p.write(t), toy())
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Layers) != len(test.ranks) {
				t.Errorf("%d layers, want %d", len(a.Layers), len(test.ranks))
			}
			for i := range a.Layers {
				l := &a.Layers[i]
				var want mat.Dense
				want.Mul(p.of(peftPrefix+a.Base.Module(l.Linear)+peftLoRAB),
					p.of(peftPrefix+a.Base.Module(l.Linear)+peftLoRAA))
				want.Scale(test.scale(a.Base.Module(l.Linear), test.ranks[a.Base.Module(l.Linear)]), &want)
				got := delta(a, l)
				rows, columns := a.Base.Orders(l.Target)
				values := HFRows(got.RawMatrix().Data, l.Out, rows)
				for at := 0; at < len(values); at += l.In {
					copy(values[at:], HFRows(values[at:at+l.In], l.In, columns))
				}
				got = mat.NewDense(l.Out, l.In, values)
				if e := off(got, &want); !(e <= 1e-6) {
					t.Errorf("%s is off by %.2g", l.Name(), e)
				}
			}
			checkRoundTrip(t, a, false)
			again, err := Load(save(t, a), toy())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(tensorBytes(t, savePEFT(t, again, false)), tensorBytes(t, p.write(t))) {
				t.Error("the way through a native file and back to PEFT gives other bytes")
			}
			s, err := Summarize(p.write(t))
			if err != nil || s.Method != "lora" || s.Format != "PEFT" || s.Rank != a.Rank ||
				s.Trained != len(a.Params) || s.RSLoRA != a.RSLoRA {
				t.Errorf("summary %+v, %v", s, err)
			}
		})
	}
}

// Files may leave out PEFT's prefix, or name the adapter.
func TestPEFTLoRANames(t *testing.T) {
	const options = `"target_modules": ["q_proj"]`
	p := foreignLoRA(t, toy(), some(8, []int{0, 1, 2}, "attn_q"), options)
	want, err := Load(p.write(t), toy())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(string) string{
		"no prefix": func(s string) string { return strings.TrimPrefix(s, peftPrefix) },
		"default":   func(s string) string { return strings.Replace(s, ".weight", ".default.weight", 1) },
	} {
		other := peft{p.config, map[string]safetensors.TensorView{}}
		for tensor, v := range p.tensors {
			other.tensors[change(tensor)] = v
		}
		a, err := Load(other.write(t), toy())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !slices.Equal(a.Params, want.Params) {
			t.Errorf("%s: other numbers", name)
		}
		maps.Copy(other.tensors, p.tensors)
		_, err = Load(other.write(t), toy())
		wantError(t, err, "same matrix", "q_proj.lora_A")
	}
}

// A LoRA of ranks and scales of its own comes back from PEFT's format to the byte.
func TestPEFTLoRARoundTrip(t *testing.T) {
	for name, change := range methods {
		c := toyConfig()
		if change(&c); c.Method == MethodLoRA {
			t.Run(name, func(t *testing.T) { checkRoundTrip(t, trained(t, c, toy()), false) })
		}
	}
	t.Run("a kind", func(t *testing.T) {
		c := LoRADefault()
		c.Ranks = map[string]int{}
		for block := range 3 {
			c.Ranks[Linear{Block: block, Target: "attn_q"}.Name()] = 8
		}
		a := trained(t, c, toy())
		if pattern := readConfig(t, savePEFT(t, a, false))["rank_pattern"]; fmt.Sprint(pattern) != "map[q_proj:8]" {
			t.Errorf("rank_pattern is %v", pattern)
		}
		checkRoundTrip(t, a, false)
	})
}

func TestPEFTLoRARefuses(t *testing.T) {
	const q0 = peftPrefix + "model.layers.0.self_attn.q_proj"
	ranks := some(8, []int{0, 1, 2}, "attn_q", "attn_v")
	set := func(key string, value any) func(peft) { return func(p peft) { p.config[key] = value } }
	add := func(name string, shape ...uint64) func(peft) {
		return func(p peft) {
			n := uint64(1)
			for _, size := range shape {
				n *= size
			}
			p.tensors[name] = tensor(t, make([]float32, n), shape...)
		}
	}
	for name, test := range map[string]struct {
		change func(peft)
		words  []string
	}{
		"DoRA":            {set("use_dora", true), []string{"use_dora", "magnitude"}},
		"bias":            {set("bias", "lora_only"), []string{"bias", "lora_only"}},
		"biases of B":     {set("lora_bias", true), []string{"lora_bias"}},
		"modules to save": {set("modules_to_save", []string{"lm_head"}), []string{"modules_to_save", "lm_head"}},
		"QALoRA":          {set("use_qalora", true), []string{"use_qalora"}},
		"replication":     {set("layer_replication", [][]int{{0, 2}, {1, 3}}), []string{"layer_replication"}},
		"tokens":          {set("trainable_token_indices", []int{3}), []string{"trainable_token_indices"}},
		"parameters": {set("target_parameters", []string{"mlp.experts.gate_up_proj"}),
			[]string{"target_parameters"}},
		"Megatron":       {set("megatron_config", map[string]any{"x": 1}), []string{"megatron_config"}},
		"aLoRA":          {set("alora_invocation_tokens", []int{1, 2}), []string{"alora_invocation_tokens"}},
		"a later option": {set("use_wonder", true), []string{"use_wonder", "not known"}},
		"PiSSA": {set("init_lora_weights", "pissa_niter_16"),
			[]string{"init_lora_weights", "pissa_niter_16", "path_initial_model_for_weight_conversion"}},
		"OLoRA": {set("init_lora_weights", "olora"), []string{"init_lora_weights", "olora"}},
		"LoftQ": {set("init_lora_weights", "loftq"), []string{"init_lora_weights", "loftq"}},
		"CorDA": {set("init_lora_weights", "corda"), []string{"init_lora_weights", "corda"}},
		"head": {set("target_modules", []string{"q_proj", "v_proj", "lm_head"}),
			[]string{"lm_head", "output head"}},
		"embedding": {set("target_modules", []string{"q_proj", "v_proj", "embed_tokens"}),
			[]string{"embed_tokens", "embedding"}},
		"nothing left": {set("exclude_modules", []string{"q_proj", "v_proj"}), []string{"exclude_modules", "toy"}},
		"regex of layers": {func(p peft) {
			p.config["target_modules"], p.config["layers_to_transform"] = ".*q_proj", 0
		}, []string{"target_modules", "layers_to_transform"}},
		"rank 0":  {set("r", 0), []string{"rank 0"}},
		"alpha 0": {set("lora_alpha", 0), []string{"alpha 0"}},
		"pattern's rank": {set("rank_pattern", map[string]int{"q_proj": 3}),
			[]string{"q_proj.lora_A.weight", "[8 16]", "[3 16]"}},
		"broken pattern": {set("rank_pattern", map[string]int{"(q_proj": 3}), []string{"rank_pattern"}},
		"endless pattern": {set("alpha_pattern", map[string]int{"([a-z0-9_.]+)+[A-Z]": 3}),
			[]string{"alpha_pattern", "timeout"}},
		"rank as text": {set("rank_pattern", map[string]string{"q_proj": "3"}),
			[]string{"adapter_config.json", "q_proj"}},
		"list of ranks": {set("rank_pattern", []int{3}), []string{"adapter_config.json", "object"}},
		"fewer layers":  {set("layers_to_transform", 0), []string{"layers.1", "does not select"}},
		"more targets": {set("target_modules", []string{"q_proj", "k_proj", "v_proj"}),
			[]string{"k_proj.lora_A.weight", "missing"}},
		"embedding's LoRA": {add(peftPrefix+"model.embed_tokens.lora_embedding_A", 8, 4),
			[]string{"model.embed_tokens.lora_embedding_A"}},
		"whole embedding": {add(peftPrefix+"model.embed_tokens.weight", 8, 4),
			[]string{"model.embed_tokens.weight", "no linear layer"}},
		"head's LoRA": {add(peftPrefix+"lm_head.lora_A.weight", 8, 4),
			[]string{"lm_head.lora_A.weight", "no linear layer"}},
		"norm": {add(peftPrefix+"model.layers.1.input_layernorm.weight", 16),
			[]string{"input_layernorm.weight"}},
		"magnitude": {add(q0+".lora_magnitude_vector.weight", 16), []string{"lora_magnitude_vector"}},
		"block that is not": {add(peftPrefix+"model.layers.3.self_attn.q_proj.lora_A.weight", 8, 16),
			[]string{"layers.3"}},
		"half a pair": {func(p peft) { delete(p.tensors, q0+peftLoRAB) }, []string{q0 + peftLoRAB, "missing"}},
		"shape":       {add(q0+peftLoRAB, 16, 7), []string{q0 + peftLoRAB, "[16 7]", "[16 8]"}},
		"NaN": {func(p peft) {
			p.tensors[q0+peftLoRAA] = tensor(t, slices.Repeat([]float32{float32(math.NaN())}, 128), 8, 16)
		}, []string{q0 + peftLoRAA, "NaN"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := foreignLoRA(t, toy(), ranks, `"target_modules": ["q_proj", "v_proj"]`)
			test.change(p)
			dir := p.write(t)
			_, err := Load(dir, toy())
			wantError(t, err, append(test.words, dir)...)
		})
	}
}
