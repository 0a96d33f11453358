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
	if up := filepath.Dir(dir); filepath.Base(up) == checkpointFolder && isRun(filepath.Dir(up)) {
		return filepath.Dir(up)
	}
	switch {
	case isRun(dir) && slices.Contains([]string{AdapterFile, BestFile, ConfigFile, OptionsFile, MetricsFile, ChartFile, checkpointFolder}, name),
		exists(filepath.Join(dir, SweepFile)) && slices.Contains([]string{SweepFile, SweepPlot, SweepBest}, name):
		return dir
	}
	return ""
}

// isRun tells whether a folder is a run's. Other programs have a config.json, too.
func isRun(dir string) bool {
	return Begun(dir) && (exists(filepath.Join(dir, MetricsFile)) || exists(filepath.Join(dir, checkpointFolder)))
}
