package model

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/tokenizer"
)

// Tokenizer is a model's own, with its chat templates.
type Tokenizer struct {
	*tokenizer.Tokenizer
	templates map[string]string
}

// Tokenizer reads the tokenizer from the model's file. A pre-tokenizer that is not "" stands in the place of the
// file's.
func (m *Model) Tokenizer(preTokenizer string) (Tokenizer, error) {
	return ReadTokenizer(m.file, preTokenizer)
}

// ReadTokenizer reads the tokenizer of a file, of which nothing is needed afterwards.
func ReadTokenizer(g *bindings.GGUF, preTokenizer string) (Tokenizer, error) {
	v, err := vocabulary(g)
	if err == nil && preTokenizer != "" {
		if v.Model != "gpt2" {
			err = fmt.Errorf("tokenizer.ggml.model is %q, and a pre-tokenizer can be chosen for gpt2 alone", v.Model)
		}
		v.Pre = preTokenizer
	}
	t := Tokenizer{templates: map[string]string{}}
	if err == nil {
		t.Tokenizer, err = tokenizer.New(v)
	}
	if unknown := (tokenizer.UnknownPre{}); errors.As(err, &unknown) {
		err = fmt.Errorf("%w; --pre-tokenizer NAME takes another in its place", err)
	}
	if err != nil {
		return Tokenizer{}, fmt.Errorf("%s: no usable tokenizer: %w", g.Path(), err)
	}
	const first = "tokenizer.chat_template" // behind a dot, others that have names
	for _, key := range g.Keys() {
		if name, ok := strings.CutPrefix(key, first); ok && (name == "" || name[0] == '.') {
			if source, isText := g.String(key); isText {
				t.templates[strings.TrimPrefix(name, ".")] = source
			}
		}
	}
	return t, nil
}

// ChatTemplate is a chat template of the model (Jinja source), "" if it has none of that name. The name "" is that of
// the first.
func (t Tokenizer) ChatTemplate(name string) string { return t.templates[name] }

// ChatTemplates are the names of the model's chat templates.
func (t Tokenizer) ChatTemplates() []string { return slices.Sorted(maps.Keys(t.templates)) }

// vocabulary is what a file says of its tokenizer, with texts in the file's memory.
func vocabulary(g *bindings.GGUF) (v tokenizer.Vocabulary, err error) {
	const prefix = "tokenizer.ggml."
	v.Name, _ = g.String("general.name")
	v.IDs, v.Flags = map[string]int64{}, map[string]bool{}
	if err := cmp.Or(
		take(g, prefix+"model", &v.Model), take(g, prefix+"pre", &v.Pre), take(g, prefix+"token_type", &v.Types),
		take(g, prefix+"scores", &v.Scores),
		takeTexts(g, prefix+"tokens", &v.Tokens), takeTexts(g, prefix+"merges", &v.Merges),
	); err != nil {
		return v, err
	}
	v.Ends, _ = g.Uints(prefix + "eos_token_ids")
	for _, key := range g.Keys() {
		name, ok := strings.CutPrefix(key, prefix)
		switch id, isID := strings.CutSuffix(name, "_token_id"); {
		case !ok:
		case isID:
			n, whole := g.Uint(key)
			if !whole {
				return v, fmt.Errorf("%s is %v, and must be a whole number of at least 0", key, g.Value(key))
			}
			v.IDs[id] = int64(min(n, 1<<62))
		case strings.HasPrefix(name, "add_") || strings.HasPrefix(name, "normalizer."):
			flag := false
			if err := take(g, key, &flag); err != nil {
				return v, err
			}
			v.Flags[name] = flag
		}
	}
	return v, nil
}

// take reads a value that a file may have, and refuses one of another type.
func take[T any](g *bindings.GGUF, key string, to *T) error {
	value := g.Value(key)
	if value == nil {
		return nil
	}
	v, ok := value.(T)
	if !ok {
		return fmt.Errorf("%s is of type %T, and must be %T", key, value, *to)
	}
	*to = v
	return nil
}

// takeTexts is take for a list of texts.
func takeTexts(g *bindings.GGUF, key string, to *[]string) error {
	list, ok := g.Texts(key)
	if !ok && g.Value(key) != nil {
		return fmt.Errorf("%s is no list of texts", key)
	}
	*to = list
	return nil
}
