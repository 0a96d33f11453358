// Package mpi lets the processes that mpirun or srun has started work on one thing together.
//
// It loads the machine's MPI at run time, Open MPI or MPICH and what shares its ABI (Intel MPI, MVAPICH, Cray MPICH),
// so that nothing of MPI is needed to build veratune or to run it alone.
package mpi

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"
)

// World is the processes that were started together, numbered from 0: their ranks. Its methods but Rank, Size and
// Processors must be called by all of them, in the same order, and by one goroutine at a time.
type World struct {
	rank, size int
	processors int
	lib        *library
	calls      chan func()
}

// Rank is the number of this process.
func (w *World) Rank() int { return w.rank }

// Size is the number of processes.
func (w *World) Size() int { return w.size }

// Processors is this process's share of those that it may run on; processes that may run on the same ones share them
// evenly.
func (w *World) Processors() int { return w.processors }

// Launched tells whether a launcher of MPI has started this process beside others.
func Launched() bool {
	if started() == 1 {
		return false
	}
	for _, name := range []string{"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"} {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// started is how many processes the innermost launcher says that it started; 0 where it says nothing.
func started() int {
	for _, name := range []string{"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"} {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
	}
	return 0
}

// Start joins the processes that were launched together. Only one Start is possible in a process.
func Start() (*World, error) {
	lib, err := load()
	if err != nil {
		return nil, err
	}
	w := &World{lib: lib, calls: make(chan func())}
	go w.serve()
	if err := w.join(); err != nil {
		return nil, fmt.Errorf("%s: %w", lib.name, err)
	}
	return w, nil
}

// serve makes all calls on one thread, the one that called MPI_Init_thread, as MPI_THREAD_FUNNELED asks for.
func (w *World) serve() {
	runtime.LockOSThread()
	for call := range w.calls {
		call()
	}
}

// do makes a call of MPI, and an error of what it returns.
func (w *World) do(name string, call func() int32) error {
	done := make(chan error)
	w.calls <- func() {
		var err error
		if code := call(); code != 0 {
			err = fmt.Errorf("%s: %s", name, w.lib.message(code))
		}
		done <- err
	}
	return <-done
}

func (w *World) join() error {
	const funneled = 1
	var provided, rank, size int32
	if err := w.do("MPI_Init_thread", func() int32 {
		return w.lib.initThread(nil, nil, funneled, &provided)
	}); err != nil {
		return err
	}
	if provided < funneled {
		return errors.New("it was built for programs with one thread (MPI_THREAD_SINGLE)")
	}
	// By default an error ends the process before anyone can say what is saved.
	if err := w.do("MPI_Comm_set_errhandler", func() int32 {
		return w.lib.setErrhandler(w.lib.world, w.lib.errorsReturn)
	}); err != nil {
		return err
	}
	if err := w.do("MPI_Comm_rank", func() int32 { return w.lib.commRank(w.lib.world, &rank) }); err != nil {
		return err
	}
	if err := w.do("MPI_Comm_size", func() int32 { return w.lib.commSize(w.lib.world, &size) }); err != nil {
		return err
	}
	w.rank, w.size = int(rank), int(size)
	if n := started(); n > 0 && n != w.size {
		return fmt.Errorf("the launcher started %d processes and this MPI sees %d; use the mpirun that belongs to it",
			n, w.size)
	}
	return w.divideProcessors()
}

// End takes leave of the others, when all of them have come to it.
func (w *World) End() error {
	defer close(w.calls)
	if err := w.do("MPI_Barrier", func() int32 { return w.lib.barrier(w.lib.world) }); err != nil {
		return err
	}
	return w.do("MPI_Finalize", w.lib.finalize)
}

// Abort ends all processes, this one with the exit code. It may be called by any of them, at any time but during
// another call.
func (w *World) Abort(code int) {
	w.do("MPI_Abort", func() int32 { return w.lib.abort(w.lib.world, int32(code)) })
	os.Exit(code)
}

// pointer is where the bytes are, for C; nil where there are none.
func pointer(data []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(data)) }
