package bindings

// #include <stdlib.h>
// #include "guard.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sync/errgroup"
)

// Vocab is the tokenizer of a GGUF file, llama.cpp's own.
type Vocab struct {
	model     *C.struct_llama_model
	c         *C.struct_llama_vocab
	templates map[string]string // chat templates by name, "" of the model's first
	strip     bool              // tokenizing puts a space before a text, which detokenizing takes off
	twins     map[int32]int32   // tokens whose text one before them has, and that one
	ends      map[int32]bool    // tokens that end generation beside those that llama.cpp knows
	cuts      func() *cuts      // made for the first long text
}

// chatTemplateKey is the metadata of the model's chat template; behind a dot, of others that have names.
const chatTemplateKey = "tokenizer.chat_template"

// Metadata that there are for every token.
const (
	keyTokens     = "tokenizer.ggml.tokens"     // texts
	keyTokenTypes = "tokenizer.ggml.token_type" // int32, llama.cpp's
)

// OpenVocab reads the tokenizer of a GGUF file. It fails for other kinds than SentencePiece and byte-level BPE.
func OpenVocab(path string) (*Vocab, error) {
	g, err := OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	v := new(Vocab)
	if err := v.open(g); err != nil {
		v.Close()
		return nil, fmt.Errorf("%s: no usable tokenizer: %w", path, err)
	}
	return v, nil
}

func (v *Vocab) open(g *GGUF) error {
	merges, err := v.check(g)
	if err != nil {
		return err
	}
	path := g.Paths()[0]
	if len(v.twins) > 0 {
		dir, err := os.MkdirTemp("", "veratune-tokenizer-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		path = filepath.Join(dir, "tokenizer.gguf")
		if err := v.writeRenamed(g, path); err != nil {
			return err
		}
	}
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	if v.model = C.vt_load_vocab(p); v.model == nil {
		return errors.New(takeError("llama.cpp does not read it"))
	}
	v.c = C.llama_model_get_vocab(v.model)
	v.cuts = sync.OnceValue(func() *cuts { return v.newCuts(merges) })
	return v.findEnds(g)
}

// check refuses what llama.cpp aborts the process on, or reads beyond the end of, and reads what llama.cpp doesn't tell. It gives the merges of byte-level BPE, else nil.
func (v *Vocab) check(g *GGUF) (merges []string, err error) {
	kind, _ := g.String("tokenizer.ggml.model")
	if kind != "llama" && kind != "gpt2" {
		return nil, fmt.Errorf("tokenizer.ggml.model is %q: llama and gpt2 can be used", kind)
	}
	tokens, _ := g.Value(keyTokens).([]string)
	if len(tokens) < 12 { // llama.cpp takes 0, 1, 2 or 11 for the special tokens that a file does not name
		return nil, errors.New("tokenizer.ggml.tokens is no list of at least 12 texts")
	}
	v.twins = findTwins(tokens)
	if scores := g.Value("tokenizer.ggml.scores"); scores != nil {
		if s, _ := scores.([]float32); len(s) < len(tokens) {
			return nil, fmt.Errorf("tokenizer.ggml.scores are not %d float32 numbers", len(tokens))
		}
	}
	if types := g.Value(keyTokenTypes); types != nil {
		if s, _ := types.([]int32); len(s) < len(tokens) {
			return nil, fmt.Errorf("tokenizer.ggml.token_type are not %d int32 numbers", len(tokens))
		}
	}
	if kind == "gpt2" {
		if merges, _ = g.Value("tokenizer.ggml.merges").([]string); merges == nil {
			return nil, errors.New("tokenizer.ggml.merges is no list of texts")
		}
	}
	v.strip = kind == "llama"
	if asked, ok := g.Value("tokenizer.ggml.add_space_prefix").(bool); ok {
		v.strip = asked
	}
	v.templates = map[string]string{}
	for _, key := range g.Keys() {
		name, ok := strings.CutPrefix(key, chatTemplateKey)
		if source, isText := g.String(key); ok && isText && (name == "" || name[0] == '.') {
			v.templates[strings.TrimPrefix(name, ".")] = source
		}
	}
	return merges, nil
}

// Close frees the tokenizer. Closing twice is harmless.
func (v *Vocab) Close() {
	if v.model != nil {
		C.llama_model_free(v.model)
		v.model = nil
	}
}

// Size is the number of tokens.
func (v *Vocab) Size() int { return int(C.llama_vocab_n_tokens(v.c)) }

// BOS is the token that begins a text, -1 if there is none.
func (v *Vocab) BOS() int32 { return int32(C.llama_vocab_bos(v.c)) }

// EOS is the token that ends a text, -1 if there is none.
func (v *Vocab) EOS() int32 { return int32(C.llama_vocab_eos(v.c)) }

// EOT is the token that ends a turn of a chat, -1 if there is none.
func (v *Vocab) EOT() int32 { return int32(C.llama_vocab_eot(v.c)) }

// AddBOS tells whether the model expects BOS before a text.
func (v *Vocab) AddBOS() bool { return bool(C.llama_vocab_get_add_bos(v.c)) }

// IsEOG tells whether generation ends with this token.
func (v *Vocab) IsEOG(token int32) bool {
	return v.ends[token] || bool(C.llama_vocab_is_eog(v.c, C.int32_t(token)))
}

// Tokenize turns text into tokens. addSpecial adds BOS and EOS where the model asks for them; parseSpecial reads the text of special tokens
// ("<|im_end|>") as those tokens. It fails when ctx ends, and for texts with a part of more than longestPiece that can't be cut.
func (v *Vocab) Tokenize(ctx context.Context, text string, addSpecial, parseSpecial bool) ([]int32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(text) <= pieceSize {
		return v.tokenize(text, addSpecial, parseSpecial)
	}
	pieces, err := v.cuts().split(text)
	if err != nil {
		return nil, err
	}
	if len(pieces) == 1 {
		return v.tokenize(text, addSpecial, parseSpecial)
	}
	lists := make([][]int32, len(pieces)+2)
	if addSpecial {
		ends, err := v.tokenize("", true, false)
		if err != nil {
			return nil, err
		}
		if v.AddBOS() {
			lists[0], ends = ends[:1], ends[1:]
		}
		lists[len(pieces)+1] = ends
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, piece := range pieces {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if i == 0 {
				lists[1], err = v.tokenize(piece, false, parseSpecial)
			} else {
				lists[i+1], err = v.proceed(pieces[i-1], piece, parseSpecial)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

// proceed tokenizes a piece of a text that comes behind another. SentencePiece puts a space before what it is given; it goes with the last character before the piece.
func (v *Vocab) proceed(before, piece string, parseSpecial bool) ([]int32, error) {
	if v.cuts().bytes {
		return v.tokenize(piece, false, parseSpecial)
	}
	_, n := utf8.DecodeLastRuneInString(before)
	last := before[len(before)-n:]
	skip, err := v.tokenize(last, false, parseSpecial)
	if err != nil {
		return nil, err
	}
	tokens, err := v.tokenize(last+piece, false, parseSpecial)
	return tokens[min(len(skip), len(tokens)):], err
}

// tokenize tokenizes a text at once.
func (v *Vocab) tokenize(text string, addSpecial, parseSpecial bool) ([]int32, error) {
	s := C.CString(text)
	defer C.free(unsafe.Pointer(s))
	tokens := make([]int32, len(text)+8)
	for {
		n := int(C.vt_tokenize(v.c, s, C.int32_t(len(text)), (*C.int32_t)(&tokens[0]), C.int32_t(len(tokens)), C.bool(addSpecial), C.bool(parseSpecial)))
		if n == math.MinInt32 {
			return nil, fmt.Errorf("tokenize: %s", takeError("refused"))
		}
		if n >= 0 {
			return tokens[:n:n], nil
		}
		tokens = make([]int32, -n)
	}
}

// Detokenize turns tokens into text, token by token but for the space that SentencePiece puts before a text; special tokens are left out unless special is set.
func (v *Vocab) Detokenize(tokens []int32, special bool) (string, error) {
	return v.detokenize(tokens, v.strip, special)
}

// Piece is what a token adds to a text, in bytes that need be no whole character; of a control token, its text.
func (v *Vocab) Piece(token int32) (string, error) {
	return v.detokenize([]int32{token}, false, true)
}

func (v *Vocab) detokenize(tokens []int32, strip, special bool) (string, error) {
	size := C.int32_t(v.Size())
	for _, t := range tokens {
		if t < 0 || C.int32_t(t) >= size {
			return "", fmt.Errorf("detokenize: token %d is not in the vocabulary of %d", t, size)
		}
	}
	if len(tokens) == 0 {
		return "", nil
	}
	if len(v.twins) > 0 {
		tokens = slices.Clone(tokens)
		for i, t := range tokens {
			if first, twin := v.twins[t]; twin {
				tokens[i] = first
			}
		}
	}
	text := make([]byte, 16*len(tokens)+64)
	for {
		n := int(C.vt_detokenize(v.c, (*C.int32_t)(&tokens[0]), C.int32_t(len(tokens)), (*C.char)(ptr(text)), C.int32_t(len(text)), C.bool(strip), C.bool(special)))
		if n == math.MinInt32 {
			return "", fmt.Errorf("detokenize: %s", takeError("refused"))
		}
		if n >= 0 {
			return string(text[:n]), nil
		}
		text = make([]byte, -n)
	}
}

// ChatTemplate is a chat template of the model (Jinja source), "" if it has none of that name. The name "" is that of the first.
func (v *Vocab) ChatTemplate(name string) string { return v.templates[name] }

// ChatTemplates are the names of the model's chat templates.
func (v *Vocab) ChatTemplates() []string { return slices.Sorted(maps.Keys(v.templates)) }

// Controls calls yield for every token whose text Tokenize reads as it only with parseSpecial, and says whether white space beside the text goes with it.
func (v *Vocab) Controls(yield func(token int32, text string, stripBefore, stripAfter bool)) error {
	const unknown, control, stripBefore, stripAfter = 1 << 0, 1 << 3, 1 << 7, 1 << 8 // of llama.cpp's llama_token_attr
	for token := range int32(v.Size()) {
		attr := uint(C.llama_vocab_get_attr(v.c, C.int32_t(token)))
		if attr&(unknown|control) == 0 {
			continue
		}
		text, err := v.Piece(token)
		if err != nil {
			return err
		}
		if text != "" {
			yield(token, text, attr&stripBefore != 0, attr&stripAfter != 0)
		}
	}
	return nil
}
