package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/urfave/cli/v2"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/evaluate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/mtbench"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// TestNamesInJSON: what --json prints has names of one form in every command.
func TestNamesInJSON(t *testing.T) {
	form := regexp.MustCompile(`^[a-z][a-z0-9]*(_[A-Za-z0-9]+)*$`)
	seen := map[reflect.Type]bool{}
	var check func(kind reflect.Type)
	check = func(kind reflect.Type) {
		switch kind.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			check(kind.Elem())
			return
		}
		if kind.Kind() != reflect.Struct || seen[kind] || kind.Implements(reflect.TypeFor[json.Marshaler]()) {
			return
		}
		seen[kind] = true
		for i := range kind.NumField() {
			field := kind.Field(i)
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !field.IsExported() || name == "-" {
				continue
			}
			if !(field.Anonymous && name == "") && !form.MatchString(name) {
				t.Errorf("%v.%s is called %q", kind, field.Name, name)
			}
			check(field.Type)
		}
	}
	for _, printed := range []any{
		modelSummary{}, vera.Summary{}, evaluate.Loss{}, evaluate.Choices{}, generated{}, train.Report{},
		train.Sweeping{}, loraResult{}, mergedResult{}, generationLine{}, servingLine{},
		alpaca.Check{}, alpaca.Shown{}, model.Device{}, model.Memory{}, train.Speed{}, mtbench.Report{}, savedChat{},
	} {
		check(reflect.TypeOf(printed))
	}

	path := testutil.TinyLlama(t, testutil.TinyOptions{})
	adapter := randomAdapter(t, exact(t, path).Base(), 0.1, nil)
	for _, file := range []string{path, adapter} {
		var object struct {
			Bytes int64
			Types map[string]int64
		}
		_, stdout, _ := veratune("inspect", "--json", file)
		if err := json.Unmarshal([]byte(stdout), &object); err != nil || object.Bytes == 0 ||
			object.Types["F32"]+object.Types["f32"] == 0 {
			t.Errorf("%s: %v, %+v in %s", file, err, object, stdout)
		}
	}
}

// TestPlaceholders: what stands in backquotes in an option's help is taken for the name of its value, so that nothing
// else may stand there.
func TestPlaceholders(t *testing.T) {
	names := regexp.MustCompile(`^[A-Z]+(=[A-Z]+)?$`)
	for _, c := range leaves(newApp(io.Discard, io.Discard).Commands) {
		for _, f := range c.Flags {
			usage := f.(cli.DocGenerationFlag).GetUsage()
			quoted := strings.Split(usage, "`")
			if len(quoted) != 1 && (len(quoted) != 3 || !names.MatchString(quoted[1])) {
				t.Errorf("%s --%s: %q", c.HelpName, f.Names()[0], usage)
			}
		}
	}
	if _, stdout, _ := veratune("loss", "--help"); !strings.Contains(stdout, "--device value ") {
		t.Error(stdout)
	}
}

// TestGrid keeps tables within a terminal's width and loses nothing of them.
func TestGrid(t *testing.T) {
	for columns := 1; columns <= 12; columns++ {
		var words []string
		g := grid{rows: [][]string{{"run"}, {"held out, before"}, {"source"}}}
		for i := range columns {
			words = append(words, fmt.Sprintf("run%d/", i), fmt.Sprintf("%d.25", i), "line")
			g.rows[0] = append(g.rows[0], fmt.Sprintf("a/very/long/folder/of/runs/run%d/%s", i, strings.Repeat("ü", i)))
			g.rows[1] = append(g.rows[1], fmt.Sprintf("%d.25 after step 3", i))
			g.rows[2] = append(g.rows[2], "line\nanother\ttab\x1b[2J")
		}
		for _, g.width = range []int{0, 30, 40, 80, 132, 1000} {
			var out strings.Builder
			g.write(&out)
			for line := range strings.Lines(out.String()) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); g.width > 0 && n > g.width {
					t.Errorf("%d columns in %d characters: a line of %d: %q", columns, g.width, n, line)
				}
			}
			for _, word := range words {
				if !strings.Contains(out.String(), word) {
					t.Errorf("%d columns in %d characters: no %s in\n%s", columns, g.width, word, out.String())
				}
			}
			if strings.ContainsAny(out.String(), "\t\x1b") || strings.Contains(out.String(), "another") {
				t.Errorf("%q", out.String())
			}
		}
	}
}

// TestCompareFits compares runs at terminals of several widths.
func TestCompareFits(t *testing.T) {
	path, data, parent := testutil.TinyLlama(t, testutil.TinyOptions{}), rows(t, 20), t.TempDir()
	for _, rank := range []string{"2", "3", "4"} {
		if code, _, stderr := veratune(alpacaArgs(path, data, filepath.Join(parent, "rank-"+rank), "--rank", rank,
			"--max-steps", "1")...); code != 0 {
			t.Fatal(stderr)
		}
	}
	for _, width := range []uint16{40, 80, 200} {
		x := sit(t, "xterm", &pty.Winsize{Rows: 24, Cols: width}, "compare", parent)
		x.leave(0)
		<-x.ended
		if !strings.Contains(x.shown, "the same in all:") || strings.Contains(x.shown, "warmup_ratio") ||
			strings.Count(x.shown, "rank-") != 3 {
			t.Errorf("%d columns:\n%s", width, x.shown)
		}
		for line := range strings.Lines(x.shown) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > int(width) {
				t.Errorf("a line of %d characters in %d columns: %q", n, width, line)
			}
		}
	}
}
