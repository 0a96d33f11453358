package train

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// readIfThere gives the content of a file, nil where there is none.
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

// about is what a line of metrics.jsonl is about; there is one of each.
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

// covers tells whether a record belongs to the training up to a position. A checkpoint can be older than the evaluation at its step, where that was interrupted.
func (p position) covers(r Record) bool {
	if r.EvalLoss != nil {
		return p.Last != nil && r.Step <= p.Last.Step
	}
	return r.Step <= p.Step
}

// expected lists what there must be lines about.
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

// mend gives the lines of metrics.jsonl up to a position, from what was found of the file and what the checkpoint has kept of it, nil where there is no such
// file. What is wrong with the file is in the report, which is "" where it is as a run leaves it, however that ended.
func mend(found, kept []byte, at position) (lines []byte, report string) {
	var faults []string
	fault := func(n int, one, more string) {
		switch {
		case n == 1:
			faults = append(faults, "had 1 line "+one)
		case n > 1:
			faults = append(faults, fmt.Sprintf("had %d lines %s", n, more))
		}
	}
	have, twice, later := map[about]string{}, 0, 0
	records, text := ReadRecords(found)
	for i, r := range records {
		line := string(text[i])
		switch _, before := have[r.about()]; {
		case !at.covers(r):
			later++
		case before:
			twice++
		default:
			have[r.about()] = line
			lines = append(lines, line...)
		}
	}
	expected, changed := at.expected(), 0
	if kept != nil {
		lines, expected = nil, nil
		records, text := ReadRecords(kept)
		for i, r := range records {
			if !at.covers(r) {
				continue
			}
			lines, expected = append(lines, text[i]...), append(expected, r.about())
			if line, ok := have[r.about()]; ok && line != string(text[i]) {
				changed++
			}
		}
	}
	missing, named := []int{}, map[int]bool{}
	for _, e := range expected {
		if _, ok := have[e]; !ok && !named[e.step] {
			missing, named[e.step] = append(missing, e.step), true
		}
	}
	switch {
	case found == nil && len(missing) > 0:
		faults = append(faults, "was not there")
	case len(found) == 0 && len(missing) > 0:
		faults = append(faults, "was empty")
	case len(missing) > 0:
		faults = append(faults, "lacked lines of "+stepRanges(missing))
	}
	fault(twice, "twice", "twice")
	fault(changed, "that was changed", "that were changed")
	fault(bytes.Count(found, []byte("\n"))-len(records), "that is none of a run", "that are none of a run")
	mended := len(faults) > 0
	after := fmt.Sprintf("from after step %d, ", at.Step)
	fault(later, after+"which is written anew", after+"which are written anew")
	if report = strings.Join(faults, ", "); !mended {
		return lines, report
	}
	if kept == nil && len(missing) > 0 {
		return lines, report + "; the checkpoint has no copy, so that the lines of " + stepRanges(missing) + " are lost; the training itself lacks nothing"
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
