// Package durable keeps files whole: a process that is killed, or whose disk is full, leaves the old file or the new
// one, and no two processes write in a folder.
package durable

import (
	"errors"
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

func (l *Lock) pid() string { return filepath.Join(l.path, pidFile) }

func (l *Lock) holder() Held {
	data, err := readPID(l.pid())
	if pid, convErr := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && convErr == nil {
		return Held("process " + strconv.Itoa(pid))
	}
	return "another process"
}
