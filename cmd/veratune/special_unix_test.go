//go:build !windows

package main

import (
	"os/exec"
	"syscall"
)

// device makes a null device.
func device(path string) error {
	if err := syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3); err != nil {
		return errSkip
	}
	return nil
}

func socket(path string) error {
	if err := syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0); err != nil {
		return errSkip
	}
	return nil
}

func makePipe(path string) error { return syscall.Mkfifo(path, 0o666) }

func apart(*exec.Cmd) {}

// interrupt is Ctrl-C.
func interrupt(cmd *exec.Cmd) error { return cmd.Process.Signal(syscall.SIGINT) }
