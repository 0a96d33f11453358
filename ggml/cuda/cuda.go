//go:build emulate

// Package cuda holds veratune's operations for graphics processors, and computes them on the CPU to test them: as the
// instruction set "emulated", with the build tag `emulate`. CMake builds them for CUDA (`make cuda`), as part of ggml's
// backend.
package cuda

// #cgo CXXFLAGS: -std=c++17 -O2
import "C"
