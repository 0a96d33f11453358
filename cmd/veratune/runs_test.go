package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// steps are those that a run has checkpoints of.
func steps(t *testing.T, run string) (list []int) {
	t.Helper()
	folders, err := filepath.Glob(filepath.Join(run, "checkpoints", "step-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(f), "step-"))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, n)
	}
	return list
}

func newest(steps []int) int {
	most := 0
	for _, s := range steps {
		most = max(most, s)
	}
	return most
}
