package alpaca

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// BadRow says why a row can't be trained on. It is an error in strict mode and a count otherwise.
type BadRow struct {
	File   string
	Row    int // from 1; in JSONL and CSV files it is the number of the line
	Reason string
}

func (b BadRow) Error() string { return fmt.Sprintf("%s: row %d: %s", b.File, b.Row, b.Reason) }

// row is one parsed row in one of five forms: messages, instruction with output, prompt with completion, text or, as a
// multiple-choice question, instruction with choices.
type row struct {
	number                     int
	form                       string // what the row was taken for, for people
	messages                   []Message
	tools, documents           json.RawMessage // for the chat template of messages; nil where there are none
	instruction, input, output string          // input is "" where the row has none
	prompt, completion         string
	text                       string
	choices                    []string
	answer                     int // index of the right choice
}

// emptyAnswer is the reason of rows with nothing to learn.
type emptyAnswer struct{ error }

// rowReader parses rows.
type rowReader struct {
	columns map[string]string // Options.Columns
	chosen  bool              // Options.Chosen
}

func newRowReader(o Options) rowReader { return rowReader{o.Columns, o.Chosen} }

func (p rowReader) parse(raw rawRow) (row, error) {
	r := row{number: raw.number}
	if raw.err != nil {
		return r, raw.err
	}
	if err := checkJSON(raw.json); err != nil {
		return r, err
	}
	switch kind(raw.json) {
	case "an array":
		r.form = "conversation"
		messages, err := p.turns("", elements(raw.json), true)
		if err != nil {
			return r, err
		}
		return r, p.converse(&r, fields{}, messages)
	case "an object":
		all, mapped := members(raw.json).rename(p.columns, rowColumnNames...)
		return r, p.object(&r, fields{all, mapped})
	}
	return r, fmt.Errorf("is %s, want an object", kind(raw.json))
}

// object finds out which form a row has. What the columns have named decides before all else, and nulls, which tables
// have for the other rows' forms, last.
func (p rowReader) object(r *row, o fields) error {
	values := o.keep(func(f Field) bool { return !isNull(f.Value) })
	for _, part := range []object{o.mapped, values, o.object} {
		switch {
		case part.hasAnswer("chosen"):
			return p.pair(r, o)
		case slices.ContainsFunc(listNames, part.hasList):
			return p.conversation(r, o)
		case (part.has("choices") || part.has("endings")) && !part.has("instruction") && !part.has("prompt"):
			return p.question(r, o)
		case slices.ContainsFunc(askNames, part.has):
			return p.instruct(r, o)
		case part.has("prompt"), part.has("completion"):
			return p.prompted(r, o)
		case part.has("text"):
			r.form = "text"
			var err error
			r.text, err = o.response("text")
			return err
		}
	}
	if i := slices.IndexFunc(listNames, o.has); i >= 0 {
		return fmt.Errorf("%s is %s, want an array", listNames[i], kind(o.find(listNames[i])))
	}
	if slices.ContainsFunc(roleNames, o.has) && slices.ContainsFunc(contentNames, o.has) {
		return errors.New("is one turn of a conversation; want all its turns in one row, as a list or under messages")
	}
	return errors.New(o.keys() + "; " + wanted)
}

// hasAnswer tells whether a key has a text or messages, and no mark such as true.
func (o object) hasAnswer(name string) bool {
	raw := o.find(name)
	return raw != nil && slices.Contains([]string{"a string", "an array", "an object"}, kind(raw))
}

// hasList tells whether a key has a list, perhaps in a string.
func (o object) hasList(name string) bool {
	raw := o.find(name)
	return raw != nil && (kind(raw) == "an array" || kind(raw) == "a string" &&
		strings.HasPrefix(strings.TrimSpace(unquote(bytes.TrimSpace(raw))), "["))
}

// keys says for people which keys there are.
func (o object) keys() string {
	const most = 12
	var names []string
	for i, f := range o {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(o)-most))
			break
		}
		names = append(names, fmt.Sprintf("%q", f.Name))
	}
	if names == nil {
		return "has no keys"
	}
	return "has the keys " + strings.Join(names, ", ")
}

// instruct reads an instruction, or a question, with its answer.
func (p rowReader) instruct(r *row, o fields) error {
	ask, err := o.one(askNames...)
	if err != nil {
		return err
	}
	if prompt := o.find("prompt"); !o.mapped.has(ask) && prompt != nil && holdsText(prompt) &&
		!bytes.Equal(prompt, o.find(ask)) && !(ask == "instruction" && o.has("output")) {
		return bothThere(ask, "prompt", ask)
	}
	outputs := outputNames
	r.form = "instruction"
	if ask != "instruction" {
		outputs, r.form = replyNames, "question with answer"
	}
	in, err := o.one(inputNames...)
	if err != nil {
		return err
	}
	out, err := o.one(outputs...)
	if err != nil {
		return err
	}
	if r.instruction, err = o.text(ask); err != nil {
		return err
	}
	if raw := o.find(in); raw != nil {
		if r.input, err = text(in, raw); err != nil {
			return err
		}
		if marker := strings.TrimSpace(r.input); marker == "" || strings.EqualFold(marker, "<noinput>") {
			r.input = ""
		}
	}
	if r.output, err = o.response(out); err != nil {
		return err
	}
	before, err := o.before()
	if err != nil || before == nil {
		return err
	}
	messages := append(before, Message{Role: User, Content: question(r.instruction, r.input)},
		Message{Role: Assistant, Content: r.output})
	r.instruction, r.input, r.output = "", "", ""
	return p.converse(r, o, messages)
}

// before are the turns before an instruction, without the system message. They are nil where the row is no
// conversation.
func (o fields) before() ([]Message, error) {
	messages, err := o.history()
	if err != nil || messages != nil {
		return messages, err
	}
	system, err := o.system()
	if system != "" || o.hasList("tools") {
		messages = []Message{}
	}
	return messages, err
}

// history reads pairs of a question and its answer.
func (o fields) history() (messages []Message, err error) {
	raw := o.find("history")
	if raw == nil {
		return nil, nil
	}
	pairs, err := list("history", raw)
	if err != nil {
		return nil, err
	}
	for i, pair := range pairs {
		place := fmt.Sprintf("pair %d of history", i+1)
		if kind(pair) != "an array" {
			return nil, fmt.Errorf("%s is %s, want a list of a question and its answer", place, kind(pair))
		}
		texts, err := parseTexts(place, pair)
		if err != nil {
			return nil, err
		}
		if len(texts) != 2 {
			return nil, fmt.Errorf("%s has %d texts, want a question and its answer", place, len(texts))
		}
		messages = append(messages, Message{Role: User, Content: texts[0]}, Message{Role: Assistant, Content: texts[1]})
	}
	return messages, nil
}

func (o fields) system() (string, error) {
	name, err := o.one(systemNames...)
	if err != nil || !o.has(name) {
		return "", err
	}
	s, err := text(name, o.find(name))
	if strings.TrimSpace(s) == "" {
		s = ""
	}
	return s, err
}

// prompted reads a prompt with its completion: two texts, which are taken verbatim, or lists of messages.
func (p rowReader) prompted(r *row, o fields) error {
	answer, err := o.one(answerNames...)
	if err != nil {
		return err
	}
	r.form = "prompt with completion"
	system, err := o.system()
	if err != nil {
		return err
	}
	isList := func(name string) bool { return o.has(name) && kind(o.find(name)) == "an array" }
	if system == "" && !o.hasList("tools") && !isList("prompt") && !isList(answer) {
		if r.prompt, err = o.text("prompt"); err == nil {
			r.completion, err = o.response(answer)
		}
		return err
	}
	asked, err := p.side(o, "prompt", User)
	if err != nil {
		return err
	}
	answered, err := p.side(o, answer, Assistant)
	if err != nil {
		return err
	}
	return p.converse(r, o, joinSides(asked, answered))
}

// side reads the messages of a prompt or completion; a text is one message.
func (p rowReader) side(o fields, name, role string) ([]Message, error) {
	raw := o.find(name)
	if raw != nil && kind(raw) == "an array" {
		return p.turns(name, elements(raw), false)
	}
	if role == Assistant {
		content, err := o.response(name)
		return []Message{{Role: role, Content: content}}, err
	}
	content, err := o.text(name)
	return []Message{{Role: role, Content: content}}, err
}

// joinSides puts an answer's messages behind the question's, unless they are the whole conversation already.
func joinSides(asked, answered []Message) []Message {
	for _, m := range answered {
		if m.Role == User {
			return answered
		}
	}
	return append(asked, answered...)
}
