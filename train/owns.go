package train

import (
	"path/filepath"
	"slices"
)

// Owner gives the folder of the run or sweep that keeps a file of its own at path, whether or not it is there yet; "" where there is none.
func Owner(path string) string {
	whole, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	dir, name := filepath.Split(whole)
	dir = filepath.Clean(dir)
	if up := filepath.Dir(dir); filepath.Base(up) == checkpointFolder && keepsFiles(filepath.Dir(up)) {
		return filepath.Dir(up)
	}
	names := []string{AdapterFile, BestFile, ConfigFile, OptionsFile, MetricsFile, ChartFile, checkpointFolder, SweepFile, SweepPlot, SweepBest}
	if keepsFiles(dir) && slices.Contains(names, name) {
		return dir
	}
	return ""
}

// keepsFiles tells whether a folder is that of a run or sweep, also where what that begins with is damaged.
func keepsFiles(dir string) bool {
	return isRun(dir) || Begun(dir) && exists(filepath.Join(dir, MetricsFile))
}
