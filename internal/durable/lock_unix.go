//go:build !windows

package durable

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

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

// The pid file is not the lock: what a killed process leaves of it harms nobody.
func readPID(path string) ([]byte, error) { return ReadFile(path, 1<<10) }

// current is what stands where the folder was locked, which is the locked file itself.
func (l *Lock) current() (os.FileInfo, error) { return os.Stat(l.path) }

// Close gives the folder free, wherever it is now.
func (l *Lock) Close() error {
	err := unix.Unlinkat(int(l.file.Fd()), pidFile, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // removed with the folder
	}
	return errors.Join(err, l.file.Close())
}

// Rename moves the locked folder, which stays locked.
func (l *Lock) Rename(from, to string) error { return os.Rename(from, to) }

// hold marks a file as that of a living process.
func hold(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// isHeld tells whether a living process holds a file or folder, or that can't be told.
func isHeld(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}
