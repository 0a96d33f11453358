package model

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// TestAnswersInTurn gives a device less memory than all blocks take: answers are the same bits, of one text and of
// several, in models whose blocks share keys and values too.
func TestAnswersInTurn(t *testing.T) {
	eachDevice(t, func(t *testing.T, device string) {
		check := func(name, path string, attach func(m *Model)) {
			t.Run(name, func(t *testing.T) {
				all := open(t, path, on(device))
				attach(all)
				want := growing3(t, all)
				inTurn := open(t, path, on(device))
				attach(inTurn)
				weights := inTurn.weights.(*streamed)
				if weights.Size() < weights.uploadedSize() {
					inTurn.options.Memory = weights.uploadedSize() - 1 + inTurn.answersNeed(t)
				} else {
					weights.settled = true // the largest blocks' weights twice are more than all
				}
				got := growing3(t, inTurn)
				if all.inTurn() || !inTurn.inTurn() {
					t.Error("the same way")
				}
				sameBits(t, "logits", got, want)
			})
		}
		path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0, Blocks: 7})
		check("llama", path, func(m *Model) { adapted(t, m, nil) })
		if device != bindings.Composed {
			return
		}
		smalls(t, func(t *testing.T, s small) {
			if slices.Contains([]string{"gemma4", "gpt2", "phi3", "lfm2", "qwen35"}, filepath.Base(s.dir)) {
				check("in turn", s.model, func(m *Model) { s.attach(t, m) })
			}
		})
	})
}

// answersNeed is what three texts take besides the weights.
func (m *Model) answersNeed(t *testing.T) int64 {
	t.Helper()
	c, err := m.newCache(3, min(100, m.Context))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n, err := c.measure(c.room)
	if err != nil {
		t.Fatal(err)
	}
	return n.held + n.work + m.heldMemory()
}

// growing3 are the logits of three texts that grow.
func growing3(t *testing.T, m *Model) (all []float32) {
	t.Helper()
	c, err := m.NewCache(3, min(100, m.Context))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tokens := range [][]int32{{3, 1, 4, 1, 5}, {9}, {2, 6}} {
		var adds []Addition
		for text := range 3 {
			adds = append(adds, Addition{Text: text, Tokens: append(tokens, int32(text)), Rows: 1})
		}
		logits, err := c.Append(adds...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, logits...)
	}
	return all
}

// TestPlanAnswers: answers between the passes of a training are part of what it needs, and fewer blocks keep what
// their backward pass needs.
func TestPlanAnswers(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0, Blocks: 5})
	for _, device := range []string{bindings.CPU, bindings.Composed} {
		o := on(device)
		m := open(t, path, o)
		adapted(t, m, nil)
		b := randomBatch(5, m.Vocab, 90, 80, 70)
		estimate := func() Memory {
			n, err := m.EstimateMemory(b.tokens, b.targets, b.lengths)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		without := estimate()
		if err := m.PlanAnswers(4, 200, 100); err != nil {
			t.Fatal(err)
		}
		c, err := m.NewCache(4, 200)
		if err != nil {
			t.Fatal(err)
		}
		if with := estimate(); with.Answers <= c.memory.Size() || with.Total() < without.Total()+c.memory.Size() {
			t.Errorf("%s: with answers %+v, without %+v", device, with, without)
		}
		c.Close()
		m.options.Memory = without.Total()
		if less := estimate(); less.Keeping >= without.Keeping || less.Total() > without.Total() {
			t.Errorf("%s: %+v in the memory of %+v", device, less, without)
		}
	}
}

// TestAnswersTooLarge says before anything is computed what does not fit.
func TestAnswersTooLarge(t *testing.T) {
	o := on(bindings.Composed)
	m := open(t, testutil.TinyLlama(t, testutil.TinyOptions{}), o)
	m.options.Memory = m.weights.Size() + m.heldMemory() + 1<<10
	_, err := m.NewCache(8, 200)
	for _, word := range []string{"8 texts of 208 tokens", "on composed", "fewer texts"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v, want %q in it", err, word)
		}
	}
}

// TestFakeAnswers has devices that lack an operation, are out of memory before or in an answer, or are lost in one: all
// is said, nothing ends the process, further answers are made once they can be, and all memory is given back.
func TestFakeAnswers(t *testing.T) {
	if buildErr != nil {
		t.Skip(buildErr)
	}
	const gone, refused = "the device is lost", "cannot allocate memory"
	plain := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0, Blocks: 3})
	for device, compute := range map[string]Compute{"cuda0": ComputeF32, bindings.Metal: ComputeBF16} {
		for name, change := range map[string]func(m *Model){
			"uploaded": func(*Model) {},
			"streamed": func(m *Model) { m.weights.(*streamed).settled = true },
		} {
			t.Run(device+", "+name, func(t *testing.T) {
				t.Setenv("COMPUTES", "1")
				o := on(device)
				o.Compute = compute
				m := open(t, plain, o)
				change(m)
				adapted(t, m, nil)
				_, err := m.Serve(1<<10, 1<<9)
				wantError(t, err, device, "keys and values of 1024 texts", refused, "fewer texts")
				s := m.mustServe(t, 2, 200)
				// ask has three prompts answered by two texts, and at the first token of each does something.
				ask := func(first func()) error {
					var all sync.WaitGroup
					failed := make([]error, 3)
					for i := range failed {
						r := Request{Prompt: []int32{int32(i), 1, 2}, Sampling: DefaultSampling()}
						r.MaxTokens = 100
						all.Go(func() {
							n := 0
							failed[i] = s.Generate(t.Context(), r, func(Token) bool {
								if n++; n == 1 {
									first()
								}
								return true
							})
							if failed[i] == nil && n != 100 {
								t.Errorf("%d tokens", n)
							}
						})
					}
					all.Wait()
					return failed[0]
				}
				if name == "streamed" { // whose later passes take no more memory than the first
					os.Setenv("BYTES", "1")
				}
				wantError(t, ask(func() { os.Setenv("BYTES", "1") }), device, refused, "fewer texts")
				os.Unsetenv("BYTES")
				for range 2 {
					if err := ask(func() {}); err != nil {
						t.Errorf("again: %v", err)
					}
					wantError(t, ask(func() { os.Unsetenv("COMPUTES") }), device, gone)
					os.Setenv("COMPUTES", "1")
				}
				s.Close()
				m.Close()
				if d, err := bindings.FindDevice(device); err != nil || d.Free != d.Total {
					t.Errorf("%d bytes are not given back, %v", d.Total-d.Free, err)
				}
			})
		}
	}
	m := open(t, testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_K, Blocks: 1}), on("cuda0"))
	_, err := m.Serve(1, 10)
	wantError(t, err, "cuda0", "lacks GET_ROWS of q4_K", "--device cpu")
	m.Close()
	if d, _ := bindings.FindDevice("cuda0"); d.Free != d.Total {
		t.Errorf("%d bytes are not given back", d.Total-d.Free)
	}
}

// TestDeviceBytes: answers in 8 bits are as far from those in float32 as the CPU's, with every kind of weights, alone
// and beside others; keys and values take half the memory, the adapter at most half.
func TestDeviceBytes(t *testing.T) {
	eachDevice(t, func(t *testing.T, device string) {
		kinds := []bindings.Type{bindings.Q4_0, bindings.Q8_0, bindings.Q4_K, bindings.Q6_K, bindings.F16}
		if testing.Short() && device != bindings.Composed {
			kinds = kinds[:1]
		}
		for _, kind := range kinds {
			t.Run(kind.String(), func(t *testing.T) {
				path := testutil.TinyLlama(t, testutil.TinyOptions{Type: kind})
				var logits [4][]float32
				var sizes [4]int64
				var pairs [4]int64
				for i, o := range []Options{options(), options(), on(device), on(device)} {
					if i%2 == 1 {
						o.Compute = ComputeQ8
					}
					m := open(t, path, o)
					adapted(t, m, func(c *vera.Config) { c.Rank = 64 })
					logits[i] = growing3(t, m)
					c, err := m.NewCache(3, 100)
					if err != nil {
						t.Fatal(err)
					}
					sizes[i], pairs[i] = c.memory.Size(), m.adapter.memory.Size()
					c.Close()
				}
				exact := logits[0]
				usual, off := relativeL2(logits[1], exact), relativeL2(logits[3], exact)
				if f := relativeL2(logits[2], exact); !(f <= deviceTolerance) || !(off <= 2*usual+1e-2) || off == f {
					t.Errorf("off by %.1e in f32, %.1e in q8, the CPU by %.1e", f, off, usual)
				}
				if sizes[3] != sizes[2]/2 || pairs[3] > pairs[2]/2 {
					t.Errorf("keys and values %d bytes in q8, %d in f32; the adapter %d and %d", sizes[3], sizes[2],
						pairs[3], pairs[2])
				}
				t.Logf("off by %.1e, the CPU by %.1e; the adapter %d bytes of %d", off, usual, pairs[3], pairs[2])
			})
		}
	})
}
