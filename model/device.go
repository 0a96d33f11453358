package model

import (
	"fmt"
	"slices"

	"github.com/veratune/veratune/bindings"
)

// CPU is the name of the device that is always there.
const CPU = bindings.CPU

// Device is a processor, with what of a training step it computes. Nothing is computed elsewhere in its stead: a step that needs an operation which a device lacks
// is refused before it begins.
type Device struct {
	bindings.Device
	Operations []string `json:"operations"` // those of ggml that a step is made of; empty for the CPU, which has kernels of its own
	Lacks      []string `json:"lacks"`      // of these, the ones that the device does not have
}

// DeviceName resolves auto.
func DeviceName(name string) (string, error) {
	d, err := bindings.FindDevice(name)
	return d.Name, err
}

// arithmetics are those that a device trains in, the best first.
func arithmetics(d bindings.Device) []Compute {
	switch {
	case d.Name == bindings.Metal: // rounds whatever it multiplies
		return []Compute{ComputeBF16}
	case d.Name == bindings.Composed:
		return []Compute{ComputeF32, ComputeBF16}
	case d.Name == CPU && Default().Compute == ComputeF32:
		return []Compute{ComputeF32, ComputeBF16}
	case d.Fused():
		return []Compute{ComputeBF16, ComputeF32}
	}
	return []Compute{ComputeF32}
}

// DeviceCompute is the arithmetic that trains best on the device of that name.
func DeviceCompute(name string) (Compute, error) {
	d, err := bindings.FindDevice(name)
	if err != nil {
		return "", err
	}
	return arithmetics(d)[0], nil
}

// multiplies refuses an arithmetic that a device does not have.
func multiplies(d bindings.Device, c Compute) error {
	has := arithmetics(d)
	switch {
	case c == ComputeQ8 && d.Name != CPU:
		return errGenerates
	case c != ComputeQ8 && !slices.Contains(has, c):
		return fmt.Errorf("compute %q: device %s computes in %s", c, d.Name, has[0])
	}
	return nil
}

// DeviceMemory is how much memory of the model's device is in use now, by all programs, in bytes; 0 where that is the CPU.
func (m *Model) DeviceMemory() int64 { return m.backend.Used() }

// Devices lists the devices that there are, and why a backend could not be loaded. Operations are asked for with the weights' types of the model in a GGUF file, or
// common ones where the path is empty.
func Devices(path string) (list []Device, failed []error, err error) {
	types, mixture := []bindings.Type{bindings.F32, bindings.F16, bindings.Q4_0, bindings.Q4_1, bindings.Q8_0, bindings.Q4_K, bindings.Q6_K}, false
	if path != "" {
		if types, mixture, err = fileTypes(path); err != nil {
			return nil, nil, err
		}
	}
	found, failed := bindings.Devices()
	for _, d := range found {
		device, err := ask(d, types, mixture)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		list = append(list, device)
	}
	return list, failed, nil
}

// fileTypes lists the types of a file's matrices, and tells whether some are experts.
func fileTypes(path string) (list []bindings.Type, mixture bool, err error) {
	file, err := bindings.OpenGGUF(path)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	for _, t := range file.Tensors() {
		if len(t.Shape) > 1 && !slices.Contains(list, t.Type) {
			list = append(list, t.Type)
		}
		mixture = mixture || len(t.Shape) == 3
	}
	return list, mixture, nil
}

// ask builds all operations of a step, and asks the device for each.
func ask(d bindings.Device, types []bindings.Type, mixture bool) (Device, error) {
	device := Device{Device: d}
	if d.Name == bindings.CPU {
		return device, nil
	}
	backend, err := d.Open(1)
	if err != nil {
		return device, err
	}
	defer backend.Close()
	c := backend.NewContext()
	defer c.Close()
	g := c.NewGraph()
	step(c, g, types, mixture)
	device.Operations, device.Lacks = g.Operations(), backend.Lacks(g)
	return device, c.Err()
}

// step puts every operation of a training step into a graph, once.
func step(c *bindings.Context, g *bindings.Graph, types []bindings.Type, mixture bool) {
	const width, heads, kvHeads, headDim, rank, rows, f32 = 256, 4, 2, 64, 64, 32, bindings.F32
	f := func(ne ...int64) *bindings.Tensor { return c.NewTensor(f32, ne...) }
	integers := func(ne ...int64) *bindings.Tensor { return c.NewTensor(bindings.I32, ne...) }
	x, b, d := f(width, rows), f(width), f(rank)
	v := bindings.Vectors{A: f(width, rank), Rows: f(rank, width), B: b, D: d}
	for _, t := range types {
		w := c.NewTensor(t, width, width)
		g.Expand(c.GetRows(w, integers(rows)))
		g.Expand(c.Linear(w, x, bindings.Product{In: b, Out: b, Acc: x, Into: f(width, rows)}, f32))
		g.Expand(c.LinearBack(w, x, bindings.Product{Acc: x}, f32))
		g.Expand(c.Merge(f(width, width), w, &v))
		if mixture {
			routes := c.Route(f(kvHeads, rows), 1)
			w, each := c.NewTensor(t, width, width, kvHeads), bindings.Mixture{Routes: routes}
			h := c.EachExpert(w, x, each, f32)
			g.Expand(c.RouteBack(h, h, routes, kvHeads))
			g.Expand(c.SumExperts(w, c.Weigh(h, routes, f32), each))
		}
	}
	g.Expand(c.AddInplace(f(width+rank), c.MergedGrad(c.WeightGrad(x, x, f32), v)))
	g.Expand(c.SumOfSquares(x))
	g.Expand(c.OptStepAdamW(f(width), c.MulInplace(f(width), b), b, b, f(7)))
	g.Expand(c.FactoredGrad(x, f(rank, rows), v))
	g.Expand(c.NormBack(c.Norm(x, b, 1e-5, f32), x, b, 1e-5, x))
	g.Expand(c.GatedBack(c.Gated(f(2*width, rows), bindings.SiLU, f32), f(2*width, rows), bindings.SiLU, f32))
	table := c.Rope(f(headDim, 1, rows), integers(rows), nil, bindings.Rope{Dims: headDim, FreqBase: 1e4, FreqScale: 1, AttnFactor: 1})
	qkv := c.Rotate(f(headDim*(heads+2*kvHeads), rows), c.Reshape(table, headDim, rows), heads+kvHeads, headDim, bindings.Neighbours, false, f32)
	norms := bindings.HeadNorms{Q: f(headDim), K: f(headDim)}
	qkv = c.Rotate(c.NormHeads(qkv, norms, heads, kvHeads, 1e-5, f32), c.Reshape(table, headDim, rows), heads+kvHeads, headDim, bindings.Halves, false, f32)
	g.Expand(c.NormHeadsBack(qkv, qkv, norms, heads, kvHeads, 1e-5, f32))
	segments := c.NewSegments([][4]int32{{0, rows, -1, 0}})
	attends := bindings.Heads{Query: heads, KV: kvHeads, Dim: headDim, Scale: 1}
	out := c.Attention(qkv, segments, attends, f32)
	g.Expand(c.AttentionBack(out, qkv, segments, attends))
	g.Expand(c.AddInplace(c.View(qkv, [4]int64{width, rows, 1, 1}, [4]int64{}), b)) // a bias
	labels := integers(rows)
	g.Expand(c.CrossEntropy(x, labels, 0))
	g.Expand(c.SetRows(f(width, rows), c.CrossEntropyBack(x, labels, 0, f32), labels))
}
