package durable

import (
	"errors"
	"syscall"
)

// Refused tells whether the system refused something for what Unix calls by, such as ENOSPC.
func Refused(err error, by syscall.Errno) bool {
	if errors.Is(err, by) {
		return true
	}
	for e, unix := range unixErrors {
		if unix == by && errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Unix is Unix's error for that of this system, or the same where it has none for it.
func Unix(e syscall.Errno) syscall.Errno {
	if unix, ok := unixErrors[e]; ok {
		return unix
	}
	return e
}
