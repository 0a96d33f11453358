package main

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// Windows has none of these at a path.
func device(string) error   { return errSkip }
func socket(string) error   { return errSkip }
func makePipe(string) error { return errSkip }

// apart lets interrupt reach the process alone, before it starts.
func apart(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

// interrupt is Ctrl-Break, which Go takes as Ctrl-C; that itself can't be sent to one process.
func interrupt(cmd *exec.Cmd) error {
	if windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(cmd.Process.Pid)) != nil {
		return errSkip // there is no console
	}
	return nil
}
