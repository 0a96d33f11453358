package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/windows"
)

// pendingFile is a file beside the place that it will take.
type pendingFile struct {
	*os.File
	place string
	done  bool
}

func newPending(place string, mode fs.FileMode) (*pendingFile, error) {
	for {
		name := fmt.Sprintf(".%s%019d", filepath.Base(place), rand.Int64())
		f, err := os.OpenFile(filepath.Join(filepath.Dir(place), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &pendingFile{File: f, place: place}, nil
	}
}

// CloseAtomicallyReplace gives the file its name, instead of what has that.
func (f *pendingFile) CloseAtomicallyReplace() error {
	return f.move(windows.MOVEFILE_REPLACE_EXISTING)
}

// commitNew gives the file its name, which fails where that is taken.
func (f *pendingFile) commitNew(string) error { return f.move(0) }

var errOpen = errors.New("a program has it open, and Windows replaces no open file; close it there")

func (f *pendingFile) move(flags uint32) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	from, err := windows.UTF16PtrFromString(f.Name())
	if err != nil {
		return err
	}
	to, err := windows.UTF16PtrFromString(f.place)
	if err != nil {
		return err
	}
	// A virus scanner opens a new file for some milliseconds.
	for pause := time.Millisecond; ; pause *= 2 {
		err = windows.MoveFileEx(from, to, flags|windows.MOVEFILE_WRITE_THROUGH)
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION) ||
			errors.Is(err, windows.ERROR_USER_MAPPED_FILE)
		if !busy || pause > 500*time.Millisecond {
			f.done = err == nil
			if busy {
				return fmt.Errorf("%w: %w", errOpen, err)
			}
			return err
		}
		time.Sleep(pause)
	}
}

// Cleanup removes the file, unless it has its name.
func (f *pendingFile) Cleanup() error {
	if f.done {
		return nil
	}
	f.done = true
	_ = f.Close() // for the second time, after a move that failed
	return os.Remove(f.Name())
}

const nonBlocking = 0

// openFolder opens a folder so that it can be renamed meanwhile.
func openFolder(path string) (*os.File, error) {
	return open(path, windows.GENERIC_READ, shareAll, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
}

// SyncFolder makes renames inside a folder outlast a loss of power, as far as it can: Windows has no call for it, and
// its file system keeps a journal.
func SyncFolder(string) error { return nil }

// RemoveFolder removes an empty folder, and nothing else.
func RemoveFolder(path string) error {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	return windows.RemoveDirectory(name)
}
