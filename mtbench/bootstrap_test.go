package mtbench

import (
	"math"
	"math/rand/v2"
	"testing"
)

// measured holds two values for each of n questions.
func measured(n int, value func() float64) *clusters {
	c := &clusters{}
	for q := range n {
		c.add(q, value())
		c.add(q, value())
	}
	return c
}

func (i Interval) width() float64 { return float64(i[1] - i[0]) }

func TestIntervalContainsTheMean(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		for _, n := range []int{2, 3, 10, 80} {
			c := measured(n, func() float64 { return float64(1 + random.IntN(10)) })
			if i, mean := c.interval(), c.mean(); mean < i[0] || mean > i[1] || i[0] < 1 || i[1] > 10 {
				t.Errorf("seed %d, %d questions: %v is not within %v", seed, n, mean, i)
			}
		}
	}
}

// The width falls with the square root of the number of questions.
func TestIntervalShrinks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	value := func() float64 { return float64(1 + random.IntN(10)) }
	few, many := measured(50, value).interval().width(), measured(800, value).interval().width()
	if ratio := few / many; ratio < 3 || ratio > 5 {
		t.Errorf("16 times the questions make the interval %.2f times as narrow, want about 4", ratio)
	}
}

// For many normal values the interval is the mean ± 1.96 standard errors.
func TestIntervalOfNormalValues(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 0))
	c := &clusters{}
	sum, squares := 0.0, 0.0
	const n = 1000
	for q := range n {
		v := random.NormFloat64()
		sum, squares = sum+v, squares+v*v
		c.add(q, v)
	}
	i := c.interval()
	half := 1.96 * math.Sqrt((squares/n-sum*sum/n/n)/n)
	if math.Abs(float64(i[0])-(sum/n-half)) > 0.05*half || math.Abs(float64(i[1])-(sum/n+half)) > 0.05*half {
		t.Errorf("%v, want %.4f ± %.4f", i, sum/n, half)
	}
}

func TestIntervalOfConstants(t *testing.T) {
	c := measured(30, func() float64 { return 7 })
	c.add(1, 7)
	if i := c.interval(); i != (Interval{7, 7}) {
		t.Errorf("%v, want 7 to 7", i)
	}
}

// Turns of one question go together: two equal turns tell no more than one.
func TestIntervalDrawsQuestions(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 0))
	once, twice := &clusters{}, &clusters{}
	for q := range 40 {
		v := float64(1 + random.IntN(10))
		once.add(q, v)
		twice.add(q, v)
		twice.add(q, v)
	}
	if a, b := once.interval(), twice.interval(); a != b {
		t.Errorf("%v for one turn, %v for two equal ones", a, b)
	}
}

func TestIntervalOfOneQuestionIsUnknown(t *testing.T) {
	for n := range 2 {
		if i := measured(n, func() float64 { return 5 }).interval(); i[0].Known() || i[1].Known() {
			t.Errorf("%d questions: %v", n, i)
		}
	}
}
