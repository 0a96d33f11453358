package alpaca

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"

	"github.com/veratune/veratune/internal/durable"
)

func gzipped(data ...[]byte) []byte {
	var b bytes.Buffer
	for _, d := range data {
		w := gzip.NewWriter(&b)
		w.Write(d)
		w.Close()
	}
	return b.Bytes()
}

func zstandard(data ...[]byte) (packed []byte) {
	w, _ := zstd.NewWriter(nil)
	defer w.Close()
	for _, d := range data {
		packed = append(packed, w.EncodeAll(d, nil)...)
	}
	return packed
}

func inUTF16(order binary.ByteOrder, s string) (b []byte) {
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(s))...) {
		b = append(b, byte(u), byte(u>>8))
		order.PutUint16(b[len(b)-2:], u)
	}
	return b
}

func writeBytes(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPackedFiles(t *testing.T) {
	t.Setenv(durable.TempVariable, t.TempDir())
	const lines = `{"prompt": "2+2=", "completion": "4"}` + "\n" + `{"prompt": "Smile.", "completion": "😀"}`
	const table = "prompt,completion\n2+2=,4\nSmile.,😀\n"
	parquet, err := os.ReadFile(formsFile)
	if err != nil {
		t.Fatal(err)
	}
	skippable := append([]byte("\x52\x2a\x4d\x18\x03\x00\x00\x00abc"), zstandard([]byte(lines))...)
	for _, c := range []struct {
		kind string
		data []byte
	}{
		{"JSON lines, gzip", gzipped([]byte(lines))},
		{"JSON lines, gzip", gzipped([]byte(lines[:20]), []byte(lines[20:]))},
		{"JSON lines, zstd", zstandard([]byte(lines))},
		{"JSON lines, zstd", zstandard([]byte(lines[:20]), []byte(lines[20:]))},
		{"JSON lines, zstd", skippable},
		{"JSON lines, zstd, gzip", zstandard(gzipped([]byte(lines)))},
		{"JSON array, gzip", gzipped([]byte("[" + strings.Replace(lines, "\n", ",", 1) + "]"))},
		{"JSON lines, UTF-16", inUTF16(binary.LittleEndian, lines)},
		{"JSON lines, UTF-16", inUTF16(binary.BigEndian, lines)},
		{"CSV, UTF-16", inUTF16(binary.LittleEndian, table)},
		{"CSV, gzip, UTF-16", gzipped(inUTF16(binary.BigEndian, table))},
		{"Parquet, gzip", gzipped(parquet)},
	} {
		f, err := openRows(writeBytes(t, c.data), Default())
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		gone := func() {
			if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
				t.Errorf("%s: left in the temporary folder: %v, %v", c.kind, left, err)
			}
		}
		if runtime.GOOS != "windows" { // where a name stays until its file is closed
			gone()
		}
		rows := rowsWritten(t, f, Default())
		for i := range rows {
			_, rows[i], _ = strings.Cut(rows[i], " ")
		}
		want := []string{"prompt with completion, prompt | prompt=2+2= | completion=4",
			"prompt with completion, prompt | prompt=Smile. | completion=😀"}
		if f.kind() != c.kind || !slices.Equal(rows, want) && !strings.HasPrefix(c.kind, "Parquet") || len(rows) < 2 {
			t.Errorf("%s: %s, %q", c.kind, f.kind(), rows)
		}
		f.Close()
		gone()
	}
}

func TestDamagedPackedFiles(t *testing.T) {
	rows := bytes.Repeat([]byte(`{"prompt": "a", "completion": "b"}`+"\n"), 1000)
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0xff
		return b
	}
	g, z := gzipped(rows), zstandard(rows)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"cut gzip":     {g[:len(g)-20], "the gzip data ends too early; the file is cut short"},
		"cut header":   {g[:5], "the gzip data ends too early"},
		"gzip's sum":   {flip(g, len(g)-6), "damaged gzip data"},
		"gzip's end":   {append(bytes.Clone(g), "more and more"...), "damaged gzip data"},
		"cut zstd":     {z[:len(z)-20], "the zstd data ends too early"},
		"zstd":         {flip(z, len(z)-2), "damaged zstd data"},
		"within zstd":  {zstandard(g[:len(g)-20]), "the gzip data ends too early"},
		"bombs within": {gzipped(gzipped(gzipped(gzipped(gzipped(rows))))), "is packed more than 4 times"},
		"empty":        {gzipped(nil), "the file is empty"},
		"UTF-32":       {[]byte("\xff\xfe\x00\x00[\x00\x00\x00"), "is UTF-32; save it as UTF-8"},
		"prose":        {gzipped([]byte("Once.")), `begins with "Once."`},
		"bzip2":        {[]byte("BZh91AY&SY"), "is packed with bzip2; unpack it"},
	} {
		path := writeBytes(t, c.data)
		if _, err := openRows(path, Default()); err == nil || !strings.HasPrefix(err.Error(), path+": "+c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestFullDisk(t *testing.T) {
	full := func() (*os.File, error) { return os.OpenFile("/dev/full", os.O_RDWR, 0) }
	f, err := full()
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	_, err = spoolTo(full, "f.gz", []string{"gzip"}, strings.NewReader("rows"))
	if err == nil || !strings.HasPrefix(err.Error(),
		"f.gz: there is no room for its rows in "+os.TempDir()+"; set "+durable.TempVariable+" to a folder with more") {
		t.Errorf("error %v", err)
	}
	t.Setenv(durable.TempVariable, filepath.Join(t.TempDir(), "absent"))
	path := writeBytes(t, gzipped([]byte("[]")))
	if _, err := openRows(path, Default()); err == nil ||
		!strings.Contains(err.Error(), "set "+durable.TempVariable+" to a folder that can be written to") {
		t.Errorf("error %v", err)
	}
}

func TestNoFiles(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{dir: "is a directory; want JSON,",
		"/dev/null": "is a device; want JSON,"} {
		if _, err := openRows(path, Default()); err == nil || !strings.HasPrefix(err.Error(), path+" "+want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	const lines = `{"prompt": "a", "completion": "b"}` + "\n" + `["a", "b"]`
	for _, seed := range [][]byte{
		[]byte(lines), gzipped([]byte(lines)), zstandard([]byte(lines)), inUTF16(binary.BigEndian, lines),
		gzipped([]byte("text\na\n")),
		[]byte(`{"x": 1, "data": [` + strings.Replace(lines, "\n", ",", 1) + `], "y": []}`), []byte(`{"a": {"0": 1}}`),
		[]byte("[[\"a\", \"b\"]]\n[[]]"),
		[]byte(`{"columns": ["text"], "index": [0], "data": [["a"]]}`), []byte("\x1f\x8b"), []byte("\x28\xb5\x2f\xfd"),
		[]byte("\xff\xfe["),
	} {
		f.Add(seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "data")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		rows, err := openRows(path, Default())
		if err == nil {
			rowsWritten(t, rows, Default())
			rows.Close()
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("error without the file's name: %v", err)
		}
	})
}
