package alpaca

import (
	"errors"
	"strings"
)

// fakeTokenizer has a token a byte and four control tokens. With spaces, it puts a space before every text, also the
// text behind a control token, as SentencePiece vocabularies do.
type fakeTokenizer struct {
	bos, spaces bool
	chat        func(roles, contents []string, addAssistant bool) (string, error)
	noEOS       bool
}

const (
	imStart int32 = 256 + iota
	imEnd
	bosToken
	eosToken
)

var controls = []string{"<|im_start|>", "<|im_end|>", "<s>", "</s>"}

func (f fakeTokenizer) Tokenize(text string, addSpecial, parseSpecial bool) ([]int32, error) {
	if addSpecial {
		return nil, errors.New("the package must place special tokens itself")
	}
	var tokens []int32
	afterControl := true
scan:
	for len(text) > 0 {
		for i, c := range controls {
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
			b.WriteString(controls[t-256])
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
func (f fakeTokenizer) ChatTemplate() string {
	if f.chat == nil {
		return ""
	}
	return "{{ messages }}"
}

func (f fakeTokenizer) ApplyChat(roles, contents []string, addAssistant bool) (string, error) {
	return f.chat(roles, contents, addAssistant)
}

// chatML closes turns with a control token and leaves contents as they are.
func chatML(roles, contents []string, addAssistant bool) (string, error) {
	var b strings.Builder
	for i, role := range roles {
		b.WriteString("<|im_start|>" + role + "\n" + contents[i] + "<|im_end|>\n")
	}
	if addAssistant {
		b.WriteString("<|im_start|>assistant\n")
	}
	return b.String(), nil
}

// bracketed is a template in the manner of Llama 2: trimmed contents, its own BOS, a space before the response and
// before the EOS that closes it.
func bracketed(roles, contents []string, _ bool) (string, error) {
	var b strings.Builder
	for i, role := range roles {
		content := strings.TrimSpace(contents[i])
		switch role {
		case System:
			b.WriteString("<s>(" + content + ")")
		case User:
			b.WriteString("<s>[INST] " + content + " [/INST]")
		case Assistant:
			b.WriteString(" " + content + " </s>")
		}
	}
	return b.String(), nil
}

// plain closes turns with a newline only.
func plain(roles, contents []string, addAssistant bool) (string, error) {
	var b strings.Builder
	for i, role := range roles {
		b.WriteString(role + ": " + contents[i] + "\n")
	}
	if addAssistant {
		b.WriteString("assistant: ")
	}
	return b.String(), nil
}

// forgetful takes earlier answers back once the user goes on, as templates that hide reasoning do.
func forgetful(roles, contents []string, addAssistant bool) (string, error) {
	contents = append([]string(nil), contents...)
	for i, role := range roles {
		if role == Assistant && i < len(roles)-1 {
			contents[i] = "…"
		}
	}
	return chatML(roles, contents, addAssistant)
}
