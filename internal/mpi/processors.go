package mpi

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"runtime"
)

// divideProcessors finds out how many ranks may run on the same processors of the same machine. Launchers bind ranks to
// cores or to sockets, or not at all.
func (w *World) divideProcessors() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	own := sha256.Sum256(fmt.Appendf(nil, "%s %v", host, affinity()))
	all := make([]byte, w.size*len(own))
	if err := w.gather(own[:], all); err != nil {
		return err
	}
	sharing := 0
	for r := range w.size {
		if bytes.Equal(all[r*len(own):(r+1)*len(own)], own[:]) {
			sharing++
		}
	}
	w.processors = max(1, runtime.NumCPU()/sharing)
	return nil
}
