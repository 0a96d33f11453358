package bindings

// #include "guard.h"
import "C"

// parameters are those of one operation, which reads its own part.
type parameters = C.struct_ggml_vera_parameters

// result is what a node gives: [width, rows] of a type, in memory of its own or in that of into.
type result struct {
	Type
	width, rows int64
	into        *Tensor
}

// like is a result of x's shape.
func like(x *Tensor, t Type) result { return result{Type: t, width: x.Ne(0), rows: x.Ne(1)} }

// node makes the node of an operation of ggml/call.h. Which sources it takes says its kernel; nil is one that is left
// out. Nothing is checked any more.
func (c *Context) node(op uint32, with parameters, to result, sources ...*Tensor) *Tensor {
	var from [C.VT_MAX_SRC]*C.struct_ggml_tensor
	for i, s := range sources {
		from[i] = s.c()
	}
	r := C.struct_ggml_vera_result{_type: C.uint(to.Type), ne0: C.int64_t(to.width), ne1: C.int64_t(to.rows),
		into: to.into.c()}
	return (*Tensor)(C.ggml_vera_make(c.c, c.nodes, op, with, r, &from[0], C.int(len(sources))))
}
