package alpaca

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// forms.parquet was written by pyarrow 26 (Table.from_pylist, write_table): six rows of all forms in columns of their
// own, null where another form has them, and a column x of numbers, one of them NaN.
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
		if again, err := f.read(raw.place); err != nil || !bytes.Equal(again, raw.json) {
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
	if len(good) != 4 || good[0].input != "1 1" || good[1].input != "" || good[1].output != "La." ||
		len(good[2].messages) != 2 ||
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

// parquetOf writes rows as a Parquet file.
func parquetOf[T any](t *testing.T, rows ...T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := parquet.NewGenericWriter[T](&b)
	if _, err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParquetColumns(t *testing.T) {
	type turn struct {
		Value  string   `parquet:"value"`
		From   string   `parquet:"from"`
		Weight *float64 `parquet:"weight,optional"`
	}
	type function struct {
		Name      string            `parquet:"name"`
		Arguments map[string]string `parquet:"arguments"`
	}
	type call struct {
		Type     string   `parquet:"type"`
		Function function `parquet:"function"`
	}
	type message struct {
		Role    string  `parquet:"role"`
		Content *string `parquet:"content,optional"`
		Calls   []call  `parquet:"tool_calls,list"`
	}
	type bytesColumn struct {
		Text   []byte  `parquet:"text"`
		Answer float64 `parquet:"answer"`
	}
	type german struct {
		Frage, Antwort string
		Tools          string `parquet:"system"`
	}
	weight := 0.5
	hi := "Hi"
	for name, c := range map[string]struct {
		data    []byte
		columns map[string]string
		want    string
	}{
		"a list of structs": {parquetOf(t, struct {
			Turns []turn `parquet:"conversations,list"`
		}{[]turn{{"Hi", "human", nil}, {"Ho", "gpt", &weight}}}), nil,
			gpt + ` | user: Hi | assistant: Ho {"content":"Ho","role":"assistant","weight":0.5}`},
		"a repeated struct": {parquetOf(t, struct {
			Turns []turn `parquet:"conversation"`
		}{[]turn{{"Hi", "human", nil}, {"Ho", "gpt", nil}}}), nil, gpt + hiHo},
		"tool calls": {parquetOf(t, struct {
			Messages []message `parquet:"messages,list"`
			Tools    string    `parquet:"tools"`
		}{[]message{{"user", &hi, nil},
			{"assistant", nil, []call{{"function", function{"weather", map[string]string{"b": "1", "a": "2"}}}}}},
			weather}), nil,
			`conversation, conversation | tools=` + weather +
				` | user: Hi {"role":"user","content":"Hi","tool_calls":[]} | assistant:  ` +
				`{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"weather","arguments":{"a":"2","b":"1"}}}]}`},
		"columns": {parquetOf(t, german{"a", "b", ""}), map[string]string{"instruction": "Frage", "output": "Antwort"},
			"instruction, instruction | instruction=a | output=b"},
		"bytes": {parquetOf(t, bytesColumn{[]byte("a"), math.NaN()}), nil, "text, text | text=a"},
		"texts": {parquetOf(t, struct {
			Question string   `parquet:"question"`
			Choices  []string `parquet:"choices,list"`
			Answer   int64    `parquet:"answer"`
		}{"Sky?", []string{"green", "blue"}, 1}), nil,
			`multiple-choice question, question | instruction=Sky? | ["green" "blue"] 1`},
	} {
		o := Default()
		o.Columns = c.columns
		f, err := inMemory("f", c.data, o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := rowsWritten(t, f, o); len(got) != 1 || got[0] != "1 "+c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	want := "f: has the columns Frage, Antwort, system; want messages,"
	if _, err := inMemory("f", parquetOf(t, german{}), Default()); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func loadParquet(data []byte) error {
	f, err := rowsIn("f", bytes.NewReader(data), int64(len(data)), noClose{}, Default())
	if err != nil {
		return err
	}
	_, err = newDataset("f", []part{{Part: Part{"f", 1}, rowFile: f}}, fakeTokenizer{}, Default())
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
