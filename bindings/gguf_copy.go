package bindings

// #include "guard.h"
import "C"

import (
	"fmt"
	"io"
	"slices"
	"unsafe"
)

// Copy makes a writer of all metadata and tensors of the file, in their order, with its alignment; a split file becomes
// one. Set and Replace change single ones. The file must stay open until WriteFile has been called.
func (g *GGUF) Copy() (*GGUFWriter, error) {
	defer attend()()
	whole := g.parts[0]
	path := C.CString(whole.path)
	defer C.free(unsafe.Pointer(path))
	c := C.vt_gguf_open(path, nil)
	if c == nil {
		return nil, fmt.Errorf("%s: %s", whole.path, takeError("its header cannot be read"))
	}
	w := &GGUFWriter{c: c, names: map[string]bool{}, alignment: int64(C.gguf_get_alignment(c))}
	for i, t := range g.tensors {
		write := func(out io.Writer) error {
			_, err := out.Write(g.Data(t))
			return err
		}
		if i < len(whole.tensors) {
			w.names[t.Name] = true
			w.data = append(w.data, tensorData{t.Name, t.Size, write})
		} else if err := w.AddTensorFunc(t.Name, t.Type, t.Shape, write); err != nil {
			w.Close()
			return nil, err
		}
	}
	for _, key := range []string{keySplitNo, keySplitCount, keySplitTensors} {
		w.Unset(key)
	}
	return w, nil
}

// Replace gives a tensor that is there already another type, in the same shape, and data that a function writes as for
// AddTensorFunc.
func (w *GGUFWriter) Replace(info TensorInfo, t Type, write func(io.Writer) error) error {
	i := slices.IndexFunc(w.data, func(d tensorData) bool { return d.name == info.Name })
	switch {
	case i < 0:
		return fmt.Errorf("gguf: tensor %s is not there", info.Name)
	case t >= typeCount || t.BlockSize() == 0 || info.Shape[0]%t.BlockSize() != 0:
		return fmt.Errorf("gguf: tensor %s: rows of %d values cannot be %v", info.Name, info.Shape[0], t)
	}
	name := C.CString(info.Name)
	defer C.free(unsafe.Pointer(name))
	C.gguf_set_tensor_type(w.c, name, C.uint(t))
	w.data[i] = tensorData{info.Name, t.RowBytes(info.Shape[0]) * info.Rows(), write}
	return nil
}
