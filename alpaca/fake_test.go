package alpaca

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// fakeTokenizer has a token a byte and four control tokens. With spaces, it puts a space before every text, also the
// text behind a control token, as SentencePiece vocabularies do.
type fakeTokenizer struct {
	bos, spaces bool
	chat        string            // template
	named       map[string]string // further ones
	noEOS       bool
}

const (
	imStart int32 = 256 + iota
	imEnd
	bosToken
	eosToken
)

var fakeControls = []string{"<|im_start|>", "<|im_end|>", "<s>", "</s>"}

func (f fakeTokenizer) Tokenize(_ context.Context, text string, addSpecial, parseSpecial bool) ([]int32, error) {
	if addSpecial {
		return nil, errors.New("the package must place special tokens itself")
	}
	var tokens []int32
	afterControl := true
scan:
	for len(text) > 0 {
		for i, c := range fakeControls {
			if parseSpecial && strings.HasPrefix(text, c) {
				tokens = append(tokens, 256+int32(i))
				text = text[len(c):]
				afterControl = true
				continue scan
			}
		}
		if afterControl && f.spaces {
			tokens = append(tokens, ' ')
		}
		afterControl = false
		tokens = append(tokens, int32(text[0]))
		text = text[1:]
	}
	return tokens, nil
}

func detokenize(tokens []int32) string {
	var b strings.Builder
	for _, t := range tokens {
		if t >= 256 {
			b.WriteString(fakeControls[t-256])
		} else {
			b.WriteByte(byte(t))
		}
	}
	return b.String()
}

func (f fakeTokenizer) BOS() int32 { return bosToken }
func (f fakeTokenizer) EOS() int32 {
	if f.noEOS {
		return -1
	}
	return eosToken
}
func (f fakeTokenizer) AddBOS() bool       { return f.bos }
func (f fakeTokenizer) IsEOG(t int32) bool { return t == imEnd || t == eosToken }
func (f fakeTokenizer) ChatTemplate(name string) string {
	if name == "" {
		return f.chat
	}
	return f.named[name]
}

func (f fakeTokenizer) ChatTemplates() []string { return slices.Sorted(maps.Keys(f.named)) }

func (f fakeTokenizer) Controls(yield func(token int32, text string, stripBefore, stripAfter bool)) {
	for i, text := range fakeControls {
		yield(256+int32(i), text, false, false)
	}
}

func (f fakeTokenizer) Piece(token int32) (string, error) { return detokenize([]int32{token}), nil }

const (
	// chatML closes turns with a control token and leaves contents as they are.
	chatML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if " +
		"add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

	// bracketed is a template in the manner of Llama 2: trimmed contents, its own BOS, a space before the response and
	// before the EOS that closes it.
	bracketed = "{% for m in messages %}{% if m.role == 'system' %}{{ bos_token }}({{ m.content | trim }}){% elif " +
		"m.role == 'user' %}{{ bos_token }}[INST] {{ m.content | trim }} [/INST]" +
		"{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"

	// plain closes turns with a newline only.
	plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{{ '' }}{% endfor %}{% if add_generation_prompt " +
		"%}assistant: {% endif %}"

	// forgetful takes earlier answers back once the user goes on, as templates that hide reasoning do.
	forgetful = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ '…' if m.role == 'assistant' and not loop.last " +
		"else m.content }}<|im_end|>\n{% endfor %}" +
		"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
