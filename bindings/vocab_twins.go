package bindings

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Some converters write a text twice into a list of tokens. llama.cpp ends the process on that, so it is given a file of the tokenizer alone in which the later
// ones, the twins, have other texts. A text is read as the first token that has it, and a twin is shown as that one and ends answers where that does.

// findTwins gives the tokens whose text one before them has, and that one.
func findTwins(tokens []string) map[int32]int32 {
	first, twins := make(map[string]int32, len(tokens)), map[int32]int32{}
	for i, text := range tokens {
		if text == "" {
			text = fmt.Sprintf("[EMPTY_%d]", i) // as llama.cpp has it
		}
		if same, ok := first[text]; ok {
			twins[int32(i)] = same
		} else {
			first[text] = int32(i)
		}
	}
	return twins
}

// writeRenamed writes the metadata of a file with other texts for the twins, which no text is read as.
func (v *Vocab) writeRenamed(g *GGUF, path string) error {
	const normal, unused = 1, 5 // of llama.cpp's llama_token_type
	tokens, _ := g.Value(keyTokens).([]string)
	types, _ := g.Value(keyTokenTypes).([]int32)
	if types == nil {
		types = slices.Repeat([]int32{normal}, len(tokens))
	}
	for twin := range v.twins {
		name := fmt.Sprintf("[TWIN_%d]", twin)
		for slices.Contains(tokens, name) {
			name += "]"
		}
		tokens[twin], types[twin] = name, unused
	}
	w := NewGGUFWriter()
	defer w.Close()
	for _, key := range g.Keys() {
		value := g.Value(key)
		if value == nil || key == "general.alignment" || strings.HasPrefix(key, "split.") {
			continue
		}
		if err := w.Set(key, value); err != nil {
			return err
		}
	}
	return errors.Join(w.Set(keyTokens, tokens), w.Set(keyTokenTypes, types), w.WriteFile(path))
}
