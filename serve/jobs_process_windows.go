package serve

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// attributes make a process a group of its own, so that Ctrl-C is this one's alone, and answers go before it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.IDLE_PRIORITY_CLASS}
}

// interrupt asks a process to end, which takes a console; without one it is killed. Its run goes on from the last
// checkpoint either way.
func interrupt(process *os.Process) error {
	if windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(process.Pid)) != nil {
		return process.Kill()
	}
	return nil
}

// started has a process end with this one, and gives a function to call when it has ended. A system that refuses leaves
// the process training; the next server waits for it.
func started(process *os.Process) (ended func()) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return func() {}
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, _ = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if handle, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false,
		uint32(process.Pid)); err == nil {
		_ = windows.AssignProcessToJobObject(job, handle)
		windows.CloseHandle(handle)
	}
	return func() { windows.CloseHandle(job) }
}
