package train

import (
	"encoding/json"
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

// ownFiles are all files and folders that runs and sweeps make, but for a sweep's runs.
var ownFiles = []string{AdapterFile, BestFile, ConfigFile, OptionsFile, MetricsFile, ChartFile, checkpointFolder,
	SweepFile, SweepPlot, SweepBest}

// folder is a run directory that this process alone uses.
type folder struct {
	path string
	lock *durable.Lock // nil in the processes of a group that do not write
}

// CheckFolder fails where a run could not begin in path, before a model is loaded: the folder holds a run and neither
// resume nor force is set; resume is set and there is none; or nothing can be written there. With force it also fails
// where what would be renamed is no run, or holds the current folder or one of the inputs, files that the run reads. It
// leaves nothing behind.
func CheckFolder(path string, resume, force bool, inputs ...string) error {
	if path == "" {
		return errors.New("run folder: want a name")
	}
	whole, err := realPath(path)
	if err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	info, err := os.Stat(whole)
	switch {
	case resume && force:
		return errors.New("--resume and --force: give one of them")
	case err != nil && !errors.Is(err, fs.ErrNotExist), err == nil && !info.IsDir():
		return checkWritable(path)
	case resume && !Begun(path):
		return fmt.Errorf("run folder %s: holds no run to resume", path)
	case !resume && holdsRun(path) && !isRun(path):
		return fmt.Errorf("run folder %s: holds %s, a name that runs use, and is no run folder, so that nothing in "+
			"it is replaced or renamed; choose another --out", path, runFiles(path)[0])
	case !resume && !force && holdsRun(path):
		return fmt.Errorf("run folder %s: already holds a run; --resume goes on with it, --force starts anew and "+
			"keeps it as %s.old-1", path, filepath.Base(whole))
	}
	if force && holdsRun(path) {
		if inside(whole, ".") {
			return fmt.Errorf("run folder %s: is where you are, or holds that folder, and is not renamed for "+
				"--force; choose another --out, or give the command from elsewhere", path)
		}
		for _, input := range inputs {
			if inside(whole, input) {
				return fmt.Errorf("run folder %s: holds %s, which this command reads, and is not renamed for "+
					"--force; choose another --out, or move that file", path, input)
			}
		}
		if err := checkWritable(filepath.Dir(whole)); err != nil {
			return err
		}
	}
	return checkWritable(whole)
}

// inside tells whether path is a folder or in it, by its name or by what its links lead to.
func inside(folder, path string) bool {
	top, err := os.Stat(folder)
	if err != nil {
		return false
	}
	path, err = filepath.Abs(path)
	if err != nil || !exists(path) {
		return false
	}
	places := []string{path}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		places = append(places, real)
	}
	return slices.ContainsFunc(places, func(place string) bool {
		for {
			if info, err := os.Stat(place); err == nil && os.SameFile(info, top) {
				return true
			}
			parent := filepath.Dir(place)
			if parent == place {
				return false
			}
			place = parent
		}
	})
}

// checkWritable fails where nothing can be made in path, or, where path isn't there yet, in the folder that it would be
// made in.
func checkWritable(path string) error {
	if err := durable.CheckFolder(path); err != nil {
		return fmt.Errorf("run folder %w", err)
	}
	return nil
}

// Begun tells whether a folder holds a run that can be resumed.
func Begun(path string) bool { return exists(filepath.Join(path, ConfigFile)) }

func holdsRun(path string) bool { return len(runFiles(path)) > 0 }

// runFiles lists what a folder holds of what runs and sweeps write.
func runFiles(path string) []string {
	return slices.DeleteFunc(slices.Clone(ownFiles), func(name string) bool {
		return !exists(filepath.Join(path, name))
	})
}

// isRun tells whether a folder is that of a run or sweep, by what the file says that those begin with. Other programs
// have a config.json, too.
func isRun(path string) bool {
	for file, keys := range map[string][]string{ConfigFile: {"train", "data"}, SweepFile: {"setup", "trials"}} {
		var content map[string]json.RawMessage
		data, err := durable.ReadFile(filepath.Join(path, file), MaxConfig)
		if err == nil && json.Unmarshal(data, &content) == nil && content[keys[0]] != nil && content[keys[1]] != nil {
			return true
		}
	}
	return false
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

// createFolder makes and locks a run directory for a new run. It moves a run that is there to the name returned.
func createFolder(path string) (f *folder, moved string, err error) {
	if holdsRun(path) {
		old, err := openFolder(path)
		if err != nil {
			return nil, "", err
		}
		defer old.close()
		if err := old.sweep(); err != nil {
			return nil, "", err
		}
		place, err := realPath(path)
		if err != nil {
			return nil, "", err
		}
		if moved, err = freeName(place + ".old"); err != nil {
			return nil, "", err
		}
		if err := old.lock.Rename(place, moved); err != nil {
			return nil, "", fmt.Errorf("move the old run away: %w", err)
		}
		path = place // to which a link may lead
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, moved, fmt.Errorf("run folder: %w", err)
	}
	f, err = openFolder(path)
	return f, moved, err
}

// check fails where the folder is gone, so that nobody trains for nothing.
func (f *folder) check() error {
	if err := f.lock.Check(); err != nil {
		return fmt.Errorf("run folder %s: %w while it was in use; what was saved there before is all there is: where "+
			"it was renamed, go on with --out and its new name and --resume", f.path, err)
	}
	return nil
}

func (f *folder) close() {
	if f.lock != nil {
		f.lock.Close()
	}
}

func (f *folder) join(name string) string { return filepath.Join(f.path, name) }

// realPath is the absolute path of a folder, without links if it exists: so a link to a run stays when the run is
// renamed.
func realPath(path string) (string, error) {
	whole, err := filepath.Abs(path)
	if real, linkErr := filepath.EvalSymlinks(whole); linkErr == nil {
		return real, nil
	}
	return whole, err
}

// freeName is the first of prefix-1, prefix-2 … that nothing has.
func freeName(prefix string) (string, error) {
	for i := 1; i < 1e6; i++ {
		if name := fmt.Sprintf("%s-%d", prefix, i); !exists(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("%s-1 and all that follow are taken; remove some", prefix)
}
