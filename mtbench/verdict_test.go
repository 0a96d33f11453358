package mtbench

import (
	"strings"
	"testing"
)

func TestScore(t *testing.T) {
	for _, c := range []struct {
		judgment string
		want     float64
		ok       bool
	}{
		{"Clear and correct. Rating: [[7]]", 7, true},
		{"Rating: [[7.5]]", 7.5, true},
		{"Rating: [[7.]]", 7, true},
		{"[[1]]", 1, true},
		{"[[10]]", 10, true},
		{"[[10.0]]\n", 10, true},
		{"first [[3]], then [[8]]", 3, true},
		{"single [6]", 6, true},
		{"double wins over an earlier single one: [2] … [[9]]", 9, true},
		{"[[8]", 8, true},
		{"[[[4]]]", 4, true},
		{"**[[5]]**", 5, true},
		{"items[0] of the list", 0, false},
		{"[[0]]", 0, false},
		{"[[11]]", 0, false},
		{"[[10.5]]", 0, false},
		{"out of range, and no second guess: [[100]] [5]", 0, false},
		{"[[" + strings.Repeat("9", 400) + "]]", 0, false},
		{"[[-5]]", 0, false},
		{"[[ 5 ]]", 0, false},
		{"[[5/10]]", 0, false},
		{"[[rating]]", 0, false},
		{"[[.5]]", 0, false},
		{"[[５]]", 0, false},
		{"Rating: 7", 0, false},
		{"", 0, false},
	} {
		if got, ok := Score(c.judgment); got != c.want || ok != c.ok {
			t.Errorf("%.40q: %v, %v; want %v, %v", c.judgment, got, ok, c.want, c.ok)
		}
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		judgment, want string
	}{
		{"A is better. [[A]]", "A"},
		{"[[B]]", "B"},
		{"[[C]]", "tie"},
		{"not [[B]] but [[A]]", "A"},
		{"[[C]], or rather [[B]]", "B"},
		{"[[[A]]]", "A"},
		{"[A]", ""},
		{"[[a]]", ""},
		{"[[ A ]]", ""},
		{"[[D]]", ""},
		{"A", ""},
		{"", ""},
	} {
		if got, ok := Verdict(c.judgment); got != c.want || ok != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.judgment, got, ok, c.want)
		}
	}
}

func FuzzScore(f *testing.F) {
	for _, s := range []string{"[[7]]", "[3.5]", "[[12]] [[4]]", "[[1.]]", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, judgment string) {
		score, ok := Score(judgment)
		if ok != (score >= 1 && score <= 10) || !ok && score != 0 {
			t.Errorf("%q: %v, %v", judgment, score, ok)
		}
		if got, ok := Score("[[4]]" + judgment); !ok || got != 4 {
			t.Errorf("[[4]] before %q: %v, %v", judgment, got, ok)
		}
	})
}

func FuzzVerdict(f *testing.F) {
	for _, s := range []string{"[[A]]", "[[B]] [[C]]", "[[C]]", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, judgment string) {
		winner, ok := Verdict(judgment)
		if !ok && winner != "" || ok && winner != "A" && winner != "B" && winner != "tie" {
			t.Errorf("%q: %q, %v", judgment, winner, ok)
		}
		if got, _ := Verdict(judgment + "[[A]]"); got != "A" {
			t.Errorf("%q before [[A]]: %q", judgment, got)
		}
	})
}
