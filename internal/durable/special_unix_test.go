//go:build !windows

package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// special puts what is no regular file into a folder, and tells what is said of it, by its name.
func special(t *testing.T, dir string) map[string]string {
	t.Helper()
	if err := errors.Join(os.Symlink("file", filepath.Join(dir, "link")),
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o666),
		os.Symlink("/dev/zero", filepath.Join(dir, "device"))); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"link": "", "pipe": "not a regular file, but a pipe", "device": "but a device"}
}
