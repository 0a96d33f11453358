package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for source, missing := range map[string]string{
		"// F does.\nfunc F() {}":                          "",
		"func F() {}":                                      "F",
		"// Does.\nfunc F() {}":                            "F",
		"// Fs does.\nfunc F() {}":                         "F",
		"func f() {}":                                      "",
		"type t int; func (t) M() {}":                      "",
		"// T is.\ntype T[V any] []V\nfunc (*T[V]) M() {}": "M",
		"// T is.\ntype T int\nfunc (T) String() string { return \"\" }":   "",
		"type (\n\t// T is.\n\tT int\n\tU int\n)":                          "U",
		"// V: one.\nvar V int\nconst C = 1":                               "C",
		"// Some kinds.\nconst (\n\tA = 1\n\tB = 2\n)":                     "",
		"const (\n\tA = 1 // the first\n\t// The second.\n\tB = 2\n)":      "",
		"const (\n\tA = 1\n\tb = 2\n)":                                     "A",
		"// I is.\ntype I interface{ M() }\ntype s struct{ Field string }": "",
	} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "p.go"), []byte("package p\n\n"+source+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		got, err := check(root)
		switch {
		case err != nil:
			t.Error(err)
		case missing == "" && len(got) > 0, missing != "" &&
			(len(got) != 1 || !strings.Contains(got[0], ": "+missing+" has")):
			t.Errorf("%s\ngot %q, want %q", source, got, missing)
		}
	}
}
