package train

import (
	"slices"
	"testing"
)

func TestInterval(t *testing.T) {
	for _, c := range []struct {
		text     string
		perEpoch int
		want     []int // steps from 0 to 12 that it ends with
	}{
		{"0", 6, nil},
		{"5", 6, []int{5, 10}},
		{"1epoch", 6, []int{6, 12}},
		{"0.5epoch", 6, []int{3, 6, 9, 12}},
		{"0.25epoch", 6, []int{2, 3, 5, 6, 8, 9, 11, 12}},
		{"1.5epoch", 6, []int{9}},
		{"0.01epoch", 6, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"0.4epoch", 5, []int{2, 4, 6, 8, 10, 12}},
		{"0.3333epoch", 7, []int{2, 5, 7, 9, 12}},
	} {
		var i Interval
		if err := i.Set(c.text); err != nil {
			t.Fatal(err)
		}
		var got []int
		for step := range 13 {
			if i.endsAt(step, c.perEpoch) {
				got = append(got, step)
			}
		}
		if !slices.Equal(got, c.want) || i.String() != c.text {
			t.Errorf("%s of %d steps an epoch ends with %v, want %v; it is written %s", c.text, c.perEpoch,
				got, c.want, i)
		}
	}
	for _, text := range []string{"", "epoch", "-1", "0epoch", "-1epoch", "NaNepoch", "Infepoch", "1.5", "1 epoch",
		"1e400epoch", "2epochs"} {
		if err := new(Interval).Set(text); err == nil {
			t.Errorf("%q is taken for an interval", text)
		}
	}
}

func FuzzInterval(f *testing.F) {
	for _, text := range []string{"50", "0", "0.5epoch", "1e-9epoch", "1e300epoch", "007"} {
		f.Add(text, 3)
	}
	f.Fuzz(func(t *testing.T, text string, step int) {
		var i, again Interval
		if i.Set(text) != nil {
			return
		}
		if err := again.Set(i.String()); err != nil || again != i {
			t.Errorf("%q is written %s and read as %+v, %v", text, i, again, err)
		}
		i.endsAt(step, 6)
	})
}
