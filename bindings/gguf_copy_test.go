package bindings

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// oddFile has every kind of metadata, an alignment of its own, texts with NUL bytes, and two tensors whose data do not
// fill it; values is its metadata alone.
func oddFile(alignment uint32) (file *raw, values []byte) {
	type u32 = uint32
	type u64 = uint64
	str, arr := u32(ggufString), u32(ggufArray)
	r := newRaw(3, 3, 13)
	start := r.Len()
	r.put("u8", u32(ggufUint8), uint8(200), "i8", u32(ggufInt8), int8(-3), "u16", u32(ggufUint16), uint16(9), "i16",
		u32(ggufInt16), int16(-9))
	r.put("general.alignment", u32(ggufUint32), alignment, "i32", u32(ggufInt32), int32(-1), "f32", u32(ggufFloat32),
		float32(0.1), "bool", u32(ggufBool), uint8(1))
	r.put("NUL", str, "a\x00b", "u64", u32(ggufUint64), u64(1<<63), "f64", u32(ggufFloat64), 1e-300)
	r.put("texts", arr, str, u64(3), "", "x\x00", "Ġ", "flags", arr, u32(ggufBool), u64(3), []uint8{1, 0, 1})
	values = slices.Clone(r.Bytes()[start:])
	fill := func(n int) { r.Write(bytes.Repeat([]byte{7}, n)) }
	up := func(n int) u64 { return u64((n + int(alignment) - 1) / int(alignment) * int(alignment)) }
	r.put("x", u32(1), u64(5), u32(F32), u64(0), "y", u32(2), u64(32), u64(3), u32(Q8_0), up(20), "z", u32(1), u64(3),
		u32(F16), up(20)+up(3*34))
	for _, size := range []int{20, 3 * 34, 6} {
		r.Write(make([]byte, int(up(r.Len()))-r.Len()))
		fill(size)
	}
	r.Write(make([]byte, int(up(r.Len()))-r.Len()))
	return r, values
}

// TestGGUFCopy copies a file to the byte, and with one tensor of another type all but that one.
func TestGGUFCopy(t *testing.T) {
	for _, alignment := range []uint32{8, 32, 256} {
		content, values := oddFile(alignment)
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from.gguf"), filepath.Join(dir, "to.gguf")
		if err := os.WriteFile(from, content.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := OpenGGUF(from)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		copied := func(change func(*GGUFWriter) error) []byte {
			t.Helper()
			w, err := g.Copy()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := errors.Join(change(w), w.WriteFile(to)); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
		if got := copied(func(*GGUFWriter) error { return nil }); !bytes.Equal(got, content.Bytes()) {
			t.Errorf("alignment %d: the copy differs", alignment)
		}
		y, _ := g.Tensor("y")
		got := copied(func(w *GGUFWriter) error {
			return errors.Join(w.Set("new", "text"), w.Replace(y, Q4_0, func(out io.Writer) error {
				_, err := out.Write(bytes.Repeat([]byte{9}, 3*18))
				return err
			}))
		})
		if !bytes.Contains(got, append(slices.Clone(values), "\x03\x00\x00\x00\x00\x00\x00\x00new"...)) {
			t.Errorf("alignment %d: the metadata are not those of the file and one text more", alignment)
		}
		changed, err := OpenGGUF(to)
		if err != nil {
			t.Fatal(err)
		}
		defer changed.Close()
		for i, info := range changed.Tensors() {
			want, kind := g.Data(g.Tensors()[i]), g.Tensors()[i].Type
			if info.Name == "y" {
				want, kind = bytes.Repeat([]byte{9}, 3*18), Q4_0
			}
			if info.Name != g.Tensors()[i].Name || info.Type != kind || !bytes.Equal(changed.Data(info), want) {
				t.Errorf("alignment %d: tensor %d is %v, its data are not as they should be", alignment, i, info)
			}
		}
	}
}

func TestGGUFReplaceErrors(t *testing.T) {
	g, err := OpenGGUF(writeGGUF(t, nil, someTensors(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	w, err := g.Copy()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	blocks, _ := g.Tensor("blocks")
	none := func(io.Writer) error { return nil }
	for word, err := range map[string]error{
		"not there":        w.Replace(TensorInfo{Name: "absent", Shape: []int64{32}}, Q8_0, none),
		"rows of 64":       w.Replace(blocks, Q4_K, none),
		"cannot be type 4": w.Replace(blocks, typeCount, none),
	} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error %v does not say %q", err, word)
		}
	}
}

func TestTypeNamed(t *testing.T) {
	for _, name := range []string{"q4_K", "Q4_k", "f32", "BF16", "iq2_xxs"} {
		if kind, ok := TypeNamed(name); !ok || !strings.EqualFold(kind.String(), name) {
			t.Errorf("%s is %v, %t", name, kind, ok)
		}
	}
	for _, name := range []string{"", "q4", "DEPRECATED", "type 99"} {
		if kind, ok := TypeNamed(name); ok {
			t.Errorf("%q is %v", name, kind)
		}
	}
}
