package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/veratune/veratune/internal/durable"
)

// What a run directory holds.
const (
	AdapterFile      = "adapter.gguf"  // after the last step, or that at which the run was ended, halted or interrupted
	BestFile         = "best.gguf"     // of the lowest held-out loss so far
	ConfigFile       = "config.json"   // all that the run was started with
	OptionsFile      = "config.yaml"   // Run.Options
	MetricsFile      = "metrics.jsonl" // a line for each step and each evaluation
	ChartFile        = "loss.svg"
	checkpointFolder = "checkpoints"
)

// folder is a run directory that this process alone uses.
type folder struct {
	path string
	lock *durable.Lock // nil in the processes of a group that do not write
}

// CheckFolder returns an error where a run could not begin in path, so that a caller can say so before it loads a model: the folder holds a run
// already and neither resume nor force is set, resume is set and there is none, or nothing can be written there. It leaves nothing behind.
func CheckFolder(path string, resume, force bool) error {
	if path == "" {
		return errors.New("run folder: want a name")
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	info, err := os.Stat(whole)
	switch {
	case resume && force:
		return errors.New("resume and force exclude each other: resume goes on with a run, force starts anew")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("run folder: %w", err)
	case err == nil && !info.IsDir():
		return fmt.Errorf("run folder %s: is a file; want a folder, which need not exist yet", path)
	case resume && !Begun(path):
		return fmt.Errorf("run folder %s: holds no run to resume", path)
	case !resume && !force && holdsRun(path):
		return fmt.Errorf("run folder %s: already holds a run; resume goes on with it, force starts anew and keeps it as %s.old-1", path, filepath.Base(whole))
	}
	if force && holdsRun(path) {
		if err := checkWritable(filepath.Dir(whole)); err != nil {
			return err
		}
	}
	return checkWritable(whole)
}

// checkWritable fails where nothing can be made in path, or, where path isn't there yet, in the folder that it would be made in.
func checkWritable(path string) error {
	place := path
	for !exists(place) && filepath.Dir(place) != place {
		place = filepath.Dir(place)
	}
	if err := durable.CheckWritable(place); err != nil {
		return fmt.Errorf("run folder %s: cannot be written: %w", path, err)
	}
	return nil
}

// Begun tells whether a folder holds a run that can be resumed.
func Begun(path string) bool { return exists(filepath.Join(path, ConfigFile)) }

func holdsRun(path string) bool {
	parts := []string{AdapterFile, BestFile, ConfigFile, MetricsFile, ChartFile, checkpointFolder, SweepFile}
	return slices.ContainsFunc(parts, func(name string) bool { return exists(filepath.Join(path, name)) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// openFolder locks a run directory.
func openFolder(path string) (*folder, error) {
	lock, err := durable.LockFolder(path)
	var held durable.Held
	switch {
	case errors.As(err, &held):
		return nil, fmt.Errorf("run folder %s: %w is training in it; wait for it, or choose another folder", path, held)
	case err != nil:
		return nil, fmt.Errorf("run folder: %w", err)
	}
	return &folder{path: path, lock: lock}, nil
}

// createFolder makes a run directory for a new run and locks it. A run that it holds is moved away as a whole, to the name returned.
func createFolder(path string) (f *folder, moved string, err error) {
	if holdsRun(path) {
		old, err := openFolder(path)
		if err != nil {
			return nil, "", err
		}
		defer old.close()
		if path, err = filepath.Abs(path); err != nil {
			return nil, "", err
		}
		if moved, err = freeName(path + ".old"); err != nil {
			return nil, "", err
		}
		if err := os.Rename(path, moved); err != nil {
			return nil, "", fmt.Errorf("move the old run away: %w", err)
		}
		old.lock.Moved(moved)
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, moved, fmt.Errorf("run folder: %w", err)
	}
	f, err = openFolder(path)
	return f, moved, err
}

func (f *folder) close() {
	if f.lock != nil {
		f.lock.Close()
	}
}

func (f *folder) join(name string) string { return filepath.Join(f.path, name) }

// freeName is the first of prefix-1, prefix-2 … that nothing has.
func freeName(prefix string) (string, error) {
	for i := 1; i < 1e6; i++ {
		if name := fmt.Sprintf("%s-%d", prefix, i); !exists(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s-1 and all that follow are taken; remove some", prefix)
}
