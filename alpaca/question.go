package alpaca

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Question is a multiple-choice question, to be answered by the likelihood of each choice as the response. The model is
// shown the question alone, no list of choices and no letters. A choice's labels are the tokens of its text; the end of
// the turn is not one of them, as in EleutherAI's lm-evaluation-harness: its likelihood tells whether the model would
// go on to explain itself, not which choice it holds to be right.
type Question struct {
	Choices []Sample
	Bytes   []int // length of each choice's text
	Answer  int   // index of the right choice
	Row     int   // number of the row in its file, from 1
}

// Batch returns the choices of questions, one after the other, in the form of Source.Batch.
func Batch(questions []Question) (tokens, targets []int32, lengths []int) {
	var samples []Sample
	for _, q := range questions {
		samples = append(samples, q.Choices...)
	}
	return join(samples)
}

// question returns the samples of a multiple-choice row. A choice that was cut could not be compared with the others,
// so it is an error.
func (e *Encoder) question(r row, maxLength int) (Question, error) {
	q := Question{Answer: r.answer, Row: r.number}
	for i, choice := range r.choices {
		s, err := e.answerTo(r.instruction, choice)
		if err != nil {
			return Question{}, fmt.Errorf("choice %d: %w", i+1, err)
		}
		if s.answer == s.prompt {
			return Question{}, fmt.Errorf("choice %d has no tokens", i+1)
		}
		if s.answer > maxLength {
			return Question{}, fmt.Errorf("the question with choice %d has %d tokens, more than max-length %d", i+1,
				s.answer, maxLength)
		}
		last := s.answer - 1 // the token before the end of the turn predicts nothing that counts
		q.Choices = append(q.Choices, Sample{Tokens: slices.Clip(s.tokens[:last]),
			Targets: slices.Clip(s.targets[:last]), Row: r.number})
		q.Bytes = append(q.Bytes, len(choice))
	}
	return q, nil
}

// answerTo renders a question with its answer.
func (e *Encoder) answerTo(question, answer string) (*sequence, error) {
	if e.chat == nil {
		return e.sequence(row{instruction: question, output: answer})
	}
	t, err := e.chatTurn(e.chat, conversation{messages: []Message{{Role: User, Content: question},
		{Role: Assistant, Content: answer}}}, 1)
	if err != nil {
		return nil, err
	}
	return e.chatSequence(t.sent(false))
}

// uniform holds the rows of a file to the first of them: all are questions or none is, since the two are measured in
// different ways.
type uniform struct{ first row }

func (u *uniform) check(r row) error {
	if u.first.number == 0 {
		u.first = r
	}
	if (r.choices != nil) == (u.first.choices != nil) {
		return nil
	}
	return fmt.Errorf("of rows %d and %d, one is a multiple-choice question and the other is not; keep them in files "+
		"of their own", u.first.number, r.number)
}

// question reads a row as Hugging Face exports MMLU (question, choices, answer), ARC (question, choices of text and
// label, answerKey) or HellaSwag (ctx, endings, label).
func (p rowReader) question(r *row, o fields) (err error) {
	r.form = "multiple-choice question"
	ask, list, key := "question", "choices", "answer"
	if o.has("endings") {
		ask, list, key = "ctx", "endings", "label"
	} else if o.has("answerKey") && !o.mapped.has(key) {
		key = "answerKey"
	}
	if r.instruction, err = o.text(ask); err != nil {
		return err
	}
	raw, labels := o.find(list), []string(nil)
	if raw == nil {
		return fmt.Errorf("%s is missing", list)
	}
	if kind(raw) == "a string" {
		if raw, err = unpacked(list, raw); err != nil {
			return err
		}
	}
	if raw == nil {
		return fmt.Errorf("%s is empty", list)
	}
	if kind(raw) == "an object" {
		if raw, labels, err = parseLabelled(list, raw); err != nil {
			return err
		}
	}
	choices, err := parseTexts(list, raw)
	if err != nil {
		return err
	}
	if len(choices) < 2 {
		return fmt.Errorf("%s has %d entries, want at least 2", list, len(choices))
	}
	if labels != nil && len(labels) != len(choices) {
		return fmt.Errorf("%s has %d texts and %d labels", list, len(choices), len(labels))
	}
	for i, choice := range choices {
		if j := slices.Index(choices[:i], choice); j >= 0 {
			return fmt.Errorf("entries %d and %d of %s are the same", j+1, i+1, list)
		}
	}
	r.choices = choices
	r.answer, err = o.answer(key, len(choices), labels)
	return err
}

// parseLabelled takes choices and their labels apart.
func parseLabelled(list string, raw json.RawMessage) (texts json.RawMessage, labels []string, err error) {
	o := members(raw)
	if texts = o.find("text"); texts == nil {
		return nil, nil, fmt.Errorf("%s has no text", list)
	}
	if raw = o.find("label"); raw == nil {
		return nil, nil, fmt.Errorf("%s has no label", list)
	}
	labels, err = parseTexts(list+"' labels", raw)
	return texts, labels, err
}

// parseTexts reads a list of strings that hold more than white space.
func parseTexts(name string, raw json.RawMessage) ([]string, error) {
	if kind(raw) != "an array" {
		return nil, fmt.Errorf("%s is %s, want an array", name, kind(raw))
	}
	texts := []string{}
	for i, element := range elements(raw) {
		place := fmt.Sprintf("entry %d of %s", i+1, name)
		s, err := text(place, element)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(s) == "" {
			return nil, fmt.Errorf("%s is empty", place)
		}
		texts = append(texts, s)
	}
	return texts, nil
}

// answer reads which of n choices is right: one of their labels or, where they have none, an index from 0 or a letter
// from A.
func (o object) answer(key string, n int, labels []string) (int, error) {
	raw := o.find(key)
	if raw == nil {
		return 0, fmt.Errorf("%s is missing", key)
	}
	var word string
	if err := json.Unmarshal(raw, &word); err != nil {
		word = string(raw)
	}
	if labels != nil {
		if i := slices.Index(labels, word); i >= 0 {
			return i, nil
		}
		return 0, fmt.Errorf("%s is %q, want one of %s", key, word, strings.Join(labels, ", "))
	}
	if i, err := strconv.Atoi(word); err == nil && 0 <= i && i < n {
		return i, nil
	}
	if len(word) == 1 && 'A' <= word[0] && int(word[0]-'A') < n {
		return int(word[0] - 'A'), nil
	}
	return 0, fmt.Errorf("%s is %q, want an index from 0 to %d or a letter from A", key, word, n-1)
}
