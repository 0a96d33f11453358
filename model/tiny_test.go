package model

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// batch is the arguments of Loss and Gradients.
type batch struct {
	tokens, targets []int32
	lengths         []int
}

// randomBatch makes samples of these lengths; about a third of the positions carry no label.
func randomBatch(seed uint64, vocab int, lengths ...int) batch {
	random := rand.New(rand.NewPCG(seed, 7))
	b := batch{lengths: lengths}
	for _, n := range lengths {
		for range n {
			target := int32(random.IntN(vocab))
			if random.IntN(3) == 0 {
				target = -1
			}
			b.tokens = append(b.tokens, int32(random.IntN(vocab)))
			b.targets = append(b.targets, target)
		}
	}
	return b
}

// sample is sample i of a batch alone.
func (b batch) sample(i int) batch {
	at := 0
	for _, n := range b.lengths[:i] {
		at += n
	}
	n := b.lengths[i]
	return batch{b.tokens[at : at+n], b.targets[at : at+n], []int{n}}
}

func (b batch) loss(t *testing.T, m *Model) float64 {
	t.Helper()
	sum, n, err := m.Loss(b.tokens, b.targets, b.lengths)
	if err != nil {
		t.Fatal(err)
	}
	if want := b.labels(); n != want {
		t.Fatalf("%d labels, want %d", n, want)
	}
	return sum
}

func (b batch) labels() (n int) {
	for _, t := range b.targets {
		if t >= 0 {
			n++
		}
	}
	return n
}

func (b batch) gradient(t *testing.T, m *Model, seed uint64) (sum float64, grad []float32) {
	t.Helper()
	grad = make([]float32, len(m.adapter.Params))
	sum, n, err := m.AddGradient(b.tokens, b.targets, b.lengths, seed, grad)
	if err != nil {
		t.Fatal(err)
	}
	if n != b.labels() {
		t.Fatalf("%d labels, want %d", n, b.labels())
	}
	return sum, grad
}

// options are the exact arithmetic on one thread: a tiny model gains nothing from more.
func options() Options {
	o := Default()
	o.Threads, o.Compute = 1, ComputeF32
	return o
}

func tiny(t *testing.T, o testutil.TinyOptions) *Model {
	t.Helper()
	return open(t, testutil.TinyLlama(t, o), options())
}

// adapted attaches an adapter whose b and d, or a LoRA's B, are random, so that no gradient is zero for b = 0.
func adapted(t *testing.T, m *Model, change func(*vera.Config)) *vera.Adapter {
	t.Helper()
	c := vera.Default()
	c.Rank, c.Seed = 8, 3
	if change != nil {
		change(&c)
	}
	a, err := vera.New(c, m.Base())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 5))
	fill := func(values []float32, scale float32) {
		for i := range values {
			values[i] = scale * float32(random.NormFloat64())
		}
	}
	for _, l := range a.Layers {
		if a.Method == vera.MethodLoRA {
			fill(l.Pair.B, 0.1)
			continue
		}
		fill(l.LambdaB, 0.5)
		fill(l.LambdaD, 0.3)
	}
	if err := m.Attach(a); err != nil {
		t.Fatal(err)
	}
	return a
}

// shapes are the models that losses and gradients are tested on.
var shapes = []struct {
	name string
	testutil.TinyOptions
}{
	{"f32", testutil.TinyOptions{}},
	{"f16", testutil.TinyOptions{Type: bindings.F16}},
	{"bf16", testutil.TinyOptions{Type: bindings.BF16}},
	{"q4_0", testutil.TinyOptions{Type: bindings.Q4_0}},
	{"q4_1", testutil.TinyOptions{Type: bindings.Q4_1}},
	{"q5_1", testutil.TinyOptions{Type: bindings.Q5_1}},
	{"q8_0", testutil.TinyOptions{Type: bindings.Q8_0}},
	{"q4_K", testutil.TinyOptions{Type: bindings.Q4_K, Blocks: 1}},
	{"q6_K", testutil.TinyOptions{Type: bindings.Q6_K, Blocks: 1, OwnHead: true}},
	{"own head", testutil.TinyOptions{OwnHead: true}},
	{"rope factors", testutil.TinyOptions{RopeFactors: true}},
	{"large eps", testutil.TinyOptions{NormEps: 0.05}},
	{"one key head", testutil.TinyOptions{KVHeads: 1}},
	{"a key head each", testutil.TinyOptions{KVHeads: 4}},
	{"heads wider than the model", testutil.TinyOptions{HeadDim: 24}},
	{"heads narrower than the model", testutil.TinyOptions{HeadDim: 8}},
	{"odd sizes", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 3, HeadDim: 10}},
	{"half of a head rotated", testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.rope.dimension_count"] = uint32(8)
	}}},
	{"biases", testutil.TinyOptions{Change: biased("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
		"ffn_down")}},
	{"some biases", testutil.TinyOptions{Change: biased("attn_k", "ffn_up")}},
	{"qwen2", testutil.TinyOptions{Change: as("qwen2")}},
	{"qwen2 of odd sizes", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 3, HeadDim: 10,
		Change: as("qwen2")}},
	{"qwen3", testutil.TinyOptions{HeadDim: 32, KVHeads: 1, Type: bindings.Q8_0, Change: as("qwen3")}},
	{"qwen3, half of a head rotated", testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.rope.dimension_count"] = uint32(8)
		as("qwen3")(f)
	}}},
	{"qwen3moe", testutil.TinyOptions{Type: bindings.Q8_0, Change: as("qwen3moe")}},
	{"qwen3moe of odd sizes", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 3, HeadDim: 10,
		Change: as("qwen3moe")}},
	{"gpt-oss", testutil.TinyOptions{HeadDim: 20, Change: as("gpt-oss")}},
	{"granite", testutil.TinyOptions{Change: as("granite")}},
	{"smollm3", testutil.TinyOptions{Blocks: 4, Change: as("smollm3")}},
	{"gemma2", testutil.TinyOptions{HeadDim: 32, KVHeads: 1, Type: bindings.Q8_0, Change: as("gemma2")}},
	{"gemma3", testutil.TinyOptions{HeadDim: 32, Type: bindings.Q4_0, Change: as("gemma3")}},
	{"gemma3 of odd sizes, with a head", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 3, HeadDim: 12,
		OwnHead: true, Change: as("gemma3")}},
	{"olmo2", testutil.TinyOptions{KVHeads: 1, Type: bindings.Q4_0, Change: as("olmo2")}},
	{"olmo2 with windows", testutil.TinyOptions{Blocks: 4, Change: func(f *testutil.TinyFile) {
		maps.Copy(f.Metadata, stretched)
		f.Metadata["llama.attention.sliding_window"] = uint32(3)
		as("olmo2")(f)
	}}},
	{"exaone4", testutil.TinyOptions{Blocks: 4, HeadDim: 20, Change: as("exaone4")}},
	{"mistral3", testutil.TinyOptions{HeadDim: 32, Type: bindings.Q8_0, Change: as("mistral3")}},
	{"seed_oss", testutil.TinyOptions{HeadDim: 20, Change: as("seed_oss")}},
	{"phi3", testutil.TinyOptions{Type: bindings.Q8_0, Change: as("phi3")}},
	{"phi3 of odd sizes", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 1, HeadDim: 10,
		Change: as("phi3")}},
	{"starcoder2", testutil.TinyOptions{Type: bindings.Q4_0, Change: as("starcoder2")}},
	{"gpt2", testutil.TinyOptions{Type: bindings.Q8_0, KVHeads: 4, Change: as("gpt2")}},
	{"gpt2 of odd sizes", testutil.TinyOptions{Width: 30, Hidden: 37, Heads: 3, KVHeads: 3, HeadDim: 10,
		Change: as("gpt2")}},
	{"linear rope scaling", testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.rope.scaling.type"], f.Metadata["llama.rope.scaling.factor"] = "linear", float32(4)
	}}},
	{"YaRN", testutil.TinyOptions{HeadDim: 32, Change: func(f *testutil.TinyFile) {
		f.Metadata["llama.rope.scaling.type"], f.Metadata["llama.rope.scaling.factor"] = "yarn", float32(4)
		f.Metadata["llama.rope.scaling.original_context_length"],
			f.Metadata["llama.rope.scaling.attn_factor"] = uint32(256), float32(0.9)
	}}},
}

// draw adds a random vector to every block of a tiny model.
func draw(f *testutil.TinyFile, name string, n int64, mean, deviation float64) {
	random := rand.New(rand.NewPCG(uint64(n), uint64(len(f.Tensors))))
	for block := range f.Metadata["llama.block_count"].(uint32) {
		v := testutil.TinyTensor{Name: fmt.Sprintf("blk.%d.%s", block, name), Shape: []int64{n},
			Values: make([]float32, n)}
		for i := range v.Values {
			v.Values[i] = float32(mean + deviation*random.NormFloat64())
		}
		f.Tensors = append(f.Tensors, v)
	}
}

// biased gives linear layers of a tiny model biases.
func biased(targets ...string) func(*testutil.TinyFile) {
	return func(f *testutil.TinyFile) {
		for _, target := range targets {
			draw(f, target+".bias", f.Tensor("blk.0." + target + ".weight").Shape[1], 0, 0.3)
		}
	}
}

// joined makes one layer of several.
func joined(f *testutil.TinyFile, as string, targets ...string) {
	for block := range f.Metadata["llama.block_count"].(uint32) {
		name := func(target string) string { return fmt.Sprintf("blk.%d.%s.weight", block, target) }
		one := *f.Tensor(name(targets[0]))
		one.Name, one.Shape, one.Values = name(as), []int64{one.Shape[0], 0}, nil
		for _, target := range targets {
			part := f.Tensor(name(target))
			one.Shape[1], one.Values = one.Shape[1]+part.Shape[1], append(one.Values, part.Values...)
			f.Remove(part.Name)
		}
		f.Tensors = append(f.Tensors, one)
	}
}

// mix puts a mixture of five experts, of which two are used, in the place of a tiny model's feed-forward.
func mix(f *testutil.TinyFile) {
	const experts, used = 5, 2
	random := rand.New(rand.NewPCG(7, 7))
	more := func(t *testutil.TinyTensor, n int64, deviation float64) {
		for range n * t.Shape[0] * t.Shape[1] {
			t.Values = append(t.Values, float32(deviation*random.NormFloat64()))
		}
	}
	for i := range f.Tensors {
		if t := &f.Tensors[i]; strings.Contains(t.Name, ".ffn_") && len(t.Shape) == 2 {
			t.Name = strings.Replace(t.Name, ".weight", "_exps.weight", 1)
			more(t, experts-1, 1/math.Sqrt(float64(t.Shape[0])))
			t.Shape = append(t.Shape, experts)
		}
	}
	for block := range f.Metadata["llama.block_count"].(uint32) {
		router := testutil.TinyTensor{Name: fmt.Sprintf("blk.%d.ffn_gate_inp.weight", block),
			Shape: []int64{int64(f.Metadata["llama.embedding_length"].(uint32)), experts}}
		more(&router, 1, 0.2)
		f.Tensors = append(f.Tensors, router)
	}
	maps.Copy(f.Metadata, map[string]any{"llama.expert_count": uint32(experts), "llama.expert_used_count": uint32(used),
		"llama.expert_feed_forward_length": f.Metadata["llama.feed_forward_length"]})
}

// stretched is YaRN of another size, for a Llama that was trained on 4 tokens.
var stretched = map[string]any{
	"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": float32(4),
	"llama.rope.scaling.original_context_length": uint32(4),
	"llama.rope.scaling.yarn_log_multiplier":     float32(0.5),
}

// as makes a tiny model one of another architecture.
func as(architecture string) func(*testutil.TinyFile) {
	return func(f *testutil.TinyFile) {
		number := func(key string) int64 { return int64(f.Metadata["llama."+key].(uint32)) }
		dim, width := number("attention.key_length"), number("embedding_length")
		norms := func(n int64, names ...string) {
			for _, name := range names {
				draw(f, name, n, 1, 0.2)
			}
		}
		set := func(values map[string]any) {
			for key, v := range values {
				f.Metadata["llama."+key] = v
			}
		}
		switch architecture {
		case "qwen2":
			biased("attn_q", "attn_k", "attn_v")(f)
		case "granite":
			biased("attn_q", "ffn_down")(f)
			set(map[string]any{"embedding_scale": float32(3), "residual_scale": float32(0.4),
				"attention.scale": float32(0.1), "logit_scale": float32(2)})
		case "qwen3", "qwen3moe":
			if architecture == "qwen3moe" {
				mix(f)
			}
			norms(dim, "attn_q_norm.weight", "attn_k_norm.weight")
		case "seed_oss":
			biased("attn_q", "attn_k", "attn_v")(f)
			for i := range f.Tensors {
				f.Tensors[i].Name = strings.Replace(f.Tensors[i].Name, ".ffn_norm.", ".post_attention_norm.", 1)
			}
		case "mistral3":
			set(map[string]any{"attention.temperature_scale": float32(0.3)})
			maps.Copy(f.Metadata, stretched)
		case "gpt-oss":
			biased("attn_q", "attn_k", "attn_v", "attn_output")(f)
			mix(f)
			experts := number("expert_count")
			draw(f, "ffn_gate_inp.bias", experts, 0, 0.3)
			draw(f, "attn_sinks.weight", number("attention.head_count"), 0, 2)
			for _, part := range []string{"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"} {
				draw(f, part+".bias", experts*f.Tensor("blk.0." + part + ".weight").Shape[1], 0, 0.3)
			}
			for i := range f.Tensors {
				t := &f.Tensors[i]
				t.Name = strings.Replace(t.Name, ".ffn_norm.", ".post_attention_norm.", 1)
				if strings.HasSuffix(t.Name, "_exps.bias") {
					t.Shape = []int64{t.Shape[0] / experts, experts}
				}
			}
			set(map[string]any{"attention.sliding_window": uint32(3)})
		case "gemma2":
			norms(width, "post_attention_norm.weight", "post_ffw_norm.weight")
			set(map[string]any{"attention.sliding_window": uint32(3), "attn_logit_softcapping": float32(5),
				"final_logit_softcapping": float32(3)})
		case "gemma3":
			norms(width, "post_attention_norm.weight", "post_ffw_norm.weight")
			norms(dim, "attn_q_norm.weight", "attn_k_norm.weight")
			set(map[string]any{"attention.sliding_window": uint32(3), "attention.sliding_window_pattern": uint32(2),
				"rope.freq_base": float32(1e6)})
		case "olmo2", "exaone4":
			if architecture == "exaone4" {
				norms(dim, "attn_q_norm.weight", "attn_k_norm.weight")
				set(map[string]any{"attention.sliding_window": uint32(3)})
			} else {
				norms(dim*number("attention.head_count"), "attn_q_norm.weight")
				norms(dim*number("attention.head_count_kv"), "attn_k_norm.weight")
			}
			for i := range f.Tensors {
				name := &f.Tensors[i].Name
				*name = strings.NewReplacer(".attn_norm.", ".post_attention_norm.", ".ffn_norm.",
					".post_ffw_norm.").Replace(*name)
			}
		case "phi3":
			joined(f, "attn_qkv", "attn_q", "attn_k", "attn_v")
			joined(f, "ffn_up", "ffn_gate", "ffn_up")
			set(map[string]any{"attention.sliding_window": uint32(2)})
		case "starcoder2", "gpt2":
			joined(f, "ffn_up", "ffn_up")
			for block := range number("block_count") {
				f.Remove(fmt.Sprintf("blk.%d.ffn_gate.weight", block))
			}
			layers := []string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"}
			if architecture == "gpt2" {
				joined(f, "attn_qkv", layers[:3]...)
				layers = append(layers[3:], "attn_qkv")
				f.Tensors = append(f.Tensors, testutil.TinyTensor{Name: "position_embd.weight",
					Shape: []int64{width, 512}, Values: make([]float32, 512*width)})
				for i := range 512 * width {
					f.Tensor("position_embd.weight").Values[i] = float32(math.Sin(float64(i * i)))
				}
			}
			biased(layers...)(f)
			draw(f, "attn_norm.bias", width, 0, 0.3)
			draw(f, "ffn_norm.bias", width, 0, 0.3)
			bias := f.Tensor("blk.0.ffn_norm.bias").Values
			f.Tensors = append(f.Tensors, testutil.TinyTensor{Name: "output_norm.bias", Shape: []int64{width},
				Values: bias})
			set(map[string]any{"attention.layer_norm_epsilon": float32(1e-5)})
		}
		for _, key := range slices.Collect(maps.Keys(f.Metadata)) {
			if name, ok := strings.CutPrefix(key, "llama."); ok {
				f.Metadata[architecture+"."+name] = f.Metadata[key]
				delete(f.Metadata, key)
			}
		}
		f.Metadata["general.architecture"] = architecture
	}
}

func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%s: number %d is %g, want exactly %g", what, i, got[i], want[i])
		}
	}
}
