package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// alternatives are what a sweep tries for an option of its trainings: values, or numbers from a range.
type alternatives struct {
	name     string
	list     bool // the option takes a list itself
	split    bool // at commas
	number   bool // may be a range
	integer  bool
	choices  []choice
	low, top float64 // of the range; 0 where there is none
}

// choice is the option with one of its values, or with all of a list.
type choice struct {
	name  string
	words []string
}

func (c choice) value() string { return strings.Join(c.words, ",") }

// alternativesOf makes a flag of a training one of a sweep. Flags without a value stay as they are.
func alternativesOf(f cli.Flag) cli.Flag {
	d := f.(cli.DocGenerationFlag)
	a := &alternatives{name: f.Names()[0], list: takesList(f)}
	switch f.(type) {
	case *cli.BoolFlag:
		return f
	case *cli.Float64Flag:
		a.number = true
	case *cli.IntFlag, *cli.Uint64Flag:
		a.number, a.integer = true, true
	}
	// Names of files may have commas.
	a.split = !a.list && !strings.Contains(d.GetUsage(), "`FILE`")
	return &cli.GenericFlag{Name: a.name, Aliases: f.Names()[1:], Usage: d.GetUsage(),
		DefaultText: d.GetDefaultText(), Value: a}
}

// Set adds a value, several where they have commas between them, or makes it a range.
func (a *alternatives) Set(text string) error {
	if text == "" { // the library copies a flag to its alias as String gives it
		return nil
	}
	values := []string{text}
	if a.split {
		values = strings.Split(text, ",")
	}
	for _, v := range values {
		v = strings.TrimSpace(v)
		low, top, isRange := strings.Cut(v, "..")
		if a.number && isRange {
			if err := a.span(low, top); err != nil {
				return err
			}
			continue
		}
		a.add(v)
	}
	if a.top > 0 && len(a.choices) > 0 {
		return errors.New("give values or a range, not both")
	}
	return nil
}

func (a *alternatives) add(words ...string) { a.choices = append(a.choices, choice{a.name, words}) }

func (a *alternatives) span(low, top string) error {
	var lowErr, topErr error
	a.low, lowErr = strconv.ParseFloat(low, 64)
	a.top, topErr = strconv.ParseFloat(top, 64)
	if lowErr != nil || topErr != nil || !(a.low > 0 && a.low < a.top && !math.IsInf(a.top, 1)) {
		return errors.New("want a range LOW..HIGH of numbers above 0")
	}
	return nil
}

// String is for the help, which shows the training's own defaults instead.
func (a *alternatives) String() string { return "" }

// draw gives n numbers of the range, one in each of n parts that are equal on a logarithmic scale, in any order.
func (a *alternatives) draw(n int, random *rand.PCG) []choice {
	type drawn struct {
		key uint64
		choice
	}
	list := make([]drawn, n)
	for i := range list {
		at := (float64(i) + float64(random.Uint64()>>11)/(1<<53)) / float64(n)
		v := a.low * math.Pow(a.top/a.low, at)
		text := strconv.FormatFloat(v, 'g', 3, 64)
		if a.integer {
			text = strconv.FormatFloat(math.Round(v), 'f', 0, 64)
		}
		list[i] = drawn{random.Uint64(), choice{a.name, []string{text}}}
	}
	slices.SortFunc(list, func(x, y drawn) int { return cmp.Compare(x.key, y.key) })
	choices := make([]choice, n)
	for i, d := range list {
		choices[i] = d.choice
	}
	return choices
}

// combine gives the trials of a sweep, each with a choice for every option that varies: all combinations of the values,
// and those with each of the draws from the ranges.
func combine(options []*alternatives, draws int, seed uint64) [][]choice {
	random := rand.NewPCG(seed, drawStream)
	trials, drawn := [][]choice{nil}, make([][]choice, draws)
	ranges := false
	for _, a := range options {
		switch {
		case a.top > 0:
			ranges = true
			for i, c := range a.draw(draws, random) {
				drawn[i] = append(drawn[i], c)
			}
		case len(a.choices) > 1:
			trials = product(trials, a.choices)
		}
	}
	if ranges {
		var all [][]choice
		for _, d := range drawn {
			for _, t := range trials {
				all = append(all, slices.Concat(t, d))
			}
		}
		trials = all
	}
	var distinct [][]choice
	for _, t := range trials {
		same := func(other []choice) bool { return fmt.Sprint(other) == fmt.Sprint(t) }
		if !slices.ContainsFunc(distinct, same) {
			distinct = append(distinct, t)
		}
	}
	return distinct
}

// drawStream keeps the draws apart from what else the seed decides.
const drawStream = 1 << 32

func product(trials [][]choice, choices []choice) (all [][]choice) {
	for _, t := range trials {
		for _, c := range choices {
			all = append(all, append(slices.Clip(t), c))
		}
	}
	return all
}
