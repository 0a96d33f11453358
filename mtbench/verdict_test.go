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
		// FastChat's form.
		{"Clear and correct. Rating: [[7]]", 7, true},
		{"Rating: [[7.5]]", 7.5, true},
		{"Rating: [[7.]]", 7, true},
		{"[[1]]", 1, true},
		{"[[10]]", 10, true},
		{"[[10.0]]\n", 10, true},
		{"[[[4]]]", 4, true},
		{"rating is [[7]]", 7, true},
		{"I give it a [[6]].", 6, true},

		// The last one counts.
		{"first [[3]], then [[8]]", 8, true},
		{"An ideal answer would be [[10]]; this one is not. Rating: [[2]]", 2, true},
		{"[[2]]\n[[5]]\n[[4]]\nThat is all.", 4, true},
		{"[[8]], and no second guess: [[100]]", 0, false},
		{"[[8]] [[9/5]]", 0, false},
		{"[[8]], not [[rating]]", 8, true},

		// Other ways to write the same.
		{"**[[5]]**", 5, true},
		{"[[**8**]]", 8, true},
		{"[[ 8 ]]", 8, true},
		{"[[8\n]]", 8, true},
		{"[[9/10]]", 9, true},
		{"[[8.5/10]]", 8.5, true},
		{"[[9 / 10.0]]", 9, true},
		{"[[9]]/10", 9, true},
		{"[[Rating: 8]]", 8, true},
		{"[[grade 8]]", 8, true},
		{"[[**Score:** 8/10]]", 8, true},

		// Without two pairs of brackets.
		{"Rating: 9", 9, true},
		{"Rating: 9.", 9, true},
		{"Rating: 9.5.", 9.5, true},
		{"Good.\n**Rating:** 9/10", 9, true},
		{"**Rating: 9**", 9, true},
		{"### Final grade: 6 out of 10", 6, true},
		{"Rating: [9]", 9, true},
		{"Rating: [9]/10", 9, true},
		{"Rating: [9/10]", 9, true},
		{"Grade: [[3]", 3, true},
		{"SCORE = 4", 4, true},
		{"Rating: 8 - clear and complete", 8, true},
		{"Rating: 3\nOn reflection, rating: 5", 5, true},
		{"[[9]] counts before Rating: 3", 9, true},
		{"Rating: 3 counts after [[9]]", 9, true},
		{"Rating: 8/5", 0, false},
		{"Rating: 80/100", 0, false},
		{"Rating: 11", 0, false},
		{"Rating: 0", 0, false},
		{"Rating: 7-8", 0, false},
		{"Rating: 90%", 0, false},
		{"Rating: 5th", 0, false},
		{"Rating:\n1. The answer is short.", 0, false},
		{"The rating 8 is too high", 0, false},
		{"Operating: 8", 0, false},

		// No grade.
		{"see [2]", 0, false},
		{"[6]", 0, false},
		{"[[8]", 0, false},
		{"[ [8] ]", 0, false},
		{"items[0] of the list", 0, false},
		{"[[1, 2], [3, 4]]", 0, false},
		{"[[0]]", 0, false},
		{"[[11]]", 0, false},
		{"[[10.5]]", 0, false},
		{"[[0.9]]", 0, false},
		{"[[100]] [5]", 0, false},
		{"[[" + strings.Repeat("9", 400) + "]]", 0, false},
		{"[[-5]]", 0, false},
		{"[[5/0]]", 0, false},
		{"[[rating]]", 0, false},
		{"[[.5]]", 0, false},
		{"[[５]]", 0, false},
		{"[[eight]]", 0, false},
		{"", 0, false},
	} {
		if got, ok := new(material).score(c.judgment); got != c.want || ok != c.ok {
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
		{"[[A]] is tempting, but [[B]]", "B"},
		{"[[C]], or rather [[B]]", "B"},
		{"[[A]] if A were right, [[B]] if B were: [[C]]", "tie"},
		{"[[A]]\n\nThat is my verdict on [B].", "A"},
		{"[[[A]]]", "A"},
		{"**[[B]]**", "B"},
		{"[[**B**]]", "B"},
		{"[[a]]", "A"},
		{"[[ B ]]", "B"},
		{"[[Tie]]", "tie"},
		{"[[A]], not [[D]]", "A"},
		{"[A]", ""},
		{"[ [A] ]", ""},
		{"[[D]]", ""},
		{"[[AB]]", ""},
		{"[[A, B]]", ""},
		{"A", ""},
		{"", ""},
	} {
		if got, ok := new(material).verdict(c.judgment); got != c.want || ok != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.judgment, got, ok, c.want)
		}
	}
}

func FuzzScore(f *testing.F) {
	for _, s := range []string{"[[7]]", "[3.5]", "[[12]] [[4]]", "[[1.]]", "Rating: 8/10", "**Score:** [[7", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, judgment string) {
		score, ok := new(material).score(judgment)
		if ok != (score >= 1 && score <= 10) || !ok && score != 0 {
			t.Errorf("%q: %v, %v", judgment, score, ok)
		}
		if got, ok := new(material).score(judgment + "\n[[4]]"); !ok || got != 4 {
			t.Errorf("%q before [[4]]: %v, %v", judgment, got, ok)
		}
	})
}

func FuzzVerdict(f *testing.F) {
	for _, s := range []string{"[[A]]", "[[B]] [[C]]", "[[C]]", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, judgment string) {
		winner, ok := new(material).verdict(judgment)
		if !ok && winner != "" || ok && winner != "A" && winner != "B" && winner != "tie" {
			t.Errorf("%q: %q, %v", judgment, winner, ok)
		}
		if got, _ := new(material).verdict(judgment + "[[A]]"); got != "A" {
			t.Errorf("%q before [[A]]: %q", judgment, got)
		}
	})
}
