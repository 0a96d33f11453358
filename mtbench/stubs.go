package mtbench

// This file is to be deleted at the merge: it stands in for questions.go, prompts.go and verdict.go.

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Questions stands in for the built-in questions.
func Questions() []Question {
	var list []Question
	for i, category := range Categories {
		q := Question{ID: i + 1, Category: category, Turns: []string{"Question " + category, "And then?"}}
		if slices.Contains(NeedReference, category) {
			q.Reference = []string{"a reference", "another"}
		}
		list = append(list, q)
	}
	return list
}

// ReadQuestions reads question.jsonl.
func ReadQuestions(path, references string) ([]Question, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Question
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var q Question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, q)
	}
	return list, nil
}

// Temperature is that of the answers.
func (q Question) Temperature() float64 {
	switch q.Category {
	case "writing", "roleplay":
		return 0.7
	case "stem", "humanities":
		return 0.1
	}
	return 0
}

// Prompts are what a judge is asked.
type Prompts struct{ name string }

// DefaultPrompts are this project's own.
func DefaultPrompts() Prompts { return Prompts{"stub"} }

// ReadPrompts reads judge_prompts.jsonl.
func ReadPrompts(path string) (Prompts, error) {
	if _, err := os.Stat(path); err != nil {
		return Prompts{}, err
	}
	return Prompts{path}, nil
}

// Single asks for a grade.
func (p Prompts) Single(q Question, a Answer, turn int) (name string, conversation []Message, err error) {
	return fmt.Sprintf("%s-single-%d", p.name, turn), []Message{{"system", "You are a judge."}, {"user", fmt.Sprintf("Grade turn %d of question %d %s: %s", turn, q.ID, q.Turns[:turn], strings.Join(a.Choices[0].Turns[:turn], " | "))}}, nil
}

// Pair asks for a comparison.
func (p Prompts) Pair(q Question, first, second Answer, turn int) (name string, conversation []Message, err error) {
	return fmt.Sprintf("%s-pair-%d", p.name, turn), []Message{{"system", "You are a judge."}, {"user", fmt.Sprintf("Compare turn %d of question %d: A: %s B: %s", turn, q.ID,
		strings.Join(first.Choices[0].Turns[:turn], " | "), strings.Join(second.Choices[0].Turns[:turn], " | "))}}, nil
}

var rating = regexp.MustCompile(`\[\[(\d+\.?\d*)\]\]`)

// Score reads a grade.
func Score(judgment string) (float64, bool) {
	m := rating.FindStringSubmatch(judgment)
	if m == nil {
		return -1, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	return v, err == nil
}

// Verdict reads the outcome of a comparison.
func Verdict(judgment string) (winner string, ok bool) {
	for mark, winner := range map[string]string{"[[A]]": "A", "[[B]]": "B", "[[C]]": "tie"} {
		if strings.Contains(judgment, mark) {
			return winner, true
		}
	}
	return "error", false
}
