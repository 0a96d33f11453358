package terminal

import (
	"bytes"
	"testing"
)

// TestOutput writes texts byte by byte: characters stay whole, controls are spelt out.
func TestOutput(t *testing.T) {
	for text, want := range map[string]string{
		"plain\ttext\r\n":      "plain\ttext\r\n",
		"größe 漢字 👩‍🚀\n":       "größe 漢字 👩‍🚀\n",
		"a\x1b[2Jb\x07":        `a\x1b[2Jb\x07`,
		"over\rwritten":        `over\x0dwritten`,
		"ends\r":               `ends\x0d`,
		"\u009b2J\u202eabc":    `\u009b2J\u202eabc`,
		"half \xe6\xbc":        "half \uFFFD",
		"{\"a\":\"\u202e\"}\n": `{"a":"\u202e"}` + "\n",
	} {
		for _, whole := range []bool{true, false} {
			var shown bytes.Buffer
			o := NewOutput(&shown)
			parts := [][]byte{[]byte(text)}
			if !whole {
				parts = nil
				for i := range len(text) {
					parts = append(parts, []byte(text[i:i+1]))
				}
			}
			for _, part := range parts {
				if n, err := o.Write(part); n != len(part) || err != nil {
					t.Errorf("%q: %d, %v", text, n, err)
				}
			}
			if err := o.Close(); err != nil || shown.String() != want {
				t.Errorf("%q at once %v: %q, want %q, %v", text, whole, shown.String(), want, err)
			}
			shown.Reset()
			if Verbatim(o).Write([]byte(text)); shown.String() != text {
				t.Errorf("%q: for a program %q", text, shown.String())
			}
		}
	}
}
