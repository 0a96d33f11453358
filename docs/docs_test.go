// Package docs holds the documents; its tests hold what they say of each other and of the code.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/veratune/veratune/internal/testutil"
)

// TestReadmeLength counts words as wc does, the bars of tables among them.
func TestReadmeLength(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(strings.Fields(string(text))); n > 900 {
		t.Errorf("README.md has %d words, 900 at most: move what is too much to docs/guide", n)
	}
}

// TestGuidesBegin checks that a guide is its title and then a command.
func TestGuidesBegin(t *testing.T) {
	for path, text := range testutil.Documents(t, "..") {
		if filepath.Dir(path) == filepath.Join("..", "docs", "guide") &&
			!regexp.MustCompile("^# .+\n\n```sh\nbin/veratune ").MatchString(text) {
			t.Errorf("%s does not begin with a command", path)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks checks that the files and headings that documents link to exist.
func TestLinks(t *testing.T) {
	all := testutil.Documents(t, "..")
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(outsideCode(text), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, heading, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", path, m[1])
			} else if heading != "" && !headings(all[target])[heading] {
				t.Errorf("%s links to %s: there is no such heading", path, m[1])
			}
		}
	}
}

var (
	fence    = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan = regexp.MustCompile("`[^`\n]+`")
)

func outsideCode(text string) string {
	return codeSpan.ReplaceAllStringFunc(fence.ReplaceAllString(text, ""), func(span string) string {
		return strings.Repeat("x", len(span))
	})
}

// headings are the anchors that GitHub gives a page's headings.
func headings(text string) map[string]bool {
	anchors := map[string]bool{}
	for line := range strings.Lines(fence.ReplaceAllString(text, "")) {
		title, is := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !is || !strings.HasPrefix(line, "#") {
			continue
		}
		anchors[strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(title))] = true
	}
	return anchors
}

// named is a file of the repository in a span of code, perhaps with what is in it: `model/step.go:begin`.
var named = regexp.MustCompile(
	"`([A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*\\.(?:go|hpp|h|cpp|cu|py|sh|md|mod|yml))(?::([A-Za-z0-9_]+))?`")

// TestNames checks that the files, functions and types that design.md and CONTRIBUTING.md name exist.
func TestNames(t *testing.T) {
	all := testutil.Documents(t, "..")
	for _, path := range []string{"../docs/design.md", "../docs/architectures.md", "../CONTRIBUTING.md"} {
		found := 0
		for _, m := range named.FindAllStringSubmatch(all[path], -1) {
			file, name := m[1], m[2]
			if !strings.Contains(file, "/") && name == "" {
				continue // of a reference, or another program's
			}
			text, err := os.ReadFile(filepath.Join("..", file))
			if err != nil && strings.Contains(file, "NAME") {
				continue
			}
			if err != nil {
				t.Errorf("%s names %s, which is not there", path, file)
				continue
			}
			declared := `\b` + name + `\b`
			if filepath.Ext(file) == ".go" {
				declared = `(?m)^(func (\([^)]*\) )?|type |var |const |\t)` + name + `\b`
			}
			if name != "" && !regexp.MustCompile(declared).Match(text) {
				t.Errorf("%s names %s in %s: it is not there", path, name, file)
			}
			found++
		}
		if found == 0 {
			t.Errorf("%s names no file", path)
		}
	}
}

// TestPackages checks that design.md lists the folders of the repository that have Go files, and no others.
func TestPackages(t *testing.T) {
	text, err := os.ReadFile("design.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^    ([a-z/]+)/ {2,}`).FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = true
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("design.md lists %s, which is not there", m[1])
		}
	}
	files, err := filepath.Glob("../*/*.go")
	inside, insideErr := filepath.Glob("../internal/*/*.go")
	if err != nil || insideErr != nil || len(files) == 0 {
		t.Fatal(err, insideErr)
	}
	for _, file := range append(files, inside...) {
		if folder := filepath.Dir(file)[len("../"):]; !listed[folder] {
			listed[folder] = true
			t.Errorf("design.md does not list the package %s", folder)
		}
	}
}
