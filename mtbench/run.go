package mtbench

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// RunOptions say how a model answers.
type RunOptions struct {
	Name string // of the model
	// what else decides its answers, such as a fingerprint of its weights; it must not change while the name stays
	Setup     map[string]string
	Parallel  int            // conversations at a time
	MaxTokens int            // longest answer to a turn
	Seed      uint64         // of the drawing of answers
	Progress  func(Progress) // called after each question; nil for no reports
}

// DefaultRunOptions are those of MT-Bench, eight conversations at a time.
func DefaultRunOptions() RunOptions { return RunOptions{Parallel: 8, MaxTokens: 1024} }

// Validate says what is allowed where an option is not.
func (o RunOptions) Validate() error {
	switch {
	case o.Parallel < 1:
		return fmt.Errorf("parallel %d: at least 1", o.Parallel)
	case o.MaxTokens < 1:
		return fmt.Errorf("max-tokens %d: at least 1", o.MaxTokens)
	}
	return nil
}

// Run has a model answer every question that it has not answered yet. A question that fails does not keep others from
// being answered: the error is then a *Failed.
func (f *Folder) Run(ctx context.Context, m Model, o RunOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	file, err := fileName(o.Name)
	if err != nil {
		return err
	}
	answers, err := openTable[Answer](f.lock, f.join(answerFolder, file+".jsonl"))
	if err != nil {
		return err
	}
	defer answers.file.Close()
	facts := map[string]string{"max_tokens": strconv.Itoa(o.MaxTokens), "seed": strconv.FormatUint(o.Seed, 10)}
	maps.Copy(facts, o.Setup)
	if err := f.keepSetup(setup{o.Name, facts}, len(answers.rows) > 0); err != nil {
		return err
	}
	w := &work{what: "answers of " + o.Name, parallel: o.Parallel, progress: o.Progress}
	for _, q := range f.Questions {
		if _, answered := answers.rows[key{question: q.ID}]; answered {
			w.before++
			continue
		}
		w.items = append(w.items, item{fmt.Sprintf("question %d", q.ID), func(ctx context.Context) error {
			a, err := answer(ctx, m, q, o)
			if err != nil {
				return err
			}
			return answers.add(a)
		}})
	}
	return answers.finish(f.Questions, w.run(ctx))
}

// answer has both turns of a question answered, the second in the light of the first.
func answer(ctx context.Context, m Model, q Question, o RunOptions) (Answer, error) {
	var conversation []Message
	var turns []string
	for i, question := range q.Turns {
		conversation = append(conversation, Message{"user", question})
		s := Sampling{Temperature: q.Temperature(), MaxTokens: o.MaxTokens, Seed: seed("answer", o.Seed, q.ID, i)}
		text, err := m.Complete(ctx, conversation, s)
		if err != nil {
			return Answer{}, fmt.Errorf("turn %d: %w", i+1, err)
		}
		text = printable(text)
		conversation = append(conversation, Message{"assistant", text})
		turns = append(turns, text)
	}
	return Answer{QuestionID: q.ID, AnswerID: identifier(o.Name, q.ID, turns), ModelID: o.Name,
		Choices: []Choice{{Turns: turns}}, Time: now()}, nil
}

// printable makes text of whatever a model said, which may end within a character: what turn 2 and the judge see is
// then what the file holds, and every tokenizer takes it.
func printable(text string) string {
	const replacement = "\uFFFD"
	return strings.ReplaceAll(strings.ToValidUTF8(text, replacement), "\x00", replacement)
}
