//go:build !linux

package mpi

// affinity is the set of processors that this process may run on: all.
func affinity() string { return "" }
