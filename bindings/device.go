package bindings

// #cgo linux LDFLAGS: -ldl
// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// Names of devices that are always there.
const (
	CPU      = "cpu"      // with veratune's own kernels
	Composed = "composed" // the CPU by ggml's operations alone, as other devices compute: to compare with
	Metal    = "metal"    // Apple's graphics processors, whose composed products cannot be in float32
	Auto     = "auto"     // the graphics processor with the most memory, or the CPU
)

// LibraryPath is the environment variable of folders that are searched for backends first.
const LibraryPath = "VERATUNE_LIBRARY_PATH"

// Device is a processor that ggml has a backend for.
type Device struct {
	Name        string `json:"name"` // cpu, cuda0, vulkan0, metal
	Description string `json:"description"`
	Free        int64  `json:"free"`  // bytes of its memory; 0 where that is not known
	Total       int64  `json:"total"` // bytes
	integrated  bool
	c           *C.struct_ggml_backend_device
}

// settings are environment variables for backends; the user's own values are kept.
var settings = map[string]string{
	// ggml's Vulkan products would round float32 operands to float16, in which small gradients are 0 and large numbers
	// infinite.
	"GGML_VK_DISABLE_F16": "1",
	// The software Vulkan of Mesa 22.3 mixes the shared memory of its threads up: one product in ten is wrong with two.
	"LP_NUM_THREADS": "1",
}

// libraries loads the backends beside the program once: libggml-cuda.so, libggml-vulkan.so and their like. It says why
// one could not be loaded, or has no device.
var libraries = sync.OnceValue(func() (failed []error) {
	defer attend()()
	for name, value := range settings {
		if _, ok := os.LookupEnv(name); !ok {
			os.Setenv(name, value)
		}
	}
	folders := filepath.SplitList(os.Getenv(LibraryPath))
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			folders = append(folders, filepath.Dir(exe), filepath.Join(filepath.Dir(exe), "..", "lib", "veratune"))
		}
	}
	seen := map[string]bool{}
	for _, folder := range folders {
		paths, _ := filepath.Glob(filepath.Join(folder, "libggml-*.so"))
		for _, path := range paths {
			if seen[filepath.Base(path)] {
				continue
			}
			seen[filepath.Base(path)] = true
			name := C.CString(path)
			if backend := C.vt_load_backend(name); backend == nil {
				failed = append(failed, fmt.Errorf("%s: %s", path, takeError("no backend")))
			} else if C.ggml_backend_reg_dev_count(backend) == 0 {
				failed = append(failed, fmt.Errorf("%s: no device: %s", path, takeError("none is there")))
			}
			C.free(unsafe.Pointer(name))
		}
	}
	return failed
})

// Devices lists the CPU and all devices of the backends beside the program, and why a backend could not be loaded.
func Devices() (list []Device, failed []error) {
	failed = libraries()
	for i := range C.ggml_backend_dev_count() {
		d := newDevice(C.ggml_backend_dev_get(i))
		const accelerator = 3 // a library of the CPU's, such as BLAS
		if uint32(C.ggml_backend_dev_type(d.c)) == accelerator {
			continue
		}
		list = append(list, d)
	}
	slices.SortStableFunc(list, func(a, b Device) int { return rank(a) - rank(b) })
	return list, failed
}

// rank puts the CPU first.
func rank(d Device) int {
	if d.Name == CPU {
		return 0
	}
	return 1
}

func newDevice(c *C.struct_ggml_backend_device) Device {
	var free, total C.size_t
	C.ggml_backend_dev_memory(c, &free, &total)
	const integrated = 2
	return Device{
		Name:        strings.ToLower(C.GoString(C.ggml_backend_dev_name(c))),
		Description: C.GoString(C.ggml_backend_dev_description(c)),
		Free:        int64(free), Total: int64(total), integrated: uint32(C.ggml_backend_dev_type(c)) == integrated,
		c: c,
	}
}

// FindDevice gives the device of that name. Auto is the graphics processor with the most memory, a discrete one before
// an integrated one.
func FindDevice(name string) (Device, error) {
	if name == CPU || name == Composed { // without a look at the others, whose drivers take a while
		const processor = 0
		d := newDevice(C.ggml_backend_dev_by_type(processor))
		d.Name = name
		return d, nil
	}
	list, failed := Devices()
	if name == Auto {
		best := list[0]
		for _, d := range list[1:] {
			if best.Name == CPU || best.integrated && !d.integrated || best.integrated == d.integrated &&
				d.Total > best.Total {
				best = d
			}
		}
		return best, nil
	}
	var names []string
	for _, d := range list {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return Device{}, errors.Join(append([]error{fmt.Errorf("there is no device %s; there are %s", name,
		strings.Join(names, ", "))}, failed...)...)
}

// Fused tells whether each of veratune's own operations is one kernel on the device: of package ggml on the CPU, else
// of the device's library. On other devices they are composed of ggml's.
func (d Device) Fused() bool {
	switch d.Name {
	case CPU:
		return true
	case Composed:
		return false
	}
	c := NewContext(2)
	defer c.Close()
	c.nodes = C.ggml_vera_nodes_new(nil)
	x := c.Convert(c.NewTensor(F32, 1, 1), BF16)
	return bool(C.ggml_backend_dev_supports_op(d.c, x.c()))
}

// Open opens a backend of the device. Threads are for the CPU.
func (d Device) Open(threads int) (*Backend, error) {
	defer attend()()
	var b *Backend
	var err error
	switch d.Name {
	case CPU:
		return NewCPU(threads)
	case Composed:
		if b, err = NewCPU(threads); err != nil {
			return nil, err
		}
		C.ggml_vera_free(b.vera)
		b.vera = nil
	default:
		c := C.vt_device_init(d.c)
		if c == nil {
			return nil, fmt.Errorf("device %s: %s", d.Name, takeError("does not start"))
		}
		b = &Backend{c: c}
	}
	b.device = d
	if !d.Fused() {
		b.composed = &composition{backend: b}
	}
	return b, nil
}

// Lacks lists the operations of a graph that the device lacks, each once.
func (b *Backend) Lacks(g *Graph) (missing []string) {
	if b.device.Name == CPU { // has all, and its graphs are many
		return nil
	}
	device := C.ggml_backend_get_device(b.c)
	for i := range C.ggml_graph_n_nodes(g.built()) {
		node := C.ggml_graph_node(g.c, i)
		if bool(C.ggml_backend_dev_supports_op(device, node)) {
			continue
		}
		name := g.operation(node)
		if src := (*Tensor)(node.src[0]); src != nil && src.Type() != F32 {
			name += " of " + src.Type().String()
		}
		if !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// Operations lists the operations of a graph, each once.
func (g *Graph) Operations() (names []string) {
	for i := range C.ggml_graph_n_nodes(g.built()) {
		if name := g.operation(C.ggml_graph_node(g.c, i)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// operation is what a node computes, in ggml's words or ours.
func (g *Graph) operation(node *C.struct_ggml_tensor) string {
	if name := C.ggml_vera_name(g.context.nodes, node); name != nil {
		return C.GoString(name)
	}
	return C.GoString(C.ggml_op_desc(node))
}

func deviceError(doing string) error {
	return fmt.Errorf("%s: %s", doing, takeError("the device failed"))
}
