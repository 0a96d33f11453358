package model

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// TestMain lets the tests find what `make vulkan` built, and a device that is none. ggml takes a processor that
// computes Vulkan itself only where it is named.
func TestMain(m *testing.M) {
	fake, err := os.MkdirTemp("", "veratune")
	if err != nil {
		panic(err)
	}
	folder, err := filepath.Abs("../bin")
	if err != nil {
		panic(err)
	}
	if buildErr = errors.New("a real cuda0 is tested"); !strings.HasPrefix(os.Getenv("VERATUNE_TEST_DEVICE"), "cuda") {
		buildErr = build(fake)
	}
	os.Setenv(bindings.LibraryPath, cmp.Or(os.Getenv(bindings.LibraryPath), fake+string(filepath.ListSeparator)+folder))
	os.Setenv("GGML_VK_VISIBLE_DEVICES", cmp.Or(os.Getenv("GGML_VK_VISIBLE_DEVICES"), "0"))
	code := m.Run()
	os.RemoveAll(fake)
	os.Exit(code)
}

// buildErr is why there are no libraries of testdata/fake.cpp.
var buildErr error

// build makes both of them, in a folder.
func build(folder string) error {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/ollama/ollama").Output()
	if err != nil {
		return err
	}
	ggml := filepath.Join(strings.TrimSpace(string(module)), "ml/backend/ggml/ggml")
	metal, err := os.ReadFile(filepath.Join(ggml, "src/ggml-metal/ggml-metal-device.m"))
	if err != nil {
		return err
	}
	const function, end = "bool ggml_metal_device_supports_op(", "\n}\n"
	_, after, found := strings.Cut(string(metal), "\n"+function)
	body, _, whole := strings.Cut(after, end)
	if !found || !whole {
		return errors.New("ggml's Metal backend no longer says what it has as it did")
	}
	supports := filepath.Join(folder, "supports.inc")
	if err := os.WriteFile(supports, []byte(function+body+end), 0o666); err != nil {
		return err
	}
	for library, define := range map[string]string{"libggml-cuda.so": "CUDA",
		"libggml-metal.so": fmt.Sprintf("METAL_SUPPORTS=%q", supports)} {
		out, err := exec.Command("c++", "-std=c++17", "-shared", "-fPIC", "-D", define, "-I",
			filepath.Join(ggml, "include"), "-I", filepath.Join(ggml, "src"),
			"-o", filepath.Join(folder, library), "testdata/fake.cpp").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// eachDevice runs a test by ggml's operations on the CPU and on the device that VERATUNE_TEST_DEVICE names.
func eachDevice(t *testing.T, test func(t *testing.T, device string)) {
	t.Run(bindings.Composed, func(t *testing.T) { test(t, bindings.Composed) })
	if name := os.Getenv("VERATUNE_TEST_DEVICE"); name != "" {
		t.Run(name, func(t *testing.T) { test(t, name) })
	}
}

func on(device string) Options {
	o := options()
	o.Device = device
	return o
}

// deviceTolerance is in relative L2 norm: sums in float32 in other orders, through the few blocks of tiny models;
// deepTolerance is that of thirty blocks.
const (
	deviceTolerance = 1e-4
	deepTolerance   = 1e-3
)

// sameStep compares a whole step, with losses and gradients, with the CPU's.
func sameStep(t *testing.T, got, want *Model, b batch, tolerance float64) {
	t.Helper()
	wantLoss, loss := b.loss(t, want), b.loss(t, got)
	if !(math.Abs(loss-wantLoss) <= tolerance*wantLoss) {
		t.Errorf("loss %g, want %g", loss, wantLoss)
	}
	wantLoss, wantGrad := b.gradient(t, want, 7)
	loss, grad := b.gradient(t, got, 7)
	if !(math.Abs(loss-wantLoss) <= tolerance*wantLoss) {
		t.Errorf("loss of the step %g, want %g", loss, wantLoss)
	}
	if e := relativeL2(grad, wantGrad); !(e <= tolerance) {
		t.Errorf("gradient off by %.1e", e)
	}
}

// TestDeviceSteps computes steps of every kind of tiny model on devices: shared beginnings, more samples than a piece
// of attention holds, LoRA, dropout, and both plans.
func TestDeviceSteps(t *testing.T) {
	eachDevice(t, func(t *testing.T, device string) {
		for _, s := range shapes {
			t.Run(s.name, func(t *testing.T) {
				path := testutil.TinyLlama(t, s.TinyOptions)
				want, got := open(t, path, options()), open(t, path, on(device))
				b := randomBatch(3, want.Vocab, 5, 11, 2, 9)
				adapted(t, want, nil)
				adapted(t, got, nil)
				if want.Experts > 0 && !got.backend.Host && got.backend.Fused {
					_, _, err := got.AddGradient(b.tokens, b.targets, b.lengths, 0,
						make([]float32, len(got.adapter.Params)))
					wantError(t, err, device, "lacks route, ")
					return
				}
				sameStep(t, got, want, b, deviceTolerance)
			})
		}
	})
}

func TestDevicePlans(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	for name, change := range map[string]func(*vera.Config, *Options){
		"merged":   func(_ *vera.Config, o *Options) { o.Plan = PlanMerged },
		"factored": func(_ *vera.Config, o *Options) { o.Plan = PlanFactored },
		"dropout":  func(c *vera.Config, _ *Options) { c.Dropout = 0.2 },
		"lora":     func(c *vera.Config, _ *Options) { c.Method, c.Alpha = vera.MethodLoRA, 16 },
		"pairs":    func(c *vera.Config, _ *Options) { c.UniquePairs = true },
		"all":      func(_ *vera.Config, o *Options) { o.Recompute = RecomputeAll },
	} {
		eachDevice(t, func(t *testing.T, device string) {
			t.Run(name, func(t *testing.T) {
				models := make([]*Model, 2)
				for i, o := range []Options{options(), on(device)} {
					var c vera.Config
					change(&c, &o)
					models[i] = open(t, path, o)
					adapted(t, models[i], func(c *vera.Config) { change(c, &o) })
				}
				b := randomBatch(4, models[0].Vocab, 30, 50, 9)
				copy(b.tokens[30:50], b.tokens[:20])
				sameStep(t, models[1], models[0], b, deviceTolerance)
			})
		})
	}
}

// TestWeightsInTurn gives a device less memory than all blocks take: the results are the same bits.
func TestWeightsInTurn(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0, Blocks: 7})
	eachDevice(t, func(t *testing.T, device string) {
		o := on(device)
		o.Plan = PlanFactored
		all := open(t, path, o)
		b := randomBatch(5, all.Vocab, 9, 30, 12)
		adapted(t, all, nil)
		need, err := all.EstimateMemory(b.tokens, b.targets, b.lengths)
		if err != nil {
			t.Fatal(err)
		}
		least, err := all.gradientMemory(newPack(passes(samplesOf(t, all, b))[0], true))
		if err != nil {
			t.Fatal(err)
		}
		o.Memory = least.Total() - 1
		inTurn := open(t, path, o)
		adapted(t, inTurn, nil)
		small, err := inTurn.EstimateMemory(b.tokens, b.targets, b.lengths)
		if err != nil {
			t.Fatal(err)
		}
		if need.InTurn || !small.InTurn || small.Total() > o.Memory || small.File >= need.File {
			t.Errorf("with room %+v, without %+v", need, small)
		}
		for range 2 {
			wantLoss, want := b.gradient(t, all, 0)
			loss, grad := b.gradient(t, inTurn, 0)
			if loss != wantLoss || b.loss(t, inTurn) != b.loss(t, all) {
				t.Errorf("loss %g, want %g", loss, wantLoss)
			}
			sameBits(t, "gradient", grad, want)
		}

		o.Memory = 100 << 10
		none := open(t, path, o)
		adapted(t, none, nil)
		if _, err := none.EstimateMemory(b.tokens, b.targets, b.lengths); err == nil ||
			!strings.Contains(err.Error(), device) ||
			!strings.Contains(err.Error(), "smaller batch") {
			t.Errorf("100 KiB: %v", err)
		}
	})
}

func samplesOf(t *testing.T, m *Model, b batch) []sample {
	t.Helper()
	s, err := m.splitBatch(b.tokens, b.targets, b.lengths)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDeviceRefuses asks a device for what it does not do.
func TestDeviceRefuses(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	if buildErr == nil {
		o := on(bindings.Metal)
		if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), "computes in bf16") {
			t.Errorf("float32 on Metal: %v", err)
		}
	}
	if name := os.Getenv("VERATUNE_TEST_DEVICE"); strings.HasPrefix(name, "vulkan") {
		o := on(name)
		o.Compute = ComputeBF16
		if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), "computes in f32") {
			t.Errorf("bfloat16: %v", err)
		}
	}
	o := on("abacus7")
	if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), "no device abacus7; there are cpu") {
		t.Errorf("no such device: %v", err)
	}
}

// TestDeviceSmolLM2 computes a step of the real model, with few tokens.
func TestDeviceSmolLM2(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes on a processor")
	}
	path := testutil.SmolLM2(t)
	eachDevice(t, func(t *testing.T, device string) {
		o := on(device)
		o.Plan, o.Threads = PlanFactored, Default().Threads
		got := open(t, path, o)
		o.Device = bindings.CPU
		want := open(t, path, o)
		b := randomBatch(6, 1000, 12, 9)
		wide := func(c *vera.Config) { c.Rank = 64 }
		adapted(t, got, wide)
		adapted(t, want, wide)
		sameStep(t, got, want, b, deepTolerance)
		answering, cpu := got.mustServe(t, 1, 32), want.mustServe(t, 1, 32)
		defer answering.Close()
		defer cpu.Close()
		sameAnswer(t, "adapted", answering, cpu, []int32{504, 5345, 314, 253}, 16)
	})
}

// TestFakeDevice has a device that looks like CUDA's: it is found and chosen, named where it lacks an operation or
// memory, and where it is lost in a step.
func TestFakeDevice(t *testing.T) {
	if buildErr != nil {
		t.Skip(buildErr)
	}
	fails := func(what string, err error, words ...string) {
		t.Helper()
		for _, word := range append(words, "cuda0") {
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want %q in it", what, err, word)
			}
		}
	}
	if name, err := DeviceName(bindings.Auto); name == bindings.CPU || err != nil {
		t.Errorf("auto is %s, %v", name, err)
	}
	kquants := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_K, Blocks: 1})
	list, failed, err := Devices(kquants)
	i := slices.IndexFunc(list, func(d Device) bool { return d.Name == "cuda0" })
	if err != nil || i < 0 || !slices.Equal(list[i].Lacks, []string{"GET_ROWS of q4_K"}) || list[i].Total != 128<<20 {
		t.Fatalf("devices %+v, %v, %v", list, failed, err)
	}

	step := func(path string, lengths ...int) error {
		m := open(t, path, on("cuda0"))
		defer m.Close()
		adapted(t, m, nil)
		b := randomBatch(1, m.Vocab, lengths...)
		_, _, err := m.AddGradient(b.tokens, b.targets, b.lengths, 0, make([]float32, len(m.adapter.Params)))
		return err
	}
	fails("K-quants", step(kquants, 5), "lacks GET_ROWS of q4_K")
	plain := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	fails("a step", step(plain, 5), "is lost")
	fails("a large step", step(plain, 40000), "even with two blocks' weights", "smaller batch")
}

// TestMetalHas asks for every operation of every kind of step, and of answers, whether ggml's Metal backend says that
// it has it.
func TestMetalHas(t *testing.T) {
	if buildErr != nil {
		t.Skip(buildErr)
	}
	lacks := func(t *testing.T, path string) []string {
		t.Helper()
		list, _, err := Devices(path)
		i := slices.IndexFunc(list, func(d Device) bool { return d.Name == "metal" })
		if err != nil || i < 0 || len(list[i].Operations) < 10 {
			t.Fatalf("devices %+v, %v", list, err)
		}
		return list[i].Lacks
	}
	has := func(name string, o testutil.TinyOptions, change func(*vera.Config, *Options)) {
		t.Run(name, func(t *testing.T) {
			path := testutil.TinyLlama(t, o)
			if missing := lacks(t, path); len(missing) > 0 {
				t.Errorf("Metal lacks %v", missing)
			}
			options := on(bindings.Metal)
			options.Compute = ComputeBF16
			var c vera.Config
			change(&c, &options)
			m := open(t, path, options)
			adapted(t, m, func(c *vera.Config) { change(c, &options) })
			if _, err := m.MakeDeviceAdamW(0.9, 0.999, 1e-8, 0); err != nil {
				t.Fatal(err)
			}
			b := randomBatch(3, m.Vocab, 5, 11, 2, 300)
			if _, err := m.EstimateMemory(b.tokens, b.targets, b.lengths); err != nil {
				t.Error(err)
			}
			for _, options.Compute = range []Compute{ComputeBF16, ComputeQ8} {
				m := open(t, path, options)
				adapted(t, m, func(c *vera.Config) { change(c, &options) })
				if err := m.PlanAnswers(3, 100, 40); err != nil {
					t.Errorf("answers in %s: %v", options.Compute, err)
				}
			}
		})
	}
	same := func(*vera.Config, *Options) {}
	for _, s := range shapes {
		has(s.name, s.TinyOptions, same)
	}
	has("merged", testutil.TinyOptions{}, func(_ *vera.Config, o *Options) { o.Plan = PlanMerged })
	has("lora", testutil.TinyOptions{}, func(c *vera.Config, _ *Options) { c.Method, c.Alpha = vera.MethodLoRA, 16 })
	has("dropout", testutil.TinyOptions{}, func(c *vera.Config, _ *Options) { c.Dropout = 0.2 })
	has("b alone", testutil.TinyOptions{}, func(c *vera.Config, _ *Options) { c.Only = "b" })
	t.Setenv("WITHOUT_BFLOAT16", "1")
	if missing := lacks(t, testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.BF16})); !slices.Contains(missing,
		"GET_ROWS of bf16") {
		t.Errorf("without bfloat16, Metal lacks %v", missing)
	}
}

// TestRoundedProducts has a device multiply in bfloat16, as Metal must: steps are as far from exact ones as the CPU's
// in that arithmetic.
func TestRoundedProducts(t *testing.T) {
	for _, s := range shapes {
		for _, plan := range []Plan{PlanFactored, PlanMerged} {
			t.Run(s.name+", "+string(plan), func(t *testing.T) {
				path := testutil.TinyLlama(t, s.TinyOptions)
				models := map[string]*Model{}
				for name, change := range map[string]func(*Options){
					"exact": func(*Options) {}, "rounded": func(o *Options) {
						o.Compute, o.Device = ComputeBF16, bindings.Composed
					},
					"cpu": func(o *Options) { o.Compute = ComputeBF16 },
				} {
					o := options()
					o.Plan = plan
					change(&o)
					models[name] = open(t, path, o)
					adapted(t, models[name], nil)
				}
				b := randomBatch(3, models["exact"].Vocab, 5, 11, 2, 40)
				wantLoss, want := b.gradient(t, models["exact"], 0)
				_, onCPU := b.gradient(t, models["cpu"], 0)
				loss, grad := b.gradient(t, models["rounded"], 0)
				if off := math.Abs(loss/wantLoss - 1); !(off <= 1e-3) {
					t.Errorf("loss %g, want %g", loss, wantLoss)
				}
				most := 2.5
				if models["exact"].Experts > 0 {
					most = 10 // the CPU rounds nothing before experts are chosen
				}
				if off, usual := relativeL2(grad, want), relativeL2(onCPU, want); !(off <= most*usual) ||
					off < usual/5 {
					t.Errorf("gradient off by %.1e, the CPU's by %.1e", off, usual)
				}
			})
		}
	}
}

// TestDeviceAnswers holds the answers of a device to the CPU's, those of several texts together and of texts that grow
// in pieces among them: base, VeRA and LoRA of every architecture that the device has. Short, it takes five of them,
// with caps, windows, sinks, experts, convolutions and delta nets, on another device than the CPU.
func TestDeviceAnswers(t *testing.T) {
	eachDevice(t, func(t *testing.T, device string) {
		smalls(t, func(t *testing.T, s small) {
			some := []string{"llama", "gemma2", "gpt-oss", "lfm2", "qwen35"}
			if testing.Short() && device != bindings.Composed && !slices.Contains(some, filepath.Base(s.dir)) {
				t.Skip("one of many")
			}
			want, got := s.open(t, ComputeF32), open(t, s.model, on(device))
			if want.Experts > 0 && got.backend.Fused {
				_, err := got.Logits([]int32{1}, 1)
				wantError(t, err, device, "lacks route, ")
				return
			}
			methods := []string{"base", "vera", "lora"}
			if testing.Short() && device != bindings.Composed && filepath.Base(s.dir) != "llama" {
				methods = methods[1:2]
			}
			for _, method := range methods {
				switch method {
				case "vera":
					s.attach(t, want)
					s.attach(t, got)
				case "lora":
					lora := func(c *vera.Config) { *c = vera.LoRADefault(); c.Rank = 5 }
					adapted(t, want, lora)
					adapted(t, got, lora)
				}
				answersAlike(t, method, got, want)
			}
		})
	})
}

// answersAlike compares logits of texts that grow together, and greedy answers.
func answersAlike(t *testing.T, name string, got, want *Model) {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	const room = 100
	caches := [2]*Cache{}
	for i, m := range []*Model{got, want} {
		var err error
		if caches[i], err = m.NewCache(3, min(room, m.Context)); err != nil {
			t.Fatal(err)
		}
		defer caches[i].Close()
	}
	for _, counts := range [][]int{{7, 7, 7}, {1, 1, 1}, {9, 2, 4}, {1, 1}, {1, 1, 1}} {
		var adds []Addition
		for text, n := range counts {
			a := Addition{Text: text, Rows: 1}
			for range n {
				a.Tokens = append(a.Tokens, int32(random.IntN(want.Vocab)))
			}
			adds = append(adds, a)
		}
		var logits [2][]float32
		for i, c := range caches {
			var err error
			if logits[i], err = c.Append(adds...); err != nil {
				t.Fatal(err)
			}
		}
		if e := relativeL2(logits[0], logits[1]); !(e <= deviceTolerance) {
			t.Errorf("%s, %v: logits off by %.1e", name, counts, e)
		}
	}
	for _, texts := range []int{1, 4} {
		device, cpu := got.mustServe(t, texts, room), want.mustServe(t, 4, room)
		defer device.Close()
		defer cpu.Close()
		var all sync.WaitGroup
		for i := range int32(4) {
			all.Go(func() {
				sameAnswer(t, fmt.Sprintf("%s, %d at a time", name, texts), device, cpu, []int32{i + 1, 5, 2}, 16)
			})
		}
		all.Wait()
	}
}

// sameAnswer compares the most likely tokens that two servers make of a prompt.
func sameAnswer(t *testing.T, name string, got, want *Server, prompt []int32, tokens int) {
	r := trial{prompt: prompt, Sampling: DefaultSampling()}
	r.MaxTokens = tokens
	expected, err := r.run(want)
	if err != nil {
		t.Error(err)
	}
	if made, err := r.run(got); err != nil || !slices.Equal(made, expected) {
		t.Errorf("%s: %v, %d, want %d", name, err, made, expected)
	}
}
