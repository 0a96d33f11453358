package alpaca

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// countRows counts the rows that samples were made of. The samples of a row stand next to each other.
func countRows(list []entry) (n int) {
	for _, rows := range rowsByPart(list) {
		n += rows
	}
	return n
}

// rowsByPart counts the rows of each part that has some.
func rowsByPart(list []entry) map[uint16]int {
	rows := map[uint16]int{}
	for i, e := range list {
		if i == 0 || e.part != list[i-1].part || e.row != list[i-1].row {
			rows[e.part]++
		}
	}
	return rows
}

// Repeats says of each file how many of its rows a file before it has, too, whatever the two are called and however
// they are packed: "b.json.gz: all its 40 rows are in a.json, too". What repeats within a file is for NewCheck to find.
func (d *Dataset) Repeats() (list []string) {
	if len(d.parts) < 2 {
		return nil
	}
	order := make([]int32, len(d.entries))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		x, y := &d.entries[a], &d.entries[b]
		return cmp.Or(bytes.Compare(x.digest[:], y.digest[:]), cmp.Compare(a, b))
	})
	// All of a digest stand together, the first of them first.
	var repeated []int32
	earlier := map[uint16]map[uint16]bool{} // files that a file repeats
	var first *entry
	for _, i := range order {
		e := &d.entries[i]
		switch {
		case first == nil || first.digest != e.digest:
			first = e
		case first.part != e.part:
			repeated = append(repeated, i)
			if earlier[e.part] == nil {
				earlier[e.part] = map[uint16]bool{}
			}
			earlier[e.part][first.part] = true
		}
	}
	slices.Sort(repeated)
	again := make([]entry, len(repeated))
	for i, row := range repeated {
		again[i] = d.entries[row]
	}
	all, repeats := rowsByPart(d.entries), rowsByPart(again)
	for _, part := range slices.Sorted(maps.Keys(earlier)) {
		where := "the files before it"
		for file := range earlier[part] {
			if len(earlier[part]) == 1 {
				where = d.parts[file].Path
			}
		}
		list = append(list, fmt.Sprintf("%s: %s in %s, too", d.parts[part].Path,
			partOf(repeats[part], all[part]), where))
	}
	return list
}

// In counts the rows of d that other has, too, and all of d's.
func (d *Dataset) In(other *Dataset) (shared, all int) {
	found := make(map[digest]bool, len(d.entries))
	for _, e := range d.entries {
		found[e.digest] = false
	}
	for _, e := range other.entries {
		if _, ok := found[e.digest]; ok {
			found[e.digest] = true
		}
	}
	return countRows(slices.DeleteFunc(slices.Clone(d.entries), func(e entry) bool { return !found[e.digest] })),
		countRows(d.entries)
}

func partOf(n, all int) string {
	switch {
	case n == all && n == 1:
		return "its only row is"
	case n == all:
		return fmt.Sprintf("all its %d rows are", all)
	case n == 1:
		return fmt.Sprintf("1 of its %d rows is", all)
	}
	return fmt.Sprintf("%d of its %d rows are", n, all)
}
