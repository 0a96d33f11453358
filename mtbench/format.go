package mtbench

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Visible gives text of models, files and servers as a terminal may show it: characters that control a terminal or turn the direction of writing are spelt out,
// as \x1b. Newlines and tabs stay.
func Visible(text string) string {
	controls := func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.ContainsFunc(text, controls) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if controls(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// inLine is Visible for what must stay in one line and one cell of a table.
func inLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(Visible(text))
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
