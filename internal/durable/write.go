package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Create opens a file beside path that takes its place with CloseAtomicallyReplace, when it is on the disk; Cleanup, before that, leaves path as it was. What
// killed processes have left of earlier files for path is removed.
func Create(path string, mode fs.FileMode) (*renameio.PendingFile, error) {
	dir := filepath.Dir(path)
	sweep(dir, "."+filepath.Base(path), 12) // of 19
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithPermissions(mode))
	if err != nil {
		return nil, err
	}
	hold(f.File)
	return f, nil
}

// WriteFile writes a file beside path, syncs it and renames it to path, all or nothing.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	f, err := Create(path, mode)
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}

// Draft makes a folder beside path to be renamed to it. Close the folder that is returned, open, when that is done. Drafts that killed processes have left are removed.
func Draft(path string) (*os.File, error) {
	dir, prefix := filepath.Dir(path), ".unfinished-"+filepath.Base(path)+"-"
	sweep(dir, prefix, 1)
	name, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	draft, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	hold(draft)
	return draft, nil
}

// hold marks a file as that of a living process.
func hold(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// sweep removes files and folders in dir whose name is prefix and a random number of that many digits at least, and that no living process holds. Where that can't
// be told, or a file can't be removed, it stays.
func sweep(dir, prefix string, digits int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || len(number) < digits || strings.Trim(number, "0123456789") != "" {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		f.Close()
	}
}

// CheckWritable fails where no file can be made in a folder. It leaves nothing there.
func CheckWritable(dir string) error {
	probe := filepath.Join(dir, ".writable")
	// A folder, since there can be one only: what a killed process left of it is removed with the next.
	if err := os.Mkdir(probe, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	if err := os.Remove(probe); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}
