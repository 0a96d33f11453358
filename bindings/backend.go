package bindings

// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"
)

// Backend computes graphs on a device: on the CPU, with a fixed number of threads.
type Backend struct {
	Device
	c    *C.struct_ggml_backend
	pool *C.struct_ggml_threadpool // of the CPU
	// state of veratune's own operations, where they are kernels of the CPU; else nil
	vera     *C.struct_ggml_vera
	composed *composition // the same where they are composed
}

// NewCPU opens the CPU backend with that many threads (1 to 512).
func NewCPU(threads int) (*Backend, error) {
	defer attend()()
	if threads < 1 || threads > 512 {
		return nil, fmt.Errorf("threads %d: from 1 to 512", threads)
	}
	b := C.ggml_backend_cpu_init()
	if b == nil {
		return nil, errors.New(takeError("ggml's CPU backend does not start"))
	}
	// The threads live from graph to graph, and spin for some milliseconds between two: starting or waking them takes
	// longer than a small graph.
	var params C.struct_ggml_threadpool_params
	C.ggml_threadpool_params_init(&params, C.int(threads))
	params.poll = 1
	pool := C.ggml_threadpool_new(&params)
	if pool == nil {
		C.ggml_backend_free(b)
		return nil, fmt.Errorf("%d threads cannot be started", threads)
	}
	C.ggml_backend_cpu_set_n_threads(b, C.int(threads))
	C.ggml_backend_cpu_set_threadpool(b, pool)
	return &Backend{c: b, pool: pool, vera: C.ggml_vera_new(C.int(threads)), Device: processor(CPU)}, nil
}

// NewContext makes a context for graphs, which grows with its tensors. It can hold veratune's own operations, in the
// form that this backend computes.
func (b *Backend) NewContext() *Context {
	c := NewContext(0)
	c.host = b.Host
	if c.composed = b.composed; c.composed == nil {
		c.nodes = C.ggml_vera_nodes_new(b.vera)
	}
	return c
}

// Used is the memory of the device's own that is in use, by all programs, in bytes.
func (b *Backend) Used() int64 {
	if b.Host {
		return 0
	}
	free, total := b.memory()
	return total - free
}

// RoundProducts makes composed products round to bfloat16, with sums in float32, unless one operand has few columns.
func (b *Backend) RoundProducts() { b.composed.rounds = true }

// ISA names the instruction set of veratune's own kernels: portable, avx2, avx512, avx512bf16 or amx; on Arm neon,
// dotprod, i8mm or bf16.
func ISA() string { return C.GoString(C.ggml_vera_isa()) }

// useISA makes veratune's kernels use an instruction set from now on, and tells whether the processor has it; "" is the
// best.
func useISA(name string) bool {
	if name == "" {
		return bool(C.ggml_vera_use(nil))
	}
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return bool(C.ggml_vera_use(s))
}

// FastBF16 tells whether the CPU kernels multiply bfloat16 numbers by instructions made for it.
func FastBF16() bool { return bool(C.ggml_vera_isa_bf16()) }

// Integers are those to which products of the way Rounded round where k numbers are summed: from −limit to limit, with
// a scale for each block of `span` of them. Where operands are gradients, every `turned` numbers of a block are
// multiplied by a Hadamard matrix first, if that is not 0. All are 0 where nothing is rounded.
func Integers(k int) (limit, span, turned int) {
	n := C.ggml_vera_isa_integers(C.int64_t(k))
	return int(n.limit), int(n.span), int(n.turned)
}

// FastIntegers tells whether products of the way Rounded are the fastest that the CPU has.
func FastIntegers() bool { return bool(C.ggml_vera_isa_integers(1).fast) }

// Close ends the backend. Closing twice is harmless.
func (b *Backend) Close() {
	if b.c == nil {
		return
	}
	b.composed.close()
	C.ggml_backend_free(b.c)
	if b.pool != nil {
		C.ggml_threadpool_free(b.pool)
	}
	if b.vera != nil {
		C.ggml_vera_free(b.vera)
	}
	b.c, b.pool, b.vera = nil, nil, nil
}

// Times gives the seconds that each kind of veratune's own operations has taken since the last call.
func (b *Backend) Times() map[string]float64 {
	var names [64]*C.char
	var seconds [64]C.double
	times := map[string]float64{}
	if b.vera == nil {
		return times
	}
	for i := range C.ggml_vera_times(b.vera, &names[0], &seconds[0], C.int(len(names))) {
		if seconds[i] > 0 {
			times[C.GoString(names[i])] = float64(seconds[i])
		}
	}
	return times
}

// Compute runs all operations of a graph whose tensors have memory.
func (b *Backend) Compute(g *Graph) error {
	defer attend()()
	if status := C.vt_graph_compute(b.c, g.built()); status != 0 {
		return fmt.Errorf("device %s: %s", b.Name,
			takeError(fmt.Sprintf("computing a graph failed with status %d", int(status))))
	}
	return nil
}

// Buffer is memory of a backend that holds tensors' data.
type Buffer struct {
	c    *C.struct_ggml_backend_buffer
	used int64
	size int64
	// align is the alignment in bytes of every tensor placed here.
	align int64
}

// Allocate gives memory to all tensors of a context that have none.
func (b *Backend) Allocate(c *Context) (*Buffer, error) {
	defer attend()()
	if c.err != nil {
		return nil, c.err
	}
	buf := C.vt_alloc_tensors(c.c, b.c)
	if buf == nil {
		return nil, outOfMemory(b.Name, "a buffer")
	}
	size := int64(C.ggml_backend_buffer_get_size(buf))
	return &Buffer{c: buf, used: size, size: size}, nil
}

// outOfMemory is the error of memory that was refused.
func outOfMemory(device, what string) error {
	return fmt.Errorf("device %s: %s: %w", device, takeError(what), syscall.ENOMEM)
}

// NewBuffer reserves size bytes. Place puts tensors into it, one after the other.
func (b *Backend) NewBuffer(size int64) (*Buffer, error) {
	defer attend()()
	buf := C.vt_alloc_buffer(b.c, C.size_t(size))
	if buf == nil {
		return nil, outOfMemory(b.Name, fmt.Sprintf("%d MiB", size>>20))
	}
	return &Buffer{c: buf, size: size, align: b.Alignment()}, nil
}

// Room is the memory of a tensor that Place puts into a buffer.
func (b *Backend) Room(t *Tensor) int64 {
	n, align := int64(C.ggml_backend_buft_get_alloc_size(C.ggml_backend_get_default_buffer_type(b.c), t.c())),
		b.Alignment()
	return (n + align - 1) / align * align
}

// Alignment is the alignment of tensors, in bytes.
func (b *Backend) Alignment() int64 { return int64(C.ggml_backend_get_alignment(b.c)) }

// HostBuffer makes a buffer of memory that the caller owns and keeps alive, such as a file's memory map.
func HostBuffer(memory []byte) *Buffer {
	return &Buffer{c: C.ggml_backend_cpu_buffer_from_ptr(ptr(memory), C.size_t(len(memory))), size: int64(len(memory))}
}

// Close frees the buffer, not the memory behind a HostBuffer. Closing twice is harmless.
func (b *Buffer) Close() {
	if b != nil && b.c != nil {
		C.ggml_backend_buffer_free(b.c)
		b.c = nil
	}
}

// Size is the buffer's size in bytes.
func (b *Buffer) Size() int64 { return b.size }

// Place gives t the next free place of the buffer and returns its offset.
func (b *Buffer) Place(t *Tensor) (int64, error) {
	offset := b.Padded(b.used)
	if err := b.PlaceAt(t, offset); err != nil {
		return 0, err
	}
	b.used = offset + int64(C.ggml_backend_buffer_get_alloc_size(b.c, t.c()))
	return offset, nil
}

// Padded rounds a size up to the alignment of the buffer's tensors.
func (b *Buffer) Padded(n int64) int64 { return (n + b.align - 1) / b.align * b.align }

// Reset forgets all placements.
func (b *Buffer) Reset() { b.used = 0 }

// PlaceAt gives t the memory at offset. It fails where the buffer is too small or t has memory already. A reshaped
// whole tensor is placed with the tensor that it views.
func (b *Buffer) PlaceAt(t *Tensor, offset int64) error {
	defer attend()()
	if t != nil && t.view_src != nil {
		if whole := (*Tensor)(t.view_src); whole.Bytes() == t.Bytes() && t.contiguous() && whole.contiguous() {
			t = whole
		}
	}
	switch {
	case t == nil:
		return errors.New("place: no tensor")
	case t.data != 0 || t.view_src != nil:
		return fmt.Errorf("place %q: the tensor has memory already", t.Name())
	case offset < 0 || offset+t.Bytes() > b.size:
		return fmt.Errorf("place %q: %d bytes at %d do not fit into %d", t.Name(), t.Bytes(), offset, b.size)
	}
	if !bool(C.vt_tensor_place(b.c, t.c(), C.size_t(offset))) {
		return fmt.Errorf("place %q: %s", t.Name(), takeError("refused"))
	}
	return nil
}

// Allocator gives memory to the tensors of one graph at a time and uses it again for the next graph.
type Allocator struct {
	c      *C.struct_ggml_gallocr
	device string
}

// NewAllocator makes an allocator of the backend's memory.
func (b *Backend) NewAllocator() *Allocator {
	return &Allocator{C.ggml_gallocr_new(C.ggml_backend_get_default_buffer_type(b.c)), b.Name}
}

// Close frees the memory. Closing twice is harmless.
func (a *Allocator) Close() {
	if a.c != nil {
		C.ggml_gallocr_free(a.c)
		a.c = nil
	}
}

// Allocate gives memory to all tensors of g that have none; the graph before it loses its own.
func (a *Allocator) Allocate(g *Graph) error {
	defer attend()()
	if !bool(C.vt_alloc_graph(a.c, g.built())) {
		return outOfMemory(a.device, "a graph")
	}
	return nil
}

// Measure is the memory that Allocate would need for g, in bytes.
func (a *Allocator) Measure(g *Graph) int64 {
	var size C.size_t
	C.ggml_gallocr_reserve_n_size(a.c, g.built(), nil, nil, &size)
	return int64(size)
}

// Size is the memory held, in bytes.
func (a *Allocator) Size() int64 { return int64(C.ggml_gallocr_get_buffer_size(a.c, 0)) }
