package mtbench

import (
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/stat"
)

// resamples is how often the questions are drawn anew for an interval.
const resamples = 10000

// Interval is a 95% confidence interval, lower end first: how far a mean would move with other questions of the same
// kind. It says nothing of how right the judge is.
type Interval [2]Mean

// clusters holds the values measured on each question. The two turns of a question have a conversation in common, so
// that questions, not turns, are drawn.
type clusters struct {
	list  []cluster
	index map[int]int // of a question in list
}

type cluster struct{ sum, n float64 }

func (c *clusters) add(question int, value float64) {
	i, ok := c.index[question]
	if !ok {
		if c.index == nil {
			c.index = map[int]int{}
		}
		i = len(c.list)
		c.index[question] = i
		c.list = append(c.list, cluster{})
	}
	c.list[i].sum += value
	c.list[i].n++
}

// mean is that of all values, NaN where there are none.
func (c *clusters) mean() Mean {
	var total cluster
	for _, q := range c.list {
		total.sum += q.sum
		total.n += q.n
	}
	return Mean(total.sum / total.n)
}

// interval is the percentile bootstrap interval of the mean (Efron 1979), the same for the same values. It is NaN with
// fewer than two questions.
func (c *clusters) interval() Interval {
	n := len(c.list)
	if n < 2 {
		return Interval{Mean(math.NaN()), Mean(math.NaN())}
	}
	random := rand.New(rand.NewPCG(1, 2))
	means := make([]float64, resamples)
	for i := range means {
		var total cluster
		for range n {
			q := c.list[random.IntN(n)]
			total.sum += q.sum
			total.n += q.n
		}
		means[i] = total.sum / total.n
	}
	slices.Sort(means)
	return Interval{Mean(stat.Quantile(0.025, stat.Empirical, means, nil)),
		Mean(stat.Quantile(0.975, stat.Empirical, means, nil))}
}
