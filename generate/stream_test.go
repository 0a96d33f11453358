package generate

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
)

// vocabularies are of both kinds.
func vocabularies(t testing.TB) map[string]model.Tokenizer {
	t.Helper()
	list := map[string]model.Tokenizer{}
	for name, o := range map[string]testutil.TinyOptions{"byte-level BPE": {}, "SentencePiece": {SentencePiece: true}} {
		v, err := model.ReadTokenizer(testutil.OpenGGUF(t, testutil.TinyLlama(t, o)), "")
		if err != nil {
			t.Fatal(err)
		}
		list[name] = v
	}
	return list
}

// printable is what people see of bytes.
func printable(text string) string {
	return strings.ReplaceAll(string([]rune(text)), "\x00", "\uFFFD")
}

// whole is a text without the bytes at its end that more bytes could make a character.
func whole(text string) string {
	for n := 1; n <= min(3, len(text)); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) && !utf8.FullRuneInString(end) {
			return text[:len(text)-n]
		}
	}
	return text
}

// stopped is a text up to the first stop string in it that is complete.
func stopped(text string, stops []string) string {
	for end := range len(text) + 1 {
		start := -1
		for _, stop := range stops {
			if strings.HasSuffix(text[:end], stop) && (start < 0 || end-len(stop) < start) {
				start = end - len(stop)
			}
		}
		if start >= 0 {
			return text[:start]
		}
	}
	return text
}

// certain is a text without the longest end that a stop string begins with.
func certain(text string, stops []string) string {
	for start := range len(text) {
		for _, stop := range stops {
			if len(text)-start < len(stop) && strings.HasPrefix(stop, text[start:]) {
				return text[:start]
			}
		}
	}
	return text
}

// checkStream holds a stream to the text of all tokens at once, and after every token to what is certain by then.
func checkStream(t testing.TB, v model.Tokenizer, tokens []int32, stops []string) {
	t.Helper()
	text := func(tokens []int32) string {
		text, err := v.Detokenize(tokens, false)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var got strings.Builder
	s := &Stream{Tokenizer: v, Stops: stops, Emit: func(text string) error {
		got.WriteString(text)
		return nil
	}}
	said := len(tokens)
	for i, token := range tokens {
		if v.IsEOG(token) {
			said = i
		}
		goesOn := s.add(token)
		so := printable(whole(text(tokens[:min(i+1, said)])))
		if want := said > i && stopped(so, stops) == so; goesOn != want {
			t.Errorf("%d, stops %q: the stream goes on: %t after token %d", tokens, stops, goesOn, i)
		}
		if !goesOn {
			break
		}
		if want := certain(so, stops); got.String() != want {
			t.Errorf("%d, stops %q: %q after token %d, want %q", tokens, stops, got.String(), i, want)
		}
	}
	s.finish()
	if want := stopped(printable(text(tokens[:said])), stops); got.String() != want || s.err != nil {
		t.Errorf("%d, stops %q: %q, want %q; %v", tokens, stops, got.String(), want, s.err)
	}
}

// TestStream takes texts and random tokens, which spell many bytes that are no text, with stop strings that overlap.
func TestStream(t *testing.T) {
	stopLists := [][]string{nil, {"\n\n### Instruction:"}, {"the"}, {" t", "he the"}, {"aab", "ab"}, {"abab", "ba"},
		{"日本"}, {"\uFFFD\uFFFD", "e"}}
	random := rand.New(rand.NewPCG(3, 4))
	for name, v := range vocabularies(t) {
		t.Run(name, func(t *testing.T) {
			for _, stops := range stopLists {
				for _, text := range []string{"", " ", "the cat and the hat", "  two  spaces , isn't it ?\n\n\ttab",
					"ü 日本語 🙂 e\u0301 日日本", "ls . ; cd ..",
					"Yes.\n\n### Instruction:\nMore", "Yes.\n\n### Instruct", "aaab", "aabaab", "xababab", "a\x00b"} {
					tokens, err := v.Tokenize(t.Context(), text, false, false)
					if err != nil {
						t.Fatal(err)
					}
					checkStream(t, v, tokens, stops)
				}
				for range 200 {
					tokens := make([]int32, random.IntN(12))
					for i := range tokens {
						tokens[i] = int32(random.IntN(v.Size()))
						if letters := "abthe \n\xe6\x97\xa5"; random.IntN(2) == 0 {
							tokens[i] = 3 + int32(letters[random.IntN(len(letters))])
						}
					}
					checkStream(t, v, tokens, stops)
				}
			}
		})
	}
}

// TestStreamFails gives the error of whoever takes the text, and gives nothing more on.
func TestStreamFails(t *testing.T) {
	failed, calls := errors.New("disk full"), 0
	for _, v := range vocabularies(t) {
		s := &Stream{Tokenizer: v, Emit: func(string) error {
			calls++
			return failed
		}}
		if s.add(3+'a') || s.add(3+'b') || !errors.Is(s.err, failed) {
			t.Errorf("the stream goes on: %v", s.err)
		}
		s.finish()
	}
	if calls != 2 {
		t.Errorf("%d calls after failures, want one of each stream", calls)
	}
}

func FuzzStream(f *testing.F) {
	list := vocabularies(f)
	f.Add([]byte{100, 103, 110, 3, 0, 255, 9}, "a|bc|\uFFFD", true)
	f.Add([]byte("\xe6\x97\xa5"), "\n\n", false)
	f.Fuzz(func(t *testing.T, data []byte, stops string, sentencePiece bool) {
		v := list["byte-level BPE"]
		if sentencePiece {
			v = list["SentencePiece"]
		}
		tokens := make([]int32, min(len(data), 40))
		for i := range tokens {
			tokens[i] = (3 + int32(data[i])) % int32(v.Size())
		}
		checkStream(t, v, tokens, slices.DeleteFunc(strings.Split(strings.ToValidUTF8(stops, "?"), "|"),
			func(s string) bool { return s == "" }))
	})
}
