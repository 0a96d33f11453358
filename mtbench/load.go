package mtbench

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What follows the judge's name in the names of its files.
const (
	singleSuffix = "_single.jsonl"
	pairSuffix   = "_pair.jsonl"
)

// Load reads an evaluation folder, be it that of a run that is under way or one that FastChat made. A line that is only
// half written is not there yet.
func Load(path string) (*Evaluation, error) {
	e, err := loadAnswers(path)
	if err != nil {
		return nil, err
	}
	if e.Singles, err = readAll[Single](filepath.Join(path, judgmentFolder), singleSuffix, e.Questions); err != nil {
		return nil, err
	}
	e.Pairs, err = readAll[Pair](filepath.Join(path, judgmentFolder), pairSuffix, e.Questions)
	return e, err
}

// loadAnswers leaves the judgments out.
func loadAnswers(path string) (*Evaluation, error) {
	questions := filepath.Join(path, questionFile)
	if _, err := os.Stat(questions); err != nil {
		return nil, notEvaluation(path, err)
	}
	e := &Evaluation{}
	var err error
	if e.Questions, err = ReadQuestions(questions, ""); err != nil {
		return nil, err
	}
	if e.Answers, err = readAll[Answer](filepath.Join(path, answerFolder), ".jsonl", e.Questions); err != nil {
		return nil, err
	}
	e.Models, err = e.order(filepath.Join(path, modelFile))
	return e, err
}

// order gives the models as they began to answer, then those whose answers other programs put there.
func (e *Evaluation) order(path string) (models []string, err error) {
	begun, err := readSetups(path)
	if err != nil {
		return nil, err
	}
	at := func(model string) int {
		i := slices.IndexFunc(begun, func(s setup) bool { return s.Model == model })
		if i < 0 {
			return len(begun)
		}
		return i
	}
	for model := range e.Answers {
		models = append(models, model)
	}
	slices.SortFunc(models, func(a, b string) int { return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b)) })
	return models, nil
}

// readAll reads the files of a folder whose names end in suffix, by the name before it; each in the order of a finished
// run.
func readAll[R row](folder, suffix string, questions []Question) (map[string][]R, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := map[string][]R{}
	for _, entry := range entries {
		file, ok := strings.CutSuffix(entry.Name(), suffix)
		if !ok {
			continue
		}
		l, err := readLines[R](filepath.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		rows := map[key]R{}
		for _, r := range l.rows {
			rows[r.key()] = r
		}
		for _, k := range sortedKeys(rows, questions) {
			all[modelName(file)] = append(all[modelName(file)], rows[k])
		}
	}
	return all, nil
}
