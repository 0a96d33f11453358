package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/veratune/veratune/internal/terminal"
)

// grid is a table whose first column names the rows. It keeps to a width.
type grid struct {
	rows  [][]string
	width int // 0 for no limit
}

const (
	gridGap    = 2
	narrowCell = 14 // columns that are made narrower are no narrower than this, unless there is one alone
)

// write writes as many columns beside each other as there is room for, and the others below.
func (g grid) write(out *strings.Builder) {
	var names int
	var widths []int // of the columns behind
	for _, row := range g.rows {
		names = max(names, utf8.RuneCountInString(row[0]))
		widths = append(widths, make([]int, max(0, len(row)-1-len(widths)))...)
		for i, cell := range row[1:] {
			row[1+i] = oneLine(cell)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[1+i]))
		}
	}
	columns, total, widest := len(widths), names, 0
	for _, width := range widths {
		total, widest = total+gridGap+width, max(widest, width)
	}
	beside, most := columns, widest
	if g.width > 0 && total > g.width {
		room := g.width - names
		beside = min(columns, max(1, room/(gridGap+min(widest, narrowCell))))
		below := (columns + beside - 1) / beside
		beside = (columns + below - 1) / below // as many in each part
		most = max(1, min(widest, room/beside-gridGap))
	}
	for first := 0; first < columns; first += beside {
		if first > 0 {
			out.WriteByte('\n')
		}
		g.part(out, 1+first, min(1+first+beside, 1+columns), names, most)
	}
}

// part writes some columns, of most characters each.
func (g grid) part(out *strings.Builder, from, to, names, most int) {
	widths := make([]int, to-from)
	cells := make([][][]string, len(g.rows)) // lines of each
	for i, row := range g.rows {
		for j, cell := range row[from:to] {
			lines := wrapped(cell, most)
			cells[i] = append(cells[i], lines)
			for _, line := range lines {
				widths[j] = max(widths[j], utf8.RuneCountInString(line))
			}
		}
	}
	for i, row := range g.rows {
		for n, more := 0, true; more; n++ {
			line := fmt.Sprintf("%-*s", names, row[0])
			if n > 0 {
				line = strings.Repeat(" ", names)
			}
			more = false
			for j, lines := range cells[i] {
				text := ""
				if n < len(lines) {
					text = lines[n]
				}
				more = more || n+1 < len(lines)
				line += fmt.Sprintf("%*s%-*s", gridGap, "", widths[j], text)
			}
			fmt.Fprintln(out, strings.TrimRight(line, " "))
		}
	}
}

// oneLine is the first line of a text, and how much more there is.
func oneLine(text string) string {
	first, more, long := strings.Cut(text, "\n")
	if long {
		first = fmt.Sprintf("%s … and %d bytes more", first, len(more))
	}
	return strings.ReplaceAll(terminal.Text(first), "\t", " ")
}

// wrapped breaks a text into lines of most characters, behind spaces, commas and slashes where there are any.
func wrapped(text string, most int) (lines []string) {
	rest := []rune(text)
	for len(rest) > most {
		n := most
		if rest[most] != ' ' {
			for i := most; i > most/2; i-- {
				if strings.ContainsRune(" ,/", rest[i-1]) {
					n = i
					break
				}
			}
		}
		lines = append(lines, strings.TrimRight(string(rest[:n]), " "))
		rest = []rune(strings.TrimLeft(string(rest[n:]), " "))
	}
	return append(lines, string(rest))
}
