package mtbench

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// Winners of a comparison, and what stands in their place where the judgment names none.
const (
	model1     = "model_1"
	model2     = "model_2"
	tie        = "tie"
	unreadable = "error"
)

// Mode is a way to judge.
type Mode string

// The modes that there are.
const (
	ModeSingle Mode = "single" // a grade of each answer
	ModePair   Mode = "pair"   // a comparison of each model's answer with the baseline's
)

// variedTemperature is that of judgments which must not be the same again: retries and repeats.
const variedTemperature = 0.7

// JudgeOptions say how answers are judged.
type JudgeOptions struct {
	Name      string // of the judge
	Mode      Mode
	Baseline  string // pair: the model that all others are compared with; "" is the first
	Prompts   Prompts
	Repeat    int // judgments of the same; those after the first are drawn at a temperature above 0
	Retries   int // further tries where a judgment cannot be read, drawn at a temperature above 0
	Parallel  int // questions to the judge at a time
	MaxTokens int // longest judgment
	Progress  func(Progress)
}

// DefaultJudgeOptions grade each answer once, in at most FastChat's number of tokens.
func DefaultJudgeOptions() JudgeOptions {
	return JudgeOptions{Mode: ModeSingle, Prompts: DefaultPrompts(), Repeat: 1, Retries: 2, Parallel: 4,
		MaxTokens: 2048}
}

// Validate says what is allowed where an option is not.
func (o JudgeOptions) Validate() error {
	switch {
	case o.Mode != ModeSingle && o.Mode != ModePair:
		return fmt.Errorf("mode %q: %s or %s", o.Mode, ModeSingle, ModePair)
	case o.Mode == ModeSingle && o.Baseline != "":
		return fmt.Errorf("baseline: is for mode %s", ModePair)
	case o.Repeat < 1:
		return fmt.Errorf("repeat %d: at least 1", o.Repeat)
	case o.Retries < 0:
		return fmt.Errorf("retries %d: 0 or more", o.Retries)
	case o.Parallel < 1:
		return fmt.Errorf("parallel %d: at least 1", o.Parallel)
	case o.MaxTokens < 1:
		return fmt.Errorf("max-tokens %d: at least 1", o.MaxTokens)
	}
	return nil
}

// Judged counts the judgments of a mode that a judge's file holds.
type Judged struct {
	Judgments  int
	Unreadable int // of them, those that give no score or no winner; they are kept and not asked for again
	Missing    int // judgments that were not asked for, since there is no answer to judge
}

// Judge has a judge give every judgment that is not there yet. One that fails does not keep others from being given:
// the error is then a *Failed.
func (f *Folder) Judge(ctx context.Context, m Model, o JudgeOptions) (Judged, error) {
	if err := o.Validate(); err != nil {
		return Judged{}, err
	}
	e, err := loadAnswers(f.path)
	if err != nil {
		return Judged{}, err
	}
	if len(e.Models) == 0 {
		return Judged{}, fmt.Errorf("evaluation folder %s: holds no answers; `veratune mtbench run` makes them", f.path)
	}
	file, err := fileName(o.Name)
	if err != nil {
		return Judged{}, err
	}
	j := &judging{Evaluation: e, JudgeOptions: o, judge: m, answers: map[string]map[int]Answer{}}
	for model, list := range e.Answers {
		j.answers[model] = map[int]Answer{}
		for _, a := range list {
			j.answers[model][a.QuestionID] = a
		}
	}
	if o.Mode == ModeSingle {
		return judgeAll(ctx, j, f.lock, f.join(judgmentFolder, file+singleSuffix), j.singles, func(s Single) bool {
			return s.Score < 0
		})
	}
	return judgeAll(ctx, j, f.lock, f.join(judgmentFolder, file+pairSuffix), j.pairs, func(p Pair) bool {
		return p.G1Winner == unreadable || p.G2Winner == unreadable
	})
}

// judging is what both modes need.
type judging struct {
	*Evaluation
	JudgeOptions
	judge   Model
	answers map[string]map[int]Answer // by model and question
	missing int
}

// match is a judgment to be had.
type match[R row] struct {
	name string
	row  R // all of it but what the judge says
	play func(ctx context.Context, r *R) error
}

// judgeAll plays the matches whose rows are not in the file yet.
func judgeAll[R row](ctx context.Context, j *judging, lock *durable.Lock, path string, list func() ([]match[R], error),
	unread func(R) bool) (Judged, error) {
	matches, err := list()
	if err != nil {
		return Judged{}, err
	}
	t, err := openTable[R](lock, path)
	if err != nil {
		return Judged{}, err
	}
	defer t.file.Close()
	shield := j.Prompts.shield()
	w := &work{what: "judgments", parallel: j.Parallel, progress: j.Progress}
	for _, m := range matches {
		if row, judged := t.rows[m.row.key()]; judged {
			if !sameQuestion(row, m.row, shield) {
				return Judged{}, fmt.Errorf("%s: %s: was judged by another prompt, or with other answers; move the "+
					"file away to judge anew, or give the judge another name", path, m.name)
			}
			w.before++
			continue
		}
		w.items = append(w.items, item{m.name, func(ctx context.Context) error {
			if err := m.play(ctx, &m.row); err != nil {
				return err
			}
			return t.add(m.row)
		}})
	}
	err = t.finish(j.Questions, w.run(ctx))
	result := Judged{Judgments: len(t.rows), Missing: j.missing}
	for _, r := range t.rows {
		if unread(r) {
			result.Unreadable++
		}
	}
	return result, err
}

// sameQuestion tells whether two rows about the same asked the judge the same, even if one of them was made without a
// shield, as FastChat's are.
func sameQuestion[R row](a, b R, shield func(string) string) bool {
	prompt := func(r R) (text [3]string) {
		switch r := any(r).(type) {
		case Single:
			return [3]string{r.Judge[1], shield(r.UserPrompt)}
		case Pair:
			return [3]string{r.Judge[1], shield(r.G1UserPrompt), shield(r.G2UserPrompt)}
		}
		return text
	}
	return prompt(a) == prompt(b)
}

// each visits every question, turn and repeat for which there are answers of these models.
func (j *judging) each(visit func(q Question, turn, repeat int, answers []Answer) error, models ...string) error {
	for _, q := range j.Questions {
		answers := make([]Answer, 0, len(models))
		for _, model := range models {
			if a, ok := j.answers[model][q.ID]; ok {
				answers = append(answers, a)
			}
		}
		if len(answers) < len(models) {
			j.missing += Turns * j.Repeat
			continue
		}
		for turn := 1; turn <= Turns; turn++ {
			for repeat := range j.Repeat {
				if err := visit(q, turn, repeat, answers); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// singles lists a match for each answer.
func (j *judging) singles() (list []match[Single], err error) {
	for _, model := range j.Models {
		err := j.each(func(q Question, turn, repeat int, answers []Answer) error {
			prompt, conversation, err := j.Prompts.Single(q, answers[0], turn)
			if err != nil {
				return fmt.Errorf("question %d: %w", q.ID, err)
			}
			seen := newMaterial(q, answers...)
			list = append(list, match[Single]{
				name: fmt.Sprintf("question %d, turn %d%s, %s", q.ID, turn, nth(repeat), model),
				row: Single{QuestionID: q.ID, Model: model, Judge: [2]string{j.Name, prompt},
					UserPrompt: lastOf(conversation),
					Turn:       turn, Repeat: repeat},
				play: func(ctx context.Context, s *Single) (err error) {
					s.Judgment, s.Score, err = ask(ctx, j, conversation, repeat, -1, seen.score, "single", q.ID,
						turn, model)
					s.Time = now()
					return err
				},
			})
			return nil
		}, model)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pairs lists a match of each model against the baseline, which is model 2 as in FastChat.
func (j *judging) pairs() (list []match[Pair], err error) {
	baseline := j.Baseline
	if baseline == "" {
		baseline = j.Models[0]
	}
	if !slices.Contains(j.Models, baseline) {
		return nil, fmt.Errorf("baseline %s: has no answers here; those with answers: %s", baseline,
			strings.Join(j.Models, ", "))
	}
	if len(j.Models) < 2 {
		return nil, fmt.Errorf("mode %s compares models, and only %s has answers; `veratune mtbench run` makes those "+
			"of another", ModePair, baseline)
	}
	for _, model := range j.Models {
		if model == baseline {
			continue
		}
		err := j.each(func(q Question, turn, repeat int, answers []Answer) error {
			m, err := j.pair(q, turn, repeat, answers[0], answers[1])
			m.name = fmt.Sprintf("question %d, turn %d%s, %s against %s", q.ID, turn, nth(repeat), model, baseline)
			m.row.Model1, m.row.Model2 = model, baseline
			list = append(list, m)
			return err
		}, model, baseline)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// pair is a match in both orders.
func (j *judging) pair(q Question, turn, repeat int, a1, a2 Answer) (match[Pair], error) {
	prompt, game1, err := j.Prompts.Pair(q, a1, a2, turn)
	if err != nil {
		return match[Pair]{}, fmt.Errorf("question %d: %w", q.ID, err)
	}
	_, game2, err := j.Prompts.Pair(q, a2, a1, turn)
	if err != nil {
		return match[Pair]{}, fmt.Errorf("question %d: %w", q.ID, err)
	}
	seen := newMaterial(q, a1, a2)
	m := match[Pair]{row: Pair{QuestionID: q.ID, Judge: [2]string{j.Name, prompt}, G1UserPrompt: lastOf(game1),
		G2UserPrompt: lastOf(game2), Turn: turn, Repeat: repeat}}
	m.play = func(ctx context.Context, p *Pair) (err error) {
		var winner string
		if p.G1Judgment, winner, err = ask(ctx, j, game1, repeat, unreadable, seen.verdict, "pair", q.ID, turn,
			p.Model1, p.Model2, 1); err != nil {
			return err
		}
		p.G1Winner = won(winner, model1, model2)
		if p.G2Judgment, winner, err = ask(ctx, j, game2, repeat, unreadable, seen.verdict, "pair", q.ID, turn,
			p.Model1, p.Model2, 2); err != nil {
			return err
		}
		p.G2Winner = won(winner, model2, model1)
		p.Time = now()
		return nil
	}
	return m, nil
}

// won says who won a game in which the judge saw first before second.
func won(winner, first, second string) string {
	switch winner {
	case "A":
		return first
	case "B":
		return second
	}
	return winner
}

// ask gives the judge's words and what read takes from them: of the first try that can be read, or else of the last,
// and then none. The very first judgment of a match is at temperature 0 as in FastChat; a judge that is deterministic
// there would only repeat itself in all others.
func ask[V any](ctx context.Context, j *judging, conversation []Message, repeat int, none V,
	read func(string) (V, bool), of ...any) (judgment string, value V, err error) {
	for try := range 1 + j.Retries {
		s := Sampling{MaxTokens: j.MaxTokens, Seed: seed(append(of, repeat, try)...)}
		if repeat+try > 0 {
			s.Temperature = variedTemperature
		}
		if judgment, err = j.judge.Complete(ctx, conversation, s); err != nil {
			return "", none, err
		}
		if value, ok := read(judgment); ok {
			return judgment, value, nil
		}
	}
	return judgment, none, nil
}

func lastOf(conversation []Message) string {
	return conversation[len(conversation)-1].Content
}

// nth tells repeats from the first judgment.
func nth(repeat int) string {
	if repeat == 0 {
		return ""
	}
	return fmt.Sprintf(", repeat %d", repeat)
}
