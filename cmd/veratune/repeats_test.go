package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/veratune/veratune/internal/testutil"
)

// Rows that are there twice are counted and said, whatever their files are called: in several files of --data, and in
// the training and the held-out data.
func TestRepeatedRows(t *testing.T) {
	model, dir := testutil.TinyLlama(t, testutil.TinyOptions{}), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	keep := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(at(name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	all := read(t, rows(t, 20))
	keep("a.json", all)
	var list []map[string]string
	if err := json.Unmarshal(all, &list); err != nil {
		t.Fatal(err)
	}
	part := func(rows ...map[string]string) []byte {
		data, err := json.Marshal(rows)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	other := map[string]string{"instruction": "say", "output": "no"}
	keep("some.json", part(list[3], other, list[5]))
	keep("one.json", part(list[3]))
	keep("others.json", part(other, map[string]string{"instruction": "say more", "output": "yes"}))
	keep("twice.json", part(append(list, list...)...))
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(all)
	z.Close()
	keep("a.json.gz", packed.Bytes())
	if err := os.Symlink("a.json", at("link.json")); err != nil {
		t.Fatal(err)
	}
	repeats := regexp.MustCompile("(?m), too($|, so)|left out of training")
	for name, c := range map[string]struct {
		args []string
		says []string
	}{
		"the same path": {[]string{"--data", at("a.json"), "--data", at("a.json")},
			[]string{"warning: " + at("a.json") + ": all its 20 rows are in " + at("a.json") + ", too"}},
		"with another weight": {[]string{"--data", at("a.json"), "--data", at("a.json:0.5")},
			[]string{": all its 20 rows are in"}},
		"a link": {[]string{"--data", at("a.json"), "--data", at("link.json")},
			[]string{"link.json: all its 20 rows are in " + at("a.json")}},
		"packed": {[]string{"--data", at("a.json.gz"), "--data", at("a.json")},
			[]string{"a.json: all its 20 rows are in " + at("a.json.gz")}},
		"some rows": {[]string{"--data", at("a.json"), "--data", at("some.json"), "--data", at("one.json")},
			[]string{"some.json: 2 of its 3 rows are in " + at("a.json"), "one.json: its only row is in " +
				at("a.json")}},
		"of several files": {[]string{"--data", at("a.json"), "--data", at("others.json"), "--data",
			at("some.json")}, []string{"some.json: all its 3 rows are in the files before it"}},
		"other rows": {[]string{"--data", at("a.json"), "--data", at("others.json")}, nil},
		"held out": {[]string{"--data", at("a.json"), "--eval-data", at("some.json")},
			[]string{"warning: 2 of the 3 held-out rows are in the training data, too"}},
		"the same held out": {[]string{"--data", at("a.json"), "--eval-data", at("a.json.gz")},
			[]string{"warning: 20 of the 20 held-out rows are in the training data, too"}},
		"others held out": {[]string{"--data", at("a.json"), "--eval-data", at("others.json")}, nil},
		"repeated in a file": {[]string{"--data", at("twice.json"), "--held-out", "3", "--seed", "1"},
			[]string{"rows that repeat held-out ones are left out of training"}},
		"nothing held out": {[]string{"--data", at("a.json"), "--held-out", "0"}, nil},
	} {
		for _, command := range []string{"plan", "alpaca", "sweep"} {
			args := append([]string{command, "--model", model, "--rank", "4", "--threads", "1", "--template", "alpaca",
				"--batch", "2"}, c.args...)
			switch command {
			case "alpaca":
				args = append(args, "--steps", "1", "--out", filepath.Join(t.TempDir(), "run"))
			case "sweep": // several files are alternatives there
				if !strings.Contains(name, "held out") || strings.HasPrefix(name, "nothing") {
					continue
				}
				args = append(args, "--lr", "1e-3,1e-2", "--steps", "1", "--fraction", "1", "--out",
					filepath.Join(t.TempDir(), "sweep"))
			}
			code, _, stderr := veratune(args...)
			if code != 0 || len(c.says) == 0 && repeats.MatchString(stderr) {
				t.Errorf("%s, %s: exit code %d, %s", name, command, code, stderr)
			}
			for _, says := range c.says {
				if !strings.Contains(stderr, says) {
					t.Errorf("%s, %s: %s does not say %q", name, command, stderr, says)
				}
			}
		}
	}
	// The check of data names each of them.
	code, stdout, stderr := veratune("data", "check", "--model", model, "--template", "alpaca", at("a.json"),
		at("a.json.gz"), at("some.json"))
	if code != 0 || !strings.Contains(stdout, "duplicates") ||
		!strings.Contains(stdout, "22: rows that are there before") {
		t.Errorf("data check: exit code %d, %s%s", code, stdout, stderr)
	}
	// Those that read rows as they are know a file that is given twice.
	for _, args := range [][]string{{"data", "convert"}, {"data", "show", "--model", model},
		{"data", "check", "--model", model}} {
		code, _, stderr := veratune(append(args, at("a.json"), at("others.json"), at("link.json"))...)
		if says := "warning: " + at("link.json") + " is the same file as " + at("a.json"); code != 0 ||
			strings.Count(stderr, says) != 1 || strings.Count(stderr, "warning") != 1 {
			t.Errorf("%v: exit code %d, %s", args, code, stderr)
		}
	}
}
