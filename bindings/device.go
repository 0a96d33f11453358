package bindings

// #cgo linux LDFLAGS: -ldl
// #include "guard.h"
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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

	Capabilities `json:"-"`
}

// Capabilities are how a device computes. Which operations it has, Lacks tells.
type Capabilities struct {
	// It is the process that computes: it has all operations, and takes weights where their file is mapped. Else they
	// are copied to memory of the device's own.
	Host bool
	// Each of veratune's own operations is one kernel: of package ggml, or of the device's library. Else they are
	// composed of ggml's.
	Fused bool
	// What its products can round their operands to, the best for training first: F32 rounds nothing, I32 stands for
	// Integers, Q8_0 is for answers.
	Arithmetics []Type
}

// capabilities is the one place that tells from a name, or by asking, how a device computes.
func (d Device) capabilities() Capabilities {
	switch {
	case d.Name == CPU:
		c := Capabilities{Host: true, Fused: true, Arithmetics: []Type{F32, BF16}}
		if FastBF16() {
			c.Arithmetics = []Type{BF16, F32}
		}
		if FastIntegers() {
			c.Arithmetics = slices.Insert(c.Arithmetics, 0, I32)
		} else {
			c.Arithmetics = append(c.Arithmetics, I32)
		}
		c.Arithmetics = append(c.Arithmetics, Q8_0)
		return c
	case d.Name == Composed:
		return Capabilities{Arithmetics: []Type{F32, BF16, Q8_0}}
	case d.Name == Metal: // rounds whatever it multiplies
		return Capabilities{Arithmetics: []Type{BF16, Q8_0}}
	case d.hasKernels():
		return Capabilities{Fused: true, Arithmetics: []Type{BF16, F32, Q8_0}}
	}
	return Capabilities{Arithmetics: []Type{F32, Q8_0}}
}

// hasKernels asks a device for one of veratune's own operations.
func (d Device) hasKernels() bool {
	c := NewContext(2)
	defer c.Close()
	c.nodes = C.ggml_vera_nodes_new(nil)
	x := c.Convert(c.NewTensor(F32, 1, 1), BF16)
	return bool(C.ggml_backend_dev_supports_op(d.c, x.c()))
}

// settings are environment variables for backends; the user's own values are kept.
var settings = map[string]string{
	// ggml's Vulkan products would round float32 operands to float16, in which small gradients are 0 and large numbers
	// infinite.
	"GGML_VK_DISABLE_F16": "1",
	// The software Vulkan of Mesa 22.3 mixes the shared memory of its threads up: one product in ten is wrong with two.
	"LP_NUM_THREADS": "1",
}

// libraryNames matches the libraries of backends, as CMake names them.
func libraryNames() string {
	if runtime.GOOS == "windows" {
		return "*ggml-*.dll"
	}
	return "libggml-*.so"
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
		paths, _ := filepath.Glob(filepath.Join(folder, libraryNames()))
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
	list = []Device{processor(CPU)}
	for i := range C.ggml_backend_dev_count() {
		c := C.ggml_backend_dev_get(i)
		const cpu, accelerator = 0, 3 // an accelerator is a library of the CPU's, such as BLAS
		if kind := C.ggml_backend_dev_type(c); kind != cpu && kind != accelerator {
			list = append(list, newDevice(c, strings.ToLower(C.GoString(C.ggml_backend_dev_name(c)))))
		}
	}
	return list, failed
}

func newDevice(c *C.struct_ggml_backend_device, name string) Device {
	const integrated = 2
	d := Device{Name: name, Description: C.GoString(C.ggml_backend_dev_description(c)),
		integrated: uint32(C.ggml_backend_dev_type(c)) == integrated, c: c}
	d.Free, d.Total = d.memory()
	d.Capabilities = d.capabilities()
	return d
}

// memory is the device's, in bytes.
func (d Device) memory() (free, total int64) {
	var f, t C.size_t
	C.ggml_backend_dev_memory(d.c, &f, &t)
	return int64(f), int64(t)
}

// processor is the device that is always there, by one of its names.
func processor(name string) Device {
	const cpu = 0
	return newDevice(C.ggml_backend_dev_by_type(cpu), name)
}

// FindDevice gives the device of that name. Auto is the graphics processor with the most memory, a discrete one before
// an integrated one.
func FindDevice(name string) (Device, error) {
	if name == CPU || name == Composed { // without a look at the others, whose drivers take a while
		return processor(name), nil
	}
	list, failed := Devices()
	if name == Auto {
		best := list[0]
		for _, d := range list[1:] {
			if best.Host || best.integrated && !d.integrated || best.integrated == d.integrated &&
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

// Open opens a backend of the device. Threads are for the CPU.
func (d Device) Open(threads int) (*Backend, error) {
	defer attend()()
	if d.Host {
		return NewCPU(threads)
	}
	var b *Backend
	if d.Name == Composed {
		var err error
		if b, err = NewCPU(threads); err != nil {
			return nil, err
		}
		C.ggml_vera_free(b.vera)
		b.vera = nil
	} else {
		c := C.vt_device_init(d.c)
		if c == nil {
			return nil, fmt.Errorf("device %s: %s", d.Name, takeError("does not start"))
		}
		b = &Backend{c: c}
	}
	if b.Device = d; !d.Fused {
		b.composed = &composition{backend: b}
	}
	return b, nil
}

// Lacks lists the operations of a graph that the device lacks, each once.
func (b *Backend) Lacks(g *Graph) (missing []string) {
	if b.Host { // has all, and its graphs are many
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

// has tells whether the device has a node's operation.
func (b *Backend) has(node *Tensor) bool {
	return node != nil && bool(C.ggml_backend_dev_supports_op(C.ggml_backend_get_device(b.c), node.c()))
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
