// Package durable keeps files whole: a process that is killed, or whose disk is full, leaves the old file or the new
// one, and no two processes write in a folder.
package durable

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// pidFile tells others who holds a locked folder.
const pidFile = "pid"

// Held is the error of a folder that another process has locked. It reads as that process's name: "process 4321".
type Held string

func (h Held) Error() string { return string(h) }

// ErrGone is the error of a folder that isn't where it was locked.
var ErrGone = errors.New("was removed or renamed by another program")

// Lock is the right to write in a folder. The system takes it back when the process ends, however it ends.
type Lock struct {
	path string
	file *os.File // what the system has locked
}

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
	if current, err := l.current(); err != nil || !os.SameFile(held, current) {
		return ErrGone
	}
	return nil
}

func (l *Lock) pid() string { return filepath.Join(l.path, pidFile) }

func (l *Lock) holder() Held {
	data, err := readPID(l.pid())
	if pid, convErr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && convErr == nil {
		return Held("process " + strconv.Itoa(pid))
	}
	return "another process"
}
