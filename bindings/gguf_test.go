package bindings

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// allValues holds one metadata value of every type.
func allValues() map[string]any {
	return map[string]any{
		"uint8": uint8(255), "int8": int8(-128), "uint16": uint16(65535), "int16": int16(-32768),
		"uint32": uint32(math.MaxUint32),
		"int32":  int32(math.MinInt32), "uint64": uint64(math.MaxUint64), "int64": int64(math.MinInt64),
		"float32": float32(0.1), "float64": math.Pi,
		"true": true, "false": false, "string": "ü \"quoted\"\n日本", "empty string": "",
		"uint8s": []uint8{0, 255}, "int8s": []int8{-1, 2}, "uint16s": []uint16{1}, "int16s": []int16{-1, 0, 1},
		"uint32s": []uint32{7, 8},
		"int32s":  []int32{-7}, "uint64s": []uint64{1 << 63}, "int64s": []int64{-1 << 63, 5},
		"float32s": []float32{1.5, -2}, "float64s": []float64{1e300},
		"bools": []bool{true, false, true}, "strings": []string{"a", "", "ü"},
		"no uint8s": []uint8{}, "no float32s": []float32{}, "no bools": []bool{}, "no strings": []string{},
	}
}

type rawTensor struct {
	name  string
	kind  Type
	shape []int64
	data  []byte
}

func someTensors(t testing.TB) []rawTensor {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	list := []rawTensor{}
	for _, c := range []rawTensor{
		{name: "vector", kind: F32, shape: []int64{5}},
		{name: "matrix", kind: F16, shape: []int64{3, 7}},
		{name: "blocks", kind: Q4_1, shape: []int64{64, 3}},
		{name: "large blocks", kind: Q4_K, shape: []int64{256, 2}},
		{name: "four dimensions", kind: Q8_0, shape: []int64{32, 2, 1, 3}},
		{name: strings.Repeat("n", 63), kind: BF16, shape: []int64{1}},
	} {
		n := int64(1)
		for _, s := range c.shape {
			n *= s
		}
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(random.NormFloat64())
		}
		var err error
		if c.data, err = Quantize(c.kind, values, c.shape[0]); err != nil {
			t.Fatal(err)
		}
		list = append(list, c)
	}
	return list
}

func writeGGUF(t testing.TB, values map[string]any, tensors []rawTensor) string {
	t.Helper()
	w := NewGGUFWriter()
	defer w.Close()
	for _, key := range sortedKeys(values) {
		if err := w.Set(key, values[key]); err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range tensors {
		if err := w.AddTensor(x.name, x.kind, x.shape, x.data); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "test.gguf")
	if err := w.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func sortedKeys(m map[string]any) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestGGUFRoundTrip(t *testing.T) {
	values, tensors := allValues(), someTensors(t)
	path := writeGGUF(t, values, tensors)
	g, err := OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if g.Path() != path {
		t.Errorf("path %q, want %q", g.Path(), path)
	}
	if keys := g.Keys(); !slices.Equal(keys, sortedKeys(values)) {
		t.Errorf("keys %q, want the order they were set in", keys)
	}
	for key, want := range values {
		if got := g.Value(key); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %T %v, want %T %v", key, got, got, want, want)
		}
	}
	if len(g.Tensors()) != len(tensors) {
		t.Fatalf("%d tensors, want %d", len(g.Tensors()), len(tensors))
	}
	for i, want := range tensors {
		got, ok := g.Tensor(want.name)
		if !ok || got.Type != want.kind || !slices.Equal(got.Shape, want.shape) ||
			!bytes.Equal(g.Data(got), want.data) {
			t.Errorf("tensor %s came back as %v %v", want.name, got.Type, got.Shape)
		}
		if g.Tensors()[i].Name != want.name {
			t.Errorf("tensor %d is %s, want %s", i, g.Tensors()[i].Name, want.name)
		}
	}

	// The same content gives the same bytes.
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(writeGGUF(t, values, tensors))
	if err != nil || !bytes.Equal(first, second) {
		t.Errorf("written twice, the files differ: %v", err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

func TestGGUFTypedValues(t *testing.T) {
	values := allValues()
	values["positive int16"] = int16(9)
	g, err := OpenGGUF(writeGGUF(t, values, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for key, want := range map[string]uint64{"uint8": 255, "uint16": 65535, "uint32": math.MaxUint32,
		"uint64": math.MaxUint64, "positive int16": 9} {
		if v, ok := g.Uint(key); !ok || v != want {
			t.Errorf("Uint(%q) is %d, %t", key, v, ok)
		}
	}
	for _, key := range []string{"int8", "int16", "int32", "int64", "float32", "string", "true", "uint32s", "absent"} {
		if v, ok := g.Uint(key); ok {
			t.Errorf("Uint(%q) is %d", key, v)
		}
	}
	if v, ok := g.Float("float32"); !ok || v != float64(float32(0.1)) {
		t.Errorf("Float is %g, %t", v, ok)
	}
	if v, ok := g.Float("float64"); !ok || v != math.Pi {
		t.Errorf("Float is %g, %t", v, ok)
	}
	if _, ok := g.Float("uint8"); ok {
		t.Error("Float takes a uint8")
	}
	if s, ok := g.String("string"); !ok || s != values["string"] {
		t.Errorf("String is %q, %t", s, ok)
	}
	if _, ok := g.String("strings"); ok {
		t.Error("String takes a list")
	}
	if _, ok := g.Tensor("absent"); ok || g.Value("absent") != nil {
		t.Error("absent things are found")
	}
}

func TestGGUFWriterErrors(t *testing.T) {
	w := NewGGUFWriter()
	defer w.Close()
	for _, c := range []struct {
		key   string
		value any
	}{
		{"", "x"}, {"int", 5}, {"nil", nil}, {"mixed", []any{1}}, {"nested", [][]string{{"x"}}}, {"key\x00", "x"},
		{"nul", "a\x00b"}, {"nuls", []string{"a", "\x00"}},
		{"general.alignment", uint32(64)}, {"general.alignment", uint32(0)}, {"general.alignment", uint16(32)},
		{"general.alignment", "32"},
	} {
		if err := w.Set(c.key, c.value); err == nil {
			t.Errorf("Set(%q, %#v) has no error", c.key, c.value)
		}
	}
	if err := w.Set("key", uint32(1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Set("key", "replaced"); err != nil {
		t.Fatal(err)
	}
	if err := w.AddTensor("x", F32, []int64{2}, make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]rawTensor{
		"a name twice":     {"x", F32, []int64{2}, make([]byte, 8)},
		"no name":          {"", F32, []int64{2}, make([]byte, 8)},
		"a long name":      {strings.Repeat("n", 64), F32, []int64{2}, make([]byte, 8)},
		"a NUL name":       {"x\x00y", F32, []int64{2}, make([]byte, 8)},
		"too few bytes":    {"y", F32, []int64{2}, make([]byte, 7)},
		"too many bytes":   {"y", F32, []int64{2}, make([]byte, 12)},
		"no shape":         {"y", F32, nil, nil},
		"an empty shape":   {"y", F32, []int64{0}, nil},
		"a negative shape": {"y", F32, []int64{-1}, nil},
		"five dimensions":  {"y", F32, []int64{1, 1, 1, 1, 1}, make([]byte, 4)},
		"a broken block":   {"y", Q8_0, []int64{31}, make([]byte, 34)},
		"an unknown type":  {"y", 99, []int64{2}, make([]byte, 8)},
		"a removed type":   {"y", 4, []int64{32}, make([]byte, 8)},
	} {
		if err := w.AddTensor(x.name, x.kind, x.shape, x.data); err == nil {
			t.Errorf("%s has no error", name)
		}
	}
	if err := w.WriteFile(filepath.Join(t.TempDir(), "no", "such", "folder.gguf")); err == nil {
		t.Error("a folder that is not there is written to")
	}
	path := filepath.Join(t.TempDir(), "x.gguf")
	if err := w.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	g, err := OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if v := g.Value("key"); v != "replaced" || len(g.Tensors()) != 1 {
		t.Errorf("after the errors the file holds %v and %d tensors", v, len(g.Tensors()))
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file lie %v, %v", entries, err)
	}
}

// A tensor that is written by a function has the bytes of one that is given as a slice; one that writes too little, too
// much or fails leaves no file.
func TestGGUFWriterFunc(t *testing.T) {
	tensors := someTensors(t)
	want, err := os.ReadFile(writeGGUF(t, nil, tensors))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(change func(out io.Writer, data []byte) error) error {
		w := NewGGUFWriter()
		defer w.Close()
		for _, x := range tensors {
			if err := w.AddTensorFunc(x.name, x.kind, x.shape, func(out io.Writer) error {
				return change(out, x.data)
			}); err != nil {
				t.Fatal(err)
			}
		}
		return w.WriteFile(filepath.Join(dir, "x.gguf"))
	}
	halves := func(out io.Writer, data []byte) error {
		_, err := out.Write(data[:len(data)/2])
		_, err2 := out.Write(data[len(data)/2:])
		return errors.Join(err, err2)
	}
	broken := errors.New("no such thing")
	for word, change := range map[string]func(io.Writer, []byte) error{
		"not written":   func(out io.Writer, data []byte) error { _, err := out.Write(data[1:]); return err },
		"more than":     func(out io.Writer, data []byte) error { _, err := out.Write(append(data, 0)); return err },
		broken.Error():  func(io.Writer, []byte) error { return broken },
		tensors[0].name: func(io.Writer, []byte) error { return broken },
	} {
		if err := write(change); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("error %v does not say %q", err, word)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("left in the folder: %v, %v", entries, err)
		}
	}
	if err := write(halves); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "x.gguf")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes differ from the %d of slices: %v", len(got), len(want), err)
	}
}

// raw spells a GGUF file by hand.
type raw struct{ bytes.Buffer }

func newRaw(version uint32, tensors, values uint64) *raw {
	r := &raw{}
	r.WriteString("GGUF")
	return r.put(version, tensors, values)
}

func (r *raw) put(values ...any) *raw {
	for _, v := range values {
		if s, ok := v.(string); ok {
			binary.Write(r, binary.LittleEndian, uint64(len(s)))
			r.WriteString(s)
			continue
		}
		if err := binary.Write(r, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return r
}

// pad adds zeros to the next multiple of 32 and n more.
func (r *raw) pad(n int) *raw {
	r.Write(make([]byte, (32-r.Len()%32)%32+n))
	return r
}

// brokenFiles are GGUF files that are refused: among them are those that ggml's reader aborts on, divides by zero for,
// or takes all memory for.
func brokenFiles() map[string]*raw {
	type u32 = uint32
	type u64 = uint64
	f32, str, arr := u32(ggufFloat32), u32(ggufString), u32(ggufArray)
	tensor := func(shape ...u64) *raw {
		return newRaw(3, 1, 0).put("x", u32(len(shape)), shape, u32(F32), u64(0)).pad(1024)
	}
	return map[string]*raw{
		"version 0":                 newRaw(0, 0, 0),
		"version 1":                 newRaw(1, 0, 0),
		"version 4":                 newRaw(4, 0, 0),
		"big-endian":                newRaw(3<<24, 0, 0),
		"values beyond the end":     newRaw(3, 0, 1),
		"tensors beyond the end":    newRaw(3, 1, 0),
		"absurd number of tensors":  newRaw(3, 1<<60, 0).pad(64),
		"absurd number of values":   newRaw(3, 0, 1<<60).pad(64),
		"all numbers set":           newRaw(3, math.MaxUint64, math.MaxUint64).pad(64),
		"absurd key length":         newRaw(3, 0, 1).put(u64(1 << 40)).pad(64),
		"absurd text length":        newRaw(3, 0, 1).put("k", str, u64(1<<40)).pad(64),
		"absurd list length":        newRaw(3, 0, 1).put("k", arr, f32, u64(1<<40)).pad(64),
		"list length that wraps":    newRaw(3, 0, 1).put("k", arr, f32, u64(1<<62)).pad(64),
		"absurd list of texts":      newRaw(3, 0, 1).put("k", arr, str, u64(1<<40)).pad(64),
		"absurd text in a list":     newRaw(3, 0, 1).put("k", arr, str, u64(2), "a", u64(1<<40)).pad(64),
		"list of lists":             newRaw(3, 0, 1).put("k", arr, arr, u64(1), f32, u64(1), float32(1)).pad(64),
		"unknown value type":        newRaw(3, 0, 1).put("k", u32(13), u64(1)).pad(64),
		"unknown list type":         newRaw(3, 0, 1).put("k", arr, u32(99), u64(1)).pad(64),
		"empty key":                 newRaw(3, 0, 1).put("", f32, float32(1)).pad(64),
		"key twice":                 newRaw(3, 0, 2).put("k", f32, float32(1), "k", f32, float32(1)).pad(64),
		"alignment of another type": newRaw(3, 0, 1).put("general.alignment", str, "32").pad(64),
		"alignment in a list": newRaw(3, 0, 1).put("general.alignment", arr, u32(ggufUint32), u64(2), u32(32),
			u32(32)).pad(64),
		"alignment 0":  newRaw(3, 0, 1).put("general.alignment", u32(ggufUint32), u32(0)).pad(64),
		"alignment 33": newRaw(3, 0, 1).put("general.alignment", u32(ggufUint32), u32(33)).pad(64),
		"alignment beyond the end": newRaw(3, 1, 1).put("general.alignment", u32(ggufUint32), u32(1<<31), "x",
			u32(1), u64(1), u32(F32), u64(0)).pad(64),
		"absurd tensor name": newRaw(3, 1, 0).put(u64(1 << 40)).pad(64),
		"long tensor name": newRaw(3, 1, 0).put(strings.Repeat("n", 64), u32(1), u64(4), u32(F32),
			u64(0)).pad(64),
		"tensor name twice": newRaw(3, 2, 0).put("x", u32(1), u64(8), u32(F32), u64(0), "x", u32(1), u64(8),
			u32(F32), u64(32)).pad(64),
		"five dimensions":             tensor(1, 1, 1, 1, 1),
		"absurd number of dimensions": newRaw(3, 1, 0).put("x", u32(math.MaxUint32)).pad(64),
		"rows of 0":                   tensor(0, 4),
		"0 rows":                      tensor(4, 0),
		"0 matrices":                  tensor(4, 4, 0),
		"0 of the last":               tensor(4, 4, 4, 0),
		"negative rows":               tensor(4, 1<<63),
		"size that wraps to 0":        tensor(1<<62, 1),
		"product that wraps":          tensor(1<<32, 1<<32),
		"product that wraps thrice":   tensor(1<<31, 1<<31, 1<<31, 1<<31),
		"tensor larger than the file": tensor(4096),
		"type 99":                     newRaw(3, 1, 0).put("x", u32(1), u64(32), u32(99), u64(0)).pad(64),
		"negative type":               newRaw(3, 1, 0).put("x", u32(1), u64(32), u32(math.MaxUint32), u64(0)).pad(64),
		"removed type":                newRaw(3, 1, 0).put("x", u32(1), u64(32), u32(4), u64(0)).pad(64),
		"broken block":                newRaw(3, 1, 0).put("x", u32(1), u64(31), u32(Q8_0), u64(0)).pad(64),
		"tensor out of order":         newRaw(3, 1, 0).put("x", u32(1), u64(8), u32(F32), u64(32)).pad(64),
		"absurd offset":               newRaw(3, 1, 0).put("x", u32(1), u64(8), u32(F32), u64(1<<63)).pad(64),
		"data cut by a byte":          newRaw(3, 1, 0).put("x", u32(1), u64(8), u32(F32), u64(0)).pad(31),
		"no data":                     newRaw(3, 1, 0).put("x", u32(1), u64(8), u32(F32), u64(0)),
	}
}

func TestBrokenGGUF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "broken.gguf")
	for name, content := range brokenFiles() {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			wantNoGGUF(t, path)
		})
	}
	good := newRaw(3, 1, 1).put("k", uint32(ggufFloat32), float32(2), "x", uint32(1), uint64(8), uint32(F32),
		uint64(0)).pad(32)
	if err := os.WriteFile(path, good.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := OpenGGUF(path)
	if err != nil {
		t.Fatalf("the file that the broken ones are made after: %v", err)
	}
	g.Close()
}

// wantNoGGUF asks for an error of one line that names the file.
func wantNoGGUF(t *testing.T, path string) {
	t.Helper()
	g, err := OpenGGUF(path)
	if err == nil {
		g.Close()
		t.Error("no error")
	} else if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error %q", err)
	}
}

func TestTruncatedGGUF(t *testing.T) {
	whole, err := os.ReadFile(writeGGUF(t, allValues(), someTensors(t)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "cut.gguf")
	for n := 0; n < len(whole)-32; n += 97 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		wantNoGGUF(t, path)
	}
	for _, bad := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent.gguf"), os.DevNull} {
		wantNoGGUF(t, bad)
	}
}

// FuzzOpenGGUF reads all of whatever opens. Nothing may crash.
func FuzzOpenGGUF(f *testing.F) {
	whole, err := os.ReadFile(writeGGUF(f, allValues(), someTensors(f)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	for _, content := range brokenFiles() {
		f.Add(content.Bytes())
	}
	f.Add(newRaw(2, 1, 1).put("general.alignment", uint32(ggufUint32), uint32(8), "x", uint32(1), uint64(8),
		uint32(F32), uint64(0)).pad(40).Bytes())
	path := filepath.Join(f.TempDir(), "fuzz.gguf")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		readAll(t, path)
	})
}

// readAll touches everything in a file if it opens.
func readAll(t *testing.T, path string) {
	t.Helper()
	g, err := OpenGGUF(path)
	if err != nil {
		return
	}
	defer g.Close()
	for _, key := range g.Keys() {
		g.Value(key)
		g.Uint(key)
		g.Float(key)
	}
	c := NewContext(len(g.Tensors()))
	defer c.Close()
	for _, info := range g.Tensors() {
		if _, err := g.Leaf(c, info); err != nil {
			t.Errorf("tensor %q of an open file is no leaf: %v", info.Name, err)
		}
		n := int64(1)
		for _, s := range info.Shape {
			n *= s
		}
		if info.Type.Dequantizes() {
			if err := Dequantize(info.Type, g.Data(info), make([]float32, n)); err != nil {
				t.Errorf("tensor %q: %v", info.Name, err)
			}
		}
	}
}

// TestMutatedGGUF sets each byte of a file's header to values that lengths and types are broken by.
func TestMutatedGGUF(t *testing.T) {
	whole, err := os.ReadFile(writeGGUF(t, map[string]any{"a": "text", "general.alignment": uint32(32),
		"list": []uint16{1, 2}, "texts": []string{"x"}}, someTensors(t)[:3]))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mutated.gguf")
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range min(len(whole), 400) {
		for _, v := range []byte{0, 1, 0x80, 0xff, whole[i]} {
			if _, err := f.WriteAt([]byte{v}, int64(i)); err != nil {
				t.Fatal(err)
			}
			readAll(t, path)
		}
	}
}

// TestStringsOverStaleMemory writes strings while Go collects, into C memory that holds addresses of objects which are
// gone. Pointers to them would end the process.
func TestStringsOverStaleMemory(t *testing.T) {
	const n = 100
	stale, objects := make([]uint64, n), make([]*[2]*int, n)
	for i := range stale {
		objects[i] = new([2]*int)
		stale[i] = uint64(uintptr(unsafe.Pointer(objects[i])))
	}
	runtime.KeepAlive(objects)
	runtime.GC()
	w := NewGGUFWriter()
	defer w.Close()
	texts := make([]string, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			runtime.GC()
		}
	}()
	for collecting := true; collecting; {
		for _, value := range []any{stale, []uint64{}, texts} {
			if err := w.Set("list", value); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-done:
			collecting = false
		default:
		}
	}
}
