package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestImportsChangeNothing: only the package that is there for it changes the process when a program starts.
func TestImportsChangeNothing(t *testing.T) {
	const exception = "bindings/onearena"
	begins := regexp.MustCompile(`(?m)^func init\(\)|__attribute__\(\(constructor\)\)|\bmallopt *\(|^var _ = os\.Setenv`)
	known := map[string]string{
		"bindings/bindings.go": "func init()", // takes ggml's log off the terminal, where an import of ggml has put it
	}
	root := filepath.Join("..", "..")
	found := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), ".") {
			return filepath.SkipDir
		}
		switch filepath.Ext(path) {
		case ".go", ".c", ".cpp", ".h", ".cu":
		default:
			return nil
		}
		name, _ := filepath.Rel(root, path)
		text, err := os.ReadFile(path)
		if err != nil || strings.HasSuffix(name, "_test.go") {
			return err
		}
		for _, match := range begins.FindAllString(string(text), -1) {
			switch {
			case strings.HasPrefix(filepath.ToSlash(name), exception+"/"):
				found++
			case known[filepath.ToSlash(name)] != match:
				t.Errorf("%s has %s; only %s may change the process", name, match, exception)
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%v; %d places in %s", err, found, exception)
	}
	for name, rule := range allowed {
		if within(rule, exception) && name != "cmd/veratune" {
			t.Errorf("%s may import %s, which is for programs", name, exception)
		}
	}
}
