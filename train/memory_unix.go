//go:build !windows

package train

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// peakMemory is the most bytes that the process has held in memory, mapped files included; 0 where the system does not
// say.
func peakMemory() int64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(usage.Maxrss) // bytes there, KiB elsewhere
	}
	return int64(usage.Maxrss) << 10
}
