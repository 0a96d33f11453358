package alpaca

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// taken apart and put together again, JSON is the same.
func rebuilt(raw json.RawMessage) json.RawMessage {
	switch kind(raw) {
	case "an object":
		o := members(raw)
		for i, f := range o {
			o[i].Value = rebuilt(f.Value)
		}
		return o.json()
	case "an array":
		list := elements(raw)
		for i, e := range list {
			list[i] = rebuilt(e)
		}
		return array(list)
	case "a string":
		return quote(unquote(bytes.TrimSpace(raw)))
	}
	return raw
}

func FuzzJSON(f *testing.F) {
	for _, seed := range []string{
		`{"a": [1, -2.5e+3, true, null, "\"\\]\u00e9"], "b": {"c":{}, "d" : [ ] }, "": ""}`,
		" [ [[ ], {} ] , \"a\\\\\" ]\n", "3", `"\ud83d\ude00"`, `{"a\u0062":1,"ab":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := checkJSON(raw)
		if err == nil != json.Valid(raw) && !strings.Contains(fmt.Sprint(err), "UTF-8") &&
			!strings.Contains(fmt.Sprint(err), "twice") && !strings.Contains(fmt.Sprint(err), "half of") {
			t.Fatalf("%q: %v", raw, err)
		}
		if err != nil {
			return
		}
		var want, got any
		wantErr, gotErr := json.Unmarshal(raw, &want), json.Unmarshal(rebuilt(raw), &got)
		if (wantErr == nil) != (gotErr == nil) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q", raw, rebuilt(raw))
		}
	})
}

func TestManyKeys(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, `"k%d": {"k1": 1, "k2": 2},`, i)
	}
	if err := checkJSON([]byte("{" + b.String() + `"x": 1}`)); err != nil {
		t.Error(err)
	}
	for _, key := range []string{"k3", "k40", "k99"} {
		if err := checkJSON([]byte("{" + b.String() + `"` + key + `": 1}`)); err == nil ||
			err.Error() != `the key "`+key+`" is there twice` {
			t.Errorf("%s: %v", key, err)
		}
	}
}
