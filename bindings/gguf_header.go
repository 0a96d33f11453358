package bindings

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// checkHeader walks the header of a GGUF file before ggml reads it. ggml divides by a tensor's sizes, asserts the type
// of general.alignment and that no key is empty, and allocates whatever a length says. None of that can be caught, so
// such a file is an error here. Other faults are left to ggml.
func checkHeader(file []byte) error {
	h := header{rest: file}
	if string(h.bytes(4)) != "GGUF" {
		return errors.New("not a GGUF file")
	}
	if version := h.uint32(); h.err == nil && (version < 2 || version > 3) {
		return fmt.Errorf("GGUF version %d; only 2 and 3 can be read", version)
	}
	tensors, values := h.uint64(), h.uint64()
	for i := uint64(0); i < values && h.err == nil; i++ {
		h.value()
	}
	for i := uint64(0); i < tensors && h.err == nil; i++ {
		h.tensor()
	}
	return h.err
}

// header reads little-endian values and keeps the first failure.
type header struct {
	rest []byte
	err  error
}

func (h *header) fail(format string, args ...any) {
	if h.err == nil {
		h.err = fmt.Errorf(format, args...)
	}
}

// bytes gives the next n bytes, nil where the file has fewer.
func (h *header) bytes(n uint64) []byte {
	if n > uint64(len(h.rest)) {
		h.fail("broken or truncated GGUF file: its header needs %d bytes more than it has", n-uint64(len(h.rest)))
	}
	if h.err != nil {
		return nil
	}
	b := h.rest[:n]
	h.rest = h.rest[n:]
	return b
}

func (h *header) uint32() uint32 {
	if b := h.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (h *header) uint64() uint64 {
	if b := h.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (h *header) text() string { return string(h.bytes(h.uint64())) }

// ggufSize is the size in bytes of a number.
var ggufSize = map[uint32]uint64{
	ggufUint8: 1, ggufInt8: 1, ggufBool: 1, ggufUint16: 2, ggufInt16: 2, ggufUint32: 4, ggufInt32: 4, ggufFloat32: 4,
	ggufUint64: 8, ggufInt64: 8, ggufFloat64: 8,
}

// value walks over one metadata key and its value.
func (h *header) value() {
	key, kind := h.text(), h.uint32()
	if key == "" {
		h.fail("a metadata key is empty")
	}
	if key == "general.alignment" && kind != ggufUint32 {
		h.fail("general.alignment has type %d, and must be a uint32", kind)
	}
	n := uint64(1)
	if kind == ggufArray {
		kind, n = h.uint32(), h.uint64()
	}
	size, number := ggufSize[kind]
	switch {
	case kind == ggufString:
		for i := uint64(0); i < n && h.err == nil; i++ {
			h.bytes(h.uint64())
		}
	case !number:
		h.fail("key %q has an unknown type %d", key, kind)
	case n > uint64(len(h.rest))/size:
		h.fail("broken or truncated GGUF file: key %q wants %d values", key, n)
	default:
		h.bytes(n * size)
	}
}

// tensor walks over the description of one tensor.
func (h *header) tensor() {
	name, dims := h.text(), h.uint32()
	if dims < 1 || dims > 4 {
		h.fail("tensor %q has %d dimensions, and must have 1 to 4", name, dims)
	}
	elements := uint64(1)
	for i := uint32(0); i < dims && h.err == nil; i++ {
		n := h.uint64()
		const most = 1 << 48 // so that sizes in bytes do not overflow
		if n == 0 || n > most/elements {
			h.fail("tensor %q: size %d of dimension %d is not possible", name, n, i)
			return
		}
		elements *= n
	}
	h.bytes(4 + 8) // type and offset
}
