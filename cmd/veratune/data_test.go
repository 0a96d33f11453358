package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

func TestDataCheck(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	data := write(t, "rows.jsonl", `{"instruction": "a", "output": "b"}
{"instruction": "a", "output": "b"}
{"instruction": "a", "output": "c"}
{"instruction": "a", "output": ""}
`)
	code, out, errs := veratune("data", "check", "--model", model, "--json", data)
	var c alpaca.Check
	if err := json.Unmarshal([]byte(out), &c); code != 0 || err != nil {
		t.Fatalf("code %d, %v: %s%s", code, err, out, errs)
	}
	if c.Rows != 4 || c.EmptyAnswers != 1 || len(c.Unusable) != 1 || len(c.Duplicates) != 1 || len(c.Conflicts) != 1 || c.Quantiles.Median == 0 || len(c.Histogram) == 0 {
		t.Errorf("%s", out)
	}
	code, out, errs = veratune("data", "check", "--model", model, "--strict", data)
	if code != exitFailed || !strings.Contains(out, data+": row 4: output is empty") || !strings.Contains(out, data+": row 2: as "+data+": row 1") || !strings.Contains(errs, "strict") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	for _, args := range [][]string{{}, {"x", "--json"}} {
		if code, _, errs := veratune(append([]string{"data", "check", "--model", model}, args...)...); code != exitUsage {
			t.Errorf("%q: code %d, %s", args, code, errs)
		}
	}
}
