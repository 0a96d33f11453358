package vera

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nlpodyssey/safetensors"
)

// peft is the folder of a PEFT adapter in memory.
type peft struct {
	config  map[string]any
	tensors map[string]safetensors.TensorView
}

func tensor(t testing.TB, values []float32, shape ...uint64) safetensors.TensorView {
	t.Helper()
	v, err := safetensors.NewTensorView(safetensors.F32, shape, appendFloats(nil, values))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// peftOf is what PEFT would save of an adapter, without projections.
func peftOf(t testing.TB, a *Adapter) peft {
	t.Helper()
	var targets []string
	for _, target := range a.Targets {
		if path, ok := gatedModules[target]; ok {
			targets = append(targets, path)
		}
	}
	p := peft{tensors: map[string]safetensors.TensorView{}, config: map[string]any{
		"peft_type": "VERA", "r": a.Rank, "target_modules": targets, "projection_prng_key": a.Seed,
		"d_initial":    a.DInitial,
		"vera_dropout": a.Dropout, "save_projection": false, "bias": "none", "fan_in_fan_out": false,
		"layers_to_transform": nil,
		"layers_pattern":      nil, "modules_to_save": nil, "base_model_name_or_path": "toy-hf",
		"peft_version": "0.21.2",
	}}
	if len(a.Config.Layers) > 0 {
		p.config["layers_to_transform"] = a.Config.Layers
	}
	for _, l := range a.Layers {
		b := l.LambdaB
		rows, _ := a.Base.Orders(l.Target)
		b = HFRows(b, l.Out, rows)
		p.tensors[peftPrefix+a.Base.Module(l.Linear)+peftB] = tensor(t, b, uint64(l.Out))
		p.tensors[peftPrefix+a.Base.Module(l.Linear)+peftD] = tensor(t, l.LambdaD, uint64(a.Rank))
	}
	return p
}

func (p peft) addPair(t testing.TB, pair *Pair) {
	t.Helper()
	p.config["save_projection"] = true
	p.tensors[peftPairA] = tensor(t, pair.A, uint64(pair.Rank), uint64(pair.MaxIn))
	p.tensors[peftPairB] = tensor(t, pair.B, uint64(pair.MaxOut), uint64(pair.Rank))
}

func (p peft) bytes(t testing.TB) (config, weights []byte) {
	t.Helper()
	config, err := json.Marshal(p.config)
	if err != nil {
		t.Fatal(err)
	}
	weights, err = safetensors.Serialize(p.tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	return config, weights
}

func (p peft) write(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	config, weights := p.bytes(t)
	writeFolder(t, dir, config, weights)
	return dir
}

func writeFolder(t testing.TB, dir string, config, weights []byte) {
	t.Helper()
	for name, data := range map[string][]byte{"adapter_config.json": config, "adapter_model.safetensors": weights} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPEFTIsRead(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	for _, projections := range []bool{false, true} {
		p := peftOf(t, a)
		if projections {
			p.addPair(t, a.Pair)
		}
		b, err := Load(p.write(t), toy())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Params, b.Params) || b.Rank != a.Rank || b.Seed != a.Seed || b.Dropout != a.Dropout ||
			b.DInitial != a.DInitial || b.Init != KaimingUniform {
			t.Errorf("projections %v: read as %+v", projections, b)
		}
		// A pair that is the seed's is known to be so, and native files leave it out.
		if b.Pair.SHA256() != a.Pair.SHA256() || b.Pair.origin != a.Pair.origin {
			t.Errorf("projections %v: another pair", projections)
		}
		if b.Facts["peft_base_model"] != "toy-hf" || b.Facts["peft_version"] != "0.21.2" {
			t.Errorf("facts %v", b.Facts)
		}
	}
}

// Projections of a file are the pair, whatever the seed says, also after a round trip through a native file.
func TestPEFTForeignProjections(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	foreign := NewPair(KaimingUniform, 1234, a.Rank, a.MaxIn, a.MaxOut)
	p := peftOf(t, a)
	p.addPair(t, foreign)
	b, err := Load(p.write(t), toy())
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(save(t, b), toy())
	if err != nil {
		t.Fatal(err)
	}
	for _, loaded := range []*Adapter{b, c} {
		if loaded.Seed != a.Seed || loaded.Pair.SHA256() != foreign.SHA256() {
			t.Errorf("seed %d and pair %s; want %d and %s", loaded.Seed, loaded.Pair.SHA256(), a.Seed, foreign.SHA256())
		}
	}
}

func TestPEFTTypes(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	for i := range a.Params {
		a.Params[i] = float32(i%128)/8 - 4 // exact in 8 significant bits
	}
	for kind, bits := range map[safetensors.DType]func(float32) uint16{
		safetensors.BF16: func(v float32) uint16 { return uint16(math.Float32bits(v) >> 16) },
		safetensors.F16: func(v float32) uint16 {
			if v == 0 {
				return 0
			}
			w := math.Float32bits(v) // normal in float16, so only the exponent's bias changes
			return uint16(w>>16&0x8000 | (w>>23&0xff-127+15)<<10 | w>>13&0x3ff)
		},
	} {
		p := peftOf(t, a)
		for name, v := range p.tensors {
			var data []byte
			for i := 0; i < len(v.Data()); i += 4 {
				data = binary.LittleEndian.AppendUint16(data,
					bits(math.Float32frombits(binary.LittleEndian.Uint32(v.Data()[i:]))))
			}
			half, err := safetensors.NewTensorView(kind, v.Shape(), data)
			if err != nil {
				t.Fatal(err)
			}
			p.tensors[name] = half
		}
		b, err := Load(p.write(t), toy())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Params, b.Params) {
			t.Errorf("%v: other values", kind)
		}
	}
}

// What PEFT's options select, on a toy of three blocks.
func TestPEFTSelection(t *testing.T) {
	attention := []string{"attn_q", "attn_k", "attn_v"}
	for name, test := range map[string]struct {
		config  string
		targets []string
		layers  []int
	}{
		"names": {`"target_modules": ["v_proj", "q_proj"]`, []string{"attn_q", "attn_v"}, nil},
		"longer names": {`"target_modules": ["mlp.up_proj", "self_attn.o_proj"]`,
			[]string{"attn_output", "ffn_up"}, nil},
		"end of no word": {`"target_modules": ["proj", "q_proj", "attn.k_proj"]`, []string{"attn_q"}, nil},
		"one path":       {`"target_modules": ["model.layers.1.mlp.up_proj"]`, []string{"ffn_up"}, []int{1}},
		"path beside layers": {`"target_modules": ["model.layers.1.mlp.up_proj"], "layers_to_transform": [0]`,
			[]string{"ffn_up"}, []int{1}},
		"numbered names": {`"target_modules": ["layers.1.mlp.up_proj", "2.mlp.up_proj"]`, []string{"ffn_up"},
			[]int{1, 2}},
		"no product": {`"target_modules": ["1.mlp.up_proj", "2.self_attn.q_proj"]`,
			[]string{"blk.1.ffn_up", "blk.2.attn_q"}, nil},
		"all-linear":          {`"target_modules": "all-linear"`, toy().Targets(), nil},
		"ALL-LINEAR":          {`"target_modules": "ALL-LINEAR"`, toy().Targets(), nil},
		"pattern":             {`"target_modules": ".*\\.[qkv]_proj"`, attention, nil},
		"pattern of blocks":   {`"target_modules": ".*layers\\.(0|2)\\..*[qkv]_proj$"`, attention, []int{0, 2}},
		"pattern with a name": {`"target_modules": ".*(?P<which>[qkv])_proj"`, attention, nil},
		"look-ahead":          {`"target_modules": "(?!.*mlp)(?!.*o_proj)(?!lm_head).*_proj"`, attention, nil},
		"pattern and layers":  {`"target_modules": ".*[qkv]_proj", "layers_to_transform": [1]`, attention, nil},
		"layers": {`"target_modules": ["q_proj"], "layers_to_transform": [2, 0]`, []string{"attn_q"},
			[]int{0, 2}},
		"one layer": {`"target_modules": ["q_proj"], "layers_to_transform": 1`,
			[]string{"attn_q"}, []int{1}},
		"no layers": {`"target_modules": ["q_proj"], "layers_to_transform": []`, []string{"attn_q"}, nil},
		"all layers": {`"target_modules": ["q_proj"], "layers_to_transform": [0, 1, 2]`,
			[]string{"attn_q"}, nil},
		"layers of a model": {`"target_modules": ["q_proj"], "layers_to_transform": [1, 7]`,
			[]string{"attn_q"}, []int{1}},
		"layers_pattern": {`"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"`,
			[]string{"attn_q"}, []int{1}},
		"group in a pattern": {`"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ` +
			`"(layers)"`, []string{"attn_q"}, []int{1}},
		"pattern at the front": {`"target_modules": ["q_proj"], "layers_to_transform": 0, "layers_pattern": ` +
			`"model.layers"`, []string{"attn_q"}, []int{0}},
		"names left out": {`"target_modules": ["q_proj", "up_proj"], "exclude_modules": ["1.self_attn.q_proj", ` +
			`"mlp.up_proj"]`, []string{"attn_q"}, []int{0, 2}},
		"paths left out": {`"target_modules": "all-linear", "exclude_modules": ".*(mlp|[kvo]_proj).*"`,
			[]string{"attn_q"}, nil},
		"layers_pattern list": {`"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", ` +
			`"lay.*"]`, []string{"attn_q"}, []int{1}},
		"empty layers_pattern": {`"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ""`,
			[]string{"attn_q"}, []int{1}},
		"unknown beside known": {`"target_modules": ["q_proj", "c_attn"]`, []string{"attn_q"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := peftConfig{Type: "VERA", Rank: 4, Key: "0", DInitial: 0.1, Bias: "none"}
			if err := json.Unmarshal([]byte("{"+test.config+"}"), &p); err != nil {
				t.Fatal(err)
			}
			c, err := p.config(toy(), hfModels["llama"])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.canonical(toy()).Targets, test.targets) ||
				!slices.Equal(c.canonical(toy()).Layers, test.layers) {
				t.Errorf("%v of layers %v; want %v of %v", c.Targets, c.Layers, test.targets, test.layers)
			}
		})
	}
}

// PyTorch's generator takes the low 32 bits, also of a negative key.
func TestPEFTKey(t *testing.T) {
	for key, want := range map[string]uint32{"0": 0, "42": 42, "4294967297": 1, "-1": math.MaxUint32,
		"18446744073709551615": math.MaxUint32} {
		if got, err := seedOfKey(key); err != nil || got != want {
			t.Errorf("%s: %d, %v; want %d", key, got, err, want)
		}
	}
	for _, key := range []string{"1.5", "1e3", "18446744073709551616", ""} {
		if _, err := seedOfKey(key); err == nil {
			t.Errorf("%q is taken", key)
		}
	}
}

func TestPEFTRefuses(t *testing.T) {
	a := trained(t, toyConfig(), toy())
	set := func(key string, value any) func(peft) { return func(p peft) { p.config[key] = value } }
	const q0 = "base_model.model.model.layers.0.self_attn.q_proj.vera_lambda_b"
	for name, test := range map[string]struct {
		change func(peft)
		words  []string
	}{
		"another kind":    {set("peft_type", "IA3"), []string{"IA3", "VERA", "LORA"}},
		"bias":            {set("bias", "vera_only"), []string{"vera_only", "none"}},
		"modules to save": {set("modules_to_save", []string{"lm_head"}), []string{"modules_to_save", "lm_head"}},
		"head":            {set("target_modules", []string{"q_proj", "lm_head"}), []string{"lm_head", "head"}},
		"no targets":      {set("target_modules", nil), []string{"target_modules", "all-linear"}},
		"other targets":   {set("target_modules", []string{"c_attn"}), []string{"target_modules", "toy"}},
		"broken pattern": {set("target_modules", "(q_proj"),
			[]string{"target_modules: not a regular expression: missing closing )"}},
		"endless pattern":  {set("target_modules", "([a-z0-9_.]+)+[A-Z]"), []string{"target_modules", "timeout"}},
		"number of a list": {set("target_modules", 3), []string{"target_modules"}},
		"broken layers": {func(p peft) { p.config["layers_to_transform"], p.config["layers_pattern"] = 1, "[" },
			[]string{"layers_pattern"}},
		"rank 0":         {set("r", 0), []string{"rank 0"}},
		"changed rank":   {set("r", 5), []string{"vera_lambda_d", "[4]", "[5]"}},
		"rank as text":   {set("r", "4"), []string{"adapter_config.json", "r"}},
		"key":            {set("projection_prng_key", 0.5), []string{"projection_prng_key", "0.5", "integer"}},
		"fewer layers":   {set("layers_to_transform", []int{0, 1}), []string{"layers.2", "no layer"}},
		"no projections": {set("save_projection", true), []string{"base_model.vera_A", "missing"}},
		"half a pair": {func(p peft) { p.tensors[peftPairA] = tensor(t, a.Pair.A, 4, 24) },
			[]string{"base_model.vera_B", "missing"}},
		"shape of a pair": {func(p peft) { p.addPair(t, NewPair(KaimingUniform, 7, 4, 25, 24)) },
			[]string{"base_model.vera_A", "[4 25]", "[4 24]"}},
		"missing": {func(p peft) { delete(p.tensors, q0) }, []string{q0, "missing"}},
		"surplus": {func(p peft) { p.tensors["lm_head.weight"] = tensor(t, make([]float32, 4), 4) },
			[]string{"lm_head.weight", "no layer"}},
		"wrong shape": {func(p peft) { p.tensors[q0] = tensor(t, make([]float32, 16), 4, 4) },
			[]string{q0, "[4 4]", "[16]"}},
		"infinite": {func(p peft) {
			b := make([]float32, 16)
			b[3] = float32(math.Inf(-1))
			p.tensors[q0] = tensor(t, b, 16)
		}, []string{q0, "value 3", "-Inf"}},
		"integers": {func(p peft) {
			v, err := safetensors.NewTensorView(safetensors.I32, []uint64{16}, make([]byte, 64))
			if err != nil {
				t.Fatal(err)
			}
			p.tensors[q0] = v
		}, []string{q0, "I32", "F32, F16 or BF16"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := peftOf(t, a)
			p.config, p.tensors = maps.Clone(p.config), maps.Clone(p.tensors)
			test.change(p)
			dir := p.write(t)
			_, err := Load(dir, toy())
			wantError(t, err, append(test.words, dir)...)
		})
	}
	t.Run("no files", func(t *testing.T) {
		_, err := Load(t.TempDir(), toy())
		wantError(t, err, "adapter_config.json")
		dir := peftOf(t, a).write(t)
		if err := os.Remove(filepath.Join(dir, "adapter_model.safetensors")); err != nil {
			t.Fatal(err)
		}
		_, err = Load(dir, toy())
		wantError(t, err, "adapter_model.safetensors")
	})
	t.Run("truncated", func(t *testing.T) {
		config, weights := peftOf(t, a).bytes(t)
		dir := t.TempDir()
		for _, n := range []int{0, 7, 100, len(weights) - 4} {
			writeFolder(t, dir, config, weights[:n])
			_, err := Load(dir, toy())
			wantError(t, err, "adapter_model.safetensors", "safetensors file")
		}
	})
	t.Run("architecture", func(t *testing.T) {
		base := toy()
		base.Architecture = "bert"
		_, err := Load(peftOf(t, a).write(t), base)
		wantError(t, err, "bert", "llama")
	})
}

func FuzzLoadPEFT(f *testing.F) {
	c := toyConfig()
	c.Targets, c.Layers = []string{"attn_k", "ffn_down"}, []int{1}
	a := trained(f, c, toy())
	p := peftOf(f, a)
	add := func() {
		config, weights := p.bytes(f)
		f.Add(config, weights)
	}
	add()
	p.addPair(f, NewPair(KaimingUniform, 1, a.Rank, a.MaxIn, a.MaxOut))
	add()
	written := savePEFT(f, a, true)
	f.Add(read(f, filepath.Join(written, peftConfigFile)), read(f, filepath.Join(written, peftWeightsFile)))
	p.config["target_modules"] = `.*\.1\.(self_attn\.k|mlp\.down)_proj`
	add()
	lora := foreignLoRA(f, toy(), some(2, []int{0, 1}, "attn_q", "ffn_up"), `"target_modules": ["q_proj", `+
		`"up_proj"], "r": 3, "layers_to_transform": [0, 1], "rank_pattern": {"q_proj": 2, "layers.[01].mlp.up_proj": `+
		`2}, "alpha_pattern": {"up_proj": 3}`)
	config, weights := lora.bytes(f)
	f.Add(config, weights)
	for _, config := range []string{``, `{`, `null`, `{"target_modules": [], "r": null}`,
		`{"peft_type": "VERA", "target_modules": "(?=", "layers_to_transform": {}}`} {
		f.Add([]byte(config), []byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, config, weights []byte) {
		writeFolder(t, dir, config, weights)
		checkLoaded(t, dir)
	})
}
