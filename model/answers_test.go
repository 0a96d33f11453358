package model

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
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
			if slices.Contains([]string{"gemma4", "gpt2", "phi3"}, filepath.Base(s.dir)) {
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
