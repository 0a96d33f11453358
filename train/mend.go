package train

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// readIfThere gives the content of a file; nil where there is none.
func readIfThere(path string) ([]byte, error) {
	data, err := durable.ReadFile(path, MaxMetrics)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if data == nil && err == nil {
		data = []byte{}
	}
	return data, err
}

// about is the subject of a line of metrics.jsonl; each has one line.
type about struct {
	kind string
	step int
}

func (r Record) about() about {
	switch {
	case r.Loss != nil:
		return about{"loss", r.Step}
	case r.EvalLoss != nil:
		return about{"evaluation", r.Step}
	}
	return about{"norms", r.Step}
}

// covers tells whether a record belongs to the training up to a position. The evaluation of its step may be missing
// from a checkpoint, if it was interrupted.
func (p position) covers(r Record) bool {
	if r.EvalLoss != nil {
		return p.Last != nil && r.Step <= p.Last.Step
	}
	return r.Step <= p.Step
}

// expected lists the subjects that must have a line.
func (p position) expected() (list []about) {
	for step := 1; step <= p.Step; step++ {
		list = append(list, about{"loss", step})
	}
	for _, e := range []*Evaluation{p.Before, p.Best, p.Last} {
		if e != nil {
			list = append(list, about{"evaluation", e.Step})
		}
	}
	return list
}

// content is the lines of metrics.jsonl up to a position.
type content struct {
	order        []about
	text         map[about]string
	twice, later int // lines that were there before, and those of beyond the position, which are left out
}

func (p position) content(data []byte) content {
	c := content{text: map[about]string{}}
	records, lines := ReadRecords(data)
	for i, r := range records {
		switch _, before := c.text[r.about()]; {
		case !p.covers(r):
			c.later++
		case before:
			c.twice++
		default:
			c.add(r.about(), string(lines[i]))
		}
	}
	return c
}

func (c *content) add(a about, line string) {
	c.order, c.text[a] = append(c.order, a), line
}

// lacks lists in order the steps of wanted subjects that have no line.
func (c content) lacks(wanted []about) (steps []int) {
	for _, a := range wanted {
		if _, ok := c.text[a]; !ok {
			steps = append(steps, a.step)
		}
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

func (c content) lines() (lines []byte) {
	for _, a := range c.order {
		lines = append(lines, c.text[a]...)
	}
	return lines
}

// mend gives the lines of metrics.jsonl up to a position, from the file as found and the copy in the checkpoint, nil
// for none. report says what is wrong with the file; it is "" if the file is as a run leaves it, however that ended.
func mend(found, kept []byte, pos position) (lines []byte, report string) {
	var faults []string
	fault := func(n int, one, more string) {
		switch {
		case n == 1:
			faults = append(faults, "had 1 line "+one)
		case n > 1:
			faults = append(faults, fmt.Sprintf("had %d lines %s", n, more))
		}
	}
	have, all, expected, changed := pos.content(found), pos.content(kept), pos.expected(), 0
	missing := have.lacks(slices.Concat(expected, all.order))
	damaged := len(all.lacks(expected)) > 0 // the copy: then what was found counts, too
	for _, a := range have.order {
		line, ok := all.text[a]
		switch {
		case ok && line != have.text[a]:
			changed++
		case !ok && damaged:
			all.add(a, have.text[a])
		}
	}
	if damaged {
		slices.SortStableFunc(all.order, func(a, b about) int { return cmp.Compare(a.step, b.step) })
	}
	lines = all.lines()
	if kept != nil && bytes.Equal(lines, have.lines()) {
		missing = nil // what is lost was so before, and was told then
	}
	switch {
	case found == nil && len(missing) > 0:
		faults = append(faults, "was not there")
	case len(found) == 0 && len(missing) > 0:
		faults = append(faults, "was empty")
	case len(missing) > 0:
		faults = append(faults, "lacked lines of "+stepRanges(missing))
	}
	fault(have.twice, "twice", "twice")
	fault(changed, "that was changed", "that were changed")
	fault(bytes.Count(found, []byte("\n"))-len(have.order)-have.twice-have.later, "that is none of a run",
		"that are none of a run")
	mended := len(faults) > 0
	after := fmt.Sprintf("from after step %d, ", pos.Step)
	fault(have.later, after+"which is written anew", after+"which are written anew")
	if report = strings.Join(faults, ", "); !mended {
		return lines, report
	}
	if lost := all.lacks(expected); len(missing) > 0 && len(lost) > 0 {
		return lines, report + "; the checkpoint has no copy, so that the lines of " + stepRanges(lost) +
			" are lost; the training itself lacks nothing"
	}
	return lines, report + "; it is as it was at the checkpoint again"
}

// stepRanges names steps, which are in order: "steps 3 to 7, 9".
func stepRanges(steps []int) string {
	var ranges []string
	for i := 0; i < len(steps); {
		end := i
		for end+1 < len(steps) && steps[end+1] == steps[end]+1 {
			end++
		}
		switch end - i {
		case 0:
			ranges = append(ranges, fmt.Sprint(steps[i]))
		case 1:
			ranges = append(ranges, fmt.Sprintf("%d, %d", steps[i], steps[end]))
		default:
			ranges = append(ranges, fmt.Sprintf("%d to %d", steps[i], steps[end]))
		}
		i = end + 1
	}
	if len(steps) == 1 {
		return "step " + ranges[0]
	}
	return "steps " + strings.Join(ranges, ", ")
}
