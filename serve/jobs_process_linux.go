package serve

import "syscall"

// attributes make a process a group of its own, so that Ctrl-C is this one's alone, which is told to end when this one
// is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
