package model

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// several makes adapters of all kinds: of one pair and of others, of several ranks and layers, with pairs of their own,
// and LoRAs.
func several(t *testing.T, m *Model) (list []*vera.Adapter) {
	t.Helper()
	for i, change := range []func(*vera.Config){
		nil, nil, nil,
		func(c *vera.Config) { c.Rank = 32 },
		func(c *vera.Config) { c.Rank = 32 },
		func(c *vera.Config) { c.Seed = 9 },
		func(c *vera.Config) { c.Targets = []string{"attn_q", "ffn_down"} },
		func(c *vera.Config) { c.Layers = []int{1} },
		func(c *vera.Config) { c.UniquePairs = true },
		func(c *vera.Config) { c.Method, c.Alpha, c.Rank = vera.MethodLoRA, 16, 4 },
		func(c *vera.Config) { c.Method, c.Alpha, c.Rank = vera.MethodLoRA, 8, 4 },
	} {
		c := vera.Default()
		c.Rank, c.Seed = 8, 3
		if change != nil {
			change(&c)
		}
		a, err := vera.New(c, m.Base())
		if err != nil {
			t.Fatal(err)
		}
		random := rand.New(rand.NewPCG(7, uint64(i)))
		for j := range a.Params {
			a.Params[j] += 0.3 * float32(random.NormFloat64())
		}
		list = append(list, a)
	}
	return list
}

// alone are the logits of a text with one adapter, or none, in a cache of its own.
func alone(t *testing.T, m *Model, a *vera.Adapter, tokens []int32) []float32 {
	t.Helper()
	c := m.mustCache(t, 1, len(tokens))
	add := Addition{Tokens: tokens, Rows: len(tokens)}
	if a != nil {
		var err error
		if add.Adapter, err = c.Place(a); err != nil {
			t.Fatal(err)
		}
	}
	logits, err := c.Append(add)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// TestMixedBatch computes texts of many adapters together, whole and token by token, some of them anew with another
// adapter: each has the bits that it has alone, and in 8 bits those of the adapter attached. On a device, the CPU's
// logits but for rounding.
func TestMixedBatch(t *testing.T) {
	for name, c := range map[string]struct {
		testutil.TinyOptions
		change func(*Options)
	}{
		"q4_0 in f32":   {testutil.TinyOptions{Type: bindings.Q4_0}, func(*Options) {}},
		"q4_1 in q8":    {testutil.TinyOptions{Type: bindings.Q4_1}, func(o *Options) { o.Compute = ComputeQ8 }},
		"two threads":   {testutil.TinyOptions{}, func(o *Options) { o.Compute, o.Threads = ComputeQ8, 2 }},
		"on the device": {testutil.TinyOptions{}, func(o *Options) { o.Device = bindings.Composed }},
	} {
		t.Run(name, func(t *testing.T) {
			path := testutil.TinyLlama(t, c.TinyOptions)
			o := options()
			if c.change(&o); o.Device == bindings.Composed {
				o = on(bindings.Composed)
			}
			m := open(t, path, o)
			texts := append(several(t, m), nil, nil)
			tokens := make([][]int32, len(texts))
			want, got := make([][]float32, len(texts)), make([][]float32, len(texts))
			for i, a := range texts {
				tokens[i] = randomBatch(uint64(i), m.Vocab, 12).tokens
				if want[i] = alone(t, m, a, tokens[i]); a == nil || o.Compute != ComputeQ8 {
					continue
				}
				if err := m.Attach(a); err != nil {
					t.Fatal(err)
				}
				sameBits(t, fmt.Sprintf("adapter %d attached", i), m.mustLogits(t, tokens[i]), want[i])
				if err := m.Attach(nil); err != nil {
					t.Fatal(err)
				}
			}
			cache := m.mustCache(t, len(texts), 12)
			placed := make([]*Placed, len(texts))
			for i, a := range texts {
				if a == nil {
					continue
				}
				var err error
				if placed[i], err = cache.Place(a); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(cache.mixtures); n != 5+3 {
				t.Errorf("%d pairs, want 5 that are shared and 3 that are not", n)
			}
			order := rand.New(rand.NewPCG(1, 1)).Perm(len(texts))
			for round, pieces := range [][]int{{12}, {5, 1, 1, 1, 4}} {
				for i := range got {
					got[i] = nil
					// the text before was another adapter's
					if _, err := cache.Append(Addition{Text: (i + 1) % len(texts), Tokens: tokens[i][:2],
						Adapter: placed[i]}); err != nil {
						t.Fatal(err)
					}
				}
				for i := range texts {
					cache.Cut(i, 0)
				}
				start := 0
				for _, n := range pieces {
					var adds []Addition
					for _, i := range order {
						adds = append(adds, Addition{Text: i, Tokens: tokens[i][start:][:n], Rows: n,
							Adapter: placed[i]})
					}
					logits, err := cache.Append(adds...)
					if err != nil {
						t.Fatal(err)
					}
					for j, i := range order {
						got[i] = append(got[i], logits[j*n*m.Vocab:][:n*m.Vocab]...)
					}
					start += n
				}
				for i := range texts {
					if o.Device == bindings.Composed {
						if e := relativeL2(got[i], want[i]); !(e <= 1e-5) {
							t.Errorf("round %d: text %d is off by %.1e", round, i, e)
						}
						continue
					}
					sameBits(t, fmt.Sprintf("round %d, text %d", round, i), got[i], want[i])
				}
			}
		})
	}
}

// TestMixturesGrow places more adapters than there are slots, removes some and places others: each keeps its numbers.
func TestMixturesGrow(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	c := m.mustCache(t, 2, 16)
	tokens := randomBatch(1, m.Vocab, 9).tokens
	make1 := func(i int) *vera.Adapter {
		a, err := vera.New(vera.Config{Method: vera.MethodVeRA, Rank: 8, DInitial: 0.1, Init: vera.KaimingUniform},
			m.Base())
		if err != nil {
			t.Fatal(err)
		}
		for j := range a.Params {
			a.Params[j] = float32((i*j)%23) / 32
		}
		return a
	}
	placed, want := map[int]*Placed{}, map[int][]float32{}
	add := func(i int) {
		p, err := c.Place(make1(i))
		if err != nil {
			t.Fatal(err)
		}
		placed[i], want[i] = p, alone(t, m, make1(i), tokens)
	}
	check := func() {
		t.Helper()
		for i, p := range placed {
			c.Cut(0, 0)
			got, err := c.Append(Addition{Tokens: tokens, Rows: len(tokens), Adapter: p})
			if err != nil {
				t.Fatal(err)
			}
			sameBits(t, fmt.Sprint("adapter ", i), got, want[i])
		}
	}
	for i := range 20 {
		add(i)
	}
	check()
	for i := range 7 {
		c.Remove(placed[i])
		delete(placed, i)
	}
	for i := 20; i < 50; i++ {
		add(i)
	}
	check()
	if n := len(c.mixtures); n != 1 {
		t.Errorf("%d pairs, want 1", n)
	}
	for _, p := range placed {
		c.Remove(p)
	}
	if n := len(c.mixtures); n != 0 {
		t.Errorf("%d pairs are left of no adapter", n)
	}
}

func TestPlaceRefuses(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	c := m.mustCache(t, 1, 16)
	a := several(t, m)[0]
	a.Layers[1].LambdaB[3] = 70000
	_, err := c.Place(a)
	wantError(t, err, a.Layers[1].Name(), "number 3", "70000", "65504")
	other := open(t, testutil.TinyLlama(t, testutil.TinyOptions{Width: 128, Heads: 4}), options())
	_, err = c.Place(several(t, other)[0])
	wantError(t, err, "in the model")
	if len(c.mixtures) != 0 {
		t.Error("a refused adapter leaves a pair")
	}
}

// TestServerAdapters has many adapters answer at once, with log probabilities: each as alone. Adapters come and go
// meanwhile.
func TestServerAdapters(t *testing.T) {
	o := options()
	o.Compute = ComputeQ8
	m := open(t, testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_1}), o)
	adapters := append(several(t, m), nil)
	prompt := randomBatch(2, m.Vocab, 300).tokens
	ask := func(s *Server, p *Placed, i int) (tokens []Token, err error) {
		r := Request{Prompt: prompt[i*7:][:1+i*i*2%97], Sampling: DefaultSampling(), Adapter: p, LogProbs: true, Top: 3}
		r.MaxTokens, r.Temperature, r.Seed = 12, float64(i%2), uint64(i)
		return tokens, s.Generate(context.Background(), r, func(t Token) bool {
			t.Held = 0 // what is known of a prompt may differ
			tokens = append(tokens, t)
			return true
		})
	}
	want := make([][]Token, len(adapters))
	for i, a := range adapters {
		s := m.mustServe(t, 1, 256)
		var p *Placed
		var err error
		if a != nil {
			if p, err = s.Place(a); err != nil {
				t.Fatal(err)
			}
		}
		if want[i], err = ask(s, p, i); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	s := m.mustServe(t, 5, 256)
	defer s.Close()
	var all sync.WaitGroup
	for i, a := range adapters {
		for range 3 {
			all.Go(func() {
				var p *Placed
				var err error
				if a != nil {
					if p, err = s.Place(a); err != nil {
						t.Error(err)
						return
					}
				}
				got, err := ask(s, p, i)
				if err != nil || fmt.Sprint(got) != fmt.Sprint(want[i]) {
					t.Errorf("adapter %d among others: %v, %v, want %v", i, err, got, want[i])
				}
				if p != nil {
					s.Remove(p)
				}
			})
		}
	}
	all.Wait()
	if err := s.between(func() {
		if len(s.cache.mixtures)+len(s.removed)+len(s.active)+len(s.waiting) > 0 {
			t.Errorf("%d pairs, %d to be removed, %d and %d requests are left", len(s.cache.mixtures), len(s.removed),
				len(s.active), len(s.waiting))
		}
	}); err != nil {
		t.Error(err)
	}
	top := want[3][2].Top
	if len(top) != 3 || !slices.IsSortedFunc(top, func(a, b LogProb) int {
		return strings.Compare(fmt.Sprint(a.LogProb < b.LogProb), "false")
	}) {
		t.Errorf("the most likely are %v", top)
	}
}

// TestServerIsFair: while one adapter floods a server, others wait for one answer at most, and then take turns.
func TestServerIsFair(t *testing.T) {
	m := tiny(t, testutil.TinyOptions{})
	s := &Server{m: m, cache: m.mustCache(t, 2, 64), used: make([]int, 2), served: map[*Placed]int{}}
	flood, quiet, third := &Placed{}, &Placed{}, &Placed{}
	wait := func(p *Placed, n int) {
		for range n {
			s.waiting = append(s.waiting, &request{ctx: context.Background(), Request: Request{Prompt: []int32{5},
				Adapter: p}})
		}
	}
	begun := func(n int) (list []*Placed) {
		s.begin()
		for _, r := range s.active[len(s.active)-n:] {
			list = append(list, r.Adapter)
		}
		return list
	}
	wait(flood, 1)
	begun(1)
	wait(flood, 20)
	wait(quiet, 2)
	wait(third, 1)
	if got := begun(1); got[0] != quiet {
		t.Error("a flood takes both texts")
	}
	s.active = s.active[1:]
	if got := begun(1); got[0] != third {
		t.Error("the adapter that waits longest is not the next")
	}
	s.active = nil
	if got := begun(2); !slices.Equal(got, []*Placed{flood, quiet}) {
		t.Error("adapters do not take turns")
	}
	s.waiting, s.active = nil, nil
	wait(flood, 2)
	if got := begun(2); !slices.Equal(got, []*Placed{flood, flood}) {
		t.Error("a free text is left free")
	}
}
