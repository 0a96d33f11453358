// Package testutil finds the reference data and the real model that some tests need, and writes tiny random models for
// the others.
package testutil

import (
	"cmp"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// fromRoot makes a path absolute. Tests run in the folder of their package; a person who sets a variable means the
// folder of the repository.
func fromRoot(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", path)
}

// Shared gives the folders or files under the shared folder (environment variable VERATUNE_SHARED, default ../shared
// beside the repository) that match one of these patterns, and skips the test where there is none.
func Shared(t testing.TB, patterns ...string) []string {
	t.Helper()
	base := os.Getenv("VERATUNE_SHARED")
	if base == "" {
		base = "../shared"
	}
	under := make([]string, len(patterns))
	for i, p := range patterns {
		under[i] = filepath.Join(base, p)
	}
	return globbed(t, "VERATUNE_SHARED", under)
}

// Folders gives the folders that the environment variable lists (colon-separated, patterns allowed), or else those
// under the shared folder that match one of these patterns, and skips the test where there is none.
func Folders(t testing.TB, variable string, patterns ...string) []string {
	t.Helper()
	if list := os.Getenv(variable); list != "" {
		return globbed(t, variable, filepath.SplitList(list))
	}
	return Shared(t, patterns...)
}

// Architectures gives the folders with references of architectures, of which VERATUNE_ARCH may list others.
func Architectures(t testing.TB) []string {
	t.Helper()
	return Folders(t, "VERATUNE_ARCH", "refs/arch/*", "refs/arch-2026/*")
}

func globbed(t testing.TB, variable string, patterns []string) []string {
	t.Helper()
	var found []string
	for _, p := range patterns {
		matches, err := filepath.Glob(fromRoot(p))
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		found = append(found, matches...)
	}
	if len(found) == 0 {
		t.Skipf("no reference data at %s; set %s", strings.Join(patterns, ", "), variable)
	}
	return found
}

// Python gives the interpreter of the scripts in tools: environment variable PYTHON, or the one that
// tools/requirements.txt is installed for. It skips the test where there is none.
func Python(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("PYTHON"); path != "" {
		return path
	}
	path := fromRoot(".tools/venv/bin/python")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no Python at %s: see tools/requirements.txt, or set PYTHON", path)
	}
	return path
}

// SmolLM2 gives the path of the real 4-bit model: environment variable VERATUNE_MODEL, or what `make model` fetched. It
// skips the test where the model is not there.
func SmolLM2(t testing.TB) string {
	t.Helper()
	return fetched(t, "VERATUNE_MODEL", "models/SmolLM2-135M-Instruct.Q4_1.gguf", "make model")
}

// Gemma is SmolLM2 for Gemma 3 270M, with VERATUNE_GEMMA and `make gemma`.
func Gemma(t testing.TB) string {
	t.Helper()
	return fetched(t, "VERATUNE_GEMMA", "models/gemma-3-270m.Q4_K_M.gguf", "make gemma")
}

func fetched(t testing.TB, variable, path, command string) string {
	t.Helper()
	path = fromRoot(cmp.Or(os.Getenv(variable), path))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no model at %s: run `%s` or set %s", path, command, variable)
	}
	return path
}
