package tokenizer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// TestUnicode pins the class of every character, its small letter and the first of the characters that it is made of.
// They are those of llama.cpp's unicode-data.cpp (Unicode 15.1), with which they were compared; where a newer Go
// changes one, classes has to take it back, or token ids change.
func TestUnicode(t *testing.T) {
	const want = "c436680c91baf2d0dbff746059e14afc4112f902237f75f4fc9e0bcf7c9eff3f"
	h := sha256.New()
	var line []byte
	for r := range rune(0x110000) {
		base := r
		if utf8.ValidRune(r) {
			base, _ = decode(norm.NFD.String(string(r)))
		}
		line = binary.LittleEndian.AppendUint32(append(line[:0], classes()[r>>8][r&255]), uint32(unicode.ToLower(r)))
		h.Write(binary.LittleEndian.AppendUint32(line, uint32(base)))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("the tables of Go's Unicode %s have the digest %s, want %s", unicode.Version, got, want)
	}
}
