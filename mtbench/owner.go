package mtbench

import (
	"os"
	"path/filepath"
	"slices"
)

// Owner gives the evaluation folder that keeps a file of its own at path; "" where there is none.
func Owner(path string) string {
	whole, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	dir := filepath.Dir(whole)
	name := filepath.Base(whole)
	if slices.Contains([]string{answerFolder, judgmentFolder}, filepath.Base(dir)) {
		dir, name = filepath.Dir(dir), questionFile
	}
	if _, err := os.Stat(filepath.Join(dir, questionFile)); err != nil || name != questionFile && name != modelFile {
		return ""
	}
	return dir
}
