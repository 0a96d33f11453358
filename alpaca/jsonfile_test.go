package alpaca

import (
	"slices"
	"strings"
	"testing"
)

func TestJSONFiles(t *testing.T) {
	const a, b = `{"text": "a]["}`, `["Hi", "Ho"]`
	rows := []string{"1 text, text | text=a][", "2 " + talk}
	from := func(first int) (numbered []string) { // JSONL rows have the numbers of their lines
		for i, r := range rows {
			numbered = append(numbered, string(rune('0'+first+i))+r[1:])
		}
		return numbered
	}
	for _, c := range []struct {
		kind, data string
		want       []string
	}{
		{"JSON lines", a + "\n" + b, rows},
		{"JSON lines", "\ufeff\n" + a + "\n" + b + "\n", from(2)},
		{"JSON lines", b + "\n" + b + "\n", []string{"1 " + talk, "2 " + talk}},
		{"JSON lines", a, rows[:1]},
		{"JSON lines", "oops\n" + a + "\n" + b,
			append([]string{"1 malformed JSON: invalid character 'o' looking for beginning of value"}, from(2)...)},
		{"JSON lines", `{"text": ` + "\n" + a, []string{"1 malformed JSON: unexpected end of JSON input",
			"2 text, text | text=a]["}},
		{"JSON lines", `{"instruction": "a", "output": "b", "data": [{}]}`,
			[]string{"1 instruction, instruction | instruction=a | output=b"}},
		{"JSON lines", `{"text": "a", "examples": ["b"]}`, []string{"1 text, text | text=a"}},
		{"JSON array", "[" + a + "," + b + "]", rows},
		{"JSON array", "[\n" + a + "\n,\n" + b + "\n]\n", rows},
		{"JSON array", "[" + b + ",\n" + b + "]", []string{"1 " + talk, "2 " + talk}},
		{"JSON array", `[[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]]`,
			[]string{"1 " + talk}},
		{`JSON array under "data"`, `{"data": [` + a + "," + b + `]}`, rows},
		{`JSON array under "data"`, "\ufeff{\n \"schema\": {\"x\": [1, {}]}, \"rows\": 2,\n \"data\" : [\n" + a + "," +
			b + "\n], \"test\": [{}], \"y\": null\n}\n", rows},
		{`JSON array under "train"`, `{"validation": [{}], "train": [` + a + "," + b + `], "z": 1 }`, rows},
		{`JSON array under "examples"`, `{"version": "1]", "examples": [` + a + "," + b + `]}`, rows},
		{`JSON array under "rows"`, `{"rows": []}`, nil},
		{`JSON array under "rows"`, `{"rows": [` + a + `], "data": [1]}`,
			[]string{rows[0], `f: malformed JSON array near line 1: it has rows under "rows" and under "data"; leave ` +
				`one of them`}},
		{`JSON array under "rows"`, `{"rows": [` + a,
			[]string{rows[0], "f: malformed JSON array near line 1: unexpected end of the file"}},
		{`JSON array under "rows"`, `{"rows": [` + a + "]\n",
			[]string{rows[0], "f: malformed JSON array near line 2: unexpected end of the file"}},
	} {
		f, err := inMemory("f", []byte(c.data), Default())
		if err != nil {
			t.Errorf("%s: %v", c.data, err)
		} else if got := rowsWritten(t, f, Default()); f.kind() != c.kind || !slices.Equal(got, c.want) {
			t.Errorf("%s\n is  %s, %q\nwant %s, %q", c.data, f.kind(), got, c.kind, c.want)
		}
	}
}

func TestPandas(t *testing.T) {
	for data, orient := range map[string]string{
		`{"instruction":{"0":"a","1":"b"},"output":{"0":"c","1":"d"}}`:                "columns",
		`{"instruction": {"12": "a"},` + "\n" + `"output": {"12": "c"}}`:              "columns",
		`{"columns":["instruction","output"],"index":[0],"data":[["a","b"]]}`:         "split",
		`{"0":{"instruction":"a","output":"b"},"1":{"instruction":"a","output":"b"}}`: "index",
	} {
		_, err := inMemory("f", []byte(data), Default())
		if err == nil || !strings.HasPrefix(err.Error(),
			`f: is a table as pandas writes it with orient="`+orient+`"; write rows, with df.to_json(path, `+
				`orient="records", lines=True)`) {
			t.Errorf("%s: %v", data, err)
		}
	}
	f, err := inMemory("f", []byte(
		`{"schema":{"fields":[{"name":"index","type":"integer"}]},"data":[{"index":0,"text":"a"}]}`), Default())
	if err != nil {
		t.Fatal(err)
	}
	if got := rowsWritten(t, f, Default()); !slices.Equal(got, []string{"1 text, text | text=a"}) {
		t.Errorf(`orient="table": %q`, got)
	}
}
