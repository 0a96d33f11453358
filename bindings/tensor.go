package bindings

// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Tensor is a ggml tensor. It lives as long as the Context that made it.
type Tensor C.struct_ggml_tensor

func (t *Tensor) c() *C.struct_ggml_tensor { return (*C.struct_ggml_tensor)(t) }

// Type is the tensor's type.
func (t *Tensor) Type() Type { return Type(t._type) }

// Ne is the number of elements in dimension i (0 to 3); 0 for nil, the result of an operation that failed.
func (t *Tensor) Ne(i int) int64 {
	if t == nil {
		return 0
	}
	return int64(t.ne[i])
}

// Shape gives all four dimensions.
func (t *Tensor) Shape() [4]int64 {
	return [4]int64{int64(t.ne[0]), int64(t.ne[1]), int64(t.ne[2]), int64(t.ne[3])}
}

// Stride is the distance in bytes between neighbours in dimension i.
func (t *Tensor) Stride(i int) int64 { return int64(t.nb[i]) }

// Elements is the number of elements.
func (t *Tensor) Elements() int64 { return int64(t.ne[0] * t.ne[1] * t.ne[2] * t.ne[3]) }

// Bytes is the size of the tensor's data.
func (t *Tensor) Bytes() int64 { return int64(C.ggml_nbytes(t.c())) }

// Name is the name that SetName or a file gave; "" for nil.
func (t *Tensor) Name() string {
	if t == nil {
		return ""
	}
	return C.GoString(&t.name[0])
}

// SetName names the tensor, for messages.
func (t *Tensor) SetName(name string) *Tensor {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	C.ggml_set_name(t.c(), s)
	return t
}

func (t *Tensor) contiguous() bool { return bool(C.ggml_is_contiguous(t.c())) }

func (t *Tensor) contiguousRows() bool {
	return int64(t.nb[0]) == t.Type().RowBytes(t.Type().BlockSize())
}

// placed tells whether the tensor exists and has memory.
func (t *Tensor) placed() bool { return t != nil && t.data != 0 && t.buffer != nil }

func (t *Tensor) describe() string { return fmt.Sprintf("%v %v", t.Type(), t.Shape()) }

// Set copies values into a tensor that has memory: float32 for f32, int32 for i32, as many as it has elements.
func Set[T float32 | int32](t *Tensor, values []T) error {
	if err := t.checkData(len(values), typeOf[T]()); err != nil {
		return fmt.Errorf("set %q: %w", t.Name(), err)
	}
	if len(values) > 0 {
		return t.write(unsafe.Pointer(&values[0]), int64(4*len(values)))
	}
	return nil
}

// Get copies a tensor's elements out; len(values) must be their number, the type as for Set.
func Get[T float32 | int32](t *Tensor, values []T) error {
	defer attend()()
	if err := t.checkData(len(values), typeOf[T]()); err != nil {
		return fmt.Errorf("get %q: %w", t.Name(), err)
	}
	if len(values) > 0 && !bool(C.vt_tensor_get(t.c(), unsafe.Pointer(&values[0]), C.size_t(4*len(values)))) {
		return deviceError(fmt.Sprintf("reading %q", t.Name()))
	}
	return nil
}

// Zero sets all bytes of a tensor that has memory to zero.
func (t *Tensor) Zero() error {
	defer attend()()
	if err := t.checkData(int(t.Elements()), t.Type()); err != nil {
		return fmt.Errorf("zero %q: %w", t.Name(), err)
	}
	if !bool(C.vt_tensor_zero(t.c())) {
		return deviceError(fmt.Sprintf("clearing %q", t.Name()))
	}
	return nil
}

// Displace takes a tensor's memory away, so that it can be placed anew.
func (t *Tensor) Displace() { C.vt_tensor_displace(t.c()) }

// Upload copies data, as a file holds them, into a tensor of any type that has memory.
func (t *Tensor) Upload(data []byte) error {
	if !t.placed() || t.Bytes() != int64(len(data)) || !t.contiguous() {
		return fmt.Errorf("upload %q: %d bytes", t.Name(), len(data))
	}
	return t.write(ptr(data), int64(len(data)))
}

func (t *Tensor) write(data unsafe.Pointer, bytes int64) error {
	defer attend()()
	if !bool(C.vt_tensor_set(t.c(), data, C.size_t(bytes))) {
		return deviceError(fmt.Sprintf("writing %q", t.Name()))
	}
	return nil
}

func typeOf[T float32 | int32]() Type {
	if _, ok := any(*new(T)).(float32); ok {
		return F32
	}
	return I32
}

func (t *Tensor) checkData(n int, want Type) error {
	switch {
	case t == nil:
		return errors.New("no tensor")
	case !t.placed():
		return errors.New("the tensor has no memory yet")
	case t.Type() != want || t.Elements() != int64(n) || !t.contiguous():
		return fmt.Errorf("%d values of %v do not fit %s", n, want, t.describe())
	}
	return nil
}

// Context holds the descriptions of tensors and graphs, and the first error of the operations made in it. Memory for
// their data comes from a Backend. It is not safe for concurrent use.
type Context struct {
	c     *C.struct_ggml_context    // of the next tensors
	full  []*C.struct_ggml_context  // the ones before, where the context grows
	nodes *C.struct_ggml_vera_nodes // parameters of veratune's own operations, as kernels
	// Shared state of these operations where they are composed. Without it and nodes there are none of them.
	composed *composition
	host     bool // it computes where the process does
	graphs   []*Graph
	work     Work
	err      error
	names    int
}

// NewContext makes room for the descriptions of n tensors.
func NewContext(tensors int) *Context {
	return &Context{c: room(C.size_t(tensors) * C.ggml_tensor_overhead()), names: tensors}
}

// room is a new context of ggml's, of that many bytes.
func room(size C.size_t) *C.struct_ggml_context {
	return C.ggml_init(C.struct_ggml_init_params{mem_size: size, no_alloc: true})
}

// grows tells whether the context, which is for graphs, takes any number of tensors.
func (c *Context) grows() bool { return c.nodes != nil || c.composed != nil }

// Close frees the descriptions. All tensors and graphs of the context are gone with it. Closing twice is harmless.
func (c *Context) Close() {
	if c.c == nil {
		return
	}
	for _, g := range c.graphs {
		g.forget()
	}
	for _, part := range append(c.full, c.c) {
		C.ggml_free(part)
	}
	C.ggml_vera_nodes_free(c.nodes)
	c.c, c.full, c.graphs, c.nodes = nil, nil, nil, nil
}

// Err is the first failure of an operation in this context.
func (c *Context) Err() error { return c.err }

// fail records the first error and returns nil for the operation that failed.
func (c *Context) fail(op string, format string, args ...any) *Tensor {
	if c.err == nil {
		c.err = fmt.Errorf("%s: %s", op, fmt.Sprintf(format, args...))
	}
	return nil
}

// Fail records an error of the caller's as if an operation had failed.
func (c *Context) Fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// reserve takes the room of one tensor in the context; ggml would abort where there is none.
func (c *Context) reserve(op string) bool {
	const more = 256
	if c.names == 0 && c.grows() {
		c.full = append(c.full, c.c)
		c.c, c.names = room(more*C.ggml_tensor_overhead()), more
	}
	if c.err == nil && c.names == 0 {
		c.fail(op, "the context is full")
	}
	c.names--
	return c.err == nil
}

// NewTensor makes a tensor without memory: up to four dimensions, all positive.
func (c *Context) NewTensor(t Type, ne ...int64) *Tensor {
	shape := [4]int64{1, 1, 1, 1}
	if len(ne) == 0 || len(ne) > 4 || t >= typeCount || t.BlockSize() == 0 {
		return c.fail("new tensor", "%v %v", t, ne)
	}
	total := int64(1)
	for i, n := range ne {
		if n <= 0 || total > (1<<50)/n {
			return c.fail("new tensor", "%v %v", t, ne)
		}
		total *= n
		shape[i] = n
	}
	if ne[0]%t.BlockSize() != 0 {
		return c.fail("new tensor", "%v %v: the row length is not a multiple of the type's block of %d", t, ne,
			t.BlockSize())
	}
	if !c.reserve("new tensor") {
		return nil
	}
	return (*Tensor)(C.ggml_new_tensor_4d(c.c, C.uint(t), C.int64_t(shape[0]), C.int64_t(shape[1]), C.int64_t(shape[2]),
		C.int64_t(shape[3])))
}

// Input marks a tensor of a graph that is set before the graph is computed.
func (t *Tensor) Input() *Tensor {
	if t != nil {
		C.ggml_set_input(t.c())
	}
	return t
}

// Output marks a tensor of a graph that is read after the graph was computed.
func (t *Tensor) Output() *Tensor {
	if t != nil {
		C.ggml_set_output(t.c())
	}
	return t
}

// Graph is an ordered list of operations. It is built at its first use, when its size is known.
type Graph struct {
	context *Context
	roots   []*Tensor
	memory  *C.struct_ggml_context
	c       *C.struct_ggml_cgraph // nil before that
}

// NewGraph makes an empty graph.
func (c *Context) NewGraph() *Graph {
	g := &Graph{context: c}
	c.graphs = append(c.graphs, g)
	return g
}

// Expand appends tensors and all that they depend on, in the order of computation. nil is skipped: Context.Err reports
// the operation that failed.
func (g *Graph) Expand(ts ...*Tensor) {
	for _, t := range ts {
		if t != nil {
			g.forget()
			g.roots = append(g.roots, t)
		}
	}
}

// built is the graph as ggml has it.
func (g *Graph) built() *C.struct_ggml_cgraph {
	if g.c == nil {
		size := C.size_t(len(g.roots)) + 1
		for _, part := range append(g.context.full, g.context.c) {
			size += C.vt_tensors_and_sources(part)
		}
		g.memory = room(C.ggml_graph_overhead_custom(size, false))
		g.c = C.ggml_new_graph_custom(g.memory, size, false)
		for _, t := range g.roots {
			C.ggml_build_forward_expand(g.c, t.c())
		}
	}
	return g.c
}

func (g *Graph) forget() {
	if g.c != nil {
		C.ggml_free(g.memory)
		g.memory, g.c = nil, nil
	}
}

// inC copies values that hold nothing but C pointers to C memory, which the caller frees. The memory is zeroed first:
// when Go stores a pointer, its collector may look at the old one, and would take malloc's leftovers for an object of
// its own.
func inC[T any](values []T) *T {
	p := (*T)(C.calloc(C.size_t(len(values)+1), C.size_t(unsafe.Sizeof(*new(T)))))
	copy(unsafe.Slice(p, len(values)), values)
	return p
}

func ptr(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func bytesOf(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// raw is the tensor's memory; it must have some, on the host.
func (t *Tensor) raw() []byte { return unsafe.Slice((*byte)(C.ggml_get_data(t.c())), t.Bytes()) }
