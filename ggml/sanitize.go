//go:build sanitize

package ggml

// The address and undefined-behaviour sanitizers for these kernels alone; `make test-kernels` builds with this tag.

// #cgo CXXFLAGS: -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined
// #cgo LDFLAGS: -fsanitize=address,undefined
import "C"
