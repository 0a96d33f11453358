package train

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/veratune/veratune/internal/durable"
)

// A checkpoint is the folder checkpoints/step-N of a run: the adapter after N steps, usable as any other, and the state
// to go on from.
const stateFile = "state"

// Folders that begin so were not finished when the process ended; they may be removed.
const unfinished = ".unfinished-"

func (f *folder) checkpoint(step int) string {
	return filepath.Join(f.path, checkpointFolder, fmt.Sprintf("step-%d", step))
}

// checkpoints lists the steps that there is a checkpoint of, newest first.
func (f *folder) checkpoints() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(f.path, checkpointFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list checkpoints: %w", err)
	}
	var steps []int
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "step-")
		if step, err := strconv.Atoi(digits); ok && err == nil && e.IsDir() &&
			e.Name() == filepath.Base(f.checkpoint(step)) {
			steps = append(steps, step)
		}
	}
	slices.SortFunc(steps, func(a, b int) int { return cmp.Compare(b, a) })
	return steps, nil
}

// Checkpoint is a state of a run that it can go on from, as far as others than the run look at it.
type Checkpoint struct {
	Step    int       // updates made
	Adapter string    // path of the adapter after them
	Made    time.Time // when
}

// Checkpoints lists those of a run, newest first.
func Checkpoints(run string) (list []Checkpoint, err error) {
	f := folder{path: run}
	steps, err := f.checkpoints()
	for _, step := range steps {
		adapter := filepath.Join(f.checkpoint(step), AdapterFile)
		if info, err := os.Stat(adapter); err == nil { // else it is being removed
			list = append(list, Checkpoint{step, adapter, info.ModTime()})
		}
	}
	return list, err
}

// lastBefore names the newest checkpoint of an earlier step; "" where there is none.
func (f *folder) lastBefore(step int) string {
	steps, _ := f.checkpoints()
	for _, s := range steps {
		if s < step {
			return f.checkpoint(s)
		}
	}
	return ""
}

// saveCheckpoint writes a checkpoint under another name and renames it when it is complete on the disk. Then it removes
// all but the newest keep, and the last good one. A failure leaves nothing behind. lines are those of the metrics so
// far.
func (f *folder) saveCheckpoint(s *state, saveAdapter func(path string) error, lines []byte, keep int) error {
	place := f.checkpoint(s.Step)
	draft := filepath.Join(filepath.Dir(place), unfinished+filepath.Base(place))
	err := os.RemoveAll(draft)
	// the run's folder is not made again where it was taken away
	for _, dir := range []string{filepath.Dir(place), draft} {
		if mkdirErr := os.Mkdir(dir, 0o777); !errors.Is(mkdirErr, fs.ErrExist) {
			err = errors.Join(err, mkdirErr)
		}
	}
	if err == nil {
		err = writeCheckpoint(draft, s, saveAdapter, lines)
	}
	if err == nil {
		err = replace(place, draft)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(draft))
	}
	return f.prune(keep, s.Good)
}

// writeCheckpoint writes the files of a checkpoint into a folder.
func writeCheckpoint(folder string, s *state, saveAdapter func(path string) error, lines []byte) error {
	adapter := filepath.Join(folder, AdapterFile)
	if err := saveAdapter(adapter); err != nil {
		return err
	}
	var err error
	if s.AdapterSHA256, err = fileSHA256(adapter); err != nil {
		return err
	}
	data, err := s.encode()
	if err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(folder, stateFile), data); err != nil {
		return err
	}
	if err := writeSynced(filepath.Join(folder, MetricsFile), lines); err != nil {
		return err
	}
	return durable.SyncFolder(folder)
}

// replace renames a checkpoint's draft to its place. An older one of this step is there if its evaluation had been
// interrupted.
func replace(place, draft string) error {
	if !exists(place) {
		return errors.Join(durable.Rename(draft, place), durable.SyncFolder(filepath.Dir(place)))
	}
	gone := goneName(place)
	if err := errors.Join(os.RemoveAll(gone), durable.Rename(place, gone)); err != nil {
		return err
	}
	if err := durable.Rename(draft, place); err != nil {
		return errors.Join(err, durable.Rename(gone, place))
	}
	return errors.Join(os.RemoveAll(gone), durable.SyncFolder(filepath.Dir(place)))
}

// prune removes all checkpoints but the newest keep and that of the step good.
func (f *folder) prune(keep, good int) error {
	steps, err := f.checkpoints()
	if err != nil {
		return err
	}
	for _, step := range steps[min(keep, len(steps)):] {
		if step == good {
			continue
		}
		if err := discard(f.checkpoint(step)); err != nil && !durable.InUse(err) { // else the next one removes it
			return err
		}
	}
	return nil
}

// discard renames a checkpoint before it removes it, so that a half-removed one does not count.
func discard(place string) error {
	gone := goneName(place)
	return errors.Join(os.RemoveAll(gone), durable.Rename(place, gone), os.RemoveAll(gone))
}

func goneName(place string) string {
	return filepath.Join(filepath.Dir(place), unfinished+"old-"+filepath.Base(place))
}

// restore gives the state of the newest checkpoint that is whole, or nil. It renames damaged ones to damaged-step-N,
// and tells warn.
func (f *folder) restore(params int, fits func(*state) error, warn func(format string, args ...any)) (*state, error) {
	if err := f.sweep(); err != nil {
		return nil, err
	}
	steps, err := f.checkpoints()
	if err != nil {
		return nil, err
	}
	for _, step := range steps {
		s, err := readCheckpoint(f.checkpoint(step), params)
		if err == nil && s.Step != step {
			err = fmt.Errorf("it is the state after %d steps", s.Step)
		}
		if err == nil {
			err = fits(s)
		}
		if err == nil {
			return s, nil
		}
		aside, asideErr := setAside(f.checkpoint(step))
		if asideErr != nil {
			return nil, asideErr
		}
		warn("warning: checkpoint %s is damaged and now named %s: %v", f.checkpoint(step), filepath.Base(aside), err)
	}
	return nil, nil
}

// sweep removes what a killed process left half written or half removed.
func (f *folder) sweep() error {
	parent := f.join(checkpointFolder)
	entries, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), unfinished) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readCheckpoint(path string, params int) (*state, error) {
	data, err := durable.ReadFile(filepath.Join(path, stateFile), maxState(params))
	if err != nil {
		return nil, err
	}
	s, err := decodeState(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", stateFile, err)
	}
	if info, err := os.Stat(filepath.Join(path, AdapterFile)); err == nil && info.Size() > maxAdapter(params) {
		return nil, fmt.Errorf("%s: is too large to be that of this training", AdapterFile)
	}
	sum, err := fileSHA256(filepath.Join(path, AdapterFile))
	if err != nil {
		return nil, err
	}
	if sum != s.AdapterSHA256 {
		return nil, fmt.Errorf("%s: the checksum is wrong", AdapterFile)
	}
	return s, nil
}

// setAside renames a damaged checkpoint, so that it does not count and is not lost.
func setAside(path string) (string, error) {
	aside, err := freeName(filepath.Join(filepath.Dir(path), "damaged-"+filepath.Base(path)))
	if err != nil {
		return "", err
	}
	return aside, durable.Rename(path, aside)
}

func fileSHA256(path string) (string, error) {
	file, _, err := durable.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func writeSynced(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}
