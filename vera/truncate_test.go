package vera

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gonum.org/v1/gonum/mat"
)

// share is the energy that the best approximation of a rank keeps: the judge, by all singular values in float64.
func share(x *mat.Dense, rank int) float64 {
	if rows, columns := x.Dims(); rows < columns {
		x = mat.DenseCopyOf(x.T())
	}
	sigma, _ := rightSingular(x, 1)
	return squares(sigma[:min(rank, len(sigma))]) / squares(sigma)
}

// holds is the energy of x that is in up · down.
func holds(x *mat.Dense, p product, l *Layer) float64 {
	var rest mat.Dense
	rest.Mul(mat.NewDense(l.Out, p.rank, widened(p.up)), mat.NewDense(p.rank, l.In, widened(p.down)))
	rest.Sub(x, &rest)
	return 1 - math.Pow(mat.Norm(&rest, 2)/mat.Norm(x, 2), 2)
}

// wideBase has layers with more directions than are decomposed in whole, by whichever of height, width and rank is the
// least, and k's with fewer.
func wideBase() Base { return llama("wide", 1, 144, 320, 4, 2) }

// The range finder must keep what the best approximation keeps, within a thousandth of ΔW's energy, and say truly what
// it keeps. Random ΔW are the hardest: their singular values fall slowest.
func TestTruncation(t *testing.T) {
	vera := func(change func(*Config), vectors func(l *Layer)) func(t *testing.T, rank int) *Adapter {
		return func(t *testing.T, rank int) *Adapter {
			c := toyConfig()
			c.Rank = rank
			if change != nil {
				change(&c)
			}
			a := randomAdapter(t, c, wideBase())
			for i := range a.Layers {
				if vectors != nil {
					vectors(&a.Layers[i])
				}
			}
			return a
		}
	}
	all := func(values []float32, of func(i int) float32) {
		for i := range values {
			values[i] = of(i)
		}
	}
	for name, build := range map[string]func(t *testing.T, rank int) *Adapter{
		"random":       vera(nil, nil),
		"unique pairs": vera(func(c *Config) { c.UniquePairs = true }, nil),
		"uniform":      vera(func(c *Config) { c.Init = Uniform }, nil),
		"constant": vera(nil, func(l *Layer) {
			fill(l.LambdaB, 0.01)
			fill(l.LambdaD, 0.1)
		}),
		"falling": vera(nil, func(l *Layer) {
			all(l.LambdaD, func(i int) float32 { return float32(math.Exp(-float64(i) / 8)) })
		}),
		"few rows": vera(nil, func(l *Layer) { clear(l.LambdaB[5:]) }),
		"tiny":     vera(nil, func(l *Layer) { scale(l.LambdaB, 1e-30) }),
		"huge":     vera(nil, func(l *Layer) { scale(l.LambdaB, 1e30) }),
		"lora": func(t *testing.T, rank int) *Adapter {
			c := LoRADefault()
			c.Rank = rank
			a := mustNew(t, c, wideBase())
			random := rand.New(rand.NewPCG(5, 5))
			for i := range a.Params {
				a.Params[i] = float32(random.NormFloat64())
			}
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, rank := range []int{136, 200} { // below and above the width
				a := build(t, rank)
				for i := range a.Layers {
					l := &a.Layers[i]
					if l.Target == "attn_v" || l.Target == "attn_output" || l.Target == "ffn_up" {
						continue // they have the shapes of others
					}
					x := delta(a, l)
					p, err := newTruncation(a, 16).factors(t.Context(), l)
					if err != nil {
						t.Fatal(err)
					}
					best, held := share(x, 16), holds(x, p, l)
					if !(held > best-1e-4) || !(math.Abs(held-p.retained) <= 2e-6) {
						t.Errorf("rank %d: %s holds %.7f, says %.7f, and the best is %.7f", rank, l.Name(), held,
							p.retained, best)
					}
				}
			}
		})
	}
}

// The same bytes at every run, whatever the number of threads; and each layer is reported once, in order.
func TestTruncationRepeats(t *testing.T) {
	c := toyConfig()
	c.Rank = 144
	a := randomAdapter(t, c, wideBase())
	var files [][]byte
	for _, threads := range []int{1, 1, 3, 8} {
		var reports []int
		o := LoRAOptions{Rank: 16, Type: "f16", Threads: threads, Progress: func(done, total int) {
			if total != len(a.Layers) {
				t.Errorf("%d of %d layers", done, total)
			}
			reports = append(reports, done)
		}}
		_, g := saveLoRA(t, a, o)
		files = append(files, read(t, g.Path()))
		if !slices.Equal(files[0], files[len(files)-1]) {
			t.Errorf("%d threads write another file", threads)
		}
		if !slices.Equal(reports, []int{1, 2, 3, 4, 5, 6, 7}) {
			t.Errorf("reported %v", reports)
		}
	}
}

// TestTruncationInterrupted ends soon, while layers are computed, and leaves nothing.
func TestTruncationInterrupted(t *testing.T) {
	c := toyConfig()
	c.Rank = 512
	a := randomAdapter(t, c, llama("large", 2, 768, 1024, 4, 4))
	dir := t.TempDir()
	for _, threads := range []int{1, 3} {
		ctx, cancel := context.WithCancel(t.Context())
		var ended time.Time
		o := LoRAOptions{Rank: 16, Type: "f16", Threads: threads, Progress: func(done, _ int) {
			if done == 2 {
				time.AfterFunc(5*time.Millisecond, func() {
					ended = time.Now()
					cancel()
				})
			}
		}}
		if _, err := a.SaveLoRA(ctx, filepath.Join(dir, "lora.gguf"), o); !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
		if waited := time.Since(ended); waited > 2*time.Second {
			t.Errorf("%d threads: ended after %v", threads, waited)
		}
		wantFiles(t, dir)
	}
}

// TestTruncation7B cuts a random adapter of Llama-2-7B from 1024 to 64 within five minutes, and compares one block with
// the whole decomposition. It takes ten minutes, and runs where VERATUNE_TEST_7B is set.
func TestTruncation7B(t *testing.T) {
	if os.Getenv("VERATUNE_TEST_7B") == "" {
		t.Skip("set VERATUNE_TEST_7B to cut an adapter of a 7B model")
	}
	c := Default()
	c.Rank = 1024
	a := randomAdapter(t, c, llama("Llama-2-7B", 32, 4096, 11008, 32, 32))
	start := time.Now()
	lora, _ := saveLoRA(t, a, LoRAOptions{Rank: 64, Type: "f16", Threads: 2})
	took := time.Since(start)
	fmt.Printf("%d layers, %.0f MB, in %v\n", len(lora.Layers), float64(lora.Bytes)/1e6, took.Round(time.Second/10))
	if took > 5*time.Minute {
		t.Error("that is more than five minutes")
	}
	for i := range 7 {
		whole := &truncation{a, 64, c.Rank, 0}
		p, err := whole.factors(t.Context(), &a.Layers[i])
		if err != nil {
			t.Fatal(err)
		}
		lost := p.retained - lora.Layers[i].Retained
		fmt.Printf("%-18s keeps %.6f, at best %.6f\n", lora.Layers[i].Name, lora.Layers[i].Retained, p.retained)
		if !(math.Abs(lost) <= 1e-3) {
			t.Errorf("%s loses %.6f", lora.Layers[i].Name, lost)
		}
	}
}
