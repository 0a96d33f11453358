//go:build !linux && !windows

package serve

import "syscall"

// attributes make a process a group of its own, so that Ctrl-C is this one's alone. One that is left when this one is
// killed trains on; the next server waits for it.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
