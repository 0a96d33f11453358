package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// adamW is the formula in float64, for a first step and those after it.
func adamW(params, grad, m, v []float64, t int, lr, decay float64) {
	const beta1, beta2, eps = 0.9, 0.999, 1e-8
	for i, g := range grad {
		m[i] = beta1*m[i] + (1-beta1)*g
		v[i] = beta2*v[i] + (1-beta2)*g*g
		mean, square := m[i]/(1-math.Pow(beta1, float64(t))), v[i]/(1-math.Pow(beta2, float64(t)))
		params[i] = (1-lr*decay)*params[i] - lr*mean/(math.Sqrt(square)+eps)
	}
}

func narrow(values []float64) []float32 {
	list := make([]float32, len(values))
	for i, v := range values {
		list[i] = float32(v)
	}
	return list
}

// TestAdamW trains some steps on a device, and compares with the formula, from the gradients that the CPU computes at
// the same numbers. What is not trained stays as it is, under weight decay too.
func TestAdamW(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	for name, change := range map[string]func(*vera.Config, *Options){
		"factored":  func(_ *vera.Config, o *Options) { o.Plan = PlanFactored },
		"merged":    func(_ *vera.Config, o *Options) { o.Plan = PlanMerged },
		"b alone":   func(c *vera.Config, _ *Options) { c.Only = "b" },
		"d alone":   func(c *vera.Config, _ *Options) { c.Only = "d" },
		"lora":      func(c *vera.Config, _ *Options) { c.Method, c.Alpha = vera.MethodLoRA, 16 },
		"some rows": func(c *vera.Config, _ *Options) { c.Targets, c.Rank = []string{"attn_k", "ffn_down"}, 7 },
	} {
		eachDevice(t, func(t *testing.T, device string) {
			t.Run(name, func(t *testing.T) {
				attached := func(o Options) *Model {
					var c vera.Config
					change(&c, &o)
					m := open(t, path, o)
					adapted(t, m, func(c *vera.Config) { change(c, &o) })
					return m
				}
				cpu, far := attached(options()), attached(on(device))
				const lr, decay = 0.01, 0.1
				o, err := far.MakeDeviceAdamW(0.9, 0.999, 1e-8, decay)
				if err != nil {
					t.Fatal(err)
				}
				b := randomBatch(4, cpu.Vocab, 30, 9)
				n := len(cpu.adapter.Params)
				params, m, v := wide(cpu.adapter.Params), make([]float64, n), make([]float64, n)
				near := func(what string, got []float32, want []float64, tolerance float64) {
					t.Helper()
					if e := relativeL2(got, narrow(want)); !(e <= tolerance) {
						t.Errorf("%s off by %.1e", what, e)
					}
				}
				gotParams, gotM, gotV := far.adapter.Params, make([]float32, n), make([]float32, n)
				for step := 1; step <= 3; step++ {
					wantLoss, grad := b.gradient(t, cpu, 0)
					loss, labels, err := o.ComputeGradient(b.tokens, b.targets, b.lengths, 0)
					if err != nil || labels != b.labels() || !(math.Abs(loss-wantLoss) <= deviceTolerance*wantLoss) {
						t.Fatalf("loss %g of %d labels, want %g of %d; %v", loss, labels, wantLoss, b.labels(), err)
					}
					norm, err := o.GradientNorm()
					if err != nil {
						t.Fatal(err)
					}
					own := make([]float32, n)
					if err := o.CopyGradient(own); err != nil {
						t.Fatal(err)
					}
					near("gradient", own, wide(grad), deviceTolerance)
					var squares float64
					for _, g := range own {
						squares += float64(g) * float64(g)
					}
					if want := math.Sqrt(squares); !(math.Abs(norm-want) <= 1e-6*want) {
						t.Errorf("norm %g, want %g", norm, want)
					}
					scaled := wide(own)
					for i := range scaled {
						scaled[i] /= 20
					}
					adamW(params, scaled, m, v, step, lr, decay)
					if err := o.Step(step, lr, 1./20); err != nil {
						t.Fatal(err)
					}
					if err := o.State(gotParams, gotM, gotV); err != nil {
						t.Fatal(err)
					}
					// Single numbers of a tiny gradient move by lr whichever way they round to.
					near("numbers", gotParams, params, 1e-5)
					near("first moment", gotM, m, 1e-5)
					near("second moment", gotV, v, 3e-5) // 1−β2 of β2 in float32 is 1.3e-5 off
					params, m, v = wide(gotParams), wide(gotM), wide(gotV)
					copy(cpu.adapter.Params, gotParams)
					if err := cpu.Update(); err != nil {
						t.Fatal(err)
					}
				}
				all := make([]float32, far.adapter.params.Ne(0))
				if err := bindings.Get(far.adapter.params, all); err != nil {
					t.Fatal(err)
				}
				for i, x := range far.adapter.parameters {
					if x.offset < 0 && !slices.Equal(all[:len(x.values)], x.values) {
						t.Errorf("vector %d, which is not trained, has changed", i)
					}
					all = all[len(x.values):]
				}
				slices.Reverse(gotM)
				slices.Reverse(gotV)
				again := [3][]float32{make([]float32, n), make([]float32, n), make([]float32, n)}
				if err := o.SetMoments(gotM, gotV); err != nil {
					t.Fatal(err)
				}
				if err := o.State(again[0], again[1], again[2]); err != nil || !slices.Equal(again[1], gotM) ||
					!slices.Equal(again[2], gotV) {
					t.Errorf("the moments that were set are not there; %v", err)
				}
				if err := o.SetMoments(gotM[1:], gotV); err == nil ||
					!strings.Contains(err.Error(), "the adapter has") {
					t.Errorf("too few moments: %v", err)
				}
			})
		})
	}
}

// TestAdamWMemory: a plan counts the moments.
func TestAdamWMemory(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	m := open(t, path, on(bindings.Composed))
	if _, err := m.MakeDeviceAdamW(0.9, 0.999, 1e-8, 0); err == nil {
		t.Error("an optimiser of nothing")
	}
	adapted(t, m, func(c *vera.Config) { c.Rank = 512 })
	b := randomBatch(4, m.Vocab, 30, 9)
	before, err := m.EstimateMemory(b.tokens, b.targets, b.lengths)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.MakeDeviceAdamW(0.9, 0.999, 1e-8, 0); err != nil {
		t.Fatal(err)
	}
	after, err := m.EstimateMemory(b.tokens, b.targets, b.lengths)
	if err != nil {
		t.Fatal(err)
	}
	if more, least := after.Process-before.Process, int64(8*len(m.adapter.Params)); more < least || more > least+1<<14 {
		t.Errorf("two moments of %d numbers take %d bytes in the plan", len(m.adapter.Params), more)
	}
}
