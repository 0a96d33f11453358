// Package durable keeps files whole: a process that is killed, or whose disk is full, leaves the old file or the new
// one, and no two processes write in a folder.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pidFile tells others who holds a locked folder. It is not the lock: what a killed process leaves of it harms nobody.
const pidFile = "pid"

// Held is the error of a folder that another process has locked. It reads as that process's name: "process 4321".
type Held string

func (h Held) Error() string { return string(h) }

// Lock is the right to write in a folder. The system takes it back when the process ends, however it ends.
type Lock struct {
	path string
	file *os.File // the folder itself
}

// LockFolder locks a folder, or fails with Held.
func LockFolder(path string) (*Lock, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &Lock{path, file}
	// Some network file systems have no locks; work there is worth more than the check.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(l.holder(), file.Close())
	}
	os.Remove(l.pid()) // a pipe there would have the writer wait
	if err := os.WriteFile(l.pid(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o666); err != nil {
		os.Remove(l.pid()) // which is empty on a full disk
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

func (l *Lock) pid() string { return filepath.Join(l.path, pidFile) }

func (l *Lock) holder() Held {
	data, err := ReadFile(l.pid(), 1<<10)
	if pid, convErr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && convErr == nil {
		return Held("process " + strconv.Itoa(pid))
	}
	return "another process"
}

// ErrGone is the error of a folder that isn't where it was locked.
var ErrGone = errors.New("was removed or renamed by another program")

// Check fails with ErrGone where what is at the folder's path is not what was locked, so that nothing is written there.
// A nil lock is never gone.
func (l *Lock) Check() error {
	if l == nil {
		return nil
	}
	held, err := l.file.Stat()
	if err != nil {
		return err
	}
	if current, err := os.Stat(l.path); err != nil || !os.SameFile(held, current) {
		return ErrGone
	}
	return nil
}

// Close gives the folder free, wherever it is now.
func (l *Lock) Close() error {
	err := unix.Unlinkat(int(l.file.Fd()), pidFile, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // removed with the folder
	}
	return errors.Join(err, l.file.Close())
}
