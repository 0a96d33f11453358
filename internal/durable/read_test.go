package durable

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(in("file"), []byte("1234"), 0o666))
	must(os.WriteFile(in("huge"), nil, 0o666))
	must(os.Truncate(in("huge"), 1<<40))
	cases := map[string]string{"file": "", ".": "but a directory", "huge": "1.1 TB, more than the 4 B"}
	maps.Copy(cases, special(t, dir))
	for name, says := range cases {
		data, err := ReadFile(in(name), 4)
		switch {
		case says == "" && (err != nil || string(data) != "1234"):
			t.Errorf("%s: %q, %v", name, data, err)
		case says != "" && (err == nil || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), in(name))):
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadFile(in("absent"), 4); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), in("absent")) {
		t.Error(err)
	}
	if _, err := ReadFile(in("file"), 3); err == nil {
		t.Error("4 bytes are read where 3 are the most")
	}
}
