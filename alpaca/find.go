package alpaca

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// kinds are the ends of names of files of rows, which ".gz" or ".zst" may follow.
var kinds = []string{".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"}

// Find gives the files that are named, each with the weight of its name: a file; of a folder, those in it that are
// called as files of rows are; those that match a pattern such as "data/*.jsonl"; or several of all these, with commas
// between them. What is in the folders besides is skipped.
func Find(named []Part) (files []Part, skipped []string, err error) {
	for _, p := range named {
		found, left, err := find(p)
		if err != nil {
			return nil, nil, err
		}
		files, skipped = append(files, found...), append(skipped, left...)
	}
	return files, skipped, nil
}

func find(p Part) (files []Part, skipped []string, err error) {
	info, err := os.Stat(p.Path)
	switch {
	case err == nil && info.IsDir():
		return inFolder(p)
	case err == nil:
		return []Part{p}, nil, nil
	case strings.ContainsAny(p.Path, "*?[{"):
		return matching(p)
	case strings.Contains(p.Path, ","):
		var named []Part
		for word := range strings.SplitSeq(p.String(), ",") {
			one, err := ParsePart(strings.TrimSpace(word))
			if err != nil {
				return nil, nil, err
			}
			named = append(named, one)
		}
		return Find(named)
	}
	return []Part{p}, nil, nil // whoever opens it says why that can't be
}

func inFolder(p Part) (files []Part, skipped []string, err error) {
	entries, err := os.ReadDir(p.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("reading data: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(p.Path, e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && ofRows(e.Name()) {
			files = append(files, Part{path, p.Weight})
		} else {
			skipped = append(skipped, path)
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("data %s: no file in this folder is called as data are: %s, with .gz or .zst "+
			"behind it or not", p.Path, strings.Join(kinds, ", "))
	}
	return files, skipped, nil
}

func matching(p Part) (files []Part, skipped []string, err error) {
	paths, err := doublestar.FilepathGlob(p.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("data %q: is no pattern: a bracket in it has no end", p.Path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			skipped = append(skipped, path)
		} else {
			files = append(files, Part{path, p.Weight})
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("data %q: no file matches", p.Path)
	}
	return files, skipped, nil
}

// ofRows tells whether a file is called as one of rows.
func ofRows(name string) bool {
	name = strings.ToLower(name)
	for _, packed := range []string{".gz", ".zst"} {
		name = strings.TrimSuffix(name, packed)
	}
	return slices.Contains(kinds, filepath.Ext(name))
}
