package model

import (
	"slices"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

// families are control tokens of models' tokenizers, which of them the file names as the end token, and at which
// answers end.
var families = map[string]struct {
	controls []string
	eos      string
	metadata map[string]any
	ends     []string
}{
	"Llama 2": {[]string{"<s>", "</s>"}, "</s>", nil, []string{"</s>"}},
	"Llama 3": {[]string{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|eom_id|>",
		"<|eot_id|>"}, "<|eot_id|>", nil, []string{"<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"}},
	"Mistral": {[]string{"<unk>", "<s>", "</s>", "[INST]", "[/INST]"}, "</s>", nil, []string{"</s>"}},
	"Qwen": {[]string{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"}, "<|im_end|>", nil,
		[]string{"<|endoftext|>", "<|im_end|>"}},
	"Gemma": {[]string{"<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"}, "<eos>", nil,
		[]string{"<eos>", "<end_of_turn>"}},
	"Gemma, by its turns": {[]string{"<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"}, "<end_of_turn>",
		nil, []string{"<eos>", "<end_of_turn>"}},
	"Phi-3": {[]string{"<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"},
		"<|endoftext|>", nil, []string{"<|endoftext|>", "<|end|>"}},
	"Phi-4": {[]string{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"}, "<|endoftext|>", nil,
		[]string{"<|endoftext|>", "<|im_end|>"}},
	"Granite": {[]string{"<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"}, "<|end_of_text|>", nil,
		[]string{"<|end_of_text|>"}},
	"OLMo 2": {[]string{"<|endoftext|>", "<|pad|>"}, "<|endoftext|>", nil, []string{"<|endoftext|>"}},
	"SmolLM3": {[]string{"<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>"},
		"<|im_end|>", nil, []string{"<|end_of_text|>", "<|im_end|>"}},
	"GPT-2":             {[]string{"<|endoftext|>"}, "<|endoftext|>", nil, []string{"<|endoftext|>"}},
	"a text of its own": {[]string{"<begin>", "<stop>"}, "<stop>", nil, []string{"<stop>"}},
	"by their numbers": {[]string{"<begin>", "<stop>", "<turn>", "<message>", "<other>"}, "<stop>",
		map[string]any{"eot_token_id": uint32(302), "eom_token_id": uint32(303)},
		[]string{"<stop>", "<turn>", "<message>"}},
	"a list of numbers": {[]string{"<begin>", "<stop>", "<turn>", "<other>"}, "<stop>",
		map[string]any{"eos_token_ids": []int32{301, 302, 1 << 30}}, []string{"<stop>", "<turn>"}},
}

// TestEnds finds all the tokens at which an answer of each family ends, and no others.
func TestEnds(t *testing.T) {
	for name, f := range families {
		for _, sentencePiece := range []bool{false, true} {
			v := tinyTokenizer(t, testutil.TinyOptions{SentencePiece: sentencePiece,
				Change: func(file *testutil.TinyFile) {
					tokens, types := slices.Clone(file.Metadata["tokenizer.ggml.tokens"].([]string)),
						slices.Clone(file.Metadata["tokenizer.ggml.token_type"].([]int32))
					copy(tokens, []string{"<none0>", "<none1>", "<none2>"}) // in place of the tiny model's own
					for _, text := range f.controls {
						tokens, types = append(tokens, text), append(types, 3)
					}
					file.Metadata["tokenizer.ggml.tokens"], file.Metadata["tokenizer.ggml.token_type"] = tokens, types
					if sentencePiece {
						file.Metadata["tokenizer.ggml.scores"] = append(
							slices.Clone(file.Metadata["tokenizer.ggml.scores"].([]float32)),
							make([]float32, len(f.controls))...)
					}
					file.Metadata["tokenizer.ggml.eos_token_id"] = uint32(slices.Index(tokens, f.eos))
					delete(file.Metadata, "tokenizer.ggml.eot_token_id")
					for key, value := range f.metadata {
						file.Metadata["tokenizer.ggml."+key] = value
					}
				}})
			var ends []string
			for token := range int32(v.Size()) {
				if !v.IsEOG(token) {
					continue
				}
				text, err := v.Piece(token)
				if err != nil {
					t.Fatal(err)
				}
				ends = append(ends, text)
			}
			if !slices.Equal(ends, f.ends) {
				t.Errorf("%s, SentencePiece %v: answers end at %q, want %q", name, sentencePiece, ends, f.ends)
			}
			if v.IsEOG(-1) || v.IsEOG(1<<30) {
				t.Errorf("%s: a token that there is not ends answers", name)
			}
		}
	}
}

// TestTwins opens vocabularies that have texts twice: a text is read as the first of the tokens, and both are shown as
// it and end answers alike.
func TestTwins(t *testing.T) {
	for _, sentencePiece := range []bool{false, true} {
		change := func(twice bool) func(*testutil.TinyFile) {
			return func(f *testutil.TinyFile) {
				tokens, types := slices.Clone(f.Metadata["tokenizer.ggml.tokens"].([]string)),
					slices.Clone(f.Metadata["tokenizer.ggml.token_type"].([]int32))
				more := []string{"<a>", "<b>", "<c>", "<d>", "<e>", "<f>"}
				if twice {
					// an end token as text, two words, one of them three times, an empty token, and the name that
					// llama.cpp gives it
					more = []string{tokens[2], tokens[270], tokens[280], tokens[270], "", "[EMPTY_304]"}
				}
				f.Metadata["tokenizer.ggml.tokens"] = append(tokens, more...)
				f.Metadata["tokenizer.ggml.token_type"] = append(types, 1, 3, 1, 4, 1, 1)
				if sentencePiece {
					f.Metadata["tokenizer.ggml.scores"] = append(
						slices.Clone(f.Metadata["tokenizer.ggml.scores"].([]float32)), make([]float32, len(more))...)
				}
			}
		}
		v := tinyTokenizer(t, testutil.TinyOptions{SentencePiece: sentencePiece, Change: change(true)})
		plain := tinyTokenizer(t, testutil.TinyOptions{SentencePiece: sentencePiece, Change: change(false)})
		if v.Size() != 306 {
			t.Errorf("%d tokens", v.Size())
		}
		for _, text := range append(texts, "[TWIN_300] [TWIN_301]") {
			for _, special := range []bool{false, true} {
				got, err := v.Tokenize(t.Context(), text, false, special)
				if err != nil {
					t.Fatal(err)
				}
				if want, err := plain.Tokenize(t.Context(), text, false, special); err != nil ||
					!slices.Equal(got, want) {
					t.Errorf("%.20q: tokens %v, want %v, %v", text, got, want, err)
				}
			}
		}
		for twin, first := range map[int32]int32{300: 2, 301: 270, 302: 280, 303: 270, 305: 304} {
			got, err := v.Piece(twin)
			if err != nil {
				t.Fatal(err)
			}
			if want, err := v.Piece(first); err != nil || got != want {
				t.Errorf("token %d is shown as %q, want %q, %v", twin, got, want, err)
			}
			if v.IsEOG(twin) != v.IsEOG(first) || v.IsEOG(twin) != (first == 2) {
				t.Errorf("token %d ends answers: %v", twin, v.IsEOG(twin))
			}
		}
		if text, err := v.Detokenize([]int32{270, 300, 301}, false); err != nil || text == "" {
			t.Errorf("%q, %v", text, err)
		}
		n := 0
		if v.Controls(func(int32, string, bool, bool) { n++ }); n != 3 {
			t.Errorf("%d control tokens", n)
		}
	}
}
