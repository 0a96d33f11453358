//go:build !linux

package bindings

import "unsafe"

func advise(unsafe.Pointer, int64) {}
