package model

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// tokenizerOf is that of a file.
func tokenizerOf(t testing.TB, path string) Tokenizer {
	t.Helper()
	v, err := ReadTokenizer(testutil.OpenGGUF(t, path), "")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tinyTokenizer(t testing.TB, o testutil.TinyOptions) Tokenizer {
	t.Helper()
	return tokenizerOf(t, testutil.TinyLlama(t, o))
}

var texts = []string{"", " ", "the cat and the hat", "  two  spaces , isn't it ?\n\n\ttab", "ü 日本語 🙂 e\u0301",
	"12345 67", "a\x00b", "<|im_end|>", strings.Repeat("word ", 500)}

// vocabularies are of each kind; Llama 3's is one for which llama.cpp would take spaces out of texts.
var vocabularies = map[string]testutil.TinyOptions{
	"byte-level BPE": {},
	"Llama 3":        {Change: func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml.pre"] = "llama-bpe" }},
	"SentencePiece":  {SentencePiece: true},
	"SentencePiece without its space": {SentencePiece: true, Change: func(f *testutil.TinyFile) {
		f.Metadata["tokenizer.ggml.add_space_prefix"] = false
	}},
}

// TestTokenizeBack holds texts to their way through tokens and back, at once and token by token behind the one before.
func TestTokenizeBack(t *testing.T) {
	for name, o := range vocabularies {
		t.Run(name, func(t *testing.T) {
			v := tinyTokenizer(t, o)
			for _, text := range append(texts, "ls . ; cd ..", "it 's we 're ' x ' ?") {
				tokens, err := v.Tokenize(t.Context(), text, false, false)
				if err != nil {
					t.Fatalf("%.20q: %v", text, err)
				}
				back := ""
				for i := range tokens {
					behind, err := v.Detokenize(tokens[max(0, i-1):i], false)
					if err != nil {
						t.Fatal(err)
					}
					both, err := v.Detokenize(tokens[max(0, i-1):i+1], false)
					if err != nil {
						t.Fatal(err)
					}
					back += strings.TrimPrefix(both, behind)
				}
				if whole, err := v.Detokenize(tokens, false); err != nil || whole != text || back != text {
					t.Errorf("%.30q came back as %.30q at once and as %.30q token by token: %v", text, whole, back, err)
				}
			}
		})
	}
}

func TestTokenize(t *testing.T) {
	v := tinyTokenizer(t, testutil.TinyOptions{})
	for _, text := range texts {
		for _, special := range []bool{false, true} {
			tokens, err := v.Tokenize(t.Context(), text, false, special)
			if err != nil {
				t.Errorf("%.20q: %v", text, err)
				continue
			}
			if back, err := v.Detokenize(tokens, true); err != nil || back != text {
				t.Errorf("%.20q came back as %.20q: %v", text, back, err)
			}
		}
	}
	for _, c := range []struct {
		text    string
		special bool
		want    []int32
	}{
		{"<|im_end|>", true, []int32{2}},
		{"a<|im_start|>", true, []int32{3 + 'a', 1}},
	} {
		if got, err := v.Tokenize(t.Context(), c.text, false, c.special); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q: tokens %d, %v, want %d", c.text, got, err, c.want)
		}
	}
	if got, err := v.Tokenize(t.Context(), "<|im_end|>", false, false); err != nil || slices.Contains(got, 2) {
		t.Errorf("text becomes the special token unasked: %d, %v", got, err)
	}
	if got, err := v.Detokenize([]int32{1, 2}, false); err != nil || got != "" {
		t.Errorf("special tokens are spelt unasked: %q, %v", got, err)
	}
	// 500 words fit no first guess of the room for their text.
	if got, err := v.Detokenize(slices.Repeat([]int32{1}, 500), true); err != nil ||
		got != strings.Repeat("<|im_start|>", 500) {
		t.Errorf("long text: %d bytes, %v", len(got), err)
	}
}

func TestDetokenizeErrors(t *testing.T) {
	v := tinyTokenizer(t, testutil.TinyOptions{})
	for _, token := range []int32{-1, int32(v.Size()), 1 << 30, -1 << 31} {
		if text, err := v.Detokenize([]int32{5, token}, true); err == nil ||
			!strings.Contains(err.Error(), "vocabulary of 300") {
			t.Errorf("token %d: %q, %v", token, text, err)
		}
	}
	if text, err := v.Detokenize(nil, true); err != nil || text != "" {
		t.Errorf("no tokens: %q, %v", text, err)
	}
	// Half a character is bytes, not an error.
	if text, err := v.Detokenize([]int32{3 + 0xe6}, true); err != nil || text != "\xe6" && text == "" {
		t.Errorf("half a character: %q, %v", text, err)
	}
}

func TestSpecialTokens(t *testing.T) {
	v := tinyTokenizer(t, testutil.TinyOptions{})
	if v.Size() != 300 || v.BOS() != 1 || v.EOS() != 2 || v.EOT() != 2 || v.AddBOS() {
		t.Errorf("size %d, BOS %d, EOS %d, EOT %d, add BOS %t", v.Size(), v.BOS(), v.EOS(), v.EOT(), v.AddBOS())
	}
	if !v.IsEOG(2) || v.IsEOG(1) || v.IsEOG(3+'a') || v.IsEOG(-1) {
		t.Error("generation does not end with <|im_end|> alone")
	}
	with := tinyTokenizer(t, testutil.TinyOptions{AddBOS: true})
	for _, c := range []struct {
		v          Tokenizer
		addSpecial bool
		want       []int32
	}{{v, true, []int32{3 + 'a'}}, {with, true, []int32{1, 3 + 'a'}}, {with, false, []int32{3 + 'a'}}} {
		if got, err := c.v.Tokenize(t.Context(), "a", c.addSpecial, false); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("tokens %d, %v, want %d", got, err, c.want)
		}
	}
	if !with.AddBOS() {
		t.Error("the model does not ask for BOS")
	}
}

func TestChatTemplates(t *testing.T) {
	v := tinyTokenizer(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		f.Metadata["tokenizer.chat_template.tool_use"] = "{{ tools }}"
		f.Metadata["tokenizer.chat_templates"] = []string{"tool_use"}
	}})
	if !strings.Contains(v.ChatTemplate(""), "im_start") || v.ChatTemplate("tool_use") != "{{ tools }}" ||
		v.ChatTemplate("rag") != "" {
		t.Errorf("templates %q and %q", v.ChatTemplate(""), v.ChatTemplate("tool_use"))
	}
	if got := v.ChatTemplates(); !slices.Equal(got, []string{"", "tool_use"}) {
		t.Errorf("templates %q", got)
	}
	none := tinyTokenizer(t, testutil.TinyOptions{Change: func(f *testutil.TinyFile) {
		delete(f.Metadata, "tokenizer.chat_template")
	}})
	if none.ChatTemplate("") != "" || len(none.ChatTemplates()) != 0 {
		t.Errorf("templates %q", none.ChatTemplates())
	}
}

// TestControls finds what Tokenize takes for control tokens, and pieces that make up the text.
func TestControls(t *testing.T) {
	for _, o := range []testutil.TinyOptions{{}, {SentencePiece: true}} {
		v := tinyTokenizer(t, o)
		n := 0
		v.Controls(func(token int32, text string, _, _ bool) {
			n++
			if got, err := v.Tokenize(t.Context(), text, false, true); err != nil ||
				!slices.Equal(got, []int32{token}) {
				t.Errorf("%q is %d, %v, want %d", text, got, err, token)
			}
			if got, err := v.Tokenize(t.Context(), text, false, false); err != nil || slices.Contains(got, token) {
				t.Errorf("%q as text is %d, %v", text, got, err)
			}
		})
		if n != 3 {
			t.Errorf("%d control tokens", n)
		}
	}
}

// TestBrokenTokenizer reads what is no tokenizer, and what is an odd one.
func TestBrokenTokenizer(t *testing.T) {
	set := func(key string, value any) func(*testutil.TinyFile) {
		return func(f *testutil.TinyFile) { f.Metadata["tokenizer.ggml."+key] = value }
	}
	remove := func(key string) func(*testutil.TinyFile) {
		return func(f *testutil.TinyFile) { delete(f.Metadata, key) }
	}
	tokens := func(change func([]string) []string) func(*testutil.TinyFile) {
		return func(f *testutil.TinyFile) {
			f.Metadata["tokenizer.ggml.tokens"] = change(slices.Clone(f.Metadata["tokenizer.ggml.tokens"].([]string)))
		}
	}
	for name, change := range map[string]func(*testutil.TinyFile){
		"no model":             remove("tokenizer.ggml.model"),
		"no vocabulary":        set("model", "none"),
		"another kind":         set("model", "t5"),
		"kind no text":         set("model", uint32(1)),
		"no tokens":            remove("tokenizer.ggml.tokens"),
		"empty list of tokens": set("tokens", []string{}),
		"tokens in numbers":    set("tokens", []uint32{1, 2}),
		"tokens one text":      set("tokens", "abc"),
		"few types":            set("token_type", []int32{1, 1}),
		"types in floats":      set("token_type", []float32{1, 1}),
		"types one number":     set("token_type", int32(1)),
		"few scores":           set("scores", []float32{1}),
		"scores in texts":      set("scores", []string{"1"}),
		"no merges":            remove("tokenizer.ggml.merges"),
		"merges in numbers":    set("merges", []uint32{1}),
		"merges one text":      set("merges", "a b"),
		"BOS a text":           set("bos_token_id", "<s>"),
		"BOS below 0":          set("bos_token_id", int32(-1)),
		"BOS asked in a text":  set("add_bos_token", "yes"),
		"unknown splitting":    set("pre", "unheard-of"),
		"splitting no text":    set("pre", true),
	} {
		t.Run(name, func(t *testing.T) {
			path := testutil.TinyLlama(t, testutil.TinyOptions{Change: change})
			_, err := ReadTokenizer(testutil.OpenGGUF(t, path), "")
			wantError(t, err, path)
		})
	}
	// These are not refused, and must not crash either.
	for name, change := range map[string]func(*testutil.TinyFile){
		"a token twice":    tokens(func(l []string) []string { l[7] = l[8]; return l }),
		"all tokens alike": tokens(func(l []string) []string { return slices.Repeat([]string{"a"}, len(l)) }),
		"few tokens":       tokens(func(l []string) []string { return l[:1] }),
		"BOS out of range": set("bos_token_id", uint32(1<<31)),
		"an empty token":   tokens(func(l []string) []string { l[299] = ""; return l }),
		"no Unicode":       tokens(func(l []string) []string { l[299] = "\xff\xfe"; return l }),
		"odd merges":       set("merges", []string{"", " ", "a", "\xff \xff"}),
		"byte tokens":      set("token_type", slices.Repeat([]int32{6}, 300)),
		"unknown types":    set("token_type", slices.Repeat([]int32{-5}, 300)),
	} {
		t.Run(name, func(t *testing.T) {
			useTokenizer(tinyTokenizer(t, testutil.TinyOptions{Change: change}))
		})
	}
}

func useTokenizer(v Tokenizer) {
	v.BOS()
	v.EOS()
	v.EOT()
	v.AddBOS()
	for _, text := range append(texts, "\xff\xfe broken \xc3") {
		for _, special := range []bool{false, true} {
			if tokens, err := v.Tokenize(context.Background(), text, special, special); err == nil {
				v.Detokenize(tokens, special)
			}
		}
	}
	for token := range int32(v.Size()) {
		v.IsEOG(token)
		v.Detokenize([]int32{token}, true)
	}
	v.ChatTemplate("")
	v.ChatTemplates()
	v.Controls(func(int32, string, bool, bool) {})
}

// FuzzReadTokenizer uses every tokenizer that opens. Nothing may crash.
func FuzzReadTokenizer(f *testing.F) {
	whole, err := os.ReadFile(testutil.TinyLlama(f, testutil.TinyOptions{Blocks: 1, Width: 2, Hidden: 2, Heads: 1,
		KVHeads: 1}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	path := filepath.Join(f.TempDir(), "fuzz.gguf")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := bindings.OpenGGUF(path)
		if err != nil {
			return
		}
		defer g.Close()
		if v, err := ReadTokenizer(g, ""); err == nil {
			useTokenizer(v)
		}
	})
}

// FuzzTokenize holds every text to its way through tokens and back. Of what is no Unicode, some bytes are replaced.
func FuzzTokenize(f *testing.F) {
	for _, text := range texts {
		f.Add(text)
	}
	v := tinyTokenizer(f, testutil.TinyOptions{})
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := v.Tokenize(t.Context(), text, true, true)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := v.Detokenize(tokens, true); err != nil || back != text && utf8.ValidString(text) {
			t.Errorf("%q came back as %q: %v", text, back, err)
		}
	})
}
