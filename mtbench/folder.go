package mtbench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/veratune/veratune/internal/durable"
)

// What an evaluation folder holds: FastChat's files, and how each model answered.
const (
	questionFile   = "question.jsonl"
	modelFile      = "models.json"
	answerFolder   = "model_answer"
	judgmentFolder = "model_judgment"
)

// Folder is an evaluation folder that this process alone writes.
type Folder struct {
	Questions []Question
	path      string
	lock      *durable.Lock
}

// Create opens an evaluation folder of these questions, and makes it where it isn't there. One of other questions is
// refused.
func Create(path string, questions []Question) (*Folder, error) {
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, fmt.Errorf("evaluation folder: %w", err)
	}
	f, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	f.Questions = questions
	if err := f.keepQuestions(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Open opens an evaluation folder that holds questions already.
func Open(path string) (*Folder, error) {
	if _, err := os.Stat(filepath.Join(path, questionFile)); err != nil {
		return nil, notEvaluation(path, err)
	}
	f, err := lockFolder(path)
	if err != nil {
		return nil, err
	}
	if f.Questions, err = ReadQuestions(f.join(questionFile), ""); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close gives the folder free for other processes.
func (f *Folder) Close() error { return f.lock.Close() }

func notEvaluation(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("evaluation folder %s: holds no %s; `veratune mtbench run` makes one", path, questionFile)
	}
	return fmt.Errorf("evaluation folder: %w", err)
}

func lockFolder(path string) (*Folder, error) {
	lock, err := durable.LockFolder(path)
	var held durable.Held
	switch {
	case errors.As(err, &held):
		return nil, fmt.Errorf("evaluation folder %s: %w writes there; wait for it, or choose another folder",
			path, held)
	case err != nil:
		return nil, fmt.Errorf("evaluation folder: %w", err)
	}
	return &Folder{path: path, lock: lock}, nil
}

func (f *Folder) join(parts ...string) string {
	return filepath.Join(append([]string{f.path}, parts...)...)
}

// keepQuestions writes the questions of a new evaluation, and compares them with those of one that has begun.
func (f *Folder) keepQuestions() error {
	path := f.join(questionFile)
	text, err := encodeQuestions(f.Questions)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err == nil {
		kept, err := ReadQuestions(path, "")
		if err != nil {
			return err
		}
		before, err := encodeQuestions(kept)
		if err != nil {
			return err
		}
		if !bytes.Equal(before, text) {
			return fmt.Errorf("%s: holds other questions than these, and answers to different questions cannot be "+
				"compared; choose another folder", path)
		}
		return nil
	}
	return durable.WriteFile(path, text, 0o666)
}

func encodeQuestions(questions []Question) (text []byte, err error) {
	for _, q := range questions {
		line, err := encode(q)
		if err != nil {
			return nil, err
		}
		text = append(text, line...)
	}
	return text, nil
}

// setup is how a model answers: what would change its answers, by name.
type setup struct {
	Model string            `json:"model"`
	Setup map[string]string `json:"setup"`
}

// keepSetup notes how a model answers, so that the answers of one model are never those of two.
func (f *Folder) keepSetup(s setup, answered bool) error {
	path := f.join(modelFile)
	models, err := readSetups(path)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(models, func(m setup) bool { return m.Model == s.Model })
	switch {
	case i < 0:
		models = append(models, s)
	case maps.Equal(models[i].Setup, s.Setup):
		return nil
	case answered:
		return fmt.Errorf("%s: has answered already, %s; give the model another name, choose another folder, or "+
			"remove the model's answers and the judgments of them",
			s.Model, difference(models[i].Setup, s.Setup))
	default:
		models[i] = s
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	if err := e.Encode(models); err != nil {
		return err
	}
	return durable.WriteFile(path, text.Bytes(), 0o666)
}

// readSetups gives the models in the order in which they began to answer.
func readSetups(path string) (models []setup, err error) {
	data, err := durable.ReadFile(path, largestFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &models); err != nil {
		return nil, fmt.Errorf("%s: is damaged: %w; mend or remove it", path, err)
	}
	return models, nil
}

func difference(before, now map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(merged(before, now))) {
		if before[name] != now[name] {
			parts = append(parts, fmt.Sprintf("with %s %q instead of %q", name, before[name], now[name]))
		}
	}
	return strings.Join(parts, ", ")
}

func merged(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// fileName is a model's name as the name of a file. What could lead out of the folder, or what some file system
// refuses, is written as in a URL.
func fileName(name string) (string, error) {
	if name == "" {
		return "", errors.New("the model has no name")
	}
	var b strings.Builder
	for i, c := range []byte(name) {
		if strings.IndexByte(`/\:%*?"<>|`, c) >= 0 || c < ' ' || c == 0x7f || i == 0 && c == '.' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// modelName is the reverse of fileName.
func modelName(file string) string {
	name, err := url.PathUnescape(file)
	if err != nil {
		return file
	}
	return name
}
