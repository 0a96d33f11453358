package serve

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// checked is what `veratune data check --json` says of a file, as far as it matters here.
type checked struct {
	name                       string
	rows                       int
	unfit                      int
	first                      []unfitRow // of those
	cut, duplicates, conflicts int
}

type unfitRow struct {
	Row    int    `json:"row"`
	Reason string `json:"reason"`
}

// readCheck reads a check, whose lists may be long.
func readCheck(name string, from io.Reader) (c checked, err error) {
	c.name = name
	d := json.NewDecoder(from)
	if _, err := d.Token(); err != nil { // the object begins
		return c, err
	}
	for d.More() && err == nil {
		var key json.Token
		if key, err = d.Token(); err != nil {
			return c, err
		}
		switch key {
		case "rows":
			err = d.Decode(&c.rows)
		case "unusable":
			const shown = 5
			c.unfit, err = each(d, func(row unfitRow) {
				if len(c.first) < shown {
					c.first = append(c.first, row)
				}
			})
		case "cut":
			c.cut, err = each(d, func(unfitRow) {})
		case "duplicates":
			c.duplicates, err = each(d, func(unfitRow) {})
		case "conflicts":
			c.conflicts, err = each(d, func(unfitRow) {})
		default:
			err = d.Decode(new(json.RawMessage))
		}
	}
	return c, err
}

// each reads a list, and gives the number of its items.
func each[T any](d *json.Decoder, take func(T)) (n int, err error) {
	if _, err := d.Token(); err != nil { // the list begins
		return 0, err
	}
	for ; d.More(); n++ {
		var item T
		if err := d.Decode(&item); err != nil {
			return n, err
		}
		take(item)
	}
	_, err = d.Token() // and ends
	return n, err
}

// refusal says which rows can't be used.
func (c checked) refusal() string {
	var rows []string
	for _, row := range c.first {
		rows = append(rows, fmt.Sprintf("row %d: %s", row.Row, row.Reason))
	}
	if more := c.unfit - len(c.first); more > 0 {
		rows = append(rows, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%s: %d of %d rows cannot be used: %s", c.name, c.unfit, c.rows, strings.Join(rows, "; "))
}

// warnings tells what a person may want to look at.
func (c checked) warnings() (list []string) {
	for what, rows := range map[string]int{
		"are longer than max_length, and are cut": c.cut, "are there before": c.duplicates,
		"have a prompt that is there before, with another answer": c.conflicts,
	} {
		if rows > 0 {
			list = append(list, fmt.Sprintf("%s: %d of %d rows %s", c.name, rows, c.rows, what))
		}
	}
	slices.Sort(list)
	return list
}
