package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text makes text that isn't the program's own fit for a terminal: control characters, which could move the cursor, rename the window or worse, are spelled
// out, but for tabs and line ends; so are bytes that are no UTF-8.
func Text(s string) string {
	if strings.IndexFunc(s, unfit) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\ufffd"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !unfit(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// unfit are control characters, and those that change the direction of text.
func unfit(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
