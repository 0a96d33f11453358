package mpi

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// library is an MPI library's functions, and the handles that mpi.h defines. Every function returns 0 or an error's
// code.
type library struct {
	name                       string
	world, bytes, errorsReturn uintptr

	initThread    func(argc, argv unsafe.Pointer, required int32, provided *int32) int32
	setErrhandler func(comm, handler uintptr) int32
	commRank      func(comm uintptr, rank *int32) int32
	commSize      func(comm uintptr, size *int32) int32
	barrier       func(comm uintptr) int32
	broadcast     func(data unsafe.Pointer, count int32, kind uintptr, root int32, comm uintptr) int32
	allToAll      func(send unsafe.Pointer, sendCount int32, sendKind uintptr, receive unsafe.Pointer,
		receiveCount int32, receiveKind, comm uintptr) int32
	allGather func(send unsafe.Pointer, sendCount int32, sendKind uintptr, receive unsafe.Pointer,
		receiveCount int32, receiveKind, comm uintptr) int32
	errorString func(code int32, text *byte, length *int32) int32
	finalize    func() int32
	abort       func(comm uintptr, code int32) int32
}

func (l *library) functions() map[string]any {
	return map[string]any{
		"MPI_Init_thread": &l.initThread, "MPI_Comm_set_errhandler": &l.setErrhandler, "MPI_Comm_rank": &l.commRank,
		"MPI_Comm_size": &l.commSize,
		"MPI_Barrier":   &l.barrier, "MPI_Bcast": &l.broadcast, "MPI_Alltoall": &l.allToAll,
		"MPI_Allgather":    &l.allGather,
		"MPI_Error_string": &l.errorString, "MPI_Finalize": &l.finalize, "MPI_Abort": &l.abort,
	}
}

// The libraries' names by their ABI. Both have been the same since 2012 (MPICH 3.1) and 2018 (Open MPI 4).
var (
	openMPI = []string{"libmpi.so.40", "libmpi.40.dylib", "/opt/homebrew/lib/libmpi.40.dylib"}
	mpich   = []string{"libmpi.so.12", "libmpich.so.12", "libmpi_cray.so.12", "libmpi.12.dylib",
		"/opt/homebrew/lib/libmpi.12.dylib"}
)

// candidates are the names to try, those first that go with the launcher: hydra and srun's pmi2 are MPICH's.
func candidates() []string {
	names := append(openMPI[:len(openMPI):len(openMPI)], mpich...)
	if os.Getenv("PMI_RANK") != "" && os.Getenv("OMPI_COMM_WORLD_SIZE") == "" {
		names = append(mpich[:len(mpich):len(mpich)], openMPI...)
	}
	var list []string
	for _, name := range names {
		if strings.Contains(name, ".dylib") == (runtime.GOOS == "darwin") {
			list = append(list, name)
		}
	}
	return list
}

func load() (*library, error) {
	if runtime.GOOS == "windows" {
		return nil, errors.New("training over MPI is for Unix; on Windows, start veratune without mpiexec")
	}
	var failures []error
	for _, name := range candidates() {
		handle, err := open(name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		l := &library{name: name}
		if err := l.bind(handle); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("veratune was started by a launcher of MPI, but no MPI library can be loaded; install "+
		"Open MPI or MPICH, or add its folder to LD_LIBRARY_PATH: %w",
		errors.Join(failures...))
}

func (l *library) bind(handle uintptr) error {
	for name, function := range l.functions() {
		symbol, err := symbol(handle, name)
		if err != nil {
			return err
		}
		purego.RegisterFunc(function, symbol)
	}
	// Open MPI's handles are addresses of objects in the library, MPICH's are numbers.
	if _, err := symbol(handle, "ompi_mpi_comm_world"); err == nil {
		for name, place := range map[string]*uintptr{"ompi_mpi_comm_world": &l.world, "ompi_mpi_byte": &l.bytes,
			"ompi_mpi_errors_return": &l.errorsReturn} {
			if *place, err = symbol(handle, name); err != nil {
				return err
			}
		}
		return nil
	}
	l.world, l.bytes, l.errorsReturn = 0x44000000, 0x4c00010d, 0x54000001
	return nil
}

// message is the library's text for an error.
func (l *library) message(code int32) string {
	text := make([]byte, 1024) // MPI_MAX_ERROR_STRING is 256 or 512
	var length int32
	if l.errorString(code, &text[0], &length) != 0 || length <= 0 {
		return fmt.Sprintf("error %d", code)
	}
	return string(text[:min(int(length), len(text))])
}
