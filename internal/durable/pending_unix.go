//go:build !windows

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// pendingFile is a file beside the place that it will take.
type pendingFile struct{ *renameio.PendingFile }

func newPending(place string, mode fs.FileMode) (*pendingFile, error) {
	f, err := renameio.NewPendingFile(place, renameio.WithTempDir(filepath.Dir(place)), renameio.WithPermissions(mode),
		renameio.WithExistingPermissions())
	if err != nil {
		return nil, err
	}
	return &pendingFile{f}, nil
}

// commitNew gives the file its name, which fails where that is taken.
func (f *pendingFile) commitNew(place string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	err := os.Link(f.Name(), place)
	if err == nil {
		return f.Cleanup()
	}
	if _, standing := os.Lstat(place); !errors.Is(standing, fs.ErrNotExist) {
		return err
	}
	return f.CloseAtomicallyReplace() // a file system without hard links
}

// unixErrors is empty: a Unix has them as they are.
var unixErrors map[syscall.Errno]syscall.Errno

// InUse is false: Unix replaces and removes what programs have open.
func InUse(error) bool { return false }

// Rename is os.Rename.
func Rename(from, to string) error { return os.Rename(from, to) }

// TempVariable names the environment variable of the folder for temporary files.
const TempVariable = "TMPDIR"

// Temporary makes a file in that folder, which is gone when it is closed.
func Temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "veratune-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// openToRead does not wait for who writes to a pipe.
func openToRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

func openFolder(path string) (*os.File, error) { return os.Open(path) }

// SyncFolder makes renames inside a folder outlast a loss of power.
func SyncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// RemoveFolder removes an empty folder, and nothing else.
func RemoveFolder(path string) error { return unix.Rmdir(path) }
