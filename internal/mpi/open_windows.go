package mpi

import "errors"

// open and symbol are not reached: load says that MPI is for Unix.
func open(string) (uintptr, error) { return 0, errors.ErrUnsupported }

func symbol(uintptr, string) (uintptr, error) { return 0, errors.ErrUnsupported }
