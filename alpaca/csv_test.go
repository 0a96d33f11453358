package alpaca

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTables(t *testing.T) {
	for kind, comma := range map[string]string{"CSV": ",", "CSV with ;": ";", "TSV": "\t"} {
		table := strings.ReplaceAll("instruction|input|output\nAdd.|1|2\r\n\r\n\"Sing, \"\"la|\"\".\"|\"\"|\"L\na.\"\n",
			"|", comma)
		want := []string{"2 instruction, instruction | instruction=Add. | input=1 | output=2",
			"4 instruction, instruction | instruction=Sing, \"la" + comma + "\". | output=L\na."}
		for _, data := range []string{table, "\ufeff" + table} {
			f, err := inMemory("f", []byte(data), Default())
			if err != nil {
				t.Fatal(err)
			}
			if got := rowsWritten(t, f, Default()); f.kind() != kind || !slices.Equal(got, want) {
				t.Errorf("%s: %s, %q", kind, f.kind(), got)
			}
		}
	}
}

// rowsWritten are the rows of a file with their numbers, or what is wrong with them. Each is read twice.
func rowsWritten(t *testing.T, f rowFile, o Options) (rows []string) {
	t.Helper()
	say := func(raw rawRow) string {
		number := fmt.Sprintf("%d ", raw.number)
		r, err := newRowReader(o).parse(raw)
		if err != nil {
			return number + err.Error()
		}
		return number + written(r)
	}
	err := f.scan(func(raw rawRow) error {
		rows = append(rows, say(raw))
		if raw.err != nil {
			return nil
		}
		back, err := f.read(raw.place)
		if again := say(rawRow{number: raw.number, json: back}); err != nil || again != rows[len(rows)-1] {
			t.Errorf("row %s is %s when it is read again: %v", rows[len(rows)-1], again, err)
		}
		return nil
	})
	if err != nil {
		rows = append(rows, err.Error())
	}
	return rows
}

func TestTableRows(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       []string
	}{
		{"ragged", "prompt,completion\na,b\nc\nd,e,f\ng,h", []string{
			"2 prompt with completion, prompt | prompt=a | completion=b",
			"3 has 1 fields, where the first line names 2 columns",
			"4 has 3 fields, where the first line names 2 columns",
			"5 prompt with completion, prompt | prompt=g | completion=h"}},
		{"quotes", "prompt,completion\na \"b\",c\nd,\"e\" f\ng,h\n", []string{
			"2 a quote stands in a field that doesn't begin with one; put the field in quotes, and write its own " +
				"quotes twice",
			"3 a field in quotes has a quote in it that isn't written twice, or no closing quote",
			"4 prompt with completion, prompt | prompt=g | completion=h"}},
		{"unclosed", "prompt,completion\na,b\nc,\"d\ne,f\n", []string{
			"2 prompt with completion, prompt | prompt=a | completion=b",
			"unclosed: the quotes that are opened in the record of line 3 are never closed"}},
		{"lists", "id,messages,tools\n1,\"[\"\"Hi\"\", \"\"Ho\"\"]\",\n2,\"[{'role': 1}]\",\n3,Hi,x", []string{
			"2 " + talk, "3 messages holds a list that can't be read: it is written as Python writes lists; write it " +
				"with json.dumps", "4 messages is a string, want an array"}},
		{"choices", "question;choices;answer\nSky?;\"[\"\"green\"\", \"\"blue\"\"]\";B",
			[]string{`2 multiple-choice question, question | instruction=Sky? | ["green" "blue"] 1`}},
		{"empty", "instruction,input,output\n,,b\na,,\n", []string{"2 instruction is empty", "3 output is empty"}},
		{"pandas", ",text\n0,Once.\n1,\n", []string{"2 text, text | text=Once.", "3 text is empty"}},
		{"not UTF-8", "text\nOnce\nch\xe9ri\n",
			[]string{"2 text, text | text=Once", "3 is not valid UTF-8; save the file as UTF-8"}},
		{"long header", "text,\"a\nb\"\nOnce.,x\n", []string{"3 text, text | text=Once."}},
	} {
		f, err := inMemory(c.name, []byte(c.data), Default())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if got := rowsWritten(t, f, Default()); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	o := Default()
	o.Columns = map[string]string{"instruction": "Frage", "output": "Antwort"}
	f, err := inMemory("f", []byte("Frage,Antwort\na,b"), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := rowsWritten(t, f, o); !slices.Equal(got,
		[]string{"2 instruction, instruction | instruction=a | output=b"}) {
		t.Errorf("with columns: %q", got)
	}
}

func TestNoTables(t *testing.T) {
	for _, c := range []struct{ name, data, want string }{
		{"f.csv", "Frage,Antwort\na,b", "f.csv: has the columns Frage, Antwort; want messages,"},
		{"f.TSV.gz", "Frage\tAntwort\na\tb", "f.TSV.gz: has the columns Frage, Antwort; want messages,"},
		{"f.csv", "text,text\na,b", `f.csv: two columns are named "text"`},
		{"f.csv", "te\"xt\na", "f.csv: has the columns te\"xt; want"},
		{"f", "Frage,Antwort\na,b", `f: begins with "Frage,Antwort", which is neither JSON nor the names of a ` +
			`table's columns; want JSON, JSON lines, CSV,`},
		{"f", "Once upon a time, there was a king who had no data at all.\n",
			`f: begins with "Once upon a time, there was a king who h…", which`},
		{"f", "%PDF-1.7", "f: is a PDF; want JSON,"},
		{"f", "PK\x03\x04 text", "f: is a zip archive or a spreadsheet; unpack it"},
		{"f", "t\x00e\x00x\x00t\x00", "f: is no text, or text that is neither UTF-8 nor marked as UTF-16"},
	} {
		if _, err := inMemory(c.name, []byte(c.data), Default()); err == nil ||
			!strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s of %q: %v, want %s", c.name, c.data, err, c.want)
		}
	}
	if f, err := inMemory("f.csv", []byte("text\n"), Default()); err != nil || len(rowsWritten(t, f, Default())) > 0 {
		t.Errorf("a table without records: %v", err)
	}
}

func FuzzTable(f *testing.F) {
	for _, seed := range []string{
		"instruction,input,output\na,,b\n", "\ufeffprompt;completion\r\n\"a\nb\";\"c\"\"d\"\r\n", "text\n",
		"messages\ttools\n[\"a\", \"b\"]\t[]",
		"text,x\n\"a", "text\n\"a\"b\n\xff\n\x00", ",text\n1,2,3\n", "text,text", "\"te\nxt\",text\na,b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := inMemory("f.csv", data, Default())
		if err != nil {
			return
		}
		for _, row := range rowsWritten(t, rows, Default()) {
			if strings.Contains(row, "malformed JSON") && !strings.Contains(row, "holds a list") {
				t.Errorf("a record became %s", row)
			}
		}
	})
}
