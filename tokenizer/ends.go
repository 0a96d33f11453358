package tokenizer

// ends are the texts of tokens that end answers: true, of whatever kind the file says that they are; false, of control
// tokens only.
var ends = map[string]bool{
	"<|eot_id|>": true, "<|im_end|>": true, "<|end|>": true, "<|return|>": true, "<|call|>": true,
	"<end_of_turn>": true, "<|endoftext|>": true, "<|eom_id|>": true, "<EOT>": true,
	"_<EOT>": true, "<|end_of_text|>": true, "<end_of_utterance>": true, "<|fim_pad|>": true, "<|fim_repo|>": true,
	"<|file_sep|>": true, "<|repo_name|>": true, "<reponame>": true,
	"</s>": false, "<eos>": false, "<turn|>": false, "<|tool_response>": false, "[EOS]": false, "[EOT]": false,
	"<｜end▁of▁sentence｜>": false, "<|flush|>": false, "<|calls|>": false, "[e~[": false,
}

// turns are those that end a turn, where the file names none.
var turns = []string{"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
	"<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"}

// findEnds finds the tokens that end generation.
func (t *Tokenizer) findEnds(v Vocabulary) {
	find := func(text string) int32 {
		if t.decoded {
			bytes, ok := toBytes(nil, text)
			if text = string(bytes); !ok {
				return -1
			}
		}
		return t.names.find(text)
	}
	for text, always := range ends {
		token := find(text)
		if token < 0 || !always && t.types[token] != controlToken {
			continue
		}
		t.ends[token] = true
		t.types[token] = controlToken
	}
	for _, text := range turns {
		if t.ids["eot"] < 0 {
			t.ids["eot"] = find(text)
		}
	}
	if token := find("<|eom_id|>"); t.ids["eom"] < 0 {
		t.ids["eom"] = token
	}
	for _, key := range []string{"eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"} {
		if id := t.ids[key]; id >= 0 {
			t.ends[id] = true
		}
	}
	for _, id := range v.Ends {
		if id < uint64(t.Size()) {
			t.ends[int32(id)] = true
		}
	}
	// gpt-oss ends a message with <|end|>, not an answer, and shows where its channels begin.
	for _, text := range []string{"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"} {
		if token := find(text); token >= 0 {
			t.types[token] = userToken
		}
	}
	has := func(text string) bool { return t.ends[find(text)] }
	if end := find("<|end|>"); end >= 0 && (has("<|return|>") && has("<|call|>") || has("<|calls|>") &&
		has("<|flush|>")) {
		delete(t.ends, end)
		t.types[end] = userToken
	}
	if s := find("</s>"); has("<|tool_response>") && s >= 0 { // plain text in gemma4
		delete(t.ends, s)
		t.types[s] = normalToken
	}
	for twin, first := range t.twins {
		if t.ends[twin] || t.ends[first] {
			t.ends[twin], t.ends[first] = true, true
		}
	}
}
