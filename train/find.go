package train

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/vera"
)

// FindAdapter gives the adapter in a folder, and says which it is: of a run, the best one, else the last, else that of
// the newest checkpoint; of a sweep, that of its best run.
func FindAdapter(path string) (adapter, which string, err error) {
	if exists(filepath.Join(path, SweepFile)) {
		return bestOfSweep(path)
	}
	f := folder{path: path}
	if best := f.join(BestFile); exists(best) {
		step, _, err := stepOf(best)
		return best, fmt.Sprintf("step %d, the lowest held-out loss", step), err
	}
	newest := -1
	steps, err := f.checkpoints()
	if err != nil {
		return "", "", err
	}
	if len(steps) > 0 {
		newest = steps[0]
	}
	if last := f.join(AdapterFile); exists(last) {
		step, cut, err := stepOf(last)
		switch {
		case err != nil:
			return "", "", err
		case step >= newest && cut:
			return last, fmt.Sprintf("step %d, where training was interrupted", step), nil
		case step >= newest:
			return last, fmt.Sprintf("step %d, the last", step), nil
		}
	}
	if newest >= 0 {
		return filepath.Join(f.checkpoint(newest), AdapterFile), fmt.Sprintf("step %d, the newest checkpoint", newest),
			nil
	}
	return "", "", noAdapter(path)
}

// stepOf says after how many steps an adapter was written, and whether an interruption had it written.
func stepOf(adapter string) (step int, cut bool, err error) {
	facts, err := vera.FileFacts(adapter)
	if err != nil {
		return 0, false, fmt.Errorf("adapter %s: %w", adapter, err)
	}
	step, _ = strconv.Atoi(facts["steps"])
	return step, facts[factInterrupted] != "", nil
}

func bestOfSweep(path string) (adapter, which string, err error) {
	var now Sweeping
	data, err := durable.ReadFile(filepath.Join(path, SweepFile), MaxConfig)
	if err == nil {
		err = json.Unmarshal(data, &now)
	}
	switch {
	case err != nil:
		return "", "", fmt.Errorf("sweep %s: %w", path, err)
	case now.Best == nil:
		return "", "", fmt.Errorf("sweep %s: has no best run; name one of those in %s", path,
			filepath.Join(path, sweepRuns))
	}
	adapter, which, err = FindAdapter(filepath.Join(path, sweepRuns, filepath.Base(now.Best.Run)))
	return adapter, which + ", of the sweep's best run: " + now.Best.Name(), err
}

// noAdapter says what a folder without an adapter is.
func noAdapter(path string) error {
	runs, err := FindRuns(path)
	switch {
	case err != nil:
		return fmt.Errorf("%s: is no run, and holds none; want an adapter file, a run folder or a folder of PEFT", path)
	case runs[0] == path:
		return fmt.Errorf("run %s: has no adapter yet; the first checkpoint makes one", path)
	}
	const shown = 5
	names := strings.Join(runs[:min(shown, len(runs))], ", ")
	if len(runs) > shown {
		names += fmt.Sprintf(" and %d more", len(runs)-shown)
	}
	return fmt.Errorf("%s: is no run, but holds some; name one of them: %s", path, names)
}

// FindRuns gives the runs in a folder and the folders below it, by name; of a run, itself. It fails where there is
// none.
func FindRuns(path string) ([]string, error) {
	if Begun(path) {
		return []string{path}, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is no run: there is no such folder", path)
	case err == nil && !info.IsDir():
		return nil, fmt.Errorf("%s is no run: it is a file; name the folder", path)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return byNumber(a.Name(), b.Name()) })
	var runs []string
	for _, e := range entries {
		inside := filepath.Join(path, e.Name())
		isLink := e.Type()&fs.ModeSymlink != 0
		// other links may lead in a circle
		if strings.HasPrefix(e.Name(), ".") || !e.IsDir() && !(isLink && Begun(inside)) {
			continue
		}
		if below, err := FindRuns(inside); err == nil {
			runs = append(runs, below...)
		}
	}
	if len(runs) == 0 {
		return nil, fmt.Errorf("%s is no run, and holds none: neither it nor a folder in it has %s", path, ConfigFile)
	}
	return runs, nil
}

// byNumber orders names that are numbers, as those of a sweep's runs are, by their values, and before all others.
func byNumber(a, b string) int {
	x, xErr := strconv.Atoi(a)
	y, yErr := strconv.Atoi(b)
	switch {
	case xErr == nil && yErr == nil:
		return cmp.Compare(x, y)
	case xErr == nil:
		return -1
	case yErr == nil:
		return 1
	}
	return strings.Compare(a, b)
}
