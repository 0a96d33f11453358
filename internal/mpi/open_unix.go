//go:build !windows

package mpi

import "github.com/ebitengine/purego"

// open loads a library. Open MPI's plugins look for its symbols among the global ones.
func open(name string) (uintptr, error) {
	return purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL)
}

func symbol(library uintptr, name string) (uintptr, error) { return purego.Dlsym(library, name) }
