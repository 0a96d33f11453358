package alpaca

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
)

// pair reads the preferred answer of a preference pair as the answer of a row of another form.
func (p rowReader) pair(r *row, o fields) error {
	if !p.chosen {
		return errors.New("is a preference pair (chosen and rejected); --chosen trains on its chosen answers")
	}
	defer func() { r.form = "preference pair, chosen answer" }()
	chosen := o.find("chosen")
	spoken := kind(chosen) == "a string" || kind(chosen) == "null"
	if _, err := o.response("chosen"); spoken && err != nil {
		return err
	}
	asked, err := p.asked(o)
	if err != nil {
		return err
	}
	if spoken {
		return p.chosenText(r, o, asked)
	}
	list := []json.RawMessage{chosen}
	if kind(chosen) == "an array" {
		list = elements(chosen)
	}
	answered, err := p.turns("chosen", list, false)
	if err != nil {
		return err
	}
	return p.converse(r, o, joinSides(asked, answered))
}

// chosenText reads a pair whose chosen answer is a text.
func (p rowReader) chosenText(r *row, o fields, asked []Message) error {
	s, _ := text("chosen", o.find("chosen"))
	prompt := o.find("prompt")
	isText := prompt != nil && kind(prompt) == "a string"
	if whole := transcript(s); whole != nil {
		return p.converse(r, o, whole)
	}
	if slices.ContainsFunc(listNames, o.hasList) || prompt != nil && !isText || isText &&
		transcript(unquote(prompt)) != nil {
		return p.converse(r, o, append(asked, Message{Role: Assistant, Content: s}))
	}
	answer := ""
	switch {
	case prompt != nil && holdsText(prompt):
		answer = answerNames[0]
	case asked != nil:
		answer = outputNames[0]
	default:
		r.text = s
		return nil
	}
	o.object = o.keep(func(f Field) bool {
		return !slices.Contains(outputNames, f.Name) && f.Name != "chosen" && f.Name != "rejected"
	})
	o.mapped = o.mapped.keep(func(f Field) bool { return !slices.Contains(outputNames, f.Name) })
	o.object = append(o.object, Field{answer, quote(s)})
	if answer == answerNames[0] {
		return p.prompted(r, o)
	}
	return p.instruct(r, o)
}

// asked are the messages before the answers of a pair, nil where it has none. What the assistant says last there is an
// answer already.
func (p rowReader) asked(o fields) (messages []Message, err error) {
	prompt := o.find("prompt")
	ask, err := o.one(askNames...)
	switch {
	case slices.ContainsFunc(listNames, o.hasList):
		messages, _, err = p.list(o)
	case prompt != nil && kind(prompt) == "an array":
		messages, err = p.turns("prompt", elements(prompt), false)
	case prompt != nil && holdsText(prompt):
		if messages = transcript(unquote(prompt)); messages == nil {
			messages, err = p.side(o, "prompt", User)
		}
	case err == nil && o.has(ask) && holdsText(o.find(ask)):
		if messages, err = o.history(); err == nil {
			messages, err = p.askedWith(o, messages, ask)
		}
	}
	for len(messages) > 0 && messages[len(messages)-1].Role == Assistant {
		messages = messages[:len(messages)-1]
	}
	return messages, err
}

func (p rowReader) askedWith(o fields, messages []Message, ask string) ([]Message, error) {
	content, err := o.text(ask)
	if err != nil {
		return nil, err
	}
	in, err := o.one(inputNames...)
	if err != nil {
		return nil, err
	}
	if raw := o.find(in); raw != nil {
		input, err := text(in, raw)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(input) != "" {
			content = question(content, input)
		}
	}
	return append(messages, Message{Role: User, Content: content}), nil
}

var speaker = regexp.MustCompile(`(?:^|\n\n)(Human|Assistant):[ \n]?`)

// transcript reads a conversation that is written down as one text, as in Anthropic's HH-RLHF. It is nil where the text
// is none.
func transcript(s string) (messages []Message) {
	if !strings.HasPrefix(strings.TrimSpace(s), "Human:") || !strings.Contains(s, "\n\nAssistant:") {
		return nil
	}
	s = "\n\n" + strings.TrimSpace(s)
	at := speaker.FindAllStringSubmatchIndex(s, -1)
	for i, m := range at {
		end := len(s)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		role := roles[strings.ToLower(s[m[2]:m[3]])]
		content := strings.TrimSpace(s[m[1]:end])
		if i == len(at)-1 && content == "" && len(messages) > 0 {
			break // a prompt that ends where the answer begins
		}
		messages = append(messages, Message{Role: role, Content: content})
	}
	return messages
}
