package alpaca

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A row read again at the place that a scan gave is the row that the scan saw.
func TestPlaces(t *testing.T) {
	const a, b, c = `{"prompt": "á", "completion": "[,]"}`, `{"prompt":"]","completion":"\n"}`,
		`{"instruction": "x", "output": "y"}`
	for _, data := range []string{
		a + "\n\r\n  " + b + "\n" + c, "\ufeff" + a + "\n" + b + "\r\n" + c + "\n",
		"[" + a + "," + b + "," + c + "]", "\ufeff\n [\n" + a + "\n,\t" + b + " ,\n\n" + c + " ]\n\n",
	} {
		f, err := inMemory("f", []byte(data), Default())
		if err != nil {
			t.Fatal(err)
		}
		var rows, again []string
		err = f.scan(func(raw rawRow) error {
			rows = append(rows, string(raw.json))
			back, err := f.read(raw.place)
			again = append(again, strings.TrimSpace(string(back)))
			return err
		})
		if err != nil || !slices.Equal(rows, []string{a, b, c}) || !slices.Equal(again, rows) {
			t.Errorf("%q: %v, rows %q, and again %q", data, err, rows, again)
		}
	}
}

func TestMalformedArrays(t *testing.T) {
	const good = `{"instruction": "a", "output": "b"}`
	for data, want := range map[string]string{
		"[\n" + good + ",\n\n{\"a\": 1,\n x}\n]": "near line 5: invalid character 'x'",
		"[" + good + "\n" + good + "]":           "near line 2: ",
		"[" + good + ",\n]":                      "near line 2: ",
		"[" + good + ",":                         "near line 1: unexpected end of the file",
		"[" + good + "}":                         "near line 1: ",
		"[" + good + "\n]\n" + good:              "near line 3: text after its end",
	} {
		_, err := dataset("f", []byte(data), fakeTokenizer{}, Default())
		if err == nil || !strings.Contains(err.Error(), "f: malformed JSON array "+want) {
			t.Errorf("%q: %v, want %s", data, err, want)
		}
	}
}

func TestFileThatChangesIsAnError(t *testing.T) {
	row := func(c byte) string { return fmt.Sprintf(`{"prompt": "a", "completion": "%c"}`, c) }
	for name, change := range map[string]func(path string) error{
		"another answer": func(path string) error { return os.WriteFile(path, []byte(row('b')+"\n"+row('x')), 0) },
		"cut off":        func(path string) error { return os.Truncate(path, 40) },
		"moved":          func(path string) error { return os.WriteFile(path, []byte("\n"+row('b')+"\n"+row('c')), 0) },
	} {
		path := write(t, row('b'), row('c'))
		d, err := Load(whole(path), fakeTokenizer{}, Default())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if err := change(path); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err = d.InOrder(2).Batch(0, 0); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if runtime.GOOS == "windows" { // replaces no open file
		return
	}
	// Written anew beside it and renamed, as editors do, the run keeps what it began with.
	path := write(t, row('b'), row('c'))
	d, err := Load(whole(path), fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.Rename(write(t, row('x')), path); err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, d, d.InOrder(2), 0, 2); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("rows %v", got)
	}
}
