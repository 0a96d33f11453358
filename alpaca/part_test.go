package alpaca

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
)

func TestParsePart(t *testing.T) {
	for s, want := range map[string]Part{
		"a.json": {"a.json", 1}, "a.json:0.5": {"a.json", 0.5}, "b:c/d.jsonl": {"b:c/d.jsonl", 1}, "x:2:1": {"x:2", 1},
		"C:/a.json:3": {"C:/a.json", 3},
	} {
		if p, err := ParsePart(s); err != nil || p != want {
			t.Errorf("%s: %+v, %v", s, p, err)
		} else if back, err := ParsePart(p.String()); s != "x:2:1" && (err != nil || back != p) {
			t.Errorf("%s is written as %s", s, p)
		}
	}
	for _, s := range []string{"", ":2", "a:0", "a:-1", "a:NaN", "a:Inf", "a:1e9"} {
		if p, err := ParsePart(s); err == nil {
			t.Errorf("%q was taken as %+v", s, p)
		}
	}
}

// Over the epochs, every row of a part comes as often as its weight says, and never twice more than another.
func TestWeights(t *testing.T) {
	const epochs = 12
	sizes, weights := []int{9, 10, 7}, []float64{1, 0.3, 2.5}
	var parts []Part
	for i, n := range sizes {
		var lines []string
		for j := range n {
			lines = append(lines, fmt.Sprintf(`{"prompt": "%d", "completion": "%d"}`, i, j))
		}
		parts = append(parts, Part{write(t, lines...), weights[i]})
	}
	d, err := Load(parts, fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := Default()
	o.Seed = 5
	s := d.Source(o)
	seen := map[int]int{}
	for e := range epochs {
		inEpoch := make([]int, len(parts))
		order := s.epochOrder(e)
		for _, i := range order {
			inEpoch[d.entries[i].part]++
			seen[i]++
		}
		for i, n := range sizes {
			if want := int(math.Round(weights[i] * float64(n))); inEpoch[i] != want {
				t.Errorf("epoch %d has %d rows of part %d, want %d", e, inEpoch[i], i, want)
			}
		}
		if again := d.Source(o).epochOrder(e); !slices.Equal(order, again) {
			t.Errorf("the order of epoch %d depends on what was read before it", e)
		}
	}
	for i := range sizes {
		var counts []int
		for j, e := range d.entries {
			if int(e.part) == i {
				counts = append(counts, seen[j])
			}
		}
		draws := epochs * int(math.Round(weights[i]*float64(sizes[i])))
		if low, high := slices.Min(counts), slices.Max(counts); high-low > 1 || low != draws/sizes[i] {
			t.Errorf("part %d: rows came %d to %d times, want %d", i, low, high, draws/sizes[i])
		}
	}
	if n := len(rowsOf(t, d, d.InOrder(4), 3, 4)); n != 26 {
		t.Errorf("in order, there are %d rows", n)
	}
	prints := map[string]bool{s.Fingerprint(): true}
	parts[1].Weight = 0.4
	d2, err := Load(parts, fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer d2.Close()
	prints[d2.Source(o).Fingerprint()] = true
	if len(prints) != 2 {
		t.Errorf("another weight has the same fingerprint: %v", maps.Keys(prints))
	}
}

// Weights of 1 change nothing: files side by side are in the same order as one file with all their rows.
func TestPartsOfWeightOne(t *testing.T) {
	var lines []string
	for i := range 11 {
		lines = append(lines, fmt.Sprintf(`{"prompt": "%d", "completion": "b"}`, i))
	}
	one, err := Load(whole(write(t, lines...)), fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	two, err := Load([]Part{{write(t, lines[:4]...), 1}, {write(t, lines[4:]...), 1}}, fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer two.Close()
	a, b := one.Source(Default()), two.Source(Default())
	for i := range 2 * a.Batches() {
		e, i := i/a.Batches(), i%a.Batches()
		x, _, _, err1 := a.Batch(e, i)
		y, _, _, err2 := b.Batch(e, i)
		if err1 != nil || err2 != nil || !slices.Equal(x, y) {
			t.Errorf("epoch %d, batch %d: %q and %q", e, i, detokenize(x), detokenize(y))
		}
	}
	if got := fmt.Sprint(a.epochOrder(1)); got != fmt.Sprint(permutation(11, 0, 1)) {
		t.Errorf("order %s", got)
	}
}
