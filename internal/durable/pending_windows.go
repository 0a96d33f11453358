package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
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

func (f *pendingFile) move(flags uint32) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	err := move(f.Name(), f.place, flags)
	f.done = err == nil
	return err
}

// errOpen stands for what Windows calls a denied access or a sharing violation.
var errOpen = errors.New("a program has it open, or it is read-only, and Windows replaces neither")

// InUse tells whether something failed because a program has a file open.
func InUse(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_LOCK_VIOLATION) ||
		errors.Is(err, windows.ERROR_USER_MAPPED_FILE) || errors.Is(err, errOpen)
}

// Rename is os.Rename that waits for a moment where a program has something open.
func Rename(from, to string) error {
	if err := move(from, to, windows.MOVEFILE_REPLACE_EXISTING); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

func move(from, to string, flags uint32) error {
	fromName, err := windows.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	toName, err := windows.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	// A virus scanner opens a new file for some milliseconds.
	for pause := time.Millisecond; ; pause *= 2 {
		err = windows.MoveFileEx(fromName, toName, flags|windows.MOVEFILE_WRITE_THROUGH)
		if denied := errors.Is(err, windows.ERROR_ACCESS_DENIED); !denied && !InUse(err) {
			return err
		}
		if pause > 500*time.Millisecond {
			return fmt.Errorf("%w: %w", errOpen, err)
		}
		time.Sleep(pause)
	}
}

// unixErrors are those of Windows for which Unix has a name that people know.
var unixErrors = map[syscall.Errno]syscall.Errno{
	windows.ERROR_DISK_FULL:           syscall.ENOSPC,
	windows.ERROR_HANDLE_DISK_FULL:    syscall.ENOSPC,
	windows.ERROR_DISK_QUOTA_EXCEEDED: syscall.EDQUOT,
	windows.ERROR_WRITE_PROTECT:       syscall.EROFS,
	windows.ERROR_FILE_TOO_LARGE:      syscall.EFBIG,
	windows.ERROR_TOO_MANY_OPEN_FILES: syscall.EMFILE,
	windows.ERROR_NOT_ENOUGH_MEMORY:   syscall.ENOMEM,
	windows.ERROR_OUTOFMEMORY:         syscall.ENOMEM,
	windows.ERROR_COMMITMENT_LIMIT:    syscall.ENOMEM,
	windows.ERROR_DIRECTORY:           syscall.ENOTDIR,
}

// TempVariable names the environment variable of the folder for temporary files.
const TempVariable = "TMP"

// Temporary makes a file in that folder, which is gone when it is closed.
func Temporary() (*os.File, error) {
	for {
		path := filepath.Join(os.TempDir(), fmt.Sprintf("veratune-%d", rand.Uint64()))
		f, err := open(path, windows.GENERIC_READ|windows.GENERIC_WRITE|windows.DELETE, windows.FILE_SHARE_DELETE,
			windows.CREATE_NEW, windows.FILE_ATTRIBUTE_TEMPORARY|windows.FILE_FLAG_DELETE_ON_CLOSE)
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
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

// openToRead lets others remove the file meanwhile.
func openToRead(path string) (*os.File, error) {
	return open(path, windows.GENERIC_READ, shareAll, windows.OPEN_EXISTING, 0)
}

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
