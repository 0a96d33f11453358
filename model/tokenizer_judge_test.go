package model

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

// preTokenizers are values of tokenizer.ggml.pre, one for each list of regular expressions of the llama.cpp that is the
// judge here.
var preTokenizers = []string{
	"default", "llama-bpe", "dbrx", "deepseek-llm", "deepseek-v3", "deepseek-coder", "falcon", "starcoder", "gpt-2",
	"qwen2", "bloom", "glm4", "viking", "tekken", "chameleon", "gpt-4o",
	"kimi-k2", "superbpe", "bailingmoe", "seed-coder", "grok-2", "afmoe", "command-r", "smollm",
}

// fragments are what hard texts are made of.
var fragments = []string{
	" ", " ", " ", "  ", "   ", "\n", "\n", "\n\n", " \n", "\n ", "\r\n", "\t", "the", "The", "and", "foo", "QZ", "X",
	"a", "it's", "'s", "'LL", "1", "12", "345", "67890", ".", ",", "!", "?!", "/", "|", "|--|", "-", "(", "$",
	"é", "é", "ß", "привет", "你好", "世界", "。", "，", "カ", "한국", "مرحبا", "१२", "ก", "️", "👍", "👩‍🚀", "\u00a0", "\u3000",
	"\u2003", "\u200b", "\x00", "\x01", "\x7f", "▁", "<|im_end|>", "IMGIMGAZ", "<sentinel:1>", "\\n", "xx", "yy",
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
		tokens, types := f.Metadata["tokenizer.ggml.tokens"].([]string),
			f.Metadata["tokenizer.ggml.token_type"].([]int32)
		for i, text := range list {
			at := len(tokens) - 2 - i
			tokens[at], types[at] = text, 4
		}
	}
}

// TestTokenizerAgrees holds the tokens of random texts to llama.cpp's.
func TestTokenizerAgrees(t *testing.T) {
	files := map[string]testutil.TinyOptions{
		"sentencepiece": {SentencePiece: true},
		"sentencepiece, no prefix": {SentencePiece: true, Change: func(f *testutil.TinyFile) {
			f.Metadata["tokenizer.ggml.add_space_prefix"] = false
		}},
		"sentencepiece with words": {SentencePiece: true, Change: userDefined("\n\n", "  ", "foo", "QZ")},
		"sentencepiece of Phi-3": {SentencePiece: true, Change: func(f *testutil.TinyFile) {
			f.Metadata["general.name"] = "Phi-3"
			userDefined("</s>", "<unk>", "<s>", "<|endoftext|>", "foo", "QZ")(f)
			f.Metadata["tokenizer.ggml.tokens"].([]string)[0] = "<|end|>"
		}},
	}
	for _, pre := range preTokenizers {
		set := func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml.pre"] = pre }
		files[pre] = testutil.TinyOptions{Change: set}
		files[pre+" with words"] = testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
			set(f)
			userDefined("\n\n", "  ", "foo", "QZ")(f)
		}}
	}
	for name, o := range files {
		o.Blocks = 1
		t.Run(name, func(t *testing.T) { checkTokenizer(t, testutil.TinyLlama(t, o), 60) })
	}
}

// TestTokenizerOfVocabulary is TestTokenizerAgrees with a learnt vocabulary of 3,000 tokens.
func TestTokenizerOfVocabulary(t *testing.T) {
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
			checkTokenizer(t, testutil.TinyLlama(t, testutil.TinyOptions{Blocks: 1, Change: func(f *testutil.TinyFile) {
				f.Metadata["tokenizer.ggml.pre"] = pre
				f.Metadata["tokenizer.ggml.tokens"], f.Metadata["tokenizer.ggml.token_type"],
					f.Metadata["tokenizer.ggml.merges"] = vocabulary.Tokens, types, vocabulary.Merges
			}}), 60)
		})
	}
}

// TestTokenizerOfModels is TestTokenizerAgrees with real vocabularies, and rows of data besides.
func TestTokenizerOfModels(t *testing.T) {
	for name, model := range map[string]func(testing.TB) string{"SmolLM2": testutil.SmolLM2,
		"Gemma 3": testutil.Gemma} {
		t.Run(name, func(t *testing.T) {
			path := model(t)
			if testing.Short() {
				t.Skip("takes seconds")
			}
			checkTokenizer(t, path, 1000)
			data, err := os.ReadFile(testutil.Shared(t, "data/alpaca_libre_ok_v1-3.json")[0])
			if err != nil {
				t.Fatal(err)
			}
			var rows []map[string]any
			if err := json.Unmarshal(data, &rows); err != nil {
				t.Fatal(err)
			}
			v, judge := tokenizerOf(t, path), llamaVocab(t, path)
			n := 0
			for i, row := range rows {
				for column, value := range row {
					text, _ := value.(string)
					want, err := judge.Tokenize(text, true, true)
					if err != nil {
						t.Fatal(err)
					}
					if got, err := v.Tokenize(t.Context(), text, true, true); err != nil || !slices.Equal(got, want) {
						t.Errorf("row %d, %s: tokens %v, %v, want %v", i+1, column, got, err, want)
					}
					n += len(want)
				}
			}
			t.Logf("%d tokens of %d rows", n, len(rows))
		})
	}
}

func llamaVocab(t testing.TB, path string) *bindings.LlamaVocab {
	t.Helper()
	v, err := bindings.OpenLlamaVocab(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func checkTokenizer(t *testing.T, path string, texts int) {
	t.Helper()
	v, judge := tokenizerOf(t, path), llamaVocab(t, path)
	if testing.Short() {
		texts /= 6
	}
	if v.Size() != judge.Size() || v.BOS() != judge.BOS() || v.EOS() != judge.EOS() || v.AddBOS() != judge.AddBOS() {
		t.Errorf("%d tokens, BOS %d, EOS %d, %v; want %d, %d, %d, %v", v.Size(), v.BOS(), v.EOS(), v.AddBOS(),
			judge.Size(), judge.BOS(), judge.EOS(), judge.AddBOS())
	}
	for token := range int32(v.Size()) {
		if judge.IsEOG(token) && !v.IsEOG(token) {
			t.Errorf("answers don't end at token %d", token)
		}
		if got, err := v.Piece(token); err != nil || got != judge.Piece(token) {
			t.Errorf("token %d is %q, %v, want %q", token, got, err, judge.Piece(token))
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range texts {
		text, special := randomText(r), r.IntN(2) == 0
		want, err := judge.Tokenize(text, special, special)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.Tokenize(t.Context(), text, special, special); err != nil || !slices.Equal(got, want) {
			t.Fatalf("%q (special %v):\n%v, %v, want\n%v", text, special, got, err, want)
		}
	}
}

// TestLongTexts tokenizes texts of 10 MB within seconds, whatever they are made of.
func TestLongTexts(t *testing.T) {
	size := 10 << 20
	if testing.Short() {
		size = 256 << 10
	}
	for name, o := range map[string]testutil.TinyOptions{
		"SentencePiece": {SentencePiece: true}, "smollm": {}, "qwen2": {Change: func(f *testutil.TinyFile) {
			f.Metadata["tokenizer.ggml.pre"] = "qwen2"
		}},
	} {
		v := tinyTokenizer(t, o)
		for _, text := range []string{"the words of a row ", "the", "a", "\n", " ", "word\n", "12 345 ", "你好，世界。\n",
			"👩‍🚀", "x=1;"} {
			start := time.Now()
			tokens, err := v.Tokenize(t.Context(), strings.Repeat(text, size/len(text)), false, false)
			if took := time.Since(start); took > 20*time.Second || err != nil {
				t.Errorf("%s, %.10q took %v: %v", name, text, took, err)
			}
			t.Logf("%s, %.10q: %d tokens in %v", name, text, len(tokens), time.Since(start))
		}
	}
}

// TestTokenizeStops ends within a text when it is told to.
func TestTokenizeStops(t *testing.T) {
	for _, o := range []testutil.TinyOptions{{}, {SentencePiece: true}} {
		v := tinyTokenizer(t, o)
		for text, after := range map[string]time.Duration{"short": 0,
			strings.Repeat("many words ", 1<<20): 20 * time.Millisecond,
			strings.Repeat("a", 8<<20):           20 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			start := time.Now()
			if _, err := v.Tokenize(ctx, text, false, false); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%.10q: %v", text, err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("%.10q took %v to end", text, took)
			}
		}
	}
}
