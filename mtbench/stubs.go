package mtbench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads an evaluation folder.
func Load(dir string) (*Evaluation, error) {
	e := &Evaluation{Answers: map[string][]Answer{}, Singles: map[string][]Single{}, Pairs: map[string][]Pair{}}
	var err error
	if e.Questions, err = lines[Question](filepath.Join(dir, "question.jsonl")); err != nil {
		return nil, fmt.Errorf("%w; `veratune mtbench run` makes one", err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "model_answer", "*.jsonl"))
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".jsonl")
		e.Models = append(e.Models, name)
		if e.Answers[name], err = lines[Answer](f); err != nil {
			return nil, err
		}
	}
	if i := slices.Index(e.Models, "base"); i > 0 {
		e.Models = slices.Insert(slices.Delete(e.Models, i, i+1), 0, "base")
	}
	files, _ = filepath.Glob(filepath.Join(dir, "model_judgment", "*.jsonl"))
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".jsonl")
		if judge, ok := strings.CutSuffix(name, "_single"); ok {
			e.Singles[judge], err = lines[Single](f)
		} else if judge, ok := strings.CutSuffix(name, "_pair"); ok {
			e.Pairs[judge], err = lines[Pair](f)
		}
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

func lines[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []T
	scanner := bufio.NewScanner(f)
	scanner.Buffer(nil, 1<<26)
	for scanner.Scan() {
		var row T
		if err := json.Unmarshal(scanner.Bytes(), &row); err != nil {
			return nil, err
		}
		list = append(list, row)
	}
	return list, scanner.Err()
}
