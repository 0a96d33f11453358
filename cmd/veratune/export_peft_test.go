package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// exact opens a model in float32, the arithmetic that is compared with references.
func exact(t *testing.T, path string) *model.Model {
	t.Helper()
	o := model.Default()
	o.Compute, o.Threads = model.ComputeF32, 2
	m, err := model.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// randomAdapter writes a native adapter whose every number matters.
func randomAdapter(t *testing.T, base vera.Base, scale float64, change func(*vera.Config)) string {
	t.Helper()
	c := vera.Default()
	c.Rank, c.Seed = 16, 41
	if change != nil {
		change(&c)
	}
	a, err := vera.New(c, base)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(8, 8))
	fill := func(values []float32, mean, deviation float64) {
		for i := range values {
			values[i] = float32(mean + deviation*random.NormFloat64())
		}
	}
	for _, l := range a.Layers {
		if a.Method == vera.MethodLoRA {
			fill(l.Pair.B, 0, scale)
			continue
		}
		fill(l.LambdaB, 0, scale)
		fill(l.LambdaD, 0.1, 0.2)
	}
	path := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// attached loads an adapter and makes it part of the model.
func attached(t *testing.T, m *model.Model, adapter string) *vera.Adapter {
	t.Helper()
	a, err := vera.Load(adapter, m.Base())
	if err == nil {
		err = m.Attach(a)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// adaptedLogits are the logits of every position.
func adaptedLogits(t *testing.T, m *model.Model, adapter string, tokens []int32) []float32 {
	t.Helper()
	attached(t, m, adapter)
	logits, err := m.Logits(tokens, len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// TestExportToPEFT exports there and back by the command alone.
func TestExportToPEFT(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	m, parent := exact(t, path), t.TempDir()
	adapter := randomAdapter(t, m.Base(), 0.3, nil)
	undrawable := randomAdapter(t, m.Base(), 0.3, func(c *vera.Config) { c.Init = vera.Uniform })
	export := func(from, to, out string, more ...string) (int, string) {
		code, _, stderr := veratune(append([]string{"export", "--model", path, "--adapter", from, "--to", to, "--out",
			filepath.Join(parent, out)}, more...)...)
		return code, stderr
	}
	for name, from := range map[string]string{"plain": adapter, "undrawable": undrawable} {
		if code, stderr := export(from, "peft", name); code != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		if code, stderr := export(filepath.Join(parent, name), "vera", name+".gguf"); code != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		if !bytes.Equal(read(t, filepath.Join(parent, name+".gguf")), read(t, from)) {
			t.Errorf("%s: the way to PEFT and back gives another file", name)
		}
	}
	if code, stderr := export(adapter, "peft", "plain"); code != exitFailed || !strings.Contains(stderr, "not empty") {
		t.Errorf("into a folder in use: exit code %d, %q", code, stderr)
	}
	if code, stderr := export(undrawable, "peft", "refused", "--projection=false"); code != exitFailed ||
		!strings.Contains(stderr, "projections") {
		t.Errorf("a pair that PEFT cannot draw: exit code %d, %q", code, stderr)
	}
}

// TestForce uses an adapter on a model that it was not trained on.
func TestForce(t *testing.T) {
	adapter := randomAdapter(t, exact(t, testutil.TinyLlama(t, testutil.TinyOptions{})).Base(), 0.1, nil)
	sibling, wider := testutil.TinyLlama(t, testutil.TinyOptions{Seed: 7}),
		testutil.TinyLlama(t, testutil.TinyOptions{Width: 128})
	for name, c := range map[string]struct {
		model, says string
		force       bool
		code        int
	}{
		"refused":  {sibling, "trained on", false, exitFailed},
		"forced":   {sibling, "", true, 0},
		"no shape": {wider, "layers of this model", true, exitFailed},
	} {
		for _, command := range [][]string{
			{"generate", "-p", "add 3", "--max-tokens", "2"},
			{"loss", "--data", rows(t, 4)},
			{"export", "--to", "vera", "--out", filepath.Join(t.TempDir(), "out.gguf")},
		} {
			args := append(command, "--model", c.model, "--adapter", adapter, "--threads", "1",
				fmt.Sprintf("--force=%v", c.force))
			if code, _, stderr := veratune(args...); code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("%s, %s: exit code %d, %q", name, command[0], code, stderr)
			}
		}
	}
}

// lora makes a configuration that of a LoRA of rank 16.
func lora(c *vera.Config) {
	seed := c.Seed
	*c = vera.LoRADefault()
	c.Rank, c.Seed = 16, seed
}

// TestPEFTAgrees exports adapters for PEFT and compares PEFT's logits and gradients with ours in float32, and loads an
// adapter that PEFT made and saved without its projections.
func TestPEFTAgrees(t *testing.T) {
	interpreter := testutil.Python(t)
	targets := func(names ...string) func(*vera.Config) { return func(c *vera.Config) { c.Targets = names } }
	all := map[string]func(*vera.Config){
		"all":         nil,
		"attention":   targets("attn_q", "attn_k"), // the pair is smaller: PEFT draws it for the adapted layers only
		"layers":      targets("attn_v", "blk.1.ffn_down", "blk.0.attn_q"),
		"one-layer":   targets("blk.1.attn_q"),
		"block":       func(c *vera.Config) { c.Layers = []int{1} },
		"projections": func(c *vera.Config) { c.Init = vera.KaimingNormal },
		"lora":        lora,
		"lora-ranks": func(c *vera.Config) {
			lora(c)
			c.RSLoRA, c.Ranks, c.Alphas = true, map[string]int{"blk.0.attn_k": 3, "blk.1.ffn_up": 17},
				map[string]float32{"blk.1.ffn_down": 5}
		},
		"lora-some": func(c *vera.Config) { lora(c); c.Targets, c.Layers = []string{"attn_k", "ffn_up"}, []int{1} },
	}
	t.Run("tiny", func(t *testing.T) {
		o := testutil.TinyOptions{Type: bindings.Q4_1}
		comparePEFT(t, interpreter, testutil.TinyLlama(t, o), 0.3, all, "--rank", "8", "--seed", "2147483659",
			"--targets", "q_proj,k_proj,down_proj")
	})
	t.Run("own head", func(t *testing.T) {
		o := testutil.TinyOptions{Type: bindings.Q8_0, OwnHead: true, KVHeads: 1}
		comparePEFT(t, interpreter, testutil.TinyLlama(t, o), 0.3, map[string]func(*vera.Config){"all": nil})
	})
	t.Run("SmolLM2", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes a minute or two")
		}
		some := map[string]func(*vera.Config){"all": nil, "layers": all["layers"], "lora": lora}
		comparePEFT(t, interpreter, testutil.SmolLM2(t), 0.05, some, "--rank", "32", "--seed", "1234567")
	})
}

// TestPEFTAgreesOnArchitectures does so with the reference model of each architecture, in which attention reaches past
// windows.
func TestPEFTAgreesOnArchitectures(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute a model")
	}
	interpreter := testutil.Python(t)
	for _, folder := range testutil.Architectures(t) {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			path := filepath.Join(folder, "model.gguf")
			m, err := model.Open(path, model.Default())
			if err != nil {
				if strings.Contains(err.Error(), "only models of these can be used") {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			last := 0 // block with attention
			for _, l := range m.Base().Linears {
				if l.Target == "attn_output" {
					last = l.Block
				}
			}
			targets := "all-linear"
			if m.Architecture == "gemma4" { // whose layers beside the blocks' products take no adapter
				targets = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
			}
			m.Close()
			comparePEFT(t, interpreter, path, 0.3, map[string]func(*vera.Config){
				"all":  nil,
				"lora": lora,
				"some": func(c *vera.Config) { lora(c); c.Targets, c.Layers = []string{"attn_output"}, []int{last} },
			}, "--config", folder, "--rank", "8", "--seed", "5", "--targets", targets)
		})
	}
}

// saveGradients writes the gradients of the mean loss of predicting each token as if they were an adapter's numbers.
func saveGradients(t *testing.T, m *model.Model, adapter string, tokens []int32, folder string) {
	t.Helper()
	a := attached(t, m, adapter)
	targets := append(slices.Clone(tokens[1:]), -1)
	grad := make([]float32, len(a.Params))
	_, n, err := m.AddGradient(tokens, targets, []int{len(tokens)}, 0, grad)
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range grad {
		a.Params[i] = g / float32(n)
	}
	if err := a.SavePEFT(folder, true); err != nil {
		t.Fatal(err)
	}
}

func comparePEFT(t *testing.T, interpreter, path string, scale float64, adapters map[string]func(*vera.Config),
	making ...string) {
	m, dir := exact(t, path), t.TempDir()
	random := rand.New(rand.NewPCG(3, 3))
	tokens := make([]int32, 40)
	words := make([]string, len(tokens))
	for i := range tokens {
		tokens[i] = int32(random.IntN(m.Vocab))
		words[i] = fmt.Sprint(tokens[i])
	}
	made := filepath.Join(dir, "made-by-peft")
	args := append([]string{"../../tools/check_peft.py", "--model", path, "--tokens", strings.Join(words, ","),
		"--make", made}, making...)
	for name, change := range adapters {
		adapter, folder := randomAdapter(t, m.Base(), scale, change), filepath.Join(dir, name)
		if code, _, stderr := veratune("export", "--model", path, "--adapter", adapter, "--to", "peft", "--out", folder,
			fmt.Sprintf("--projection=%v", name == "projections")); code != 0 {
			t.Fatalf("%s: %s", name, stderr)
		}
		saveGradients(t, m, adapter, tokens, folder+".gradients")
		data, err := binary.Append(nil, binary.LittleEndian, adaptedLogits(t, m, adapter, tokens))
		if err == nil {
			err = os.WriteFile(folder+".logits", data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, folder)
	}
	output, err := exec.Command(interpreter, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for line := range strings.Lines(string(output)) {
		if strings.HasPrefix(line, "{") {
			t.Log(strings.TrimSpace(line))
		}
	}
	worst := offFrom(t, adaptedLogits(t, m, made, tokens), made+".logits")
	const tolerance = 2e-3 // as in check_peft.py
	if !(worst <= tolerance) {
		t.Errorf("logits of the adapter that PEFT made differ by %.2g", worst)
	}
	t.Logf("logits of the adapter that PEFT made differ by %.2g", worst)
}

// offFrom gives the largest difference from the logits that PEFT has left in a file.
func offFrom(t *testing.T, ours []float32, path string) (worst float64) {
	t.Helper()
	theirs := make([]float32, len(ours))
	if _, err := binary.Decode(read(t, path), binary.LittleEndian, theirs); err != nil {
		t.Fatal(err)
	}
	for i := range ours {
		if off := math.Abs(float64(ours[i]) - float64(theirs[i])); !(off <= worst) {
			worst = off
		}
	}
	return worst
}

// peftLoRAs are options of PEFT's LoraConfig.
var peftLoRAs = map[string]string{
	"patterns": `{"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
		"rank_pattern": {"^model.layers.1.*": 3, "k_proj": 5, "layers.[02].mlp.(up|gate)_proj": 12}, "alpha_pattern": {"layers.0.self_attn.q_proj": 4, "down_proj": 7}}`,
	"rslora": `{"r": 8, "lora_alpha": 16, "use_rslora": true, "target_modules": "all-linear"}`,
	"rslora-patterns": `{"r": 6, "lora_alpha": 8, "use_rslora": true, "target_modules": ["q_proj", "k_proj", ` +
		`"up_proj"], "rank_pattern": {"q_proj": 9}, "alpha_pattern": {"up_proj": 3}}`,
	"layer-0": `{"r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"], ` +
		`"layers_to_transform": [0]}`,
	"regex": `{"r": 8, "lora_alpha": 32, "target_modules": ` +
		`".*layers\\.(0|1)\\.(self_attn\\.[qk]_proj|mlp\\.down_proj)"}`,
	"excluded": `{"r": 8, "lora_alpha": 32, "target_modules": "all-linear", "exclude_modules": ` +
		`["1.self_attn.q_proj", "up_proj"]}`,
}

// TestPEFTLoRAAgrees loads LoRAs that PEFT makes with each of its options: logits are PEFT's, and the way to our file
// and back loses nothing.
func TestPEFTLoRAAgrees(t *testing.T) {
	interpreter := testutil.Python(t)
	t.Run("tiny", func(t *testing.T) {
		checkLoRAs(t, interpreter, testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1}), "0.2")
	})
	t.Run("SmolLM2", func(t *testing.T) {
		if testing.Short() {
			t.Skip("takes a minute or two")
		}
		checkLoRAs(t, interpreter, testutil.SmolLM2(t), "0.005")
	})
}

func checkLoRAs(t *testing.T, interpreter, path, scale string) {
	m, dir := exact(t, path), t.TempDir()
	// A text: on random tokens PEFT's float32 is off from its own float64 by 3e-3, with no adapter by 2e-3.
	tokenizer, err := m.Tokenizer("")
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := tokenizer.Tokenize(t.Context(),
		"The boat was small, and the trip was long: we took water, bread, a map and a lamp, and hoped for wind.",
		true, true)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]string, len(tokens))
	for i, token := range tokens {
		words[i] = fmt.Sprint(token)
	}
	args := []string{"../../tools/check_peft.py", "--model", path, "--tokens", strings.Join(words, ","),
		"--scale", scale}
	for name, options := range peftLoRAs {
		args = append(args, "--lora", filepath.Join(dir, name), options)
	}
	output, err := exec.Command(interpreter, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for line := range strings.Lines(string(output)) {
		if strings.HasPrefix(line, "{") {
			t.Log(strings.TrimSpace(line))
		}
	}
	const tolerance = 2e-4 // float32 sums in another order
	for name := range peftLoRAs {
		made := filepath.Join(dir, name)
		worst := offFrom(t, adaptedLogits(t, m, made, tokens), made+".logits")
		t.Logf("%s: logits differ by %.2g", name, worst)
		if !(worst <= tolerance) {
			t.Errorf("%s: logits differ by %.2g", name, worst)
		}
		native, back, again := made+".gguf", made+"-back", made+"-again.gguf"
		for _, step := range [][3]string{{made, "vera", native}, {native, "peft", back}, {back, "vera", again}} {
			if code, _, stderr := veratune("export", "--model", path, "--adapter", step[0], "--to", step[1], "--out",
				step[2]); code != 0 {
				t.Fatalf("%s to %s: %s", name, step[1], stderr)
			}
		}
		if !bytes.Equal(read(t, again), read(t, native)) {
			t.Errorf("%s: the way to PEFT and back gives another file", name)
		}
		if worst := offFrom(t, adaptedLogits(t, m, back, tokens), made+".logits"); !(worst <= tolerance) {
			t.Errorf("%s: logits differ by %.2g when it is back in PEFT's form", name, worst)
		}
	}
}
