package terminal

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestStatusStaysInOneLine(t *testing.T) {
	var out bytes.Buffer
	l := NewLine(&out)
	l.width = func() int { return 30 }
	for step := 1; step <= 2; step++ {
		l.Step(step, 10, fmt.Sprintf("step %d/10 of something that takes more than a line", step))
	}
	l.Note("a line that stays")
	l.Status("another")
	l.End()
	l.Note("and the last")
	written := strings.Split(out.String(), "\r")
	if len(written) != 5 || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%q", out.String())
	}
	for _, line := range written[1:3] {
		if len(strings.TrimSuffix(line, "\x1b[K")) > 29 {
			t.Errorf("%q does not fit 30 columns", line)
		}
	}
}

// TestPlainLines has no control characters, few lines for many steps, and every line for few.
func TestPlainLines(t *testing.T) {
	for total, want := range map[int]int{1: 1, 2: 2, 7: 7, 300: plainLines + 1} {
		var out bytes.Buffer
		l := NewLine(&out)
		for step := range total {
			l.Step(step+1, total, fmt.Sprintf("step %d", step+1))
			l.Status("shown on terminals only")
		}
		l.End()
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != want || lines[0] != "step 1" || lines[len(lines)-1] != fmt.Sprintf("step %d", total) ||
			strings.ContainsAny(out.String(), "\r\x1b") {
			t.Errorf("%d steps: %d lines, want %d: %q", total, len(lines), want, out.String())
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain, ü, 漢字, 🙂\n\tindented":     "plain, ü, 漢字, 🙂\n\tindented",
		"\x1b[31mred\x1b[0m\x07":          `\x1b[31mred\x1b[0m\x07`,
		"\x1b]0;title\x1b\\\rover":        `\x1b]0;title\x1b\\x0dover`,
		"\u009b2J\x7f\x00":                `\u009b2J\u007f\x00`,
		"\u202eevil\u2066":                `\u202eevil\u2066`,
		"cut \xe2\x82 off, raw C1 \x9b2J": "cut \uFFFD off, raw C1 \uFFFD2J",
	} {
		if got := Text(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
