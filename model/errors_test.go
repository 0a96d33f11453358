package model

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

type file = testutil.TinyFile

// wantError asks for one line that holds every one of the words.
func wantError(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %v", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// set changes a metadata value of a tiny model.
func set(key string, value any) func(*file) {
	return func(f *file) { f.Metadata[key] = value }
}

// mixed changes a metadata value of a tiny model with experts.
func mixed(key string, value any) func(*file) {
	return func(f *file) {
		as("qwen3moe")(f)
		f.Metadata["qwen3moe."+key] = value
	}
}

// reshape gives a tensor of a tiny model another shape.
func reshape(name string, shape ...int64) func(*file) {
	return func(f *file) {
		n := int64(1)
		for _, s := range shape {
			n *= s
		}
		f.Tensor(name).Shape, f.Tensor(name).Values = shape, make([]float32, n)
	}
}

func insert(name string, shape ...int64) func(*file) {
	return func(f *file) {
		f.Tensors = append(f.Tensors, testutil.TinyTensor{Name: name})
		reshape(name, shape...)(f)
	}
}

func TestBrokenModels(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*file)
		words  []string
	}{
		"another architecture": {set("general.architecture", "bert"), []string{`"bert"`, "llama"}},
		"no architecture": {func(f *file) { delete(f.Metadata, "general.architecture") },
			[]string{"general.architecture"}},
		"architecture no text": {set("general.architecture", uint32(3)), []string{"general.architecture"}},
		"an adapter":           {set("general.type", "adapter"), []string{"adapter", "model"}},
		"no block count": {func(f *file) { delete(f.Metadata, "llama.block_count") },
			[]string{"llama.block_count"}},
		"block count no number": {set("llama.block_count", "two"), []string{"llama.block_count"}},
		"no blocks":             {set("llama.block_count", uint32(0)), []string{"llama.block_count"}},
		"negative width":        {set("llama.embedding_length", int32(-64)), []string{"llama.embedding_length"}},
		"huge width": {set("llama.embedding_length", uint64(math.MaxUint64)),
			[]string{"llama.embedding_length"}},
		"another width": {set("llama.embedding_length", uint32(32)), []string{"token_embd.weight", "[64 300]",
			"[32 300]"}},
		"no heads": {set("llama.attention.head_count", uint32(0)), []string{"llama.attention.head_count"}},
		"different heads": {set("llama.attention.head_count_kv", []uint32{2, 4}),
			[]string{"blk.1.attn_k.weight", "[64 64]"}},
		"a list of texts": {set("llama.attention.head_count_kv", []string{"2", "2"}),
			[]string{"llama.attention.head_count_kv"}},
		"an empty list": {set("llama.attention.head_count_kv", []uint32{}),
			[]string{"llama.attention.head_count_kv"}},
		"both directions": {set("llama.attention.causal", false), []string{"llama.attention.causal"}},
		"a token too many": {func(f *file) {
			f.Metadata["tokenizer.ggml.tokens"] = append(slices.Clone(f.Metadata["tokenizer.ggml.tokens"].([]string)),
				"more")
		}, []string{"301 tokens", "300 rows"}},
		"no key heads": {set("llama.attention.head_count_kv", uint32(0)),
			[]string{"llama.attention.head_count_kv", "0"}},
		"uneven key heads": {set("llama.attention.head_count_kv", uint32(3)),
			[]string{"4 query heads", "3 key heads"}},
		"odd rope": {set("llama.rope.dimension_count", uint32(7)),
			[]string{"llama.rope.dimension_count", "7"}},
		"rope beyond the head": {set("llama.rope.dimension_count", uint32(18)),
			[]string{"llama.rope.dimension_count", "18"}},
		"no rope": {set("llama.rope.dimension_count", uint32(0)), []string{"llama.rope.dimension_count"}},
		"rope scaling unknown": {func(f *file) {
			set("llama.rope.scaling.type", "ntk")(f)
			set("llama.rope.scaling.factor", float32(2))(f)
		}, []string{"ntk", "yarn"}},
		"rope scaling negative": {set("llama.rope.scaling.factor", float32(-2)),
			[]string{"llama.rope.scaling.factor"}},
		"rope base NaN": {set("llama.rope.freq_base", float32(math.NaN())), []string{"llama.rope.freq_base"}},
		"eps zero": {set("llama.attention.layer_norm_rms_epsilon", float32(0)),
			[]string{"layer_norm_rms_epsilon"}},
		"eps NaN": {set("llama.attention.layer_norm_rms_epsilon", float32(math.NaN())),
			[]string{"layer_norm_rms_epsilon"}},
		"values unlike keys": {set("llama.attention.value_length", uint32(8)),
			[]string{"16 for keys", "8 for values"}},
		"experts":             {set("llama.expert_count", uint32(8)), []string{"8 experts"}},
		"no embedding":        {func(f *file) { f.Remove("token_embd.weight") }, []string{"token_embd.weight"}},
		"embedding no matrix": {reshape("token_embd.weight", 64), []string{"token_embd.weight"}},
		"no output norm": {func(f *file) {
			f.Remove("output_norm.weight")
		}, []string{"output_norm.weight", "missing"}},
		"missing matrix": {func(f *file) {
			f.Remove("blk.1.ffn_up.weight")
		}, []string{"blk.1.ffn_up.weight", "missing"}},
		"missing norm": {func(f *file) { f.Remove("blk.0.ffn_norm.weight") },
			[]string{"blk.0.ffn_norm.weight", "missing"}},
		"missing block":  {set("llama.block_count", uint32(3)), []string{"blk.2.", "missing"}},
		"block too many": {set("llama.block_count", uint32(1)), []string{"blk.1.", "not part"}},
		"turned matrix": {reshape("blk.1.ffn_down.weight", 64, 96),
			[]string{"blk.1.ffn_down.weight", "[64 96]", "[96 64]"}},
		"matrix of three": {reshape("blk.0.attn_q.weight", 64, 64, 2), []string{"blk.0.attn_q.weight"}},
		"norm too short":  {reshape("blk.0.attn_norm.weight", 63), []string{"blk.0.attn_norm.weight", "[63]"}},
		"norm in half precision": {func(f *file) { f.Tensor("output_norm.weight").Type = bindings.F16 },
			[]string{"output_norm.weight", "f16", "f32"}},
		"head of another width": {insert("output.weight", 32, 300), []string{"output.weight", "[32 300]"}},
		"rope factors too few":  {insert("rope_freqs.weight", 4), []string{"rope_freqs.weight", "[4]"}},
		"a bias too short":      {insert("blk.0.attn_q.bias", 63), []string{"blk.0.attn_q.bias", "[63]"}},
		"a bias of a norm":      {insert("blk.0.attn_norm.bias", 64), []string{"blk.0.attn_norm.bias", "not part"}},
		"norms of heads": {insert("blk.0.attn_q_norm.weight", 16),
			[]string{"blk.0.attn_q_norm.weight", "not part", "llama"}},
		"a bias left out": {func(f *file) { as("qwen2")(f); f.Remove("blk.1.attn_k.bias") },
			[]string{"blk.1.attn_k.bias", "missing"}},
		"a norm left out": {func(f *file) { as("qwen3")(f); f.Remove("blk.1.attn_k_norm.weight") },
			[]string{"blk.1.attn_k_norm.weight", "missing"}},
		"no experts": {mixed("expert_count", uint32(0)), []string{"qwen3moe.expert_count"}},
		"experts too few": {mixed("expert_used_count", uint32(6)),
			[]string{"qwen3moe.expert_used_count", "from 1 to 5"}},
		"another expert count": {mixed("expert_count", uint32(4)), []string{"blk.0.ffn_gate_inp.weight", "[64 5]",
			"[64 4]"}},
		"experts of other width": {mixed("expert_feed_forward_length", uint32(32)),
			[]string{"blk.0.ffn_gate_exps.weight", "[64 96 5]", "[64 32 5]"}},
		"a shared expert": {mixed("expert_shared_count", uint32(1)), []string{"qwen3moe.expert_shared_count"}},
		"scaled experts": {mixed("expert_weights_scale", float32(2.5)),
			[]string{"qwen3moe.expert_weights_scale", "2.5"}},
		"experts by sigmoid": {mixed("expert_gating_func", uint32(2)), []string{"qwen3moe.expert_gating_func"}},
		"experts not normed": {mixed("expert_weights_norm", false), []string{"qwen3moe.expert_weights_norm"}},
		"no sinks": {func(f *file) { as("gpt-oss")(f); f.Remove("blk.1.attn_sinks.weight") },
			[]string{"blk.1.attn_sinks.weight", "missing"}},
		"an expert left out": {func(f *file) { as("qwen3moe")(f); f.Remove("blk.1.ffn_up_exps.weight") },
			[]string{"blk.1.ffn_up_exps.weight", "missing"}},
		"granite not rotated": {func(f *file) { set("llama.rope.scaling.finetuned", false)(f); as("granite")(f) },
			[]string{"granite.rope.scaling.finetuned"}},
		"a bias too many": {func(f *file) { biased("attn_output")(f); as("qwen2")(f) },
			[]string{"attn_output.bias", "not part", "qwen2"}},
		"a fused matrix": {insert("blk.0.attn_qkv.weight", 64, 128),
			[]string{"blk.0.attn_qkv.weight", "not part"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := testutil.TinyLlama(t, testutil.TinyOptions{Change: c.change})
			m, err := Open(path, options())
			if err == nil {
				m.Close()
			}
			wantError(t, err, append(c.words, path)...)
		})
	}
}

// TestComputedKeys gives a model each key that changes what it computes: it is refused by the key's name, and taken
// with the value that changes nothing.
func TestComputedKeys(t *testing.T) {
	const gelu, dim = "gelu_pytorch_tanh", uint32(16)
	for key, c := range map[string]struct{ refused, taken any }{
		"activation.situ_beta":         {float32(1), float32(0)},
		"activation.situ_linear_beta":  {float32(1), float32(0)},
		"activation_sparsity_scale":    {[]float32{1.6, 0}, []float32{0, 0}},
		"attention.clamp_kqv":          {float32(8), float32(0)},
		"attention.key_length_swa":     {uint32(32), dim},
		"attention.max_alibi_bias":     {float32(8), float32(0)},
		"attention.output_scale":       {float32(0.08), float32(1)},
		"attention.rope_pattern":       {[]bool{true, false}, []bool{true, true}},
		"attention.scale":              {float32(1), float32(0.25)},
		"attention.shared_kv_layers":   {uint32(1), uint32(0)},
		"attention.temperature_length": {uint32(8192), uint32(0)},
		"attention.temperature_scale":  {float32(0.1), float32(0)},
		"attention.value_length_swa":   {uint32(32), dim},
		"attention.value_scale":        {float32(0.7), float32(1)},
		"attn_logit_softcapping":       {float32(50), float32(0)},
		"embedding_scale":              {float32(12), float32(1)},
		"expert_gating_func":           {uint32(2), uint32(1)},
		"expert_group_count":           {uint32(8), uint32(1)},
		"expert_group_scale":           {float32(2), float32(1)},
		"expert_weights_scale":         {float32(2.5), float32(1)},
		"final_logit_softcapping":      {float32(30), float32(0)},
		"full_attention_interval":      {uint32(4), uint32(1)},
		"hidden_activation":            {gelu, "silu"},
		"logit_scale":                  {float32(8), float32(1)},
		"norm_before_residual":         {true, false},
		"num_loops":                    {uint32(2), uint32(1)},
		"residual_scale":               {float32(0.2), float32(1)},
		"rope.dimension_count_swa":     {uint32(8), dim},
		"rope.freq_base_swa":           {float32(1e6), float32(1e4)},
		"rope.scaling.alpha":           {float32(1000), float32(1)},
		"router_logit_softcapping":     {float32(30), float32(0)},
		"swiglu_clamp_exp":             {[]float32{7, 7}, []float32{0, 0}},
		"swiglu_clamp_shexp":           {[]float32{7, 0}, float32(0)},
		"swin_norm":                    {true, false},
		"use_parallel_residual":        {true, false},
	} {
		t.Run(key, func(t *testing.T) {
			key := "llama." + key
			_, err := Describe(testutil.TinyLlama(t, testutil.TinyOptions{Change: set(key, c.refused)}))
			wantError(t, err, key+" is ", "architecture llama")
			if _, err := Describe(testutil.TinyLlama(t, testutil.TinyOptions{Change: set(key, c.taken)})); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := Describe(testutil.TinyLlama(t, testutil.TinyOptions{Change: set("llama.swin_norm", "yes")}))
	wantError(t, err, "llama.swin_norm", "yes", "a number is needed")
}

// TestTruncatedModel cuts a model at many lengths, the empty file among them.
func TestTruncatedModel(t *testing.T) {
	whole, err := os.ReadFile(testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q8_0}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.gguf")
	lengths := []int{0, 1, 3, 4, 7, 8, 16, 23, 24, 25, len(whole) - 1, len(whole) - 33}
	for n := 31; n < len(whole); n += 1571 {
		lengths = append(lengths, n)
	}
	for _, n := range lengths {
		if err := os.WriteFile(path, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path, options())
		if err == nil {
			m.Close()
			t.Errorf("%d of %d bytes are taken for a model", n, len(whole))
			continue
		}
		wantError(t, err, path, "GGUF file")
	}
	_, err = Open(filepath.Join(t.TempDir(), "none.gguf"), options())
	wantError(t, err, "none.gguf", "no such file")
	_, err = Open(t.TempDir(), options())
	wantError(t, err, "not a regular file")
}

func TestBadOptions(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	for word, o := range map[string]Options{
		"threads 0":        {Threads: 0, Compute: ComputeF32, Plan: PlanAuto, Recompute: RecomputeAll},
		"threads 513":      {Threads: 513, Compute: ComputeF32, Plan: PlanAuto, Recompute: RecomputeAll},
		`compute "fp8"`:    {Threads: 1, Compute: "fp8", Plan: PlanAuto, Recompute: RecomputeAll},
		`plan "best"`:      {Threads: 1, Compute: ComputeF32, Plan: "best", Recompute: RecomputeAll},
		`recompute "some"`: {Threads: 1, Compute: ComputeF32, Plan: PlanAuto, Recompute: "some"},
		"memory -1":        {Threads: 1, Compute: ComputeF32, Plan: PlanAuto, Recompute: RecomputeAuto, Memory: -1},
	} {
		_, err := Open(path, o)
		wantError(t, err, word)
	}
}

// TestForeignAdapters attaches adapters of other shapes; the model must go on as the base model.
func TestForeignAdapters(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	b := randomBatch(1, m.Vocab, 5)
	base := b.loss(t, m)
	for name, o := range map[string]testutil.TinyOptions{
		"wider":           {Width: 128},
		"longer":          {Hidden: 128},
		"shorter":         {Hidden: 64},
		"other key heads": {KVHeads: 1},
		"more blocks":     {Blocks: 3},
	} {
		t.Run(name, func(t *testing.T) {
			other := tiny(t, o)
			a, err := vera.New(vera.Config{Method: vera.MethodVeRA, Rank: 4, DInitial: 0.1, Init: vera.Default().Init},
				other.Base())
			if err != nil {
				t.Fatal(err)
			}
			wantError(t, m.Attach(a), "attach the adapter")
			if got := b.loss(t, m); got != base {
				t.Errorf("loss %g afterwards, %g before", got, base)
			}
		})
	}
	wantError(t, m.Update(), "no adapter")
}

func TestBadBatches(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	a := adapted(t, m, nil)
	grad := make([]float32, len(a.Params))
	vocab := int32(m.Vocab)
	for name, c := range map[string]struct {
		batch
		words []string
	}{
		"empty": {batch{}, []string{"0 tokens"}},
		"token too large": {batch{[]int32{1, vocab}, []int32{1, 1}, []int{2}},
			[]string{"token 300", "vocabulary"}},
		"negative token": {batch{[]int32{-1, 1}, []int32{1, 1}, []int{2}}, []string{"token -1", "vocabulary"}},
		"target too large": {batch{[]int32{1, 1}, []int32{1, vocab}, []int{2}},
			[]string{"target 300", "vocabulary"}},
		"lengths too short": {batch{[]int32{1, 1, 1}, []int32{1, 1, 1}, []int{2}},
			[]string{"3 tokens", "samples of 2"}},
		"lengths too long": {batch{[]int32{1, 1}, []int32{1, 1}, []int{2, 1}},
			[]string{"sample 1", "1 tokens, 0 are left"}},
		"no lengths":        {batch{[]int32{1, 1}, []int32{1, 1}, nil}, []string{"2 tokens", "samples of 0"}},
		"an empty sample":   {batch{[]int32{1, 1}, []int32{1, 1}, []int{2, 0}}, []string{"sample 1", "0 tokens"}},
		"a negative sample": {batch{[]int32{1, 1}, []int32{1, 1}, []int{2, -1}}, []string{"sample 1", "-1 tokens"}},
		"lengths that wrap": {batch{[]int32{1, 1}, []int32{1, 1}, []int{math.MaxInt, math.MaxInt, 4}},
			[]string{"sample"}},
		"fewer targets":        {batch{[]int32{1, 1}, []int32{1}, []int{2}}, []string{"1 targets"}},
		"more targets":         {batch{[]int32{1}, []int32{1, 1}, []int{1}}, []string{"2 targets"}},
		"tokens without match": {batch{nil, nil, []int{1}}, []string{"0 are left"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := m.Loss(c.tokens, c.targets, c.lengths)
			wantError(t, err, c.words...)
			_, _, err = m.AddGradient(c.tokens, c.targets, c.lengths, 0, grad)
			wantError(t, err, c.words...)
		})
	}
	b := randomBatch(1, m.Vocab, 3)
	_, _, err := m.AddGradient(b.tokens, b.targets, b.lengths, 0, grad[1:])
	wantError(t, err, "gradients", "room")
	if err := m.Attach(nil); err != nil {
		t.Fatal(err)
	}
	_, _, err = m.AddGradient(b.tokens, b.targets, b.lengths, 0, grad)
	wantError(t, err, "no adapter")
}

func TestBadAdditions(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	for _, size := range [][2]int{{0, 1}, {1, 0}, {1, -1}, {-1, 4}, {1, 1 << 44}, {1 << 44, 1},
		{math.MaxInt, math.MaxInt}} {
		_, err := m.NewCache(size[0], size[1])
		wantError(t, err, "cache")
	}
	c := m.mustCache(t, 2, 16)
	long := slices.Repeat([]int32{1}, 17)
	for name, bad := range map[string]struct {
		adds  []Addition
		words []string
	}{
		"nothing":         {[]Addition{{Text: 0, Tokens: nil, Rows: 0}}, []string{"0 tokens"}},
		"rows too many":   {[]Addition{{Text: 0, Tokens: []int32{1}, Rows: 2}}, []string{"2 rows"}},
		"negative rows":   {[]Addition{{Text: 0, Tokens: []int32{1}, Rows: -1}}, []string{"-1 rows"}},
		"too long":        {[]Addition{{Text: 0, Tokens: long, Rows: 1}}, []string{"room for 16"}},
		"token too large": {[]Addition{{Text: 0, Tokens: []int32{1, int32(m.Vocab)}, Rows: 1}}, []string{"token 300"}},
		"negative token":  {[]Addition{{Text: 0, Tokens: []int32{-1}, Rows: 1}}, []string{"token -1"}},
		"no such text":    {[]Addition{{Text: 2, Tokens: []int32{1}, Rows: 1}}, []string{"text 2 of 2"}},
		"twice": {[]Addition{{Text: 1, Tokens: []int32{1}, Rows: 1}, {Text: 0, Tokens: []int32{1}, Rows: 1},
			{Text: 1, Tokens: []int32{1}, Rows: 1}},
			[]string{"text 1", "twice"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Append(bad.adds...)
			wantError(t, err, bad.words...)
			if len(c.Held(0)) != 0 || len(c.Held(1)) != 0 {
				t.Error("texts hold tokens after an error")
			}
		})
	}
	_, err := m.Logits([]int32{1, 2}, 3)
	wantError(t, err, "logits")
	_, err = m.Logits(nil, 0)
	wantError(t, err, "logits")
}
