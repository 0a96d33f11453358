// Package bindings is the only package that calls C: ggml's tensors, graphs and backends, GGUF files, and llama.cpp's
// tokenizer and llama.cpp itself, all from the pinned module github.com/ollama/ollama, and the operations of package
// ggml.
//
// ggml aborts the process when an operation gets a wrong shape or type, and nothing can catch that. So every operation
// checks its operands in Go first; the first failure is kept in the Context and reported by Err, and everything built
// on it is nil. A Go name is the C name without its prefix: ggml_mul_mat is MulMat. Shapes are in ggml's order: the
// first number is the row length.
//
// It must know nothing of models, adapters or training.
package bindings

// #cgo CFLAGS: -std=c11
// #cgo CXXFLAGS: -std=c++17
// #include "guard.h"
import "C"

import (
	"fmt"
	"runtime"
	"strings"

	_ "github.com/ollama/ollama/llama/llama.cpp/src"
	_ "github.com/ollama/ollama/ml/backend/ggml/ggml/src"

	_ "github.com/veratune/veratune/ggml"
)

func init() {
	// The imported packages' own init has sent ggml's log to the terminal; errors become Go errors instead.
	C.vt_capture_log()
}

// ReturnMemory gives the system what C has freed, which glibc would keep.
func ReturnMemory() { C.vt_trim() }

// attend keeps the goroutine on its thread until done is called, so that takeError gives what C reports of the calls
// between, and of no others.
func attend() (done func()) {
	runtime.LockOSThread()
	C.vt_forget_error()
	return runtime.UnlockOSThread
}

// takeError returns the last error that C reported since attend, or otherwise if there is none.
func takeError(otherwise string) string {
	var buf [512]C.char
	if C.vt_take_error(&buf[0], C.int(len(buf))) == 0 {
		return otherwise
	}
	return C.GoString(&buf[0])
}

// Type is a ggml tensor type.
type Type uint32

// The types that this project names. A file may hold any other that ggml knows.
const (
	F32   Type = 0
	F16   Type = 1
	Q4_0  Type = 2
	Q4_1  Type = 3
	Q5_0  Type = 6
	Q5_1  Type = 7
	Q8_0  Type = 8
	Q2_K  Type = 10
	Q3_K  Type = 11
	Q4_K  Type = 12
	Q5_K  Type = 13
	Q6_K  Type = 14
	I32   Type = 26
	BF16  Type = 30
	MXFP4 Type = 39 // 32 numbers of 4 bits, e2m1, with a scale of 8 bits, e8m0 (OCP Microscaling Formats 1.0)

	typeCount Type = 40
)

// String gives ggml's name of the type: "q4_1".
func (t Type) String() string {
	if t >= typeCount {
		return fmt.Sprintf("type %d", uint32(t))
	}
	return C.GoString(C.ggml_type_name(C.uint(t)))
}

// Dequantizes tells whether ggml can convert the type to float32.
func (t Type) Dequantizes() bool {
	return t == F32 || t < typeCount && C.ggml_get_type_traits(C.uint(t)).to_float != nil
}

// BlockSize is the number of values that are stored together: 32 for q4_1, 1 for f32.
func (t Type) BlockSize() int64 { return int64(C.ggml_blck_size(C.uint(t))) }

// RowBytes is the size in bytes of n values in a row; n must be a multiple of BlockSize.
func (t Type) RowBytes(n int64) int64 {
	return n / t.BlockSize() * int64(C.ggml_type_size(C.uint(t)))
}

// Dequantize converts len(out) values of type t in data to float32. It fails where sizes do not match or the type has
// no float form.
func Dequantize(t Type, data []byte, out []float32) error {
	n := int64(len(out))
	if !t.Dequantizes() {
		return fmt.Errorf("%v: ggml cannot turn this type into float32", t)
	}
	if n%t.BlockSize() != 0 || t.RowBytes(n) != int64(len(data)) {
		return fmt.Errorf("%v: %d bytes are not %d values", t, len(data), n)
	}
	if n == 0 {
		return nil
	}
	if t == F32 {
		copy(bytesOf(out), data)
		return nil
	}
	C.vt_to_float(C.uint(t), ptr(data), (*C.float)(&out[0]), C.int64_t(n))
	return nil
}

// TypeNamed finds the type of a name that String gives, in capitals or not.
func TypeNamed(name string) (Type, bool) {
	for t := range typeCount {
		if t.BlockSize() > 0 && strings.EqualFold(t.String(), name) {
			return t, true
		}
	}
	return 0, false
}

// CheckQuantize says why rows of width float32 values cannot be converted to type t without an importance matrix; nil
// where they can.
func (t Type) CheckQuantize(width int64) error {
	switch {
	case t == F32:
		return nil
	case t < typeCount && bool(C.ggml_quantize_requires_imatrix(C.uint(t))):
		return fmt.Errorf("%v: this type needs an importance matrix", t)
	// q8_1 and q8_K are for products only
	case !t.Dequantizes() || C.ggml_get_type_traits(C.uint(t)).from_float_ref == nil:
		return fmt.Errorf("%v: ggml cannot write this type", t)
	case width%t.BlockSize() != 0:
		return fmt.Errorf("%v: rows of %d values are not a multiple of its block of %d", t, width, t.BlockSize())
	}
	return nil
}

// Quantize converts rows of width float32 values to type t, without an importance matrix. It fails for types that need
// one.
func Quantize(t Type, values []float32, width int64) ([]byte, error) {
	n := int64(len(values))
	if t >= typeCount || width <= 0 || n%width != 0 || n == 0 {
		return nil, fmt.Errorf("%v: %d values are not rows of %d", t, n, width)
	}
	if err := t.CheckQuantize(width); err != nil {
		return nil, err
	}
	if t == F32 {
		return append([]byte(nil), bytesOf(values)...), nil
	}
	out := make([]byte, t.RowBytes(width)*(n/width))
	C.ggml_quantize_chunk(C.uint(t), (*C.float)(&values[0]), ptr(out), 0, C.int64_t(n/width), C.int64_t(width), nil)
	return out, nil
}
