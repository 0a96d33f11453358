package durable

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/windows"
)

// LockFolder locks a folder, or fails with Held: its pid file, which nobody else can open to write, and which goes when
// it is closed.
func LockFolder(path string) (*Lock, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	l := &Lock{path: path}
	file, err := open(l.pid(), windows.GENERIC_WRITE|windows.DELETE, windows.FILE_SHARE_READ|windows.FILE_SHARE_DELETE,
		windows.OPEN_ALWAYS, windows.FILE_FLAG_DELETE_ON_CLOSE)
	if errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING) {
		return nil, l.holder()
	}
	if err != nil {
		return nil, err
	}
	l.file = file
	if err := file.Truncate(0); err != nil { // of a process that ended when the machine did
		return nil, errors.Join(err, file.Close())
	}
	if _, err := file.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

func readPID(path string) ([]byte, error) {
	file, err := openToRead(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, 1<<10))
}

const shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE

// open opens a file or folder with what Go's own function has no words for.
func open(path string, access, share, disposition, flags uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	handle, err := windows.CreateFile(name, access, share, nil, disposition, flags, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// current is the pid file that stands there now. Windows renames and removes no folder in which a file is open, so it
// is rarely another.
func (l *Lock) current() (os.FileInfo, error) {
	file, err := openToRead(l.pid())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.Stat()
}

// Close gives the folder free.
func (l *Lock) Close() error { return l.file.Close() }

// Rename moves the locked folder. Windows moves none in which a file is open, so the lock ends.
func (l *Lock) Rename(from, to string) error {
	if err := l.file.Close(); err != nil {
		return err
	}
	return Rename(from, to)
}

// hold marks a file as that of a living process: an open file is one.
func hold(*os.File) {}

// isHeld tells whether a living process has a file or folder open, or that can't be told.
func isHeld(path string) bool {
	f, err := open(path, windows.DELETE, 0, windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS)
	if err != nil {
		return true
	}
	return f.Close() != nil
}
