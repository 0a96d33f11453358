package alpaca

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// forms.parquet was written by pyarrow 26 (Table.from_pylist, write_table): six rows of all forms in columns of their own, null where another form has them,
// and a column x of numbers, one of them NaN.
const formsFile = "testdata/forms.parquet"

func TestParquet(t *testing.T) {
	f, err := openRows(formsFile, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var good []row
	var bad []string
	err = f.scan(func(raw rawRow) error {
		if again, err := f.read(raw.at); err != nil || !bytes.Equal(again, raw.json) {
			t.Errorf("row %d is %s, and again %s, %v", raw.number, raw.json, again, err)
		}
		r, err := newRowReader(Default()).parse(raw)
		if err != nil {
			bad = append(bad, err.Error())
		} else {
			good = append(good, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(good) != 4 || good[0].input != "1 1" || good[1].input != "" || good[1].output != "La." || len(good[2].messages) != 2 ||
		good[2].messages[1].Content != "Ho" || good[3].prompt != "2+2=" || good[3].completion != "4" {
		t.Errorf("rows %+v", good)
	}
	if want := []string{"messages is empty", "output is empty"}; !slices.Equal(bad, want) {
		t.Errorf("bad rows %q, want %q", bad, want)
	}
	d, err := Load(whole(formsFile), fakeTokenizer{}, Default())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := rowsOf(t, d, d.Source(Default()), 1, 4); len(got) != 4 || len(d.Bad) != 2 || d.Bad[0].Row != 5 {
		t.Errorf("rows %v, bad %v", got, d.Bad)
	}
}

func loadParquet(data []byte) error {
	f, err := rowsIn("f", bytes.NewReader(data), int64(len(data)), noClose{}, Default())
	if err != nil {
		return err
	}
	_, err = newDataset("f", []part{{Part{"f", 1}, f}}, fakeTokenizer{}, Default())
	return err
}

func FuzzParquet(f *testing.F) {
	sound, err := os.ReadFile(formsFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound)
	f.Add(sound[:len(sound)/2])
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	f.Add([]byte("\xff\xff\xff\x7fPAR1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := loadParquet(append([]byte(parquetMagic), data...))
		_ = loadParquet(data)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Fatalf("%d bytes of data took %d bytes of memory: %v", len(data), n, err)
		}
	})
}

// Whatever is damaged, it is an error or another text, and no panic.
func TestDamagedParquet(t *testing.T) {
	sound, err := os.ReadFile(formsFile)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(sound); n += 7 {
		if loadParquet(sound[:n]) == nil {
			t.Errorf("%d bytes of %d were enough", n, len(sound))
		}
		damaged := bytes.Clone(sound)
		damaged[n] ^= 0x55
		loadParquet(damaged)
	}
	if err := loadParquet([]byte("PAR1")); err == nil || !strings.HasPrefix(err.Error(), "f: ") {
		t.Errorf("error %v", err)
	}
}
