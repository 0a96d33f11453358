package vera

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// llama describes a Llama of that size.
func llama(name string, blocks, width, feedForward, heads, kvHeads int) Base {
	headDim := width / heads
	b := Base{Architecture: "llama", Blocks: blocks, HeadDim: headDim, Name: name,
		Fingerprint: "fingerprint of " + name}
	for i := range blocks {
		b.Linears = append(b.Linears,
			Linear{i, "attn_q", width, heads * headDim}, Linear{i, "attn_k", width, kvHeads * headDim},
			Linear{i, "attn_v", width, kvHeads * headDim},
			Linear{i, "attn_output", heads * headDim, width},
			Linear{i, "ffn_gate", width, feedForward}, Linear{i, "ffn_up", width, feedForward},
			Linear{i, "ffn_down", feedForward, width})
	}
	return b
}

// fused describes a Phi-3: q, k and v are one layer, gate and up another.
func fused() Base {
	b := Base{Architecture: "phi3", Blocks: 2, HeadDim: 4, Name: "fused", Fingerprint: "fingerprint of fused"}
	for i := range b.Blocks {
		b.Linears = append(b.Linears, Linear{i, "attn_qkv", 16, 32}, Linear{i, "attn_output", 16, 16},
			Linear{i, "ffn_up", 16, 48}, Linear{i, "ffn_down", 24, 16})
	}
	return b
}

func toy() Base     { return llama("toy", 3, 16, 24, 4, 2) }
func smolLM2() Base { return llama("SmolLM2-135M-Instruct", 30, 576, 1536, 9, 3) }

// toyConfig adapts everything of a toy.
func toyConfig() Config {
	c := Default()
	c.Rank, c.Seed, c.Dropout = 4, 7, 0.25
	return c
}

func mustNew(t testing.TB, c Config, base Base) *Adapter {
	t.Helper()
	a, err := New(c, base)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// trained has a different value in every place.
func trained(t testing.TB, c Config, base Base) *Adapter {
	t.Helper()
	a := mustNew(t, c, base)
	for i := range a.Params {
		a.Params[i] = float32(i+1) / 64
	}
	a.Facts = map[string]string{"steps": "12", "data": "rows.json", "loss": "1.25"}
	return a
}

// wantError checks that a message names each of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not name %q", err, word)
		}
	}
}

func TestTrainableCount(t *testing.T) {
	for _, test := range []struct {
		base       Base
		rank, want int
	}{
		{llama("Llama-2-7B", 32, 4096, 11008, 32, 32), 1024, 1_589_248},
		{llama("Llama-2-13B", 40, 5120, 13824, 40, 40), 1024, 2_416_640},
		{smolLM2(), 1024, 370_560},
		{smolLM2(), 64, 168_960},
	} {
		c := Default()
		c.Rank = test.rank
		if got := TrainableCount(c, test.base); got != test.want {
			t.Errorf("%s rank %d: %d, want %d", test.base.Name, test.rank, got, test.want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := Default().fits(toy()); err != nil {
		t.Fatalf("the default: %v", err)
	}
	nan := float32(math.NaN())
	for _, test := range []struct {
		change func(*Config)
		words  []string
	}{
		{func(c *Config) { c.Rank = 0 }, []string{"rank 0", "from 1 to 65536"}},
		{func(c *Config) { c.Rank = 1 << 20 }, []string{"rank 1048576", "from 1 to 65536"}},
		{func(c *Config) { c.Targets = []string{"q_proj"} }, []string{`"q_proj"`, "attn_q", "ffn_down"}},
		{func(c *Config) { c.Targets = []string{"blk.3.attn_q"} }, []string{`"blk.3.attn_q"`, "blk.0.attn_q"}},
		{func(c *Config) { c.Targets = []string{"ffn_up", "attn_qkv"} },
			[]string{`"attn_qkv" must be one of attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down, or`}},
		{func(c *Config) { c.Targets = []string{"attn_q", "attn_q"} }, []string{`"attn_q"`, "once"}},
		{func(c *Config) { c.Layers = []int{3} }, []string{"layer 3", "from 0 to 2"}},
		{func(c *Config) { c.Layers = []int{-1} }, []string{"layer -1", "from 0"}},
		{func(c *Config) { c.Layers = []int{1, 1} }, []string{"layer 1", "once"}},
		{func(c *Config) { c.Targets, c.Layers = []string{"blk.0.attn_q"}, []int{1} }, []string{"select no layer"}},
		{func(c *Config) { c.DInitial = 0 }, []string{"d-initial 0", "other than 0"}},
		{func(c *Config) { c.DInitial = nan }, []string{"d-initial NaN", "finite"}},
		{func(c *Config) { c.Dropout = 1 }, []string{"dropout 1", "less than 1"}},
		{func(c *Config) { c.Dropout = -0.5 }, []string{"dropout -0.5", "at least 0"}},
		{func(c *Config) { c.Dropout = nan }, []string{"dropout NaN"}},
		{func(c *Config) { c.Init = "zeros" }, []string{`"zeros"`, "kaiming_uniform, kaiming_normal, uniform"}},
	} {
		c := Default()
		test.change(&c)
		wantError(t, c.fits(toy()), test.words...)
		if _, err := New(c, toy()); err == nil {
			t.Errorf("New accepts %+v", c)
		}
	}
}

func TestNew(t *testing.T) {
	base := toy()
	slices.Reverse(base.Linears) // the order of a base must not matter
	c := toyConfig()
	c.Targets, c.Layers = []string{"ffn_up", "attn_k", "blk.1.ffn_down"}, []int{2, 1}
	a := mustNew(t, c, base)

	var names []string
	for _, l := range a.Layers {
		names = append(names, l.Name())
	}
	if want := []string{"blk.1.attn_k", "blk.1.ffn_up", "blk.1.ffn_down", "blk.2.attn_k",
		"blk.2.ffn_up"}; !slices.Equal(names, want) {
		t.Errorf("layers %v, want %v", names, want)
	}
	if a.MaxIn != 24 || a.MaxOut != 24 {
		t.Errorf("max_in %d and max_out %d, want 24 and 24", a.MaxIn, a.MaxOut)
	}
	if len(a.Params) != TrainableCount(c, base) {
		t.Errorf("%d params, want %d", len(a.Params), TrainableCount(c, base))
	}
	// b and d of all layers together are Params, each value once.
	for i := range a.Params {
		a.Params[i] = float32(i)
	}
	var all []float32
	for _, l := range a.Layers {
		if len(l.LambdaB) != l.Out || len(l.LambdaD) != c.Rank || cap(l.LambdaB) != l.Out {
			t.Errorf("%s: %d and %d values", l.Name(), len(l.LambdaB), len(l.LambdaD))
		}
		all = append(append(all, l.LambdaB...), l.LambdaD...)
	}
	if !slices.Equal(all, a.Params) {
		t.Error("the vectors are not Params in order")
	}
	if l := a.Layer(2, "ffn_up"); l == nil || l.Name() != "blk.2.ffn_up" || &l.LambdaB[0] != &a.Layers[4].LambdaB[0] {
		t.Errorf("Layer(2, ffn_up) is %v", l)
	}
	if a.Layer(0, "ffn_up") != nil || a.Layer(2, "ffn_down") != nil {
		t.Error("Layer finds a layer that isn't adapted")
	}
}

func TestNewChangesNothing(t *testing.T) {
	a := mustNew(t, toyConfig(), toy())
	for _, l := range a.Layers {
		if slices.Max(l.LambdaB) != 0 || slices.Min(l.LambdaB) != 0 || slices.Max(l.LambdaD) != 0.1 ||
			slices.Min(l.LambdaD) != 0.1 {
			t.Errorf("%s: b %v, d %v", l.Name(), l.LambdaB, l.LambdaD)
		}
	}
}

// The pair's size follows the adapted layers, not the model.
func TestMaximaOfAdaptedLayers(t *testing.T) {
	c := Default()
	c.Targets = []string{"attn_k", "attn_v"}
	a := mustNew(t, c, smolLM2())
	if a.MaxIn != 576 || a.MaxOut != 192 || len(a.Pair.A) != 1024*576 || len(a.Pair.B) != 192*1024 {
		t.Errorf("max_in %d, max_out %d, A %d, B %d values", a.MaxIn, a.MaxOut, len(a.Pair.A), len(a.Pair.B))
	}
}

func TestConfigJSON(t *testing.T) {
	c := toyConfig().canonical(toy())
	c.Layers = []int{0, 2}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"method":"vera","rank":4,"targets":["attn_q","attn_k","attn_v","attn_output","ffn_gate","ffn_up","ffn_down"],"layers":[0,2],"seed":7,"dropout":0.25,"d_initial":0.1,"init":"kaiming_uniform"}`
	if string(data) != want {
		t.Errorf("%s\nwant %s", data, want)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("read back as %+v: %v", back, err)
	}
}
