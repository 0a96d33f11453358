package terminal

import (
	"strconv"
	"strings"
	"unicode"
)

// Text gives text of models, files and servers as a terminal may show it: characters that control a terminal or turn the direction of writing are spelt out,
// as \x1b. Newlines and tabs stay.
func Text(text string) string {
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
