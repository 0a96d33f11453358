package testutil

import "strings"

// The tokens of tiny models: three control tokens as ChatML uses them, the 256 bytes, and the merges.
var (
	tinyControl = []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	tinyMerges  = []string{
		"Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "e n", "o r", "Ġ c", "i t", "i s", "a n", "n d",
		"e s", "Ġ b", "Ġ f", "in g", "Ġ p", "Ġa nd", "o u", "a l", "Ġ o", "Ġ m", "a r", "Ġt o", "Ġo f", "Ġ in", "Ġ d", "Ġ h", "l e",
		"i c", "a s", "o m", "ou r", "Ġ is", "Ġ l",
	}
)

const chatML = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}` +
	`{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`

// byteSymbol is the character that stands for a byte in byte-level BPE (GPT-2): printable bytes stand for themselves, the others, in order, for the characters
// from 256 on.
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

// tinyTokenizer is the metadata of a byte-level BPE tokenizer, to which every text is known.
func tinyTokenizer(addBOS bool) map[string]any {
	const normal, control = 1, 3 // llama.cpp's token types
	tokens := tinyTokens()
	types := make([]int32, len(tokens))
	for i := range types {
		types[i] = normal
		if i < len(tinyControl) {
			types[i] = control
		}
	}
	return map[string]any{
		"tokenizer.ggml.model":            "gpt2",
		"tokenizer.ggml.pre":              "smollm",
		"tokenizer.ggml.tokens":           tokens,
		"tokenizer.ggml.token_type":       types,
		"tokenizer.ggml.merges":           tinyMerges,
		"tokenizer.ggml.unknown_token_id": uint32(0),
		"tokenizer.ggml.bos_token_id":     uint32(1),
		"tokenizer.ggml.eos_token_id":     uint32(2),
		"tokenizer.ggml.eot_token_id":     uint32(2),
		"tokenizer.ggml.add_bos_token":    addBOS,
		"tokenizer.chat_template":         chatML,
	}
}
