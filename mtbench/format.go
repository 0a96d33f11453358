package mtbench

import (
	"fmt"
	"strings"

	"github.com/veratune/veratune/internal/terminal"
)

// inLine is terminal.Text for what must stay in one line and one cell of a table.
func inLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(terminal.Text(text))
}

// String gives two decimals.
func (m Mean) String() string { return m.format("%.2f", 1) }

// Signed gives two decimals with the sign, as for a difference.
func (m Mean) Signed() string { return m.format("%+.2f", 1) }

// Percent gives a share of 1 in per cent.
func (m Mean) Percent() string { return m.format("%.1f%%", 100) }

func (m Mean) format(format string, factor float64) string {
	if !m.Known() {
		return "–"
	}
	return fmt.Sprintf(format, float64(m)*factor)
}

// String gives both ends with two decimals.
func (i Interval) String() string { return i.format(Mean.String) }

// Signed gives both ends with their signs.
func (i Interval) Signed() string { return i.format(Mean.Signed) }

// Percent gives both ends in per cent.
func (i Interval) Percent() string { return i.format(Mean.Percent) }

func (i Interval) format(end func(Mean) string) string {
	if !i[0].Known() {
		return "–"
	}
	return end(i[0]) + " … " + end(i[1])
}
