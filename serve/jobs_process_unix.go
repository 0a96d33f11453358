//go:build !windows

package serve

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const niceness = 19 // how far answers go before training

func interrupt(process *os.Process) error { return process.Signal(syscall.SIGTERM) }

// started gives a process lower priority than this one has, and a function to call when it has ended.
func started(process *os.Process) (ended func()) {
	// The process is a group of its own; of a process alone, Linux takes the first thread.
	_ = unix.Setpriority(unix.PRIO_PGRP, process.Pid, niceness) // a server that has no more to give trains the same
	return func() {}
}
