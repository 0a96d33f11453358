package mtbench

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/veratune/veratune/internal/durable"
)

//go:embed questions.jsonl
var builtinQuestions []byte

// Questions gives the 80 built-in questions: ten in each category, in the order of Categories, with references where
// the category needs them.
func Questions() []Question {
	questions, err := parseQuestions("built-in questions", builtinQuestions)
	if err != nil {
		panic(err)
	}
	return questions
}

// ReadQuestions reads a question.jsonl in FastChat's format. References, where it isn't "", is a
// reference_answer/*.jsonl of FastChat, whose answers replace what the questions have in Reference. FastChat takes
// categories of any name; here temperatures and reports go by category, so an unknown one is an error. A question may
// lack its reference; it can be answered then, but Prompts refuses to have it judged by a prompt that shows one.
func ReadQuestions(path, references string) ([]Question, error) {
	data, err := durable.ReadFile(path, largestFile)
	if err != nil {
		return nil, fmt.Errorf("reading questions: %w", err)
	}
	questions, err := parseQuestions(path, data)
	if err != nil || references == "" {
		return questions, err
	}
	if data, err = durable.ReadFile(references, largestFile); err != nil {
		return nil, fmt.Errorf("reading reference answers: %w", err)
	}
	answers, err := parseReferences(references, data)
	if err != nil {
		return nil, err
	}
	found := false
	for i := range questions {
		if turns, ok := answers[questions[i].ID]; ok {
			questions[i].Reference, found = turns, true
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: answers none of the questions of %s", references, path)
	}
	return questions, nil
}

// Temperature is the one at which FastChat has a question of this category answered.
func (q Question) Temperature() float64 {
	switch q.Category {
	case "writing", "roleplay":
		return 0.7
	case "stem", "humanities":
		return 0.1
	}
	return 0
}

func parseQuestions(file string, data []byte) ([]Question, error) {
	var questions []Question
	lines := map[int]int{} // where each id is
	err := eachRow(data, file, func(line int, row []byte) error {
		q, err := parseQuestion(row)
		if err != nil {
			return err
		}
		if first, twice := lines[q.ID]; twice {
			return fmt.Errorf("question %d is on line %d already", q.ID, first)
		}
		lines[q.ID] = line
		questions = append(questions, q)
		return nil
	})
	if err == nil && len(questions) == 0 {
		err = fmt.Errorf("%s: holds no question", file)
	}
	return questions, err
}

func parseQuestion(row []byte) (Question, error) {
	var r struct {
		Question
		ID *int `json:"question_id"`
	}
	if err := decode(row, &r); err != nil {
		return Question{}, err
	}
	q := r.Question
	if r.ID == nil {
		return q, errors.New("has no question_id")
	}
	q.ID = *r.ID
	if !slices.Contains(Categories, q.Category) {
		return q, fmt.Errorf("question %d: category %q, want one of %s", q.ID, q.Category,
			strings.Join(Categories, ", "))
	}
	if len(q.Turns) != Turns {
		return q, fmt.Errorf("question %d: want %d turns, has %d", q.ID, Turns, len(q.Turns))
	}
	for i, turn := range q.Turns {
		if strings.TrimSpace(turn) == "" {
			return q, fmt.Errorf("question %d: turn %d is empty", q.ID, i+1)
		}
	}
	if n := len(q.Reference); n != 0 && n != Turns {
		return q, fmt.Errorf("question %d: want a reference for each of %d turns, has %d", q.ID, Turns, n)
	}
	return q, nil
}

// parseReferences gives the answers to both turns by the question's id.
func parseReferences(file string, data []byte) (map[int][]string, error) {
	answers := map[int][]string{}
	err := eachRow(data, file, func(_ int, row []byte) error {
		var a struct {
			ID      *int     `json:"question_id"`
			Choices []Choice `json:"choices"`
		}
		if err := decode(row, &a); err != nil {
			return err
		}
		if a.ID == nil {
			return errors.New("has no question_id")
		}
		if len(a.Choices) == 0 || len(a.Choices[0].Turns) != Turns {
			return fmt.Errorf("question %d: want a choice with %d turns", *a.ID, Turns)
		}
		if _, twice := answers[*a.ID]; twice {
			return fmt.Errorf("question %d is answered a second time", *a.ID)
		}
		answers[*a.ID] = a.Choices[0].Turns
		return nil
	})
	return answers, err
}

// eachRow hands the rows of a JSONL file to parse, and puts the file and the line before its error. Blank lines are
// skipped.
func eachRow(data []byte, file string, parse func(line int, row []byte) error) error {
	number := 0
	for line := range bytes.Lines(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := parse(number, line); err != nil {
			return fmt.Errorf("%s: line %d: %w", file, number, err)
		}
	}
	return nil
}

// decode reads a row that must be a JSON object.
func decode(row []byte, v any) error {
	var wrong *json.UnmarshalTypeError
	err := json.Unmarshal(row, v)
	switch {
	case !utf8.Valid(row):
		return errors.New("is not valid UTF-8")
	case errors.As(err, &wrong) && wrong.Field != "":
		key := wrong.Field[strings.LastIndex(wrong.Field, ".")+1:] // without the types that it is embedded in
		return fmt.Errorf("%s cannot be a %s", key, wrong.Value)
	case err == nil && row[0] != '{', errors.As(err, &wrong):
		return errors.New("is not a JSON object")
	case err != nil:
		return fmt.Errorf("malformed JSON: %w", err)
	}
	return nil
}
