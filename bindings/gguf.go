package bindings

// #include <stdlib.h>
// #include <string.h>
// #include "guard.h"
import "C"

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"unsafe"

	"github.com/edsrzf/mmap-go"

	"github.com/veratune/veratune/internal/durable"
)

// TensorInfo describes a tensor of a file.
type TensorInfo struct {
	Name   string
	Type   Type
	Shape  []int64 // ggml's order, the row length first
	Size   int64   // bytes
	part   *part   // the file that it is in
	offset int64   // in that file
}

// Rows is the number of rows in all of the tensor's dimensions.
func (t TensorInfo) Rows() int64 {
	n := int64(1)
	for _, size := range t.Shape[1:] {
		n *= size
	}
	return n
}

// GGUF is a GGUF file, or the parts that one was split into, memory-mapped read-only.
type GGUF struct {
	path    string
	parts   []*part // one of a whole file; the metadata are those of the first
	tensors []TensorInfo
	index   map[string]int
}

// part is a file with a header of its own.
type part struct {
	path    string
	c       *C.struct_gguf_context
	file    *os.File
	memory  mmap.MMap
	buffer  *Buffer // the whole map
	tensors []TensorInfo
}

// gguf value types, as in the file format.
const (
	ggufUint8 = iota
	ggufInt8
	ggufUint16
	ggufInt16
	ggufUint32
	ggufInt32
	ggufFloat32
	ggufBool
	ggufString
	ggufArray
	ggufUint64
	ggufInt64
	ggufFloat64
)

// OpenGGUF maps a GGUF file, and if it is part of a split one, all the others beside it. It fails, with the path in the
// message, for a file that is no GGUF, is truncated, or describes data beyond its end, and for parts that are missing
// or of different models.
func OpenGGUF(path string) (*GGUF, error) {
	g := &GGUF{path: path, index: map[string]int{}}
	if err := g.open(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func openPart(path string) (*part, error) {
	file, info, err := durable.Open(path)
	if err != nil {
		return nil, err
	}
	p := &part{path: path, file: file}
	if err := p.read(info.Size()); err != nil {
		p.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func (p *part) read(size int64) (err error) {
	defer attend()()
	if size == 0 {
		return errors.New("not a GGUF file") // and an empty file cannot be mapped
	}
	if p.memory, err = mmap.Map(p.file, mmap.RDONLY, 0); err != nil {
		return err
	}
	if err := checkHeader(p.memory); err != nil {
		return err
	}
	path := C.CString(p.path)
	defer C.free(unsafe.Pointer(path))
	// gguf_open writes the address of the tensors' context here. It is C memory, since its address is passed in a
	// struct.
	meta := (**C.struct_ggml_context)(C.calloc(1, C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(meta))
	if p.c = C.vt_gguf_open(path, meta); p.c == nil {
		return fmt.Errorf("broken or truncated GGUF file: %s", takeError("its header cannot be read"))
	}
	defer C.ggml_free(*meta)
	data := int64(C.gguf_get_data_offset(p.c))
	for i := range int(C.gguf_get_n_tensors(p.c)) {
		name := C.gguf_get_tensor_name(p.c, C.int64_t(i))
		t := (*Tensor)(C.ggml_get_tensor(*meta, name))
		if t == nil {
			return fmt.Errorf("tensor %d cannot be read", i)
		}
		info := TensorInfo{Name: C.GoString(name), Type: t.Type(), Size: t.Bytes(), part: p,
			offset: data + int64(C.gguf_get_tensor_offset(p.c, C.int64_t(i)))}
		shape := t.Shape()
		dims := 4
		for dims > 1 && shape[dims-1] == 1 {
			dims--
		}
		info.Shape = append(info.Shape, shape[:dims]...)
		p.tensors = append(p.tensors, info)
	}
	for _, t := range p.tensors {
		if end := t.offset + t.Size; t.Size < 0 || t.offset < 0 || end < t.offset || end > size {
			return fmt.Errorf("truncated GGUF file: tensor %s ends at byte %d, the file has %d", t.Name, end, size)
		}
	}
	p.buffer = HostBuffer(p.memory)
	return nil
}

// Close unmaps the file; slices that Data gave and tensors that Leaf made must not be used after it. Closing twice is
// harmless.
func (g *GGUF) Close() error {
	var errs []error
	for _, p := range g.parts {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

func (p *part) close() error {
	if p == nil {
		return nil
	}
	p.buffer.Close()
	var err error
	if p.memory != nil {
		err = p.memory.Unmap()
		p.memory = nil
	}
	if p.c != nil {
		C.gguf_free(p.c)
		p.c = nil
	}
	return errors.Join(err, closeOnce(&p.file))
}

func closeOnce(f **os.File) error {
	if *f == nil {
		return nil
	}
	err := (*f).Close()
	*f = nil
	return err
}

// Path is the path that the file was opened with.
func (g *GGUF) Path() string { return g.path }

// Paths are those of the file, or of all its parts in their order.
func (g *GGUF) Paths() []string {
	var paths []string
	for _, p := range g.parts {
		paths = append(paths, p.path)
	}
	return paths
}

// Size is that of the file, or of all its parts, in bytes.
func (g *GGUF) Size() (n int64) {
	for _, p := range g.parts {
		n += int64(len(p.memory))
	}
	return n
}

// Keys gives the names of all metadata in the order of the file.
func (g *GGUF) Keys() []string {
	c := g.parts[0].c
	keys := make([]string, int(C.gguf_get_n_kv(c)))
	for i := range keys {
		keys[i] = C.GoString(C.gguf_get_key(c, C.int64_t(i)))
	}
	return keys
}

// Value gives a metadata value as its Go type (uint8 … uint64, int8 … int64, float32, float64, bool, string, or a slice
// of these), nil where the key is absent.
func (g *GGUF) Value(key string) any { return g.parts[0].value(key) }

func (p *part) value(key string) any {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	id := C.gguf_find_key(p.c, k)
	if id < 0 {
		return nil
	}
	switch t := C.gguf_get_kv_type(p.c, id); t {
	case ggufString:
		return C.GoString(C.gguf_get_val_str(p.c, id))
	case ggufArray:
		n := int(C.gguf_get_arr_n(p.c, id))
		if C.gguf_get_arr_type(p.c, id) == ggufString {
			list, _ := p.texts(key)
			for i := range list {
				list[i] = strings.Clone(list[i])
			}
			return list
		}
		if n == 0 {
			return values(C.gguf_get_arr_type(p.c, id), nil, 0)
		}
		return values(C.gguf_get_arr_type(p.c, id), unsafe.Pointer(C.gguf_get_arr_data(p.c, id)), n)
	default:
		return first(values(t, unsafe.Pointer(C.gguf_get_val_data(p.c, id)), 1))
	}
}

// Texts gives a metadata list of texts in the file's own memory, since a vocabulary has hundreds of thousands. They are
// gone when the file is closed.
func (g *GGUF) Texts(key string) ([]string, bool) { return g.parts[0].texts(key) }

func (p *part) texts(key string) ([]string, bool) {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	id := C.gguf_find_key(p.c, k)
	if id < 0 || C.gguf_get_kv_type(p.c, id) != ggufArray || C.gguf_get_arr_type(p.c, id) != ggufString {
		return nil, false
	}
	list := make([]string, int(C.gguf_get_arr_n(p.c, id)))
	for i := range list {
		text := C.gguf_get_arr_str(p.c, id, C.size_t(i))
		list[i] = unsafe.String((*byte)(unsafe.Pointer(text)), int(C.strlen(text)))
	}
	return list, true
}

// values copies n numbers of a gguf type.
func values(t C.uint, p unsafe.Pointer, n int) any {
	switch t {
	case ggufUint8:
		return copied[uint8](p, n)
	case ggufInt8:
		return copied[int8](p, n)
	case ggufUint16:
		return copied[uint16](p, n)
	case ggufInt16:
		return copied[int16](p, n)
	case ggufUint32:
		return copied[uint32](p, n)
	case ggufInt32:
		return copied[int32](p, n)
	case ggufUint64:
		return copied[uint64](p, n)
	case ggufInt64:
		return copied[int64](p, n)
	case ggufFloat32:
		return copied[float32](p, n)
	case ggufFloat64:
		return copied[float64](p, n)
	case ggufBool:
		list := make([]bool, n)
		for i, b := range copied[int8](p, n) {
			list[i] = b != 0
		}
		return list
	}
	return nil
}

func copied[T any](p unsafe.Pointer, n int) []T {
	return append(make([]T, 0, n), unsafe.Slice((*T)(p), n)...)
}

func first(list any) any {
	switch l := list.(type) {
	case []uint8:
		return l[0]
	case []int8:
		return l[0]
	case []uint16:
		return l[0]
	case []int16:
		return l[0]
	case []uint32:
		return l[0]
	case []int32:
		return l[0]
	case []uint64:
		return l[0]
	case []int64:
		return l[0]
	case []float32:
		return l[0]
	case []float64:
		return l[0]
	case []bool:
		return l[0]
	}
	return nil
}

// String gives a metadata string.
func (g *GGUF) String(key string) (string, bool) {
	s, ok := g.Value(key).(string)
	return s, ok
}

// Uint gives a metadata integer of any width that is not negative.
func (g *GGUF) Uint(key string) (uint64, bool) { return unsigned(g.Value(key)) }

// Uints gives a metadata list of such integers.
func (g *GGUF) Uints(key string) ([]uint64, bool) {
	values := reflect.ValueOf(g.Value(key))
	if values.Kind() != reflect.Slice {
		return nil, false
	}
	list := make([]uint64, values.Len())
	for i := range list {
		var ok bool
		if list[i], ok = unsigned(values.Index(i).Interface()); !ok {
			return nil, false
		}
	}
	return list, true
}

func unsigned(value any) (uint64, bool) {
	switch v := value.(type) {
	case uint8:
		return uint64(v), true
	case uint16:
		return uint64(v), true
	case uint32:
		return uint64(v), true
	case uint64:
		return v, true
	case int8:
		return uint64(v), v >= 0
	case int16:
		return uint64(v), v >= 0
	case int32:
		return uint64(v), v >= 0
	case int64:
		return uint64(v), v >= 0
	}
	return 0, false
}

// Float gives a metadata number with a fraction.
func (g *GGUF) Float(key string) (float64, bool) {
	switch v := g.Value(key).(type) {
	case float32:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// Tensors describes all tensors in the order of the file, one part's after another's.
func (g *GGUF) Tensors() []TensorInfo { return g.tensors }

// Tensor describes the tensor of that name.
func (g *GGUF) Tensor(name string) (TensorInfo, bool) {
	i, ok := g.index[name]
	if !ok {
		return TensorInfo{}, false
	}
	return g.tensors[i], true
}

// Data is a tensor's data in the memory map. Writing to it faults.
func (g *GGUF) Data(t TensorInfo) []byte {
	return t.part.memory[t.offset : t.offset+t.Size : t.offset+t.Size]
}

// Leaf makes a tensor in c whose data is the file's own.
func (g *GGUF) Leaf(c *Context, info TensorInfo) (*Tensor, error) {
	t := c.NewTensor(info.Type, info.Shape...)
	if t == nil {
		return nil, c.Err()
	}
	return t.SetName(info.Name), info.part.buffer.PlaceAt(t, info.offset)
}

// alignment is GGUF_DEFAULT_ALIGNMENT: in new files, every tensor begins at a multiple of it.
const alignment = 32

// GGUFWriter collects metadata and tensors for a new file.
type GGUFWriter struct {
	c         *C.struct_gguf_context
	data      []tensorData
	names     map[string]bool
	alignment int64
}

// NewGGUFWriter makes an empty file in memory.
func NewGGUFWriter() *GGUFWriter {
	return &GGUFWriter{c: C.gguf_init_empty(), names: map[string]bool{}, alignment: alignment}
}

// Close frees the memory. Closing twice is harmless.
func (w *GGUFWriter) Close() {
	if w.c != nil {
		C.gguf_free(w.c)
		w.c = nil
	}
}

// Set adds or replaces a metadata value of one of the Go types that GGUF.Value gives. Text must not hold a NUL byte.
func (w *GGUFWriter) Set(key string, value any) error {
	switch {
	case key == "" || hasNUL(key) || hasNUL(value):
		return fmt.Errorf("gguf: %q: an empty key, or a NUL byte in text", key)
	case key == "general.alignment" && value != uint32(w.alignment):
		return fmt.Errorf("gguf: general.alignment %v: this file is written with %d, as uint32", value, w.alignment)
	}
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	switch v := value.(type) {
	case uint8:
		C.gguf_set_val_u8(w.c, k, C.uint8_t(v))
	case int8:
		C.gguf_set_val_i8(w.c, k, C.int8_t(v))
	case uint16:
		C.gguf_set_val_u16(w.c, k, C.uint16_t(v))
	case int16:
		C.gguf_set_val_i16(w.c, k, C.int16_t(v))
	case uint32:
		C.gguf_set_val_u32(w.c, k, C.uint32_t(v))
	case int32:
		C.gguf_set_val_i32(w.c, k, C.int32_t(v))
	case uint64:
		C.gguf_set_val_u64(w.c, k, C.uint64_t(v))
	case int64:
		C.gguf_set_val_i64(w.c, k, C.int64_t(v))
	case float32:
		C.gguf_set_val_f32(w.c, k, C.float(v))
	case float64:
		C.gguf_set_val_f64(w.c, k, C.double(v))
	case bool:
		C.gguf_set_val_bool(w.c, k, C.bool(v))
	case string:
		s := C.CString(v)
		defer C.free(unsafe.Pointer(s))
		C.gguf_set_val_str(w.c, k, s)
	case []string:
		w.setStrings(k, v)
	case []uint8:
		setArray(w, k, ggufUint8, v)
	case []int8:
		setArray(w, k, ggufInt8, v)
	case []uint16:
		setArray(w, k, ggufUint16, v)
	case []int16:
		setArray(w, k, ggufInt16, v)
	case []uint32:
		setArray(w, k, ggufUint32, v)
	case []int32:
		setArray(w, k, ggufInt32, v)
	case []uint64:
		setArray(w, k, ggufUint64, v)
	case []int64:
		setArray(w, k, ggufInt64, v)
	case []float32:
		setArray(w, k, ggufFloat32, v)
	case []float64:
		setArray(w, k, ggufFloat64, v)
	case []bool:
		bytes := make([]int8, len(v))
		for i, b := range v {
			if b {
				bytes[i] = 1
			}
		}
		setArray(w, k, ggufBool, bytes)
	default:
		return fmt.Errorf("gguf: %s: a %T cannot be written", key, value)
	}
	return nil
}

// Unset takes a metadata value away; a key that isn't there is no error.
func (w *GGUFWriter) Unset(key string) {
	k := C.CString(key)
	defer C.free(unsafe.Pointer(k))
	C.gguf_remove_key(w.c, k)
}

// hasNUL tells whether a string, or one of several, would be cut on its way through C.
func hasNUL(value any) bool {
	switch v := value.(type) {
	case string:
		return strings.IndexByte(v, 0) >= 0
	case []string:
		return slices.ContainsFunc(v, func(s string) bool { return strings.IndexByte(s, 0) >= 0 })
	}
	return false
}

func setArray[T any](w *GGUFWriter, key *C.char, t C.uint, values []T) {
	C.gguf_set_arr_data(w.c, key, t, unsafe.Pointer(unsafe.SliceData(values)), C.size_t(len(values)))
}

func (w *GGUFWriter) setStrings(key *C.char, values []string) {
	texts := make([]*C.char, len(values))
	for i, v := range values {
		texts[i] = C.CString(v)
		defer C.free(unsafe.Pointer(texts[i]))
	}
	list := inC(texts)
	defer C.free(unsafe.Pointer(list))
	C.gguf_set_arr_str(w.c, key, list, C.size_t(len(values)))
}

// AddTensor adds a tensor, shape in ggml's order. data is kept by reference until WriteFile.
func (w *GGUFWriter) AddTensor(name string, t Type, shape []int64, data []byte) error {
	c := NewContext(1)
	defer c.Close()
	if tensor := c.NewTensor(t, shape...); tensor != nil && tensor.Bytes() != int64(len(data)) {
		return fmt.Errorf("gguf: tensor %s: %d bytes of data for %s", name, len(data), tensor.describe())
	}
	return w.AddTensorFunc(name, t, shape, func(out io.Writer) error {
		_, err := out.Write(data)
		return err
	})
}

// AddTensorFunc adds a tensor, shape in ggml's order, whose data a function writes. WriteFile calls these functions in
// the order of the tensors, so a file may be larger than memory. It fails where one fails, or does not write exactly
// the tensor's bytes.
func (w *GGUFWriter) AddTensorFunc(name string, t Type, shape []int64, write func(io.Writer) error) error {
	c := NewContext(1)
	defer c.Close()
	tensor := c.NewTensor(t, shape...)
	switch {
	case tensor == nil:
		return fmt.Errorf("gguf: tensor %s: %w", name, c.Err())
	case name == "" || len(name) >= C.VT_MAX_NAME || hasNUL(name):
		return fmt.Errorf("gguf: tensor name %q: from 1 to %d bytes, none of them NUL", name, C.VT_MAX_NAME-1)
	case w.names[name]:
		return fmt.Errorf("gguf: tensor %s is there already", name)
	}
	w.names[name] = true
	w.data = append(w.data, tensorData{name, tensor.Bytes(), write})
	C.gguf_add_tensor(w.c, tensor.SetName(name).c())
	return nil
}

// tensorData writes the data of a tensor, which has that many bytes.
type tensorData struct {
	name  string
	bytes int64
	write func(io.Writer) error
}

// writeTo writes the data and zeros up to the next tensor's place, a multiple of the alignment.
func (d tensorData) writeTo(out io.Writer, alignment int64) error {
	room := &exactly{out, d.bytes}
	err := d.write(room)
	if err == nil && room.left > 0 {
		err = fmt.Errorf("%d of its %d bytes were not written", room.left, d.bytes)
	}
	if err != nil {
		return fmt.Errorf("gguf: tensor %s: %w", d.name, err)
	}
	_, err = out.Write(make([]byte, (alignment-d.bytes%alignment)%alignment))
	return err
}

// exactly fails where more bytes are written than are left.
type exactly struct {
	io.Writer
	left int64
}

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, fmt.Errorf("%d bytes more than it has room for", int64(len(p))-e.left)
	}
	n, err := e.Writer.Write(p)
	e.left -= int64(n)
	return n, err
}

// WriteFile writes the file beside path, syncs it, and renames it to path. Where it fails, path is as it was and
// nothing is left beside it.
func (w *GGUFWriter) WriteFile(path string) error {
	return w.WriteOutput(path, true)
}

// WriteOutput is WriteFile, but fails where something stands at path, unless overwrite is set.
func (w *GGUFWriter) WriteOutput(path string, overwrite bool) error {
	f, err := durable.CreateOutput(path, 0o644, overwrite)
	if err != nil {
		return err
	}
	defer f.Cleanup()
	out := bufio.NewWriterSize(f, 1<<20)
	meta := make([]byte, int(C.gguf_get_meta_size(w.c)))
	C.gguf_get_meta_data(w.c, ptr(meta))
	if _, err := out.Write(meta); err != nil {
		return err
	}
	for _, data := range w.data {
		if err := data.writeTo(out, w.alignment); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Commit()
}
