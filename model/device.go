package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/vera"
)

// CPU is the name of the device that is always there.
const CPU = bindings.CPU

// Device is a processor, and the operations of a training step that it has. Nothing is computed elsewhere in its stead:
// a step that needs an operation which the device lacks is refused before it begins.
type Device struct {
	bindings.Device
	// operations of ggml in a step; empty for the CPU, which has kernels of its own
	Operations []string `json:"operations"`
	Lacks      []string `json:"lacks"` // those that the device does not have
}

// DeviceName resolves auto.
func DeviceName(name string) (string, error) {
	d, err := bindings.FindDevice(name)
	return d.Name, err
}

// arithmetics are those of products that round their operands to a type.
var arithmetics = map[bindings.Type]Compute{bindings.F32: ComputeF32, bindings.BF16: ComputeBF16,
	bindings.I32: ComputeInt, bindings.Q8_0: ComputeQ8}

// trainsBestIn is the arithmetic that a device trains best in.
func trainsBestIn(d bindings.Device) Compute { return arithmetics[d.Arithmetics[0]] }

// DeviceCompute is the arithmetic that trains best on the device of that name.
func DeviceCompute(name string) (Compute, error) {
	d, err := bindings.FindDevice(name)
	if err != nil {
		return "", err
	}
	return trainsBestIn(d), nil
}

// AnsweringCompute is the arithmetic that answers fastest on the device of that name.
func AnsweringCompute(name string) (Compute, error) {
	d, err := bindings.FindDevice(name)
	if err != nil {
		return "", err
	}
	if slices.Contains(d.Arithmetics, bindings.Q8_0) {
		return ComputeQ8, nil
	}
	return trainsBestIn(d), nil
}

// multiplies refuses an arithmetic that the device does not have.
func multiplies(d bindings.Device, c Compute) error {
	var has []string
	for _, t := range d.Arithmetics {
		if arithmetics[t] == c {
			return nil
		}
		has = append(has, string(arithmetics[t]))
	}
	return fmt.Errorf("compute %q: device %s computes in %s", c, d.Name, strings.Join(has, " or "))
}

// Device is where the model computes.
func (m *Model) Device() bindings.Device { return m.backend.Device }

// Compute is the arithmetic that the model computes in.
func (m *Model) Compute() Compute { return m.options.Compute }

// DeviceMemory is how much memory of the model's device is in use now, by all programs, in bytes; 0 where that is the
// CPU.
func (m *Model) DeviceMemory() int64 { return m.backend.Used() }

// Devices lists the devices that there are, and why a backend could not be loaded. Operations are those of the model in
// a GGUF file or, where the path is empty, of a Llama with common types of weights.
func Devices(path string) (list []Device, failed []error, err error) {
	if path == "" {
		folder, err := os.MkdirTemp("", "veratune")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(folder)
		path = filepath.Join(folder, "common.gguf")
		if err := writeCommon(path); err != nil {
			return nil, nil, err
		}
	}
	found, failed := bindings.Devices()
	for _, d := range found {
		device, err := ask(d, path)
		if err != nil && len(list) == 0 { // the CPU, so that it is the file
			return nil, nil, err
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		list = append(list, device)
	}
	return list, failed, nil
}

// ask builds all graphs of a training step, without memory for the weights, and asks the device for each of their
// operations.
func ask(d bindings.Device, path string) (Device, error) {
	device := Device{Device: d}
	o := Default()
	o.Device, o.Threads, o.Compute = d.Name, 1, trainsBestIn(d)
	file, err := bindings.OpenGGUF(path)
	if err != nil {
		return device, err
	}
	m := &Model{options: o, file: file, dryRun: true, probe: &device}
	defer m.Close()
	if err := m.open(); err != nil {
		return device, fmt.Errorf("%s: %w", path, err)
	}
	if d.Host { // has all
		return device, nil
	}
	c := vera.Default()
	c.Rank, c.Only = 64, "b"
	adapter, err := vera.New(c, m.Base())
	if err != nil {
		return device, err
	}
	samples, err := m.splitBatch([]int32{0, 0}, []int32{0, 0}, []int{2})
	if err != nil {
		return device, err
	}
	for _, m.options.Plan = range []Plan{PlanFactored, PlanMerged} {
		if err := m.Attach(adapter); err != nil {
			return device, err
		}
		adamw, err := m.MakeDeviceAdamW(0.9, 0.999, 1e-8, 0.1)
		if err != nil {
			return device, err
		}
		if err := m.merge(); err != nil {
			return device, err
		}
		if _, err := m.passGradient(newPack(samples, true), 0, 0); err != nil {
			return device, err
		}
		if _, err := m.GradientNorm(); err != nil {
			return device, err
		}
		if err := adamw.Step(1, 1, 1); err != nil {
			return device, err
		}
	}
	return device, nil
}

// note adds a graph's operations, and those that the device lacks.
func (d *Device) note(b *bindings.Backend, g *bindings.Graph) {
	add := func(list *[]string, names []string) {
		for _, name := range names {
			if !slices.Contains(*list, name) {
				*list = append(*list, name)
			}
		}
	}
	add(&d.Operations, g.Operations())
	add(&d.Lacks, b.Lacks(g))
}

// writeCommon writes a Llama whose blocks have one type of weights each, all of them 0.
func writeCommon(path string) error {
	const width, heads, vocab = 256, 4, 8
	types := []bindings.Type{bindings.F32, bindings.F16, bindings.Q4_0, bindings.Q4_1, bindings.Q8_0, bindings.Q4_K,
		bindings.Q6_K}
	w := bindings.NewGGUFWriter()
	defer w.Close()
	var err error
	set := func(key string, value any) { err = errors.Join(err, w.Set(key, value)) }
	add := func(name string, t bindings.Type, shape ...int64) {
		n := int64(1)
		for _, size := range shape {
			n *= size
		}
		err = errors.Join(err, w.AddTensor(name, t, shape, make([]byte, t.RowBytes(n))))
	}
	set("general.architecture", "llama")
	set("llama.block_count", uint32(len(types)))
	set("llama.embedding_length", uint32(width))
	set("llama.feed_forward_length", uint32(width))
	set("llama.attention.head_count", uint32(heads))
	set("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	add("output_norm.weight", bindings.F32, width)
	add("token_embd.weight", bindings.Q4_K, width, vocab)
	add("output.weight", bindings.Q6_K, width, vocab)
	for i, t := range types {
		for _, norm := range []string{"attn_norm", "ffn_norm"} {
			add(fmt.Sprintf("blk.%d.%s.weight", i, norm), bindings.F32, width)
		}
		for _, target := range many {
			if target != "attn_qkv" {
				add(fmt.Sprintf("blk.%d.%s.weight", i, target), t, width, width)
			}
		}
	}
	if err != nil {
		return err
	}
	return w.WriteFile(path)
}
