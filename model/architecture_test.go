package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// Rows of q and k stand in the file's order where neighbours are rotated together, and only there.
func TestRowOrder(t *testing.T) {
	for name, a := range architectures {
		rows, _ := vera.Base{Architecture: name, HeadDim: 4}.Orders("attn_q")
		if permuted := rows != (vera.Order{}); permuted != (a.pairs == bindings.Neighbours && !a.learnedPositions) {
			t.Errorf("%s: rows are permuted: %v, rotates %v", name, permuted, a.pairs)
		}
	}
}

// small is the reference of an architecture: a tiny random model, PEFT's VeRA of it, and what transformers and PEFT
// make of both in float64.
type small struct {
	dir       string
	model     string    // path of the model: the folder's, or a copy that a test changed
	Sequences [][]int32 `json:"sequences"`
	Targets   [][]int32 `json:"targets"`
	Base      float64   `json:"base_loss_sum"`
	Adapter   float64   `json:"adapter_loss_sum"`
}

// smalls are the references of all architectures in the table; the others are skipped by name.
func smalls(t *testing.T, test func(t *testing.T, s small)) {
	for _, dir := range testutil.Architectures(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			file, err := bindings.OpenGGUF(filepath.Join(dir, "model.gguf"))
			if err != nil {
				t.Fatal(err)
			}
			name, _ := file.String("general.architecture")
			file.Close()
			if architectures[name] == nil {
				t.Skipf("architecture %s is not in the table", name)
			}
			s := small{dir: dir, model: filepath.Join(dir, "model.gguf")}
			data, err := os.ReadFile(filepath.Join(dir, "reference.json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(data, &s); err != nil {
				t.Fatal(err)
			}
			test(t, s)
		})
	}
}

func (s small) open(t *testing.T, compute Compute) *Model {
	o := options()
	o.Compute = compute
	return open(t, s.model, o)
}

// attach attaches PEFT's adapter.
func (s small) attach(t *testing.T, m *Model) *vera.Adapter {
	t.Helper()
	a, err := vera.Load(filepath.Join(s.dir, "peft"), m.Base())
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Attach(a); err != nil {
		t.Fatal(err)
	}
	return a
}

func (s small) batch() (b batch) {
	for i, tokens := range s.Sequences {
		b.tokens, b.targets, b.lengths = append(b.tokens, tokens...), append(b.targets, s.Targets[i]...),
			append(b.lengths, len(tokens))
	}
	return b
}

// logits are those of all sequences, one after the other.
func (s small) logits(t *testing.T, m *Model) (all []float32) {
	t.Helper()
	for _, tokens := range s.Sequences {
		all = append(all, ownLogits(t, m, tokens)...)
	}
	return all
}

// expected is what transformers and PEFT make of the sequences, with the adapter or of the base model where it is nil.
func (s small) expected(t *testing.T, a *vera.Adapter) answer {
	t.Helper()
	logits := readSafetensors(t, filepath.Join(s.dir, "logits.safetensors"))
	if a == nil {
		return answer{loss: s.Base, logits: floats(t, logits, "base")}
	}
	want := answer{loss: s.Adapter, logits: floats(t, logits, "adapter")}
	refs := readSafetensors(t, filepath.Join(s.dir, "grads.safetensors"))
	for p := range a.Trained {
		grad := floats(t, refs, "base_model.model."+a.Base.Module(p.Linear)+".vera_lambda_"+p.Part)
		if rows, _ := a.Base.Orders(p.Target); p.Part == "b" {
			grad = vera.GGUFRows(grad, p.Out, rows)
		}
		want.grad = append(want.grad, grad...)
	}
	return want
}

// check compares the loss, relative to it, the logits, and with an adapter the gradients.
func (s small) check(t *testing.T, m *Model, want answer, most bounds) {
	t.Helper()
	got := answer{loss: s.batch().loss(t, m), logits: s.logits(t, m)}
	if m.adapter != nil {
		_, got.grad = s.batch().gradient(t, m, 0)
	}
	compare(t, m, got, want, most)
}

func compare(t *testing.T, m *Model, got, want answer, most bounds) {
	t.Helper()
	off, worst := math.Abs(got.loss-want.loss)/want.loss, maxDiff(got.logits, want.logits)
	if !(off <= most.loss) || !(worst <= most.logits) {
		t.Errorf("loss %.7f, want %.7f; logits off by %.2g", got.loss, want.loss, worst)
	}
	t.Logf("%s: loss off by %.1e, logits by %.1e", m.options.Compute, off, worst)
	if m.adapter != nil {
		compareGradients(t, m.adapter.Adapter, got.grad, want.grad, most)
	}
}

// checkGradients compares the gradients alone.
func (s small) checkGradients(t *testing.T, m *Model, a *vera.Adapter, most bounds) {
	t.Helper()
	_, grad := s.batch().gradient(t, m, 0)
	compareGradients(t, a, grad, s.expected(t, a).grad, most)
}

// smallTolerances are for models of two to five blocks without outliers, so that much less is lost than on a real one
// (see tolerances).
var smallTolerances = map[Compute]bounds{
	ComputeF32:  {loss: 1e-5, logits: 2e-4, gradient: 5e-4, together: 5e-4},
	ComputeBF16: {loss: 1e-2, logits: 0.5, gradient: 0.2, together: 3e-2},
	ComputeInt:  {loss: 1e-2, logits: 0.5, gradient: 0.2, together: 3e-2},
}

// TestArchitectures compares every architecture with transformers and PEFT, from PEFT's folder as it is.
func TestArchitectures(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, compute := range []Compute{ComputeF32, ComputeBF16, ComputeInt} {
			for _, plan := range []Plan{PlanFactored, PlanMerged} {
				o := options()
				o.Compute, o.Plan = compute, plan
				m := open(t, filepath.Join(s.dir, "model.gguf"), o)
				s.check(t, m, s.expected(t, nil), smallTolerances[compute])
				s.check(t, m, s.expected(t, s.attach(t, m)), smallTolerances[compute])
			}
		}
	})
}

// TestNaiveArchitectures holds the tests' own float64 to the same references. transformers takes RMS norms and the
// angles of rotations in float32 even there; gpt2 has neither, and its losses are equal to 1e-13.
func TestNaiveArchitectures(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		most := bounds{loss: 1e-7, logits: 3e-5, gradient: 1e-5, together: 5e-6}
		switch {
		case m.arch.unscaledScores: // a softmax of large scores: a float32 norm is felt
			most.gradient, most.together = 2e-4, 1e-4
		// which transformers computes in float32, and whose small results norms make large
		case m.arch.mixer == deltaNet:
			most = bounds{loss: 1e-6, logits: 2e-4, gradient: 5e-4, together: 2e-4}
		}
		compare(t, m, newNaive(t, m).run(s.batch()), s.expected(t, nil), most)
		a := s.attach(t, m)
		compare(t, m, newNaive(t, m).run(s.batch()), s.expected(t, a), most)
	})
}

// TestArchitectureRecomputing has the same bits whether a block's results are kept or computed again.
func TestArchitectureRecomputing(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, compute := range []Compute{ComputeF32, ComputeBF16, ComputeInt} {
			var want []float32
			for _, recompute := range []Recompute{RecomputeNone, RecomputeAll} {
				o := options()
				o.Compute, o.Recompute, o.Plan = compute, recompute, PlanFactored
				m := open(t, filepath.Join(s.dir, "model.gguf"), o)
				s.attach(t, m)
				_, grad := s.batch().gradient(t, m, 0)
				if want == nil {
					want = grad
				}
				sameBits(t, string(compute), grad, want)
			}
		}
	})
}

// TestDeviceArchitectures holds the form of other devices to the same references.
func TestDeviceArchitectures(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		eachDevice(t, func(t *testing.T, device string) {
			m := open(t, filepath.Join(s.dir, "model.gguf"), on(device))
			a := s.attach(t, m)
			// CUDA lacks their operations
			if b := s.batch(); m.backend.Fused && (m.Experts > 0 || m.arch.mixer == deltaNet) {
				_, _, err := m.Loss(b.tokens, b.targets, b.lengths)
				wantError(t, err, device, "lacks ")
				return
			}
			if sum := s.batch().loss(t, m); !(math.Abs(sum-s.Adapter)/s.Adapter <= 1e-5) {
				t.Errorf("loss %.7f, want %.7f", sum, s.Adapter)
			}
			s.checkGradients(t, m, a, smallTolerances[ComputeF32])
		})
	})
}

// TestArchitecturesInLlama has llama.cpp run the models, with and without a LoRA export of the adapter, and merged with
// it. It keeps keys and values in float16.
func TestArchitecturesInLlama(t *testing.T) {
	asLlama(t)
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		if slices.Contains([]string{"gemma4", "lfm2", "qwen35"}, m.Architecture) {
			t.Skipf("the llama.cpp in this program cannot open %s; a current one is asked by "+
				"TestArchitecturesInCurrentLlama", m.Architecture)
		}
		llamaComputes(t, m)
		longest := slices.Max(s.batch().lengths)
		theirs := func(path string, lora string) (all []float32) {
			l := openLlama(t, path, bindings.LlamaOptions{Context: longest, Batch: longest, Threads: 1})
			if lora != "" {
				if err := l.SetLoRA(lora, 1); err != nil {
					t.Fatal(err)
				}
			}
			for _, tokens := range s.Sequences {
				all = append(all, fresh(t, l, tokens, len(tokens))...)
			}
			return all
		}
		// Rows whose choice of experts hangs on less than float16 keys and values change are named, and those that see
		// them are not compared.
		near := func(what string, got, want []float32) {
			t.Helper()
			var ties map[int]tie
			if m.Experts > 0 {
				n := newNaive(t, m)
				n.whole = true
				n.run(s.batch())
				ties = n.ties
			}
			worst, row := 0.0, 0
			for i, tokens := range s.Sequences {
				tied := ""
				for j := range tokens {
					if choice, ok := ties[row]; ok && choice.gap < 5e-3 && tied == "" {
						tied = fmt.Sprintf("sequence %d, row %d, %s: two experts are %.1e apart", i, j,
							strings.TrimSuffix(choice.block, "."), choice.gap)
					}
					e := maxDiff(got[row*m.Vocab:(row+1)*m.Vocab], want[row*m.Vocab:(row+1)*m.Vocab])
					row++
					if tied != "" && !(e <= 2e-2) {
						t.Logf("%s: %s; the rows from there on are not compared", what, tied)
						row += len(tokens) - j - 1
						break
					}
					worst = max(worst, e)
				}
			}
			if !(worst <= 2e-2) {
				t.Errorf("%s: off by %.2g", what, worst)
			}
			t.Logf("%s: off by %.1e", what, worst)
		}
		near("base", theirs(m.File().Path(), ""), s.logits(t, m))
		a := s.attach(t, m)
		own := s.logits(t, m)
		near("LoRA", theirs(m.File().Path(), saveLoRA(t, a, 0, "f32")), own)
		near("merged", theirs(merged(t, m, a), ""), own)
	})
}

// TestArchitectureMerged opens a model that an adapter was merged into.
func TestArchitectureMerged(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		a := s.attach(t, m)
		if e := maxDiff(s.logits(t, open(t, merged(t, m, a), options())), s.logits(t, m)); !(e <= 1e-4) {
			t.Errorf("off by %.2g", e)
		}
	})
}

// TestFurtherBlocks has a block for speculative decoding behind the others, and a file that says only how many blocks
// apart attention is.
func TestFurtherBlocks(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		if filepath.Base(s.dir) != "qwen35" {
			t.Skip("has no delta nets")
		}
		want := s.expected(t, nil)
		s = s.changed(t, bindings.F32, with("qwen35.block_count", uint32(5)),
			with("qwen35.nextn_predict_layers", uint32(1)), without("qwen35.attention.recurrent_layers"),
			vector("blk.4.attn_norm.weight", 64, 0.5, 1.5), vector("blk.4.nextn.enorm.weight", 64, 0.5, 1.5),
			vector("blk.4.attn_q.weight", 64, 0.5, 1.5))
		m := s.open(t, ComputeF32)
		if got := s.logits(t, m)[:len(want.logits)]; maxDiff(got, want.logits) > smallTolerances[ComputeF32].logits {
			t.Errorf("logits off by %.2g", maxDiff(got, want.logits))
		}
		d, err := Describe(s.model)
		if err != nil {
			t.Fatal(err)
		}
		if d.Blocks != 4 || d.Further != 1 || !slices.ContainsFunc(d.MadeOf, func(s string) bool {
			return strings.Contains(s, "one more block, for speculative decoding")
		}) {
			t.Errorf("%d blocks and %d more: %q", d.Blocks, d.Further, d.MadeOf)
		}
		for _, target := range d.Targets {
			if target.Name == "attn_q" && target.Layers != 1 {
				t.Errorf("%d layers attn_q", target.Layers)
			}
		}
		s.attach(t, m)
		if g := testutil.OpenGGUF(t, merged(t, m, m.adapter.Adapter)); !slices.ContainsFunc(g.Tensors(),
			func(t bindings.TensorInfo) bool { return t.Name == "blk.4.nextn.enorm.weight" }) {
			t.Error("the merged model has lost a block")
		}
	})
}

// TestArchitecturesInCurrentLlama has the llama.cpp of PyPI's llama-cpp-python run the models with and without a LoRA
// export, by tools/check_logits.py.
func TestArchitecturesInCurrentLlama(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second a model")
	}
	python := testutil.Python(t)
	if err := exec.Command(python, "-c", "import llama_cpp").Run(); err != nil {
		t.Skipf("%s has no llama-cpp-python", python)
	}
	asLlama(t)
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		llamaComputes(t, m)
		tolerance := "4e-3"
		if m.Architecture == "gemma4" {
			tolerance = "0.04" // llama.cpp takes GELU from a table of 16 bits
		}
		check := func(lora ...string) {
			t.Helper()
			file := filepath.Join(t.TempDir(), "logits")
			var data bytes.Buffer
			if err := errors.Join(binary.Write(&data, binary.LittleEndian, s.logits(t, m)),
				os.WriteFile(file, data.Bytes(), 0o600)); err != nil {
				t.Fatal(err)
			}
			args := []string{"../tools/check_logits.py", "--model", m.File().Path(), "--sequences",
				filepath.Join(s.dir, "reference.json"), "--logits", file, "--tolerance", tolerance}
			var said, log bytes.Buffer
			c := exec.Command(python, append(args, lora...)...)
			c.Stdout, c.Stderr = &said, &log
			if err := c.Run(); err != nil {
				t.Errorf("%v: %s%s", err, said.Bytes(), log.Bytes())
			}
			t.Logf("%s", said.Bytes())
		}
		check()
		a := s.attach(t, m)
		check("--lora", saveLoRA(t, a, 0, "f32"))
	})
}

// asLlama has YaRN's ramp begin and end at whole pairs in gpt-oss, too, as llama.cpp does: that moves the logits of
// tiny models by up to 2.
func asLlama(t *testing.T) {
	made := architectures["gpt-oss"]
	made.smoothRamp = false
	t.Cleanup(func() { made.smoothRamp = true })
}

// llamaComputes skips a test where llama.cpp leaves out what a model has.
func llamaComputes(t *testing.T, m *Model) {
	t.Helper()
	if _, sized := m.file.Float(m.Architecture + ".rope.scaling.yarn_attn_factor"); sized || m.arch.nopeGlobal &&
		m.local != nil && m.Blocks != 64 {
		t.Skip("llama.cpp doesn't read YaRN's own factor, nor windows of exaone4 in a model of other than 64 blocks")
	}
}

// TestArchitectureAnswers has greedy answers with a cache equal to those without, in each arithmetic of generation, and
// many at once equal to each alone.
func TestArchitectureAnswers(t *testing.T) {
	smalls(t, func(t *testing.T, s small) { s.checkAnswers(t) })
}

func (s small) checkAnswers(t *testing.T) {
	for _, compute := range []Compute{ComputeF32, ComputeQ8} {
		m := s.open(t, compute)
		s.attach(t, m)
		list := slices.DeleteFunc(trials(m.Vocab), func(r trial) bool {
			return m.arch.learnedPositions && len(r.prompt)+r.MaxTokens > m.Context
		})
		answers := checkTogether(t, m, list, 8, 3)
		for i, r := range list {
			if r.Temperature != 0 {
				continue
			}
			text := slices.Clone(r.prompt)
			for j, token := range answers[i] {
				logits, err := m.Logits(text, 1)
				if err != nil {
					t.Fatal(err)
				}
				if best := slices.Max(logits); compute == ComputeF32 && logits[token] != best ||
					best-logits[token] > 0.1 {
					t.Fatalf("%s, answer %d: token %d is %d, whose logit without a cache is %g below the best", compute,
						i, j, token, best-logits[token])
				}
				text = append(text, token)
			}
		}
	}
}

// TestArchitectureRoundTrip writes PEFT's folder again: the same bytes of its tensors.
func TestArchitectureRoundTrip(t *testing.T) {
	tensors := func(t *testing.T, dir string) []byte {
		file, err := os.ReadFile(filepath.Join(dir, "adapter_model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		return file[8+binary.LittleEndian.Uint64(file):]
	}
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		dir := filepath.Join(t.TempDir(), "peft")
		if err := s.attach(t, m).SavePEFT(dir, true); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(tensors(t, dir), tensors(t, filepath.Join(s.dir, "peft"))) {
			t.Error("other bytes")
		}
	})
}

// TestDescriptions looks at what is said of a few references: each choice of the table is named.
func TestDescriptions(t *testing.T) {
	words := map[string][]string{
		"llama-bias": {"RMS norms before attention", "rotation of neighbours, base 10000", "gated SiLU",
			"biases of attn_q, attn_k, attn_v"},
		"gpt2": {"layer norms", "128 of them", "feed-forward with GELU",
			"biases of attn_qkv, attn_output, ffn_up, ffn_down"},
		"gemma2": {"before and after", "rotation of halves", "2 of 4 blocks see the last 16 tokens", "gated GELU",
			"scores capped at 5", "logits capped at 3", "embedding × 8", "the head is the embedding"},
		"gemma3": {"a head at a time", "6 of 7 blocks see the last 16 tokens, and rotate by base 10000"},
		"gpt-oss": {"stretched by YaRN × 32", "1 of 2 blocks see the last 16 tokens", "gated SiLU, between limits",
			"a sink for each head", "biases of attn_q, attn_k, attn_v, attn_output"},
		"gemma4": {"norm of v", "3 of 6 blocks see the last 16 tokens, and rotate by base 10000",
			"their heads have 32 numbers", "the last 2 blocks take keys and values", "16 numbers with a gate",
			"scores × 1", "logits capped at 3"},
		"granite":  {"scores × ", "embedding × 3", "what attention and feed-forward add × 0.4", "logits × 0.5"},
		"lfm2":     {"3 of 4 blocks have a gated convolution of 3 tokens"},
		"mistral3": {"stretched by YaRN × 4", "scores × 1 + 0.1 ln(1 + ⌊position / 32⌋)"},
		"olmo2":    {"RMS norms after attention", "all heads at once"},
		"olmo3":    {"3 of 4 blocks see the last 16 tokens"},
		"qwen35": {"3 of 4 blocks have a gated delta net in the place of attention: 4 value heads of 16 numbers, 2 " +
			"key heads of 16, behind a convolution of 4 tokens", "of 16 numbers of a head", "a gate for each head"},
		"smollm3": {"one block in 4 excepted"},
	}
	smalls(t, func(t *testing.T, s small) {
		d, err := Describe(filepath.Join(s.dir, "model.gguf"))
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join(d.MadeOf, "; ")
		for _, w := range words[filepath.Base(s.dir)] {
			if !strings.Contains(said, w) {
				t.Errorf("%q does not say %q", said, w)
			}
		}
		layers := 0
		for _, target := range d.Targets {
			layers += target.Layers
		}
		if m := s.open(t, ComputeF32); layers != len(m.linears()) || d.TiedHead != m.TiedHead ||
			d.RopeFactor != m.RopeFactor {
			t.Errorf("%d layers, tied %v, factors %v: %d, %v, %v in the open model", layers, d.TiedHead, d.RopeFactor,
				len(m.linears()), m.TiedHead, m.RopeFactor)
		}
	})
}
