package tokenizer_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/tokenizer"
)

// TestLong tokenizes long texts without a place to rest, in time that goes with their length, and stops when it is told
// to.
func TestLong(t *testing.T) {
	folder := folders(t)[0]
	for _, pre := range tokenizer.PreTokenizers() {
		v, err := tokenizer.New(vocabulary(t, folder, pre))
		if err != nil {
			t.Fatal(err)
		}
		for _, unit := range []string{"a", " ", "A", "1", "é", "aA ", "\n", "'", "<|", "\x00", "\u0301", "\xff"} {
			text := strings.Repeat(unit, 1<<13/len(unit))
			begin := time.Now()
			if _, err := v.Tokenize(t.Context(), text, false, false); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s: 8 KiB of %q took %v", pre, unit, took)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Tokenize(ctx, strings.Repeat("word ", 1<<16), false, false); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", pre, err)
		}
	}
}

// TestUnknown refuses what it does not know, and names the nearest.
func TestUnknown(t *testing.T) {
	v := tokenizer.Vocabulary{Model: "gpt2", Pre: "qwen-2", Tokens: []string{"a"}}
	if _, err := tokenizer.New(v); err == nil || !strings.Contains(err.Error(), `"qwen-2"`) ||
		!strings.Contains(err.Error(), "qwen2, qwen35") {
		t.Errorf("%v", err)
	}
	v.Model = "t5"
	if _, err := tokenizer.New(v); err == nil || !strings.Contains(err.Error(), `"t5"`) {
		t.Errorf("%v", err)
	}
}

// TestBack holds texts to their way through tokens and back.
func TestBack(t *testing.T) {
	folder := folders(t)[0]
	var texts []string
	read(t, folder+"/texts.json", &texts)
	for _, pre := range []string{"gpt-2", "llama3", "tekken", "qwen35"} {
		v, err := tokenizer.New(vocabulary(t, folder, pre))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			tokens, err := v.Tokenize(t.Context(), text, false, true)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := v.Detokenize(tokens, true); err != nil || back != text {
				t.Errorf("%s: %q came back as %q, %v", pre, text, back, err)
			}
		}
		got, err := v.Tokenize(t.Context(), "a<|end|>", false, true)
		if err != nil || !slices.Equal(got[len(got)-1:], []int32{0}) || !v.IsEOG(0) {
			t.Errorf("%s: %v, %v", pre, got, err)
		}
	}
}

func BenchmarkTokenize(b *testing.B) {
	folder := folders(b)[0]
	// Words of two or three thousand kinds, as English has them.
	var text strings.Builder
	words := strings.Fields("the of and to in is you that it he was for on are as with his they at be this have from " +
		"or one had by word but not what all were we when your can said there use an each which she do how their if " +
		"will up other about out many then them these so some her would make like him into time has look two more " +
		"write go see number no way could people my than first water been call who oil its now find long down day " +
		"did get come made may part")
	for n := uint32(1); text.Len() < 4<<20; {
		n = n*1664525 + 1013904223
		text.WriteString(words[(n>>8)%uint32(len(words))])
		if n>>28 == 0 {
			text.WriteString(", ")
		} else if n>>28 == 1 {
			text.WriteString(".\n")
		} else {
			text.WriteByte(' ')
		}
	}
	for _, pre := range []string{"gpt-2", "llama3", "qwen2", "qwen35", "gpt-4o", "deepseek-v3", "deepseek-llm",
		"tekken", "gemma4"} {
		b.Run(pre, func(b *testing.B) {
			v, err := tokenizer.New(vocabulary(b, folder, pre))
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				if _, err := v.Tokenize(b.Context(), text.String(), false, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
