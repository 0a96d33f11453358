package terminal

import (
	"fmt"
	"strings"
	"unicode"
)

// Text gives text of models, files and servers as a terminal may show it: characters that control a terminal or turn
// the direction of writing are spelt out, as \x1b. Line ends and tabs stay. JSON stays JSON.
func Text(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if !strings.ContainsFunc(text, controls) {
		return text
	}
	var b strings.Builder
	for i, r := range text {
		switch {
		case !controls(r), strings.HasPrefix(text[i:], "\r\n"):
			b.WriteRune(r)
		case r < ' ': // which is in no JSON
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func controls(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' ||
		r == '\u2029'
}
