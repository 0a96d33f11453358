package bindings

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// advise asks for large pages behind a piece of memory: what is read again and again from one end to the other waits less for their addresses. The system may
// refuse, and nothing is lost by that.
func advise(base unsafe.Pointer, size int64) {
	const page, least = 1 << 21, 4 << 20
	if size < least {
		return
	}
	start := (uintptr(base) + page - 1) &^ (page - 1)
	if end := (uintptr(base) + uintptr(size)) &^ (page - 1); end > start {
		_ = unix.Madvise(unsafe.Slice((*byte)(unsafe.Add(base, start-uintptr(base))), end-start), unix.MADV_HUGEPAGE)
	}
}
