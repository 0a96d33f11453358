package bindings

// moreEnds are the texts of control tokens that newer llama.cpp than the one here ends generation at; those of older families it knows itself.
var moreEnds = map[string]bool{
	"</s>": true, "<eos>": true, "<turn|>": true, "<|tool_response>": true, "[EOS]": true, "[EOT]": true, "<｜end▁of▁sentence｜>": true, "<|flush|>": true, "<|calls|>": true,
}

// keyEnds are all end tokens, where there are more than tokenizer.ggml.eos_token_id, in files that Ollama made: integers.
const keyEnds = "tokenizer.ggml.eos_token_ids"

// findEnds finds the tokens that end generation beside those that llama.cpp knows.
func (v *Vocab) findEnds(g *GGUF) error {
	v.ends = map[int32]bool{}
	ids, _ := g.Uints(keyEnds)
	for _, id := range ids {
		if id < uint64(v.Size()) {
			v.ends[int32(id)] = true
		}
	}
	err := v.Controls(func(token int32, text string, _, _ bool) {
		if moreEnds[text] {
			v.ends[token] = true
		}
	})
	for twin, first := range v.twins {
		if v.IsEOG(twin) || v.IsEOG(first) {
			v.ends[twin], v.ends[first] = true, true
		}
	}
	return err
}
