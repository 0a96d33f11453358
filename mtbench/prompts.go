package mtbench

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// Prompt is a row of judge_prompts.jsonl in FastChat's format.
type Prompt struct {
	Name           string `json:"name"`
	Type           string `json:"type"` // "single" or "pairwise"
	SystemPrompt   string `json:"system_prompt"`
	PromptTemplate string `json:"prompt_template"` // of Python's str.format: {question} is a placeholder, {{ a brace
	Description    string `json:"description"`
	Category       string `json:"category"`
	OutputFormat   string `json:"output_format"` // "[[rating]]" or "[[A]]"
}

// Prompts holds a judge's prompts by name.
type Prompts map[string]Prompt

//go:embed prompts.jsonl
var builtinPrompts []byte

// DefaultPrompts gives the built-in prompts, which are short enough for small judges.
func DefaultPrompts() Prompts {
	p, err := parsePrompts("built-in prompts", builtinPrompts)
	if err != nil {
		panic(err)
	}
	return p
}

// ReadPrompts reads a judge_prompts.jsonl in FastChat's format. It must hold the eight prompts by which FastChat
// judges; others are left out.
func ReadPrompts(path string) (Prompts, error) {
	data, err := durable.ReadFile(path, largestFile)
	if err != nil {
		return nil, fmt.Errorf("reading judge prompts: %w", err)
	}
	return parsePrompts(path, data)
}

// promptName is FastChat's name of the prompt for a type, a category and a turn.
func promptName(kind, category string, turn int) string {
	name := map[string]string{"single": "single-v1", "pairwise": "pair-v2"}[kind]
	if slices.Contains(NeedReference, category) {
		name = map[string]string{"single": "single-math-v1", "pairwise": "pair-math-v1"}[kind]
	}
	if turn == 2 {
		name += "-multi-turn"
	}
	return name
}

func parsePrompts(file string, data []byte) (Prompts, error) {
	all := Prompts{}
	err := eachRow(data, file, func(_ int, row []byte) error {
		var p Prompt
		if err := decode(row, &p); err != nil {
			return err
		}
		if p.Name == "" {
			return errors.New("has no name")
		}
		if _, twice := all[p.Name]; twice {
			return fmt.Errorf("prompt %s is there already", p.Name)
		}
		all[p.Name] = p
		return nil
	})
	if err != nil {
		return nil, err
	}
	prompts, missing := Prompts{}, []string{}
	for _, kind := range []string{"single", "pairwise"} {
		for _, category := range []string{"writing", "math"} {
			for turn := 1; turn <= Turns; turn++ {
				name := promptName(kind, category, turn)
				p, ok := all[name]
				if !ok {
					missing = append(missing, name)
					continue
				}
				if err := p.check(kind, category, turn); err != nil {
					return nil, fmt.Errorf("%s: prompt %s: %w", file, name, err)
				}
				prompts[name] = p
			}
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s: has no prompt named %s", file, strings.Join(missing, ", "))
	}
	return prompts, nil
}

// check fills a prompt in by way of trial: it must show the answers that are to be judged.
func (p Prompt) check(kind, category string, turn int) error {
	if p.Type != kind {
		return fmt.Errorf("type %q, want %q", p.Type, kind)
	}
	q := Question{Category: category, Turns: make([]string, Turns), Reference: []string{"reference", "reference"}}
	answers, format := []string{"answer"}, "[[rating]]"
	if kind == "pairwise" {
		answers, format = []string{"answer_a", "answer_b"}, "[[A]]"
	}
	if p.OutputFormat != format {
		return fmt.Errorf("output_format %q, want %q", p.OutputFormat, format)
	}
	values := q.placeholders(turn)
	for _, name := range answers {
		addTurns(values, name, make([]string, Turns), turn)
	}
	shown := map[string]bool{}
	_, err := expand(p.PromptTemplate, func(name string) (string, error) {
		shown[name] = true
		if _, ok := values[name]; !ok {
			return "", fmt.Errorf("nothing is known to put in the place of {%s}", name)
		}
		return "", nil
	})
	for _, name := range answers {
		if turn == 2 {
			name += "_2"
		}
		if err == nil && !shown[name] {
			err = fmt.Errorf("does not show {%s}", name)
		}
	}
	return err
}

// Single gives the conversation that asks a judge to grade the answer to a turn, 1 or 2, and the name of its prompt.
// What could pass for a verdict or for a heading of the prompt is shown in another form where it stands in the answer,
// the question or a reference.
func (p Prompts) Single(q Question, a Answer, turn int) (name string, conversation []Message, err error) {
	return p.fill("single", q, turn, map[string]Answer{"answer": a})
}

// Pair gives the conversation that asks a judge to compare two answers to a turn, 1 or 2, and the name of its prompt.
// The first answer is assistant A's.
func (p Prompts) Pair(q Question, first, second Answer, turn int) (name string, conversation []Message, err error) {
	return p.fill("pairwise", q, turn, map[string]Answer{"answer_a": first, "answer_b": second})
}

// fill gives a message of the system, where the prompt has one, and one of the user.
func (p Prompts) fill(kind string, q Question, turn int, answers map[string]Answer) (string, []Message, error) {
	name := promptName(kind, q.Category, turn)
	prompt, ok := p[name]
	if !ok {
		return name, nil, fmt.Errorf("there is no prompt named %s", name)
	}
	values := q.placeholders(turn)
	for as, a := range answers {
		if len(a.Choices) == 0 || len(a.Choices[0].Turns) < turn {
			return name, nil, fmt.Errorf("question %d: %s has no answer to turn %d", q.ID, a.ModelID, turn)
		}
		addTurns(values, as, a.Choices[0].Turns, turn)
	}
	shield := p.shield()
	text, err := expand(prompt.PromptTemplate, func(placeholder string) (string, error) {
		value, ok := values[placeholder]
		if !ok {
			return "", fmt.Errorf("question %d (%s): prompt %s wants {%s}: give the question a reference answer to "+
				"each turn", q.ID, q.Category, name, placeholder)
		}
		return shield(value), nil
	})
	if err != nil {
		return name, nil, err
	}
	user := Message{"user", text}
	if prompt.SystemPrompt == "" {
		return name, []Message{user}, nil
	}
	return name, []Message{{"system", prompt.SystemPrompt}, user}, nil
}

// placeholders gives what FastChat puts in the place of its placeholders for a question and, where its category needs
// one, its reference.
func (q Question) placeholders(turn int) map[string]string {
	values := map[string]string{}
	addTurns(values, "question", q.Turns, turn)
	if slices.Contains(NeedReference, q.Category) {
		for i, reference := range q.Reference {
			if strings.TrimSpace(reference) != "" {
				values["ref_answer_"+strconv.Itoa(i+1)] = reference
			}
		}
	}
	return values
}

// addTurns puts the first turn's text in the place of {name}, or that of both turns in those of {name_1} and {name_2}.
func addTurns(values map[string]string, name string, turns []string, turn int) {
	if turn == 1 {
		values[name] = turns[0]
		return
	}
	for i, text := range turns[:turn] {
		values[name+"_"+strconv.Itoa(i+1)] = text
	}
}

// expand does what Python's str.format does with {name}, {{ and }}. Braces in values have no meaning.
func expand(template string, value func(name string) (string, error)) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexAny(template, "{}")
		if i < 0 {
			b.WriteString(template)
			return b.String(), nil
		}
		b.WriteString(template[:i])
		brace, rest := template[i:i+1], template[i+1:]
		if after, doubled := strings.CutPrefix(rest, brace); doubled {
			b.WriteString(brace)
			template = after
			continue
		}
		name, after, closed := strings.Cut(rest, "}")
		if brace == "}" || !closed {
			return "", fmt.Errorf("a single %s; a placeholder is {name}, a brace is doubled", brace)
		}
		text, err := value(name)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		template = after
	}
}
