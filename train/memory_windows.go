package train

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

var getProcessMemoryInfo = windows.NewLazySystemDLL("psapi.dll").NewProc("GetProcessMemoryInfo")

// peakMemory is the most bytes that the process has held in memory, mapped files included; 0 where the system does not
// say.
func peakMemory() int64 {
	var counters struct { // PROCESS_MEMORY_COUNTERS
		size, pageFaults uint32
		peakWorkingSet   uintptr
		_                [7]uintptr
	}
	counters.size = uint32(unsafe.Sizeof(counters))
	getProcessMemoryInfo.Call(uintptr(windows.CurrentProcess()), uintptr(unsafe.Pointer(&counters)),
		uintptr(counters.size))
	return int64(counters.peakWorkingSet)
}
