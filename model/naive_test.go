package model

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// naive is a Llama with VeRA in float64, written token by token after the formulas and sharing nothing with the engine but the file. It is what the
// engine's losses are compared with; and since it has no rounding to speak of, its central differences are what the gradients are compared with.
type naive struct {
	Config
	weights map[string][]float64 // every tensor of the file, dequantised
	adapter *vera.Adapter        // nil: the base model
	params  []float64            // the adapter's Params
	masks   map[[2]int][]float32 // dropout by block and group, [tokens × in]; nil: none
	file    *bindings.GGUF
}

func newNaive(t *testing.T, m *Model) *naive {
	t.Helper()
	n := &naive{Config: m.Config, weights: map[string][]float64{}, file: m.file}
	if m.adapter != nil {
		n.adapter, n.params = m.adapter.Adapter, wide(m.adapter.Params)
	}
	for _, info := range m.file.Tensors() {
		size := int64(1)
		for _, s := range info.Shape {
			size *= s
		}
		values := make([]float32, size)
		if err := bindings.Dequantize(info.Type, m.file.Data(info), values); err != nil {
			t.Fatal(err)
		}
		n.weights[info.Name] = wide(values)
	}
	return n
}

// scale is a number of the file's metadata.
func (n *naive) scale(key string, otherwise float64) float64 {
	if v, ok := n.file.Float(n.Architecture + "." + key); ok {
		return v
	}
	return otherwise
}

// loss sums −log p over the labels of packed samples.
func (n *naive) loss(b batch) float64 {
	sum, at := 0.0, 0
	for _, length := range b.lengths {
		for i, logits := range n.logits(b.tokens[at:at+length], at) {
			if target := b.targets[at+i]; target >= 0 {
				sum += logSumExp(logits) - logits[target]
			}
		}
		at += length
	}
	return sum
}

// logits gives those after each token of one sample, whose first token is the pack's token at.
func (n *naive) logits(tokens []int32, at int) [][]float64 {
	x := make([][]float64, len(tokens))
	for t, token := range tokens {
		x[t] = make([]float64, n.Width)
		addScaled(x[t], n.weights["token_embd.weight"][int(token)*n.Width:(int(token)+1)*n.Width], n.scale("embedding_scale", 1))
	}
	for block := range n.Blocks {
		n.block(x, block, at)
	}
	head := n.weights["output.weight"]
	if head == nil {
		head = n.weights["token_embd.weight"]
	}
	for t := range x {
		logits := product(head, n.norm(x[t], "output_norm.weight"), n.Width)
		x[t] = make([]float64, len(logits))
		addScaled(x[t], logits, 1/n.scale("logit_scale", 1))
	}
	return x
}

func (n *naive) block(x [][]float64, block, at int) {
	prefix := "blk." + strconv.Itoa(block) + "."
	qs, ks, vs := make([][]float64, len(x)), make([][]float64, len(x)), make([][]float64, len(x))
	for t := range x {
		h := n.norm(x[t], prefix+"attn_norm.weight")
		turn := t
		if n.Architecture == "smollm3" && block%4 == 3 {
			turn = 0
		}
		qs[t] = n.rope(n.headNorms(n.linear(h, block, "attn_q", 0, at+t), prefix+"attn_q_norm.weight"), turn)
		ks[t] = n.rope(n.headNorms(n.linear(h, block, "attn_k", 0, at+t), prefix+"attn_k_norm.weight"), turn)
		vs[t] = n.linear(h, block, "attn_v", 0, at+t)
	}
	for t := range x {
		out := make([]float64, n.Heads*n.HeadDim)
		for head := range n.Heads {
			kv := head / (n.Heads / n.KVHeads) * n.HeadDim
			q := qs[t][head*n.HeadDim : (head+1)*n.HeadDim]
			scores := make([]float64, t+1)
			for s := range scores {
				scores[s] = dot(q, ks[s][kv:kv+n.HeadDim]) * n.scale("attention.scale", 1/math.Sqrt(float64(n.HeadDim)))
			}
			total := logSumExp(scores)
			for s := range scores {
				p := math.Exp(scores[s] - total)
				for i, v := range vs[s][kv : kv+n.HeadDim] {
					out[head*n.HeadDim+i] += p * v
				}
			}
		}
		addScaled(x[t], n.linear(out, block, "attn_output", 1, at+t), n.scale("residual_scale", 1))
		h := n.norm(x[t], prefix+"ffn_norm.weight")
		if n.Experts > 0 {
			add(x[t], n.mixture(h, prefix))
			continue
		}
		gate, up := n.linear(h, block, "ffn_gate", 2, at+t), n.linear(h, block, "ffn_up", 2, at+t)
		for i, g := range gate {
			up[i] *= g / (1 + math.Exp(-g))
		}
		addScaled(x[t], n.linear(up, block, "ffn_down", 3, at+t), n.scale("residual_scale", 1))
	}
}

// mixture is what the experts with the largest probabilities give, by these, which are made to sum to 1.
func (n *naive) mixture(x []float64, prefix string) []float64 {
	logits := product(n.weights[prefix+"ffn_gate_inp.weight"], x, n.Width)
	order := make([]int, n.Experts)
	for e := range order {
		order[e] = e
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(logits[b], logits[a]) })
	y, total, all := make([]float64, n.Width), 0.0, logSumExp(logits)
	for _, e := range order[:n.ExpertsUsed] {
		total += math.Exp(logits[e] - all)
	}
	for _, e := range order[:n.ExpertsUsed] {
		of := func(part string) []float64 {
			w := n.weights[prefix+part+"_exps.weight"]
			return w[e*len(w)/n.Experts : (e+1)*len(w)/n.Experts]
		}
		gate, up := product(of("ffn_gate"), x, n.Width), product(of("ffn_up"), x, n.Width)
		for i, g := range gate {
			up[i] *= g / (1 + math.Exp(-g))
		}
		addScaled(y, product(of("ffn_down"), up, n.Hidden), math.Exp(logits[e]-all)/total)
	}
	return y
}

// linear is W x + b ⊙ (B (d ⊙ (A x))), and the bias, for one token of the pack.
func (n *naive) linear(x []float64, block int, target string, group, token int) []float64 {
	name := "blk." + strconv.Itoa(block) + "." + target
	y := product(n.weights[name+".weight"], x, len(x))
	if bias := n.weights[name+".bias"]; bias != nil {
		add(y, bias)
	}
	if n.adapter == nil {
		return y
	}
	l := n.adapter.Layer(block, target)
	if l == nil {
		return y
	}
	if mask := n.masks[[2]int{block, group}]; mask != nil {
		x = append([]float64(nil), x...)
		for i := range x {
			x[i] *= float64(mask[token*len(x)+i])
		}
	}
	downs, rows, b, d := n.numbers(l.Pair.A), n.numbers(l.Pair.B), n.numbers(l.B), n.numbers(l.D)
	rank := len(l.D)
	du := make([]float64, rank)
	for r := range du {
		for i, v := range x {
			du[r] += downs(r*l.Pair.MaxIn+i) * v
		}
		du[r] *= d(r)
	}
	for i := range y {
		row := i
		if n.adapter.Method == vera.MethodVeRA && (target == "attn_q" || target == "attn_k") && !n.halves() {
			// Row 2j + half of a head in the file is row half · (head dim / 2) + j in Hugging Face's order, which VeRA's B is in.
			at := i % n.HeadDim
			row = i - at + at%2*(n.HeadDim/2) + at/2
		}
		v := 0.0
		for r, u := range du {
			v += rows(row*rank+r) * u
		}
		y[i] += b(i) * v
	}
	return y
}

// numbers gives a layer's numbers, from params where they are trained.
func (n *naive) numbers(values []float32) func(i int) float64 {
	at := n.adapter.Offset(values)
	return func(i int) float64 {
		if at < 0 {
			return float64(values[i])
		}
		return n.params[at+i]
	}
}

// halves tells whether number i of a head is rotated with number i + dims/2, and rows are in Hugging Face's order.
func (n *naive) halves() bool { return strings.HasPrefix(n.Architecture, "qwen") }

// headNorms is the norm of every head, where the file has its weight.
func (n *naive) headNorms(x []float64, name string) []float64 {
	if n.weights[name] == nil {
		return x
	}
	var all []float64
	for head := 0; head < len(x); head += n.HeadDim {
		all = append(all, n.norm(x[head:head+n.HeadDim], name)...)
	}
	return all
}

// rope rotates pairs of numbers of each head by the position times base^(−2i/dims) / factor, scaled where the file says so.
func (n *naive) rope(x []float64, position int) []float64 {
	factors := n.weights["rope_freqs.weight"]
	for head := 0; head < len(x); head += n.HeadDim {
		for i := 0; i < n.Rope.Dims; i += 2 {
			angle := float64(position) * math.Pow(float64(n.Rope.FreqBase), -float64(i)/float64(n.Rope.Dims))
			if factors != nil {
				angle /= factors[i/2]
			}
			scale, size := n.yarn(i)
			sin, cos := math.Sincos(angle * scale)
			first, second := head+i, head+i+1
			if n.halves() {
				first, second = head+i/2, head+i/2+n.Rope.Dims/2
			}
			a, b := x[first], x[second]
			x[first], x[second] = size*(a*cos-b*sin), size*(a*sin+b*cos)
		}
	}
	return x
}

// yarn gives what the angle of pair i/2 and the rotated numbers are multiplied by. Without YaRN that is the linear scale and 1. With it (Peng et al.,
// arXiv 2309.00071, section 3.2), pairs that turn more than β_fast times over the original context keep their angle, those below β_slow are scaled, and
// numbers grow by 0.1 ln s + 1.
func (n *naive) yarn(i int) (scale, size float64) {
	r := n.Rope
	scale, size = float64(r.FreqScale), float64(r.AttnFactor)
	if r.ExtFactor == 0 {
		return scale, size
	}
	turning := func(times float64) float64 { // the pair that turns so many times
		return float64(r.Dims) * math.Log(float64(r.OrigContext)/(times*2*math.Pi)) / (2 * math.Log(float64(r.FreqBase)))
	}
	low, high := max(0, math.Floor(turning(float64(r.BetaFast)))), min(float64(r.Dims-1), math.Ceil(turning(float64(r.BetaSlow))))
	scaled := min(1, max(0, (float64(i/2)-low)/max(0.001, high-low)))
	return scale*scaled + 1 - scaled, size * (1 + 0.1*math.Log(1/float64(r.FreqScale)))
}

func (n *naive) norm(x []float64, name string) []float64 {
	scale := 1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(n.NormEps))
	y := make([]float64, len(x))
	for i, w := range n.weights[name] {
		y[i] = x[i] * scale * w
	}
	return y
}

// dropout draws the masks that the engine draws for a seed.
func (n *naive) dropout(seed uint64, tokens int) {
	n.masks = map[[2]int][]float32{}
	for block := range n.Blocks {
		for group, in := range []int{n.Width, n.Heads * n.HeadDim, n.Width, n.Hidden} {
			random := rand.New(rand.NewPCG(seed, uint64(block)<<8|uint64(group)))
			mask := make([]float32, in*tokens)
			for i := range mask {
				if random.Float32() >= n.adapter.Dropout {
					mask[i] = 1 / (1 - n.adapter.Dropout)
				}
			}
			n.masks[[2]int{block, group}] = mask
		}
	}
}

// product is W x for W [out × width], row by row.
func product(w, x []float64, width int) []float64 {
	y := make([]float64, len(w)/width)
	for i := range y {
		y[i] = dot(w[i*width:(i+1)*width], x)
	}
	return y
}

func wide(values []float32) []float64 {
	list := make([]float64, len(values))
	for i, v := range values {
		list[i] = float64(v)
	}
	return list
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func add(a, b []float64) { addScaled(a, b, 1) }

func addScaled(a, b []float64, s float64) {
	for i, v := range b {
		a[i] += s * v
	}
}

func logSumExp(x []float64) float64 {
	top := math.Inf(-1)
	for _, v := range x {
		top = max(top, v)
	}
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}
