package train

import (
	"path/filepath"
	"slices"
)

// Owner gives the folder of the run or sweep that keeps a file of its own at path, whether or not it is there yet; ""
// where there is none.
func Owner(path string) string {
	whole, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	dir, name := filepath.Dir(whole), filepath.Base(whole)
	for _, list := range []string{dir, filepath.Dir(dir)} {
		if run := filepath.Dir(list); filepath.Base(list) == checkpointFolder && keepsFiles(run) {
			return run
		}
	}
	if keepsFiles(dir) && slices.Contains(ownFiles, name) {
		return dir
	}
	return ""
}

// keepsFiles tells whether a folder is that of a run or sweep, also where what that begins with is damaged.
func keepsFiles(dir string) bool {
	return isRun(dir) || Begun(dir) && exists(filepath.Join(dir, MetricsFile))
}
