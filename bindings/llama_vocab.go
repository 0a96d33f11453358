package bindings

// #include <stdlib.h>
// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// LlamaVocab is llama.cpp's own tokenizer of a GGUF file: tests hold the package tokenizer to it.
type LlamaVocab struct {
	model *C.struct_llama_model
	c     *C.struct_llama_vocab
}

// OpenLlamaVocab reads the tokenizer of a file that llama.cpp knows: SentencePiece, or byte-level BPE.
func OpenLlamaVocab(path string) (*LlamaVocab, error) {
	defer attend()()
	model, err := loadLlama(path, func(p *C.char) *C.struct_llama_model { return C.vt_load_vocab(p) })
	if err != nil {
		return nil, err
	}
	v := &LlamaVocab{model: model}
	if v.model == nil {
		return nil, fmt.Errorf("%s: %s", path, takeError("llama.cpp does not read its tokenizer"))
	}
	v.c = C.llama_model_get_vocab(v.model)
	return v, nil
}

// Close frees the tokenizer. Closing twice is harmless.
func (v *LlamaVocab) Close() {
	if v.model != nil {
		C.llama_model_free(v.model)
		v.model = nil
	}
}

// checkVocab refuses tokenizers that llama.cpp aborts the process on, or reads beyond the end of.
func checkVocab(g *GGUF) error {
	kind, _ := g.String("tokenizer.ggml.model")
	if kind != "llama" && kind != "gpt2" {
		return fmt.Errorf("llama.cpp cannot open it: tokenizer.ggml.model is %q, not llama or gpt2", kind)
	}
	tokens, _ := g.Texts("tokenizer.ggml.tokens")
	if len(tokens) < 12 { // it takes 0, 1, 2 or 11 for the special tokens that a file does not name
		return errors.New("llama.cpp cannot open it: tokenizer.ggml.tokens is no list of at least 12 texts")
	}
	first := make(map[string]int, len(tokens))
	for i, text := range tokens {
		if text == "" {
			text = fmt.Sprintf("[EMPTY_%d]", i) // as it names them
		}
		if same, twice := first[text]; twice {
			return fmt.Errorf("llama.cpp cannot open it: tokens %d and %d have the same text", same, i)
		}
		first[text] = i
	}
	if scores := g.Value("tokenizer.ggml.scores"); scores != nil {
		if s, _ := scores.([]float32); len(s) < len(tokens) {
			return fmt.Errorf("tokenizer.ggml.scores are not %d float32 numbers", len(tokens))
		}
	}
	if types := g.Value("tokenizer.ggml.token_type"); types != nil {
		if s, _ := types.([]int32); len(s) < len(tokens) {
			return fmt.Errorf("tokenizer.ggml.token_type are not %d int32 numbers", len(tokens))
		}
	}
	if _, ok := g.Texts("tokenizer.ggml.merges"); kind == "gpt2" && !ok {
		return errors.New("tokenizer.ggml.merges is no list of texts")
	}
	return nil
}

// Size is the number of tokens.
func (v *LlamaVocab) Size() int { return int(C.llama_vocab_n_tokens(v.c)) }

// BOS is the token that begins a text, -1 if there is none.
func (v *LlamaVocab) BOS() int32 { return int32(C.llama_vocab_bos(v.c)) }

// EOS is the token that ends a text, -1 if there is none.
func (v *LlamaVocab) EOS() int32 { return int32(C.llama_vocab_eos(v.c)) }

// AddBOS tells whether the model expects BOS before a text.
func (v *LlamaVocab) AddBOS() bool { return bool(C.llama_vocab_get_add_bos(v.c)) }

// IsEOG tells whether generation ends with this token.
func (v *LlamaVocab) IsEOG(token int32) bool {
	return bool(C.llama_vocab_is_eog(v.c, C.int32_t(token)))
}

// Tokenize turns text into tokens. addSpecial adds those that the model asks for before and behind a text; parseSpecial
// reads the text of control tokens as those.
func (v *LlamaVocab) Tokenize(text string, addSpecial, parseSpecial bool) ([]int32, error) {
	defer attend()()
	s := C.CString(text)
	defer C.free(unsafe.Pointer(s))
	tokens := make([]int32, len(text)+8)
	for {
		n := int(C.vt_tokenize(v.c, s, C.int32_t(len(text)), (*C.int32_t)(&tokens[0]), C.int32_t(len(tokens)),
			C.bool(addSpecial), C.bool(parseSpecial)))
		if n == math.MinInt32 {
			return nil, fmt.Errorf("tokenize: %s", takeError("refused"))
		}
		if n >= 0 {
			return slices.Clip(tokens[:n]), nil
		}
		tokens = make([]int32, -n)
	}
}

// Piece is what a token adds to a text, in bytes that need be no whole character; of a control token, its text.
func (v *LlamaVocab) Piece(token int32) string {
	piece := make([]byte, 64)
	for {
		n := int(C.llama_token_to_piece(v.c, C.int32_t(token), (*C.char)(ptr(piece)), C.int32_t(len(piece)), 0, true))
		if n >= 0 {
			return string(piece[:n])
		}
		piece = make([]byte, -n)
	}
}
