package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
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

// Rows of q and k stand in the file's order where neighbours are rotated together, and only there.
func TestRowOrder(t *testing.T) {
	for name, a := range architectures {
		base := vera.Base{Architecture: name, Heads: 2, KVHeads: 1, HeadDim: 4}
		if permuted := base.RotaryHeads("attn_q") > 0; permuted != (a.pairs == bindings.Neighbours) {
			t.Errorf("%s: rows are permuted: %v, rotates %v", name, permuted, a.pairs)
		}
	}
}

// small is the reference of an architecture: a tiny random model, PEFT's VeRA of it, and what transformers and PEFT make of both in float64.
type small struct {
	dir       string
	Sequences [][]int32 `json:"sequences"`
	Targets   [][]int32 `json:"targets"`
	Base      float64   `json:"base_loss_sum"`
	Adapter   float64   `json:"adapter_loss_sum"`
}

// smalls are the references of all architectures in the table; the others are skipped by name.
func smalls(t *testing.T, test func(t *testing.T, s small)) {
	for _, dir := range testutil.Folders(t, "VERATUNE_ARCH", "refs/arch/*") {
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
			s := small{dir: dir}
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
	return open(t, filepath.Join(s.dir, "model.gguf"), o)
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
		b.tokens, b.targets, b.lengths = append(b.tokens, tokens...), append(b.targets, s.Targets[i]...), append(b.lengths, len(tokens))
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

// check compares the loss, relative to it, and the logits.
func (s small) check(t *testing.T, m *Model, name string, loss float64, most bounds) {
	t.Helper()
	sum := s.batch().loss(t, m)
	off := math.Abs(sum-loss) / loss
	worst := maxDiff(s.logits(t, m), floats(t, readSafetensors(t, filepath.Join(s.dir, "logits.safetensors")), name))
	if !(off <= most.loss) || !(worst <= most.logits) {
		t.Errorf("%s: loss %.7f, want %.7f; logits off by %.2g", name, sum, loss, worst)
	}
	t.Logf("%s, %s: loss off by %.1e, logits by %.1e", m.options.Compute, name, off, worst)
}

// checkGradients compares every gradient of b and d, and all together.
func (s small) checkGradients(t *testing.T, m *Model, a *vera.Adapter, most bounds) {
	t.Helper()
	_, grad := s.batch().gradients(t, m, 0)
	refs := readSafetensors(t, filepath.Join(s.dir, "grads.safetensors"))
	worst, at := 0.0, 0
	var all []float32
	for _, l := range a.Layers {
		prefix := "base_model.model." + a.Base.Module(l.Linear) + ".vera_lambda_"
		b := floats(t, refs, prefix+"b")
		if heads := a.Base.RotaryHeads(l.Target); heads > 0 {
			b = vera.GGUFRows(b, heads, m.HeadDim)
		}
		for _, want := range [][]float32{b, floats(t, refs, prefix+"d")} {
			got := grad[at : at+len(want)]
			at += len(want)
			e := relativeL2(got, want)
			if !(e <= most.gradient) {
				t.Errorf("%s (%d numbers): relative error %.2g", l.Name(), len(want), e)
			}
			worst, all = max(worst, e), append(all, want...)
		}
	}
	if at != len(grad) {
		t.Fatalf("%d of %d gradients compared", at, len(grad))
	}
	together := relativeL2(grad, all)
	if !(together <= most.together) {
		t.Errorf("the whole gradient: relative error %.2g", together)
	}
	t.Logf("%s: the worst gradient off by %.1e, all together by %.1e", m.options.Compute, worst, together)
}

// smallTolerances are for models of two to five blocks without outliers, so that much less is lost than on a real one (see tolerances).
var smallTolerances = map[Compute]bounds{
	ComputeF32:  {loss: 1e-5, logits: 2e-4, gradient: 5e-4, together: 5e-4},
	ComputeBF16: {loss: 1e-2, logits: 0.5, gradient: 0.2, together: 3e-2},
}

// TestArchitectures compares every architecture with transformers and PEFT, from PEFT's folder as it is.
func TestArchitectures(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, compute := range []Compute{ComputeF32, ComputeBF16} {
			for _, plan := range []Plan{PlanFactored, PlanMerged} {
				o := options()
				o.Compute, o.Plan = compute, plan
				m := open(t, filepath.Join(s.dir, "model.gguf"), o)
				s.check(t, m, "base", s.Base, smallTolerances[compute])
				a := s.attach(t, m)
				s.check(t, m, "adapter", s.Adapter, smallTolerances[compute])
				s.checkGradients(t, m, a, smallTolerances[compute])
			}
		}
	})
}

// TestArchitectureRecomputing has the same bits whether a block's results are kept or computed again.
func TestArchitectureRecomputing(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, compute := range []Compute{ComputeF32, ComputeBF16} {
			var want []float32
			for _, recompute := range []Recompute{RecomputeNone, RecomputeAll} {
				o := options()
				o.Compute, o.Recompute, o.Plan = compute, recompute, PlanFactored
				m := open(t, filepath.Join(s.dir, "model.gguf"), o)
				s.attach(t, m)
				_, grad := s.batch().gradients(t, m, 0)
				if want == nil {
					want = grad
				}
				sameBits(t, string(compute), grad, want)
			}
		}
	})
}

// TestArchitectureComposed holds the form of other devices to the same references.
func TestArchitectureComposed(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		m := open(t, filepath.Join(s.dir, "model.gguf"), on(bindings.Composed))
		a := s.attach(t, m)
		if sum := s.batch().loss(t, m); !(math.Abs(sum-s.Adapter)/s.Adapter <= 1e-5) {
			t.Errorf("loss %.7f, want %.7f", sum, s.Adapter)
		}
		s.checkGradients(t, m, a, smallTolerances[ComputeF32])
	})
}

// TestArchitecturesInLlama has llama.cpp run the models, with and without a LoRA export of the adapter, and merged with it. It keeps keys and values in float16.
func TestArchitecturesInLlama(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		m := s.open(t, ComputeF32)
		theirs := func(path string, lora string) (all []float32) {
			l := openLlama(t, path, bindings.LlamaOptions{Context: 64, Batch: 64, Threads: 1})
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
		near := func(what string, got, want []float32) {
			t.Helper()
			e := maxDiff(got, want)
			if !(e <= 1e-2) {
				t.Errorf("%s: off by %.2g", what, e)
			}
			t.Logf("%s: off by %.1e", what, e)
		}
		near("base", theirs(m.File().Path(), ""), s.logits(t, m))
		a := s.attach(t, m)
		own := s.logits(t, m)
		near("LoRA", theirs(m.File().Path(), saveLoRA(t, a, 0, "f32")), own)
		path := merged(t, m, a)
		near("merged", theirs(path, ""), own)
		if e := maxDiff(s.logits(t, open(t, path, options())), own); !(e <= 1e-4) {
			t.Errorf("merged, opened again: off by %.2g", e)
		}
	})
}

// TestArchitectureAnswers has greedy answers with a cache equal to those without, in each arithmetic of generation, and many at once equal to each alone.
func TestArchitectureAnswers(t *testing.T) {
	smalls(t, func(t *testing.T, s small) {
		for _, compute := range []Compute{ComputeF32, ComputeQ8} {
			m := s.open(t, compute)
			s.attach(t, m)
			list := trials(m.Vocab)
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
					if best := slices.Max(logits); compute == ComputeF32 && logits[token] != best || best-logits[token] > 0.1 {
						t.Fatalf("%s, answer %d: token %d is %d, whose logit without a cache is %g below the best", compute, i, j, token, best-logits[token])
					}
					text = append(text, token)
				}
			}
		}
	})
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
		"llama-bias": {"RMS norms before attention", "rotation of neighbours, base 10000", "gated SiLU", "biases of attn_q, attn_k, attn_v"},
		"gpt2":       {"layer norms", "128 of them", "feed-forward with GELU", "biases of attn_qkv, attn_output, ffn_up, ffn_down"},
		"gemma2":     {"before and after", "rotation of halves", "2 of 4 blocks see the last 16 tokens", "gated GELU", "scores capped at 5", "logits capped at 3", "embedding × 8", "the head is the embedding"},
		"gemma3":     {"a head at a time", "6 of 7 blocks see the last 16 tokens, and rotate by base 10000"},
		"granite":    {"scores × ", "embedding × 3", "what attention and feed-forward add × 0.4", "logits × 0.5"},
		"olmo2":      {"RMS norms after attention", "all heads at once"},
		"smollm3":    {"one block in 4 excepted"},
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
		if m := s.open(t, ComputeF32); layers != len(m.linears()) || d.TiedHead != m.TiedHead || d.RopeFactor != m.RopeFactor {
			t.Errorf("%d layers, tied %v, factors %v: %d, %v, %v in the open model", layers, d.TiedHead, d.RopeFactor, len(m.linears()), m.TiedHead, m.RopeFactor)
		}
	})
}
