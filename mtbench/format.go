package mtbench

import "fmt"

// String gives two decimals.
func (s Score) String() string { return s.format("%.2f", 1) }

// Signed gives two decimals with the sign, as for a difference.
func (s Score) Signed() string { return s.format("%+.2f", 1) }

// Percent gives a share of 1 in per cent.
func (s Score) Percent() string { return s.format("%.1f%%", 100) }

func (s Score) format(format string, factor float64) string {
	if !s.Known() {
		return "–"
	}
	return fmt.Sprintf(format, float64(s)*factor)
}

// String gives both ends with two decimals.
func (i Interval) String() string { return i.format(Score.String) }

// Signed gives both ends with their signs.
func (i Interval) Signed() string { return i.format(Score.Signed) }

// Percent gives both ends in per cent.
func (i Interval) Percent() string { return i.format(Score.Percent) }

func (i Interval) format(end func(Score) string) string {
	if !i[0].Known() {
		return "–"
	}
	return end(i[0]) + " … " + end(i[1])
}
