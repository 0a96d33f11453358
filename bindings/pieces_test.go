package bindings_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// preTokenizers are values of tokenizer.ggml.pre, one for each of llama.cpp's lists of regular expressions.
var preTokenizers = []string{
	"default", "llama-bpe", "dbrx", "deepseek-llm", "deepseek-v3", "deepseek-coder", "falcon", "starcoder", "gpt-2", "qwen2", "bloom", "glm4", "viking", "tekken", "chameleon", "gpt-4o",
	"kimi-k2", "superbpe", "bailingmoe", "seed-coder", "grok-2", "afmoe", "command-r", "smollm",
}

// fragments are what hard texts are made of.
var fragments = []string{
	" ", " ", " ", "  ", "   ", "\n", "\n", "\n\n", " \n", "\n ", "\r\n", "\t", "the", "The", "and", "foo", "QZ", "X", "a", "it's", "'s", "'LL", "1", "12", "345", "67890", ".", ",", "!", "?!", "/", "|", "|--|", "-", "(", "$",
	"é", "é", "ß", "привет", "你好", "世界", "。", "，", "カ", "한국", "مرحبا", "१२", "ก", "️", "👍", "👩‍🚀", "\u00a0", "\u3000", "\u2003", "\u200b", "\x00", "\x01", "\x7f", "▁", "<|im_end|>", "IMGIMGAZ", "<sentinel:1>", "\\n", "xx", "yy",
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range 10 + r.IntN(100) {
		b.WriteString(fragments[r.IntN(len(fragments))])
	}
	return b.String()
}

// userDefined makes some of the tokens user-defined, as they are found in a text before anything is merged.
func userDefined(list ...string) func(*testutil.TinyFile) {
	return func(f *testutil.TinyFile) {
		tokens, types := f.Metadata["tokenizer.ggml.tokens"].([]string), f.Metadata["tokenizer.ggml.token_type"].([]int32)
		for i, text := range list {
			at := len(tokens) - 2 - i
			tokens[at], types[at] = text, 4
		}
	}
}

// TestPieces holds the tokens of texts in small pieces to those of the whole texts.
func TestPieces(t *testing.T) {
	files := map[string]string{
		"sentencepiece":            testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true}),
		"sentencepiece, no prefix": testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true, Change: func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml.add_space_prefix"] = false }}),
		"sentencepiece with words": testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true, Change: userDefined("\n\n", "  ", "foo", "QZ")}),
		"sentencepiece of Phi-3": testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true, Change: func(f *testutil.TinyFile) {
			f.Metadata["general.name"] = "Phi-3"
			userDefined("</s>", "<unk>", "<s>", "<|endoftext|>", "foo", "QZ")(f)
			f.Metadata["tokenizer.ggml.tokens"].([]string)[0] = "<|end|>"
		}}),
	}
	for _, pre := range preTokenizers {
		set := func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml.pre"] = pre }
		files[pre] = testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Change: set})
		files[pre+" with words"] = testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Change: func(f *testutil.TinyFile) { set(f); userDefined("\n\n", "  ", "foo", "QZ")(f) }})
	}
	for name, path := range files {
		t.Run(name, func(t *testing.T) { checkPieces(t, path, 60) })
	}
}

// TestPiecesOfVocabulary is TestPieces with a learnt vocabulary of 3,000 tokens.
func TestPiecesOfVocabulary(t *testing.T) {
	path := testutil.Shared(t, "refs/tokenizers/vocabulary.json")[0]
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var vocabulary struct{ Tokens, Merges, Control []string }
	if err := json.Unmarshal(data, &vocabulary); err != nil {
		t.Fatal(err)
	}
	types := slices.Repeat([]int32{1}, len(vocabulary.Tokens))
	for i, token := range vocabulary.Tokens {
		if slices.Contains(vocabulary.Control, token) {
			types[i] = 3
		}
	}
	for _, pre := range preTokenizers {
		t.Run(pre, func(t *testing.T) {
			checkPieces(t, testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Change: func(f *testutil.TinyFile) {
				f.Metadata["tokenizer.ggml.pre"] = pre
				f.Metadata["tokenizer.ggml.tokens"], f.Metadata["tokenizer.ggml.token_type"], f.Metadata["tokenizer.ggml.merges"] = vocabulary.Tokens, types, vocabulary.Merges
			}}), 60)
		})
	}
}

func TestPiecesOfSmolLM2(t *testing.T) { checkPieces(t, testutil.SmolLM2(t), 1000) }

func checkPieces(t *testing.T, path string, texts int) {
	t.Helper()
	v, err := bindings.OpenVocab(path)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if testing.Short() {
		texts /= 6
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range texts {
		text, special := randomText(r), r.IntN(2) == 0
		whole, err := v.Tokenize(t.Context(), text, special, special)
		if err != nil {
			t.Fatal(err)
		}
		restore := bindings.SetPieceSize(1 + r.IntN(24))
		got, err := v.Tokenize(t.Context(), text, special, special)
		restore()
		if err != nil || !slices.Equal(got, whole) {
			t.Fatalf("%q (special %v):\n%v, want\n%v: %v", text, special, got, whole, err)
		}
	}
}

// TestLongTexts tokenizes texts of 10 MB, or refuses them, within seconds.
func TestLongTexts(t *testing.T) {
	size := 10 << 20
	if testing.Short() {
		size = 256 << 10
	}
	spm := testutil.TinyLlama(t, testutil.TinyOptions{SentencePiece: true})
	bpe := testutil.TinyLlama(t, testutil.TinyOptions{})
	recursive := testutil.TinyLlama(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml.pre"] = "qwen2" }})
	for _, text := range []string{"the words of a row ", "the", "a", "\n", " ", "word\n", "12 345 ", "你好，世界。\n", "你好，世界。", "x=1;"} {
		for _, path := range []string{spm, bpe, recursive} {
			v, err := bindings.OpenVocab(path)
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			start := time.Now()
			long := strings.Repeat(text, size/len(text))
			tokens, err := v.Tokenize(t.Context(), long, false, false)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%.10q took %v", text, took)
			}
			if (strings.Contains(text, " ") && text != " " || strings.Contains(text, "，")) && err != nil {
				t.Errorf("%q is refused: %v", text, err)
			}
			if err != nil && !strings.Contains(err.Error(), "break it up") {
				t.Errorf("%q: %v", text, err)
			}
			t.Logf("%.10q: %d tokens in %v: %v", text, len(tokens), time.Since(start), err)
		}
	}
}

func TestTokenizeEnds(t *testing.T) {
	v := tinyVocab(t, testutil.TinyOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	for i, text := range []string{"short", strings.Repeat("many words ", 1<<20)} {
		if i == 0 {
			cancel()
		} else {
			ctx, cancel = context.WithTimeoutCause(t.Context(), 20*time.Millisecond, context.Canceled)
			defer cancel()
		}
		start := time.Now()
		if _, err := v.Tokenize(ctx, text, false, false); !errors.Is(err, ctx.Err()) || err == nil {
			t.Errorf("%.10q: %v", text, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%.10q took %v to end", text, took)
		}
	}
}
