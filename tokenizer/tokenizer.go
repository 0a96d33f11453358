// Package tokenizer turns text into a model's tokens and back, from what the metadata of its GGUF file say: byte-level
// BPE with the pre-tokenizers that llama.cpp names, BPE over characters with byte tokens (gemma4), SentencePiece
// (llama) and WordPiece (bert). It knows nothing of files or of C.
package tokenizer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xrash/smetrics"
)

// Kinds of tokens, as in tokenizer.ggml.token_type.
const (
	normalToken  = 1
	unknownToken = 2
	controlToken = 3
	userToken    = 4
	unusedToken  = 5
	byteToken    = 6
)

// Vocabulary is what the metadata of a GGUF file say of its tokenizer.
type Vocabulary struct {
	Model  string    // tokenizer.ggml.model
	Pre    string    // tokenizer.ggml.pre, of BPE; "" is "default"
	Name   string    // general.name: Phi-3's control tokens take the white space behind them along
	Tokens []string  // tokenizer.ggml.tokens
	Types  []int32   // tokenizer.ggml.token_type; nil: all are normal
	Scores []float32 // tokenizer.ggml.scores, of SentencePiece
	Merges []string  // tokenizer.ggml.merges, of BPE

	// IDs are special tokens by the part of the key before _token_id: bos, eos, eot, eom, unknown, seperator, fim_pad,
	// fim_rep, fim_sep; Ends is tokenizer.ggml.eos_token_ids. Those that are not of the vocabulary count for nothing.
	IDs  map[string]int64
	Ends []uint64
	// Flags are tokenizer.ggml.add_bos_token, .add_eos_token, .add_sep_token, .add_space_prefix and
	// .normalizer.lowercase, by what follows tokenizer.ggml.
	Flags map[string]bool
}

// Tokenizer is safe for concurrent use.
type Tokenizer struct {
	names         // of all tokens
	types []uint8 // kinds, with those that their texts tell
	ends  map[int32]bool
	twins map[int32]int32 // tokens whose text one before them has, and that one

	special specials
	ids     map[string]int32

	addBOS, addEOS, prefix bool
	decoded                bool // the names are bytes, no characters that stand for bytes
	escape                 bool // a space is written ▁
	encode                 encoder
}

// encoder appends the tokens of a text without special ones; first says that nothing or a special token stands before.
type encoder interface {
	encode(ctx context.Context, tokens []int32, text string, first bool) ([]int32, error)
}

// PreTokenizers are the names that New knows for Vocabulary.Pre, in order.
func PreTokenizers() []string {
	list := make([]string, 0, len(preTokenizers))
	for name := range preTokenizers {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// New makes a tokenizer. It fails for a kind or a pre-tokenizer that it does not know, and for lists that do not fit
// together.
func New(v Vocabulary) (*Tokenizer, error) {
	if len(v.Tokens) == 0 {
		return nil, errors.New("tokenizer.ggml.tokens is missing, or empty")
	}
	if v.Types != nil && len(v.Types) < len(v.Tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.token_type are %d numbers for %d tokens", len(v.Types), len(v.Tokens))
	}
	if v.Scores != nil && len(v.Scores) < len(v.Tokens) {
		return nil, fmt.Errorf("tokenizer.ggml.scores are %d numbers for %d tokens", len(v.Scores), len(v.Tokens))
	}
	t := &Tokenizer{ids: map[string]int32{}, ends: map[int32]bool{}, twins: map[int32]int32{}}
	var r rules
	switch v.Model {
	case "gpt2", "gemma4":
		pre := cmp.Or(v.Pre, "default")
		if v.Model == "gemma4" {
			pre = "gemma4"
		}
		if err := CheckPre(pre); err != nil {
			return nil, fmt.Errorf("tokenizer.ggml.pre: %w", err)
		}
		if v.Merges == nil {
			return nil, errors.New("tokenizer.ggml.merges is missing")
		}
		r = preTokenizers[pre]
		t.decoded, t.escape = !r.plain, r.space
		t.addBOS = r.bos
	case "llama":
		t.escape, t.prefix, t.addBOS = true, true, true
	case "bert":
		t.escape, t.addBOS, t.addEOS = true, true, true
	default:
		return nil, fmt.Errorf("tokenizer.ggml.model is %q: gpt2, gemma4, llama and bert can be used", v.Model)
	}
	t.read(v)
	t.findIDs(v, r)
	t.findEnds(v)
	t.findSpecial(v)
	switch v.Model {
	case "llama":
		t.encode = newSentencePiece(t, v.Scores)
	case "bert":
		t.encode = newWordPiece(t, v)
	default:
		t.encode = newBPE(t, r, v.Merges)
	}
	return t, nil
}

// UnknownPre is the error of a pre-tokenizer that there is not.
type UnknownPre struct{ Name string }

func (e UnknownPre) Error() string {
	known := PreTokenizers()
	far := func(name string) int { return smetrics.WagnerFischer(e.Name, name, 1, 1, 1) }
	slices.SortStableFunc(known, func(a, b string) int { return cmp.Compare(far(a), far(b)) })
	return fmt.Sprintf("pre-tokenizer %q: not known; the nearest that are: %s, %s, %s", e.Name, known[0],
		known[1], known[2])
}

// CheckPre gives UnknownPre for a name that New does not know.
func CheckPre(name string) error {
	if _, known := preTokenizers[name]; !known {
		return UnknownPre{name}
	}
	return nil
}

// read takes the tokens' texts and kinds.
func (t *Tokenizer) read(v Vocabulary) {
	bytes := 0
	for _, text := range v.Tokens {
		bytes += len(text)
	}
	t.names.init(len(v.Tokens), bytes)
	t.types = make([]uint8, len(v.Tokens))
	var buffer []byte
	for i, text := range v.Tokens {
		if text, _, _ = strings.Cut(text, "\x00"); text == "" { // as llama.cpp reads it
			text = "[EMPTY_" + strconv.Itoa(i) + "]"
		}
		t.types[i] = normalToken
		if v.Types != nil {
			t.types[i] = uint8(max(0, min(v.Types[i], 255)))
		}
		if bytes, ok := toBytes(buffer[:0], text); t.decoded && ok {
			buffer = bytes
			text = string(bytes)
		} else if t.decoded {
			text = outside + text // so that no text is read as it
		}
		if first, same := t.names.add(text); same {
			t.twins[int32(i)] = first
			t.types[i] = unusedToken
		}
	}
}

// outside begins the name of a token of byte-level BPE that holds characters which stand for no byte.
const outside = "\xff\xff\x00"

// text is a token as it is written in the file, but for ▁.
func (t *Tokenizer) text(token int32) string {
	s := t.names.name(token)
	if !t.decoded {
		return s
	}
	if rest, is := strings.CutPrefix(s, outside); is {
		return rest
	}
	return toSymbols(s)
}

func (t *Tokenizer) findIDs(v Vocabulary, r rules) {
	defaults := map[string]map[string]int32{
		"gpt2": {"bos": 11, "eos": 11}, "gemma4": {}, "llama": {"bos": 1, "eos": 2, "unknown": 0},
		"bert": {"bos": 101, "unknown": 100, "seperator": 102, "padding": 0, "mask": 103},
	}[v.Model]
	for _, key := range []string{"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask", "fim_pad",
		"fim_rep", "fim_sep"} {
		id, known := defaults[key]
		if !known || int(id) >= t.Size() || key == "bos" && r.noBOS {
			id = -1
		}
		if asked, ok := v.IDs[key]; ok && asked >= 0 && asked < int64(t.Size()) {
			id = int32(asked)
		}
		t.ids[key] = id
	}
	set := func(flag *bool, key string) {
		if value, ok := v.Flags[key]; ok {
			*flag = value
		}
	}
	set(&t.addBOS, "add_bos_token")
	set(&t.addEOS, "add_eos_token")
	set(&t.prefix, "add_space_prefix")
	if r.force {
		t.addBOS = true
	}
	if v.Model == "bert" { // whose texts llama.cpp always puts between these two
		t.addBOS, t.addEOS = true, true
	}
}

// findSpecial finds the tokens that are looked for in texts.
func (t *Tokenizer) findSpecial(v Vocabulary) {
	for token, kind := range t.types {
		if kind == controlToken || kind == userToken || kind == unknownToken {
			t.special.list = append(t.special.list, special{token: int32(token), text: t.text(int32(token))})
		}
	}
	t.special.sort()
	name := strings.ToLower(v.Name)
	phi3 := strings.Contains(name, "phi-3") || strings.Contains(name, "phi3")
	mask := ""
	switch {
	case slices.Contains([]string{"jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert"}, v.Pre):
		mask, phi3 = "<mask>", false
	case !phi3 && strings.Contains(name, "modern-bert"):
		mask = "[MASK]"
	}
	for i := range t.special.list {
		s := &t.special.list[i]
		s.left = s.text == mask
		s.right = phi3 && !slices.Contains([]string{"<unk>", "<s>", "<|endoftext|>"}, s.text)
	}
}

// Size is the number of tokens.
func (t *Tokenizer) Size() int { return len(t.types) }

// BOS is the token that begins a text, -1 if there is none.
func (t *Tokenizer) BOS() int32 { return t.ids["bos"] }

// EOS is the token that ends a text, -1 if there is none.
func (t *Tokenizer) EOS() int32 { return t.ids["eos"] }

// EOT is the token that ends a turn of a chat, -1 if there is none.
func (t *Tokenizer) EOT() int32 { return t.ids["eot"] }

// AddBOS tells whether the model expects BOS before a text.
func (t *Tokenizer) AddBOS() bool { return t.addBOS }

// IsEOG tells whether generation ends with this token.
func (t *Tokenizer) IsEOG(token int32) bool { return t.ends[token] }

// Tokenize turns text into tokens. addSpecial adds the tokens that the model asks for before and behind a text;
// parseSpecial reads the text of control tokens ("<|im_end|>") as those tokens. It fails when ctx ends.
func (t *Tokenizer) Tokenize(ctx context.Context, text string, addSpecial, parseSpecial bool) (tokens []int32,
	err error) {
	if addSpecial && t.addBOS && t.BOS() >= 0 {
		tokens = append(tokens, t.BOS())
	}
	first := true
	for _, f := range t.fragments(text, parseSpecial) {
		if f.token >= 0 {
			tokens, first = append(tokens, f.token), true
			continue
		}
		if tokens, err = t.encode.encode(ctx, tokens, f.text, first); err != nil {
			return nil, err
		}
		first = false
	}
	if end := t.end(); addSpecial && t.addEOS && end >= 0 {
		tokens = append(tokens, end)
	}
	return tokens, ctx.Err()
}

// end is the token that is put behind texts.
func (t *Tokenizer) end() int32 {
	if _, bert := t.encode.(*wordPiece); bert {
		return t.ids["seperator"]
	}
	return t.EOS()
}

// Piece is what a token adds to a text, in bytes that need be no whole character; of a control token, its text.
func (t *Tokenizer) Piece(token int32) (string, error) {
	if token < 0 || int(token) >= t.Size() {
		return "", fmt.Errorf("detokenize: token %d is not in the vocabulary of %d", token, t.Size())
	}
	if first, twin := t.twins[token]; twin {
		token = first
	}
	switch t.types[token] {
	case normalToken:
		s := t.names.name(token)
		if t.escape {
			return strings.ReplaceAll(s, "▁", " "), nil
		}
		return strings.TrimPrefix(s, outside), nil
	case unknownToken, controlToken, userToken:
		return t.text(token), nil
	case byteToken:
		s := t.text(token)
		if len(s) >= 5 {
			if b, err := strconv.ParseUint(s[3:5], 16, 8); err == nil {
				return string([]byte{byte(b)}), nil
			}
		}
	}
	return "", nil
}

// Detokenize turns tokens into text, token by token but for the space that SentencePiece puts before a text; control
// tokens are left out unless special is set.
func (t *Tokenizer) Detokenize(tokens []int32, special bool) (string, error) {
	var text strings.Builder
	for i, token := range tokens {
		piece, err := t.Piece(token)
		if err != nil {
			return "", err
		}
		if kind := t.types[token]; !special && (kind == controlToken || kind == unknownToken) {
			continue
		}
		if i == 0 && t.prefix {
			piece = strings.TrimPrefix(piece, " ")
		}
		text.WriteString(piece)
	}
	return text.String(), nil
}

// Controls calls yield for every token whose text Tokenize reads as it only with parseSpecial, and says whether white
// space beside the text goes with it.
func (t *Tokenizer) Controls(yield func(token int32, text string, stripBefore, stripAfter bool)) {
	for _, s := range t.special.list {
		if t.types[s.token] != userToken {
			yield(s.token, s.text, s.left, s.right)
		}
	}
}
