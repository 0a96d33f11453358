package mtbench

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/veratune/veratune/internal/durable"
)

// row is what a line of an evaluation's files holds.
type row interface {
	Answer | Single | Pair
	key() key
	check() error
}

// key is what a row is about; a file holds one row for each.
type key struct {
	question, turn, repeat int
	model1, model2         string
}

func (a Answer) key() key { return key{question: a.QuestionID} }
func (s Single) key() key { return key{s.QuestionID, s.Turn, s.Repeat, s.Model, ""} }
func (p Pair) key() key   { return key{p.QuestionID, p.Turn, p.Repeat, p.Model1, p.Model2} }

func (a Answer) check() error {
	if len(a.Choices) == 0 || len(a.Choices[0].Turns) != Turns {
		return fmt.Errorf("no answer of %d turns", Turns)
	}
	return nil
}

func (s Single) check() error { return checkTurn(s.Turn) }

func (p Pair) check() error {
	for _, winner := range []string{p.G1Winner, p.G2Winner} {
		if !slices.Contains([]string{model1, model2, tie, unreadable}, winner) {
			return fmt.Errorf("winner %q: %s, %s, %s or %s", winner, model1, model2, tie, unreadable)
		}
	}
	return checkTurn(p.Turn)
}

func checkTurn(turn int) error {
	if turn < 1 || turn > Turns {
		return fmt.Errorf("turn %d: from 1 to %d", turn, Turns)
	}
	return nil
}

// lines are the rows of a file, in its order and with the bytes they have there.
type lines[R row] struct {
	rows []R
	text [][]byte // without the newline
	size int      // of the file up to the last whole line
}

// Sizes beyond which a file is not read: of rows that grow, and of all others.
const (
	largestTable = 1 << 30
	largestFile  = 64 << 20
)

// readLines reads a file of rows; one that is not there has none. What a kill left of a last line is no part of it.
func readLines[R row](path string) (l lines[R], err error) {
	data, err := durable.ReadFile(path, largestTable)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text, whole := bytes.CutSuffix(line, []byte("\n"))
		if text = bytes.TrimSpace(text); len(text) > 0 {
			var r R
			err := json.Unmarshal(text, &r)
			if err == nil {
				err = r.check()
			}
			if err != nil && whole {
				return l, fmt.Errorf("%s: line %d is damaged: %w; mend or remove it", path, number, err)
			}
			if err != nil {
				break
			}
			l.rows, l.text = append(l.rows, r), append(l.text, text)
		}
		l.size += len(line)
	}
	return l, nil
}

// table is a file of rows that grows by each row as soon as there is one, so that whatever ends the process takes
// nothing that is done. It is safe for concurrent use.
type table[R row] struct {
	path string
	lock *durable.Lock // of the folder that it is in
	mu   sync.Mutex
	file *os.File
	size int64
	rows map[key]R
	text map[key][]byte
}

// openTable opens a file of rows to add to, and makes it where it isn't there. Of rows about the same the last counts,
// as in FastChat.
func openTable[R row](lock *durable.Lock, path string) (*table[R], error) {
	l, err := readLines[R](path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	t := &table[R]{path: path, lock: lock, size: int64(l.size), rows: map[key]R{}, text: map[key][]byte{}}
	for i, r := range l.rows {
		t.rows[r.key()], t.text[r.key()] = r, l.text[i]
	}
	if t.file, err = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o666); err != nil {
		return nil, err
	}
	if err := t.mend(); err != nil {
		t.file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// mend cuts off what a kill left of a last line, and ends the last line where only that is missing.
func (t *table[R]) mend() error {
	if err := t.file.Truncate(t.size); err != nil || t.size == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := t.file.ReadAt(last, t.size-1); err != nil || last[0] == '\n' {
		return err
	}
	return t.write([]byte("\n"))
}

// add appends a row and has it on disk when it returns.
func (t *table[R]) add(r R) error {
	text, err := encode(r)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.lock.Check(); err != nil {
		return hopeless{fmt.Errorf("the folder of %s %w while it was in use; where it was renamed, go on with --out "+
			"and its new name", t.path, err)}
	}
	if err := t.write(text); err != nil {
		return hopeless{fmt.Errorf("%s: %w", t.path, err)}
	}
	t.rows[r.key()], t.text[r.key()] = r, bytes.TrimSuffix(text, []byte("\n"))
	return nil
}

// write appends all of the text or, as on a full disk, nothing.
func (t *table[R]) write(text []byte) error {
	_, err := t.file.Write(text)
	if err == nil {
		err = t.file.Sync()
	}
	if err != nil {
		return errors.Join(err, t.file.Truncate(t.size))
	}
	t.size += int64(len(text))
	return nil
}

// finish closes the file and rewrites it in the order of the questions, which does not depend on when each row was
// made, and gives err on.
func (t *table[R]) finish(questions []Question, err error) error {
	return errors.Join(err, t.file.Close(), t.sort(questions))
}

func (t *table[R]) sort(questions []Question) error {
	var sorted []byte
	for _, k := range sortedKeys(t.text, questions) {
		sorted = append(append(sorted, t.text[k]...), '\n')
	}
	if err := t.lock.Check(); err != nil {
		return fmt.Errorf("the folder of %s %w", t.path, err)
	}
	if now, err := durable.ReadFile(t.path, largestTable); err == nil && bytes.Equal(now, sorted) {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.WriteFile(t.path, sorted, 0o666)
}

// sortedKeys gives keys in the order of the questions, then of turns, repeats and models.
func sortedKeys[V any](rows map[key]V, questions []Question) []key {
	position := map[int]int{}
	for i, q := range questions {
		position[q.ID] = i + 1
	}
	place := func(k key) int { return cmp.Or(position[k.question], len(questions)+1) }
	return slices.SortedFunc(maps.Keys(rows), func(a, b key) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.question, b.question), cmp.Compare(a.turn, b.turn),
			cmp.Compare(a.repeat, b.repeat),
			cmp.Compare(a.model1, b.model1), cmp.Compare(a.model2, b.model2))
	})
}

// encode gives a line as FastChat writes it: readable, with no escapes for HTML.
func encode(v any) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return text.Bytes(), err
}
