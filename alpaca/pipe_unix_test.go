//go:build !windows

package alpaca

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	go os.WriteFile(path, []byte(`[{"prompt": "a", "completion": "b"}]`), 0o600)
	d, err := Load(whole(path), fakeTokenizer{}, Default())
	if err != nil || d.Len() != 1 || len(samplesOf(t, d)) != 1 {
		t.Errorf("%v, %+v", err, d)
	}
	defer d.Close()
}

func TestPackedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	go os.WriteFile(path, zstandard([]byte("text\nOnce.\n")), 0o600)
	f, err := openRows(path, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := rowsWritten(t, f, Default()); f.kind() != "CSV, zstd" || len(got) != 1 {
		t.Errorf("%s: %q", f.kind(), got)
	}
}
