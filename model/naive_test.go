package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// naive is a language model with an adapter in float64, written after the papers' and transformers' formulas and
// sharing nothing with the engine but the file, whose keys it reads itself. It is what the engine's losses, logits and
// gradients are compared with. Rows of a matrix are tokens of one sample.
type naive struct {
	*record
	file    *bindings.GGUF
	name    string               // general.architecture
	weights map[string]*matrix   // every tensor of the file, dequantised
	adapter *vera.Adapter        // nil: the base model
	trained map[*float32]*matrix // the adapter's numbers, by where they begin
	given   map[int][2]*matrix   // keys and values of each block, for those that take them
	extra   []*matrix            // of a gemma4, what its blocks get of each token
	ties    map[int]tie          // of each row, where it chose between experts
	whole   bool                 // YaRN's ramp begins and ends at whole pairs in gpt-oss, too
	masks   map[[2]int][]float32 // dropout by block and group, [tokens × in]; nil: none
}

// tie is where a row's last chosen expert was nearest to the next one: the difference of their logits.
type tie struct {
	block string
	gap   float64
}

// answer is what a model makes of samples: the sum of their losses, all logits, and the gradients of the adapter's
// Params; nil where there are none.
type answer struct {
	loss         float64
	logits, grad []float32
}

func newNaive(t *testing.T, m *Model) *naive {
	t.Helper()
	n := &naive{file: m.file, name: m.file.Value("general.architecture").(string), weights: map[string]*matrix{}}
	if m.adapter != nil {
		n.adapter = m.adapter.Adapter
	}
	for _, info := range m.file.Tensors() {
		values := make([]float32, info.Shape[0]*info.Rows())
		if err := bindings.Dequantize(info.Type, m.file.Data(info), values); err != nil {
			t.Fatal(err)
		}
		n.weights[info.Name] = constant(int(info.Rows()), int(info.Shape[0]), wide(values))
	}
	return n
}

// number is one of the file's metadata.
func (n *naive) number(key string, otherwise float64) float64 {
	if v, ok := n.file.Float(n.name + "." + key); ok {
		return v
	}
	if v, ok := n.file.Uint(n.name + "." + key); ok {
		return float64(v)
	}
	return otherwise
}

// run computes samples one after the other, and goes back.
func (n *naive) run(b batch) (a answer) {
	n.record, n.trained, n.ties = &record{}, map[*float32]*matrix{}, map[int]tie{}
	at := 0
	for _, length := range b.lengths {
		logits := n.logits(b.tokens[at:at+length], at)
		a.loss += n.loss(logits, b.targets[at:at+length])
		a.logits = append(a.logits, converted[float32](logits.v)...)
		at += length
	}
	if n.adapter == nil {
		return a
	}
	n.backward()
	for part := range n.adapter.Trained {
		a.grad = append(a.grad, converted[float32](n.vector(part.Values, 1).g)...)
	}
	return a
}

// logits gives those after each token of one sample, whose first token is the pack's token at.
func (n *naive) logits(tokens []int32, at int) *matrix {
	embedding := n.weights["token_embd.weight"]
	var values []float64
	for _, token := range tokens {
		values = append(values, embedding.row(int(token))...)
	}
	scale := n.number("embedding_scale", 1)
	if slices.Contains([]string{"gemma2", "gemma3", "gemma4"}, n.name) {
		scale = math.Sqrt(float64(embedding.cols))
	}
	x := n.scaled(constant(len(tokens), embedding.cols, values), scale)
	if positions := n.weights["position_embd.weight"]; positions != nil {
		x = n.sum(x, positions.part(0, len(tokens)))
	}
	n.given, n.extra = map[int][2]*matrix{}, n.extras(tokens, x)
	for block := range int(n.number("block_count", 0) - n.number("nextn_predict_layers", 0)) {
		x = n.block(x, block, at)
	}
	head := n.weights["output.weight"]
	if head == nil {
		head = embedding
	}
	logits := n.scaled(n.product(n.norm(n.norm(x, "output_norm"), "token_embd_norm"), head),
		1/n.number("logit_scale", 1))
	return n.capped(logits, n.number("final_logit_softcapping", 0))
}

func (n *naive) block(x *matrix, block, at int) *matrix {
	prefix := fmt.Sprintf("blk.%d.", block)
	added := n.number("residual_scale", 1)
	y := n.norm(x, prefix+"attn_norm")
	if taps := n.weights[prefix+"shortconv.conv.weight"]; taps != nil {
		y = n.shortConv(y, taps, block, at)
	} else if n.weights[prefix+"ssm_a"] != nil {
		y = n.deltaNet(y, block, at)
	} else {
		y = n.attention(y, block, at)
	}
	// their files have the norm before the feed-forward by another's name
	early := slices.Contains([]string{"gpt-oss", "qwen35", "seed_oss"}, n.name)
	if !early {
		y = n.norm(y, prefix+"post_attention_norm")
	}
	x = n.sum(x, n.scaled(y, added))
	ffnNorm := "ffn_norm"
	if early {
		ffnNorm = "post_attention_norm"
	}
	h := n.norm(x, prefix+ffnNorm)
	if n.weights[prefix+"ffn_gate_inp.weight"] != nil {
		y = n.mixture(h, prefix, at)
	} else {
		y = n.feedForward(h, block, at)
	}
	x = n.sum(x, n.scaled(n.norm(y, prefix+"post_ffw_norm"), added))
	if gate := n.weights[prefix+"inp_gate.weight"]; gate != nil {
		y = n.product(n.times(n.activated(n.product(x, gate)), n.extra[block]), n.weights[prefix+"proj.weight"])
		x = n.sum(x, n.norm(y, prefix+"post_norm"))
	}
	if scale := n.weights[prefix+"layer_output_scale.weight"]; scale != nil {
		x = n.scaled(x, scale.v[0])
	}
	return x
}

// extras are what each block of a gemma4 gets of the tokens, whose scaled embeddings are x: a row of a table times √n,
// and the embedding's projection, together by 1/√2.
func (n *naive) extras(tokens []int32, x *matrix) (list []*matrix) {
	table := n.weights["per_layer_token_embd.weight"]
	if table == nil {
		return nil
	}
	blocks := int(n.number("block_count", 0))
	width := table.cols / blocks
	projected := n.scaled(n.product(x, n.weights["per_layer_model_proj.weight"]), 1/math.Sqrt(float64(x.cols)))
	for block := range blocks {
		var values []float64
		for _, token := range tokens {
			values = append(values, table.row(int(token))[block*width:(block+1)*width]...)
		}
		own := n.scaled(constant(len(tokens), width, values), math.Sqrt(float64(width)))
		list = append(list, n.scaled(n.sum(own, n.norm(n.columns(projected, block*width, width),
			"per_layer_proj_norm")), 1/math.Sqrt2))
	}
	return list
}

// of is a number that each block may have otherwise.
func (n *naive) of(block int, key string, otherwise float64) int {
	if list, _ := n.file.Uints(n.name + "." + key); len(list) > 0 {
		return int(list[block])
	}
	return int(n.number(key, otherwise))
}

// shortConv is a gate times the convolution of what another gate lets through.
func (n *naive) shortConv(h, taps *matrix, block, at int) *matrix {
	all, w := n.linear(h, block, "shortconv.in_proj", 0, at), h.cols
	y := n.convolved(n.times(n.columns(all, 0, w), n.columns(all, 2*w, w)), taps)
	return n.linear(n.times(n.columns(all, w, w), y), block, "shortconv.out_proj", 1, at)
}

func (n *naive) attention(h *matrix, block, at int) *matrix {
	heads := int(n.number("attention.head_count", 0))
	kvHeads := n.of(block, "attention.head_count_kv", float64(heads))
	window, local := n.window(block)
	dim := int(n.number("attention.key_length", float64(h.cols/heads)))
	if local {
		dim = int(n.number("attention.key_length_swa", float64(dim)))
	}
	var q, k, v, gates *matrix
	taker := block - int(n.number("block_count", 0)) + int(n.number("attention.shared_kv_layers", 0))
	if taker >= 0 {
		q = n.linear(h, block, "attn_q", 0, at)
	} else if name := "attn_qkv"; n.weights[fmt.Sprintf("blk.%d.%s.weight", block, name)] != nil {
		all := n.linear(h, block, name, 0, at)
		q, k, v = n.columns(all, 0, heads*dim), n.columns(all, heads*dim, kvHeads*dim),
			n.columns(all, (heads+kvHeads)*dim, kvHeads*dim)
	} else {
		q, k = n.linear(h, block, "attn_q", 0, at), n.linear(h, block, "attn_k", 0, at)
		if q.cols == 2*heads*dim {
			q, gates = n.everyOther(q, dim, 0), n.everyOther(q, dim, 1)
		}
		v = k
		if n.weights[fmt.Sprintf("blk.%d.attn_v.weight", block)] != nil {
			v = n.linear(h, block, "attn_v", 0, at)
		}
	}
	// Norms of q and k are of a head or of the whole row: of as many numbers as they have weights.
	q = n.rotated(n.norm(q, fmt.Sprintf("blk.%d.attn_q_norm", block)), block, dim, local)
	if taker < 0 {
		k = n.rotated(n.norm(k, fmt.Sprintf("blk.%d.attn_k_norm", block)), block, dim, local)
		if n.name == "gemma4" {
			v = n.normed(v, dim, n.number("attention.layer_norm_rms_epsilon", 0))
		}
		n.given[block] = [2]*matrix{k, v}
	} else {
		from := block - taker - 1
		for _, other := n.window(from); other != local; _, other = n.window(from) {
			from--
		}
		k, v = n.given[from][0], n.given[from][1]
	}
	perHead := 1 / math.Sqrt(float64(dim))
	if n.name == "gemma4" {
		perHead = 1
	}
	q = n.warmed(q)
	var outs []*matrix
	for head := range heads {
		kv := head / (heads / kvHeads) * dim
		scores := n.scaled(n.product(n.columns(q, head*dim, dim), n.columns(k, kv, dim)),
			n.number("attention.scale", perHead))
		scores = n.capped(scores, n.number("attn_logit_softcapping", 0))
		if sinks := n.weights[fmt.Sprintf("blk.%d.attn_sinks.weight", block)]; sinks != nil {
			// One more score, whose value is nothing.
			var all []*matrix
			for j := range scores.cols {
				all = append(all, n.columns(scores, j, 1))
			}
			scores = n.beside(1, append(all,
				constant(scores.rows, 1, slices.Repeat([]float64{sinks.v[head]}, scores.rows))))
		}
		p := n.softmax(scores, func(i, j int) bool { return j == h.rows || j <= i && (!local || i-j < window) })
		p = n.columns(p, 0, h.rows)
		outs = append(outs, n.product(p, n.transposed(n.columns(v, kv, dim))))
	}
	y := n.beside(dim, outs)
	if gates != nil {
		y = n.times(y, n.each(gates, sigmoid))
	}
	return n.linear(y, block, "attn_output", 1, at)
}

// everyOther are dim columns of every 2 dim, the first or the second ones.
func (n *naive) everyOther(x *matrix, dim, which int) *matrix {
	var parts []*matrix
	for at := which * dim; at < x.cols; at += 2 * dim {
		parts = append(parts, n.columns(x, at, dim))
	}
	return n.beside(dim, parts)
}

func sigmoid(v float64) (y, slope float64) {
	s := 1 / (1 + math.Exp(-v))
	return s, s * (1 - s)
}

// deltaNet goes token by token: S ← e^g S, then S ← S + β (v − S k) kᵀ, and gives S q. Hugging Face's value head
// k·(values/keys) + i, which goes with key head k, is head i·keys + k of the file.
func (n *naive) deltaNet(h *matrix, block, at int) *matrix {
	prefix := fmt.Sprintf("blk.%d.", block)
	keys, values, dk := int(n.number("ssm.group_count", 0)), int(n.number("ssm.time_step_rank", 0)),
		int(n.number("ssm.state_size", 0))
	dv := int(n.number("ssm.inner_size", 0)) / values
	x := n.activated(n.convolved(n.linear(h, block, "attn_qkv", 0, at), n.weights[prefix+"ssm_conv1d.weight"]))
	softplus := func(v float64) (y, slope float64) { return math.Log1p(math.Exp(v)), 1 / (1 + math.Exp(-v)) }
	g := n.times(n.each(n.sum(n.linear(h, block, "ssm_alpha", 0, at), n.weights[prefix+"ssm_dt.bias"]), softplus),
		n.weights[prefix+"ssm_a"])
	kept := n.each(g, func(v float64) (y, slope float64) { return math.Exp(v), math.Exp(v) })
	beta := n.each(n.linear(h, block, "ssm_beta", 0, at), sigmoid)
	unit := func(start int) *matrix { // over √(Σ x² + 1e-6)
		return n.scaled(n.normed(n.columns(x, start, dk), dk, 1e-6/float64(dk)), 1/math.Sqrt(float64(dk)))
	}
	var outs []*matrix
	for head := range values {
		q, k := unit(head%keys*dk), unit((keys+head%keys)*dk)
		q = n.scaled(q, 1/math.Sqrt(float64(dk)))
		v := n.columns(x, 2*keys*dk+head*dv, dv)
		memory := constant(dv, dk, make([]float64, dv*dk))
		var reads []*matrix
		for t := range h.rows {
			one := func(of *matrix) *matrix { return n.columns(of.part(t, 1), head, 1) }
			key := k.part(t, 1)
			memory = n.times(memory, one(kept))
			u := n.times(n.sum(v.part(t, 1), n.scaled(n.product(key, memory), -1)), one(beta))
			memory = n.sum(memory, n.product(n.transposed(u), n.transposed(key)))
			reads = append(reads, n.product(memory, q.part(t, 1)))
		}
		outs = append(outs, n.transposed(n.beside(1, reads)))
	}
	y := n.norm(n.beside(dv, outs), prefix+"ssm_norm")
	return n.linear(n.times(y, n.activated(n.linear(h, block, "attn_gate", 0, at))), block, "ssm_out", 1, at)
}

// warmed are queries that grow with their position.
func (n *naive) warmed(q *matrix) *matrix {
	scale := n.number("attention.temperature_scale", 0)
	if scale == 0 {
		return q
	}
	var by []float64
	for position := range q.rows {
		by = append(by, 1+scale*math.Log(
			1+math.Floor(float64(position)/n.number("rope.scaling.original_context_length", 0))))
	}
	return n.times(q, constant(q.rows, 1, by))
}

// window is the number of last tokens that a block sees, if it doesn't see all.
func (n *naive) window(block int) (window int, local bool) {
	every, ok := map[string]float64{"exaone4": 4, "gemma2": 2, "gemma3": 6, "gemma4": 6, "gpt-oss": 2, "llama": 1,
		"mistral3": 1, "olmo2": 4, "phi3": 1, "starcoder2": 1}[n.name]
	window = int(n.number("attention.sliding_window", 0))
	if !ok || window == 0 {
		return 0, false
	}
	const pattern = "attention.sliding_window_pattern"
	if list, ok := n.file.Value(n.name + "." + pattern).([]bool); ok {
		return window, list[block]
	}
	every = n.number(pattern, every)
	return window, every == 1 || (block+1)%int(every) != 0
}

// rotated turns q and k by the positions of their tokens.
func (n *naive) rotated(x *matrix, block, dim int, local bool) *matrix {
	if n.weights["position_embd.weight"] != nil || n.name == "smollm3" && block%4 == 3 || n.name == "exaone4" &&
		!local && n.number("attention.sliding_window", 0) > 0 {
		return x
	}
	dims := int(n.number("rope.dimension_count", float64(dim)))
	if local {
		dims = int(n.number("rope.dimension_count_swa", float64(dims)))
	}
	pairs := make([][2]int, dims/2)
	for i := range pairs {
		pairs[i] = [2]int{i, i + dims/2}
		if n.neighbours() {
			pairs[i] = [2]int{2 * i, 2*i + 1}
		}
	}
	angles, size := n.angles(dims, x.rows)
	switch {
	case (n.name == "gemma3" || n.name == "gemma4") && local:
		angles, size = powers(n.number("rope.freq_base_swa", 10000), dims), 1
	case n.name == "olmo2" && local:
		angles, size = powers(n.number("rope.freq_base_swa", n.number("rope.freq_base", 10000)), dims), 1
	}
	return n.turned(x, dim, pairs, func(row, pair int) float64 { return float64(row) * angles[pair] }, size)
}

// powers are base^(−2i/dims).
func powers(base float64, dims int) []float64 {
	list := make([]float64, dims/2)
	for i := range list {
		list[i] = math.Pow(base, -2*float64(i)/float64(dims))
	}
	return list
}

// angles are those by which pairs are rotated from one token to the next, and what the rotated numbers are multiplied
// by, in a text of that length.
func (n *naive) angles(dims, length int) (angles []float64, size float64) {
	base := n.number("rope.freq_base", 10000)
	context := n.number("rope.scaling.original_context_length", n.number("context_length", 0))
	angles, size = powers(base, dims), n.number("rope.scaling.attn_factor", 1)
	factors := n.weights["rope_freqs.weight"]
	if short := n.weights["rope_factors_short.weight"]; short != nil {
		factors = short
		if float64(length) > context {
			factors = n.weights["rope_factors_long.weight"]
		}
	}
	for i := range angles {
		if factors != nil {
			angles[i] /= factors.v[i]
		}
	}
	factor := n.number("rope.scaling.factor", 1)
	if kind, _ := n.file.String(n.name + ".rope.scaling.type"); kind != "yarn" {
		for i := range angles {
			angles[i] /= factor
		}
		return angles, size
	}
	// YaRN (Peng et al., arXiv 2309.00071, section 3.2): pairs that turn more than 32 times over the original context
	// keep their angle, those below once are scaled.
	turning := func(times float64) float64 { // the pair that turns so many times
		return float64(dims) * math.Log(context/(times*2*math.Pi)) / (2 * math.Log(base))
	}
	low, high := turning(n.number("rope.scaling.yarn_beta_fast", 32)),
		turning(n.number("rope.scaling.yarn_beta_slow", 1))
	if n.whole || n.name != "gpt-oss" {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(0, low), min(float64(dims-1), high)
	for i := range angles {
		scaled := min(1, max(0, (float64(i)-low)/max(0.001, high-low)))
		angles[i] *= scaled/factor + 1 - scaled
	}
	scales := (1 + 0.1*math.Log(factor)) / (1 + 0.1*n.number("rope.scaling.yarn_log_multiplier", 0)*math.Log(factor))
	return angles, size * n.number("rope.scaling.yarn_attn_factor", scales)
}

// neighbours tells whether numbers 2i and 2i + 1 of a head are rotated together, because the file's converter reordered
// the rows of q and k. In Hugging Face's order, numbers i and i + dims/2 are.
func (n *naive) neighbours() bool {
	return slices.Contains([]string{"granite", "llama", "mistral3", "smollm3"}, n.name)
}

// feedForward has its gate in a matrix of its own, or above the rows of ffn_up, or none.
func (n *naive) feedForward(h *matrix, block, at int) *matrix {
	up := n.linear(h, block, "ffn_up", 2, at)
	hidden := n.of(block, "feed_forward_length", 0)
	switch {
	case n.weights[fmt.Sprintf("blk.%d.ffn_gate.weight", block)] != nil:
		up = n.times(n.activated(n.linear(h, block, "ffn_gate", 2, at)), up)
	case up.cols == 2*hidden:
		up = n.times(n.activated(n.columns(up, 0, hidden)), n.columns(up, hidden, hidden))
	default:
		up = n.activated(up)
	}
	return n.linear(up, block, "ffn_down", 3, at)
}

// activated is SiLU, or GELU in its form with tanh.
func (n *naive) activated(x *matrix) *matrix {
	silu := func(v float64) (y, slope float64) {
		s := 1 / (1 + math.Exp(-v))
		return v * s, s * (1 + v*(1-s))
	}
	steep := func(v float64) (y, slope float64) {
		s := 1 / (1 + math.Exp(-1.702*v))
		return v * s, s * (1 + 1.702*v*(1-s))
	}
	if n.name == "gpt-oss" {
		return n.each(x, steep)
	}
	gelu := func(v float64) (y, slope float64) {
		c := math.Sqrt(2 / math.Pi)
		tanh := math.Tanh(c * (v + 0.044715*v*v*v))
		return v / 2 * (1 + tanh), (1+tanh)/2 + v/2*(1-tanh*tanh)*c*(1+3*0.044715*v*v)
	}
	if slices.Contains([]string{"gemma2", "gemma3", "gemma4", "gpt2", "starcoder2"}, n.name) {
		return n.each(x, gelu)
	}
	return n.each(x, silu)
}

// between is x, from low to high.
func (n *naive) between(x *matrix, low, high float64) *matrix {
	return n.each(x, func(v float64) (y, slope float64) {
		if v < low || v > high {
			return min(max(v, low), high), 0
		}
		return v, 1
	})
}

// mixture sums what the experts with the largest probabilities give, by these, which then are divided by their sum.
func (n *naive) mixture(h *matrix, prefix string, at int) *matrix {
	gates, ups, downs := n.weights[prefix+"ffn_gate_exps.weight"], n.weights[prefix+"ffn_up_exps.weight"],
		n.weights[prefix+"ffn_down_exps.weight"]
	biased := func(y *matrix, part string, e int) *matrix {
		if bias := n.weights[prefix+part+".bias"]; bias != nil {
			return n.sum(y, bias.part(e, 1))
		}
		return y
	}
	scores := biased(n.product(h, n.weights[prefix+"ffn_gate_inp.weight"]), "ffn_gate_inp", 0)
	used := int(n.number("expert_used_count", 0))
	for i := range scores.rows {
		sorted := slices.Clone(scores.row(i))
		slices.Sort(sorted)
		if least := len(sorted) - used; least > 0 {
			gap := sorted[least] - sorted[least-1]
			if old, ok := n.ties[at+i]; !ok || gap < old.gap {
				n.ties[at+i] = tie{prefix, gap}
			}
		}
	}
	shares := n.softmax(scores, func(token, expert int) bool {
		better := 0
		for _, other := range scores.row(token) {
			if other > scores.row(token)[expert] {
				better++
			}
		}
		return better < used
	})
	var y *matrix
	for e := range shares.cols {
		hidden := gates.rows / shares.cols
		gate, up := biased(n.product(h, gates.part(e*hidden, hidden)), "ffn_gate_exps", e),
			biased(n.product(h, ups.part(e*hidden, hidden)), "ffn_up_exps", e)
		if n.name == "gpt-oss" {
			gate, up = n.between(gate, math.Inf(-1), 7), n.between(up, -7, 7)
			up = n.each(up, func(v float64) (y, slope float64) { return v + 1, 1 })
		}
		up = n.times(n.activated(gate), up)
		own := n.times(biased(n.product(up, downs.part(e*h.cols, h.cols)), "ffn_down_exps", e), n.columns(shares, e, 1))
		if y == nil {
			y = own
		} else {
			y = n.sum(y, own)
		}
	}
	return y
}

// linear is W x + b ⊙ (B (d ⊙ (A x))), and the bias.
func (n *naive) linear(x *matrix, block int, target string, group, at int) *matrix {
	name := fmt.Sprintf("blk.%d.%s", block, target)
	y := n.product(x, n.weights[name+".weight"])
	if bias := n.weights[name+".bias"]; bias != nil {
		y = n.sum(y, bias)
	}
	if n.adapter == nil {
		return y
	}
	l := n.adapter.Layer(block, target)
	if l == nil {
		return y
	}
	if mask := n.masks[[2]int{block, group}]; mask != nil {
		x = n.times(x, constant(x.rows, x.cols, wide(mask[at*x.cols:(at+x.rows)*x.cols])))
	}
	down, rows := n.vector(l.Pair.A, l.Pair.MaxIn), n.vector(l.Pair.B, len(l.LambdaD)).part(0, l.Out)
	if n.adapter.Method == vera.MethodVeRA {
		if target == "ssm_out" {
			var columns []*matrix
			for i := range l.In {
				columns = append(columns, n.columns(down, n.place(target, i), 1))
			}
			down = n.beside(1, columns)
		} else {
			rows = n.reordered(rows, target)
		}
	}
	u := n.times(n.product(x, down), flat(n.vector(l.LambdaD, 1)))
	return n.sum(y, n.times(n.product(u, rows), flat(n.vector(l.LambdaB, 1))))
}

// reordered are the rows of VeRA's B, which are in Hugging Face's order, as the file has those of a layer.
func (n *naive) reordered(rows *matrix, target string) *matrix {
	var values []float64
	for i := range rows.rows {
		values = append(values, rows.row(n.place(target, i))...)
	}
	return constant(rows.rows, rows.cols, values)
}

// place is where Hugging Face has row i of the file's layer, or column i of ssm_out: row 2j + half of a head that is
// rotated by neighbours is row half · (head dim / 2) + j there, and value head i·keys + k of a delta net is head
// k·(values/keys) + i.
func (n *naive) place(target string, i int) int {
	keys, values := int(n.number("ssm.group_count", 0)), int(n.number("ssm.time_step_rank", 0))
	first, run := 0, 1
	switch {
	case n.neighbours() && (target == "attn_q" || target == "attn_k"):
		dim := int(n.number("attention.key_length",
			n.number("embedding_length", 0)/n.number("attention.head_count", 0)))
		at := i % dim
		return i - at + at%2*(dim/2) + at/2
	case keys == 0 || !slices.Contains([]string{"attn_qkv", "attn_gate", "ssm_alpha", "ssm_beta", "ssm_out"}, target):
		return i
	case target == "attn_qkv":
		first = 2 * keys * int(n.number("ssm.state_size", 0))
	}
	if i < first {
		return i
	}
	if target != "ssm_alpha" && target != "ssm_beta" {
		run = int(n.number("ssm.inner_size", 0)) / values
	}
	head := (i - first) / run
	return first + (head%keys*(values/keys)+head/keys)*run + (i-first)%run
}

// vector is numbers of the adapter, and the same again for the same.
func (n *naive) vector(values []float32, cols int) *matrix {
	x := n.trained[&values[0]]
	if x == nil {
		x = constant(len(values)/cols, cols, wide(values))
		if n.adapter.Offset(values) >= 0 {
			x.g = make([]float64, len(values))
		}
		n.trained[&values[0]] = x
	}
	return x
}

// flat is x as one row.
func flat(x *matrix) *matrix { return &matrix{rows: 1, cols: len(x.v), v: x.v, g: x.g} }

// norm is that of x where the file has its weights, over as many numbers as it has: a layer norm where it has a bias.
func (n *naive) norm(x *matrix, name string) *matrix {
	weight, bias := n.weights[name+".weight"], n.weights[name+".bias"]
	if weight == nil {
		return x
	}
	if bias != nil {
		return n.sum(n.times(n.normed(n.centred(x), x.cols, n.number("attention.layer_norm_epsilon", 0)), weight), bias)
	}
	return n.times(n.normed(x, weight.cols, n.number("attention.layer_norm_rms_epsilon", 0)), weight)
}

// capped is c·tanh(x/c), or x where c is 0.
func (n *naive) capped(x *matrix, c float64) *matrix {
	if c == 0 {
		return x
	}
	return n.each(x, func(v float64) (y, slope float64) {
		tanh := math.Tanh(v / c)
		return c * tanh, 1 - tanh*tanh
	})
}

// dropout draws the masks that the engine draws for a seed.
func (n *naive) dropout(seed uint64, tokens int) {
	n.masks = map[[2]int][]float32{}
	for block := range int(n.number("block_count", 0)) {
		for group, target := range []string{"attn_q", "attn_output", "ffn_up", "ffn_down"} {
			random := rand.New(rand.NewPCG(seed, uint64(block)<<8|uint64(group)))
			mask := make([]float32, n.weights[fmt.Sprintf("blk.%d.%s.weight", block, target)].cols*tokens)
			for i := range mask {
				if random.Float32() >= n.adapter.Dropout {
					mask[i] = 1 / (1 - n.adapter.Dropout)
				}
			}
			n.masks[[2]int{block, group}] = mask
		}
	}
}
