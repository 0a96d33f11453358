package testutil

import (
	"fmt"
	"slices"
	"strings"
)

// The tokens of tiny models: three control tokens as ChatML uses them, the 256 bytes, and the merges.
var (
	tinyControl = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	tinyMerges  = []string{
		"Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "e n", "o r", "Ġ c", "i t",
		"i s", "a n", "n d",
		"e s", "Ġ b", "Ġ f", "in g", "Ġ p", "Ġa nd", "o u", "a l", "Ġ o", "Ġ m", "a r", "Ġt o", "Ġo f", "Ġ in", "Ġ d",
		"Ġ h", "l e",
		"i c", "a s", "o m", "ou r", "Ġ is", "Ġ l",
	}
)

const chatML = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + ` +
	`'<|im_end|>' + '\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// byteSymbol is the character that stands for a byte in byte-level BPE (GPT-2): printable bytes stand for themselves,
// the others, in order, for the characters from 256 on.
func byteSymbol(b int) string {
	printable := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae }
	if printable(b) {
		return string(rune(b))
	}
	n := 256
	for i := range b {
		if !printable(i) {
			n++
		}
	}
	return string(rune(n))
}

func tinyTokens() []string {
	tokens := append([]string(nil), tinyControl...)
	for b := range 256 {
		tokens = append(tokens, byteSymbol(b))
	}
	for _, m := range tinyMerges {
		tokens = append(tokens, strings.ReplaceAll(m, " ", ""))
	}
	return tokens
}

// llama.cpp's token types.
const (
	normalToken  = int32(1)
	controlToken = int32(3)
	byteToken    = int32(6)
)

// tinyTokenizer is the metadata of a byte-level BPE tokenizer, to which every text is known.
func tinyTokenizer(addBOS bool) map[string]any {
	tokens := tinyTokens()
	types := slices.Repeat([]int32{normalToken}, len(tokens))
	for i := range tinyControl {
		types[i] = controlToken
	}
	m := tinySpecial(addBOS)
	m["tokenizer.ggml.model"], m["tokenizer.ggml.pre"] = "gpt2", "smollm"
	m["tokenizer.ggml.tokens"], m["tokenizer.ggml.token_type"], m["tokenizer.ggml.merges"] = tokens, types, tinyMerges
	return m
}

// tinySentencePiece is the metadata of a SentencePiece tokenizer of the same pieces, to which every text is known.
func tinySentencePiece(addBOS bool) map[string]any {
	tokens := tinyTokens()
	types, scores := slices.Repeat([]int32{normalToken}, len(tokens)), make([]float32, len(tokens))
	for i, t := range tokens {
		switch b := i - len(tinyControl); {
		case b < 0:
			types[i] = controlToken
		case b < 256:
			types[i], tokens[i] = byteToken, fmt.Sprintf("<0x%02X>", b)
		default:
			tokens[i], scores[i] = strings.ReplaceAll(t, "Ġ", "▁"), float32(-i)
		}
	}
	tokens[len(tokens)-1] = "▁" // alone it has to be a piece, in place of the last
	m := tinySpecial(addBOS)
	m["tokenizer.ggml.model"], m["tokenizer.ggml.tokens"], m["tokenizer.ggml.token_type"],
		m["tokenizer.ggml.scores"] = "llama", tokens, types, scores
	return m
}

func tinySpecial(addBOS bool) map[string]any {
	return map[string]any{
		"tokenizer.ggml.unknown_token_id": uint32(0),
		"tokenizer.ggml.bos_token_id":     uint32(1),
		"tokenizer.ggml.eos_token_id":     uint32(2),
		"tokenizer.ggml.eot_token_id":     uint32(2),
		"tokenizer.ggml.add_bos_token":    addBOS,
		"tokenizer.chat_template":         chatML,
	}
}
