package model

import (
	"strings"
	"testing"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/vera"
)

// TestMergingPays holds the choice of the plan to what it is for: small matrices at a high rank are merged, large ones
// at a low rank are not.
func TestMergingPays(t *testing.T) {
	adaptedGroup := func(in int, outs ...int) *group {
		var layers []*linear
		ad := &groupAdapter{}
		for _, out := range outs {
			layers = append(layers, &linear{in: in, out: out})
			ad.layers = append(ad.layers, layerAdapter{vectors: &bindings.Vectors{}})
		}
		gr := newGroup(0, layers...)
		gr.adapter = ad
		return gr
	}
	for _, c := range []struct {
		*group
		rank   int
		merged bool
	}{
		{adaptedGroup(576, 576, 192, 192), 1024, true}, {adaptedGroup(1536, 576), 1024, true},
		{adaptedGroup(576, 1536, 1536), 64, false},
		{adaptedGroup(4096, 4096, 4096, 4096), 1024, false}, {adaptedGroup(11008, 4096), 1024, false},
	} {
		if got := c.mergingPays(c.rank); got != c.merged {
			t.Errorf("%d to %d at rank %d: merging pays: %v", c.in, c.out, c.rank, got)
		}
	}
}

// TestPlan holds what Plan says to what Gradients then takes, as far as it can be counted, and a limit of memory to the
// blocks that still keep their results.
func TestPlan(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 3})
	o := options()
	o.Recompute = RecomputeNone
	m := open(t, path, o)
	if _, err := m.EstimateMemory([]int32{1}, []int32{2}, []int{1}); err == nil {
		t.Error("a plan without an adapter")
	}
	adapted(t, m, nil)
	b := randomBatch(1, m.Vocab, 30, 17, 40)
	all, err := m.EstimateMemory(b.tokens, b.targets, b.lengths)
	if err != nil {
		t.Fatal(err)
	}
	if all.Rows != 83 || // four tokens stand behind the last label of their sample
		all.Keeping != 3 {
		t.Errorf("%d rows, %d blocks keep their results", all.Rows, all.Keeping)
	}
	b.gradient(t, m, 0)
	const padding = 64 // a place on the tape is aligned
	if used := m.tape.buffer.Size(); used < all.Streams+all.Saved || used > all.Streams+all.Saved+padding*100 {
		t.Errorf("%d bytes between the blocks and kept, %d planned", used, all.Streams+all.Saved)
	}
	if work := m.alloc.Size(); work > all.Work {
		t.Errorf("%d bytes of work, %d planned", work, all.Work)
	}

	for _, c := range []struct {
		blocks int64 // that are left room for
		want   int
	}{{-3, -1}, {0, 0}, {1, 1}, {2, 2}, {30, 3}} {
		o := options()
		m := open(t, path, o)
		adapted(t, m, func(c *vera.Config) { c.Rank = 8 })
		p := newPack([]sample{{tokens: b.tokens[:60], targets: b.targets[:60]}}, false)
		need, err := m.passMemory(p, 0)
		if err != nil {
			t.Fatal(err)
		}
		saved, _, err := m.saved(p)
		if err != nil {
			t.Fatal(err)
		}
		m.options.Memory = need.Total() + c.blocks*saved + saved/2
		keep, err := m.blocksToKeep(p)
		if c.want < 0 {
			if err == nil || !strings.Contains(err.Error(), "memory is limited") {
				t.Errorf("a limit below what is needed: %v", err)
			}
			continue
		}
		if err != nil || keep != c.want {
			t.Errorf("room for %d blocks: %d keep their results, %v", c.blocks, keep, err)
		}
	}
}
