package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

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
	if c.Rows != 4 || c.EmptyAnswers != 1 || len(c.Unusable) != 1 || len(c.Duplicates) != 1 || len(c.Conflicts) != 1 ||
		c.Quantiles.Median == 0 || len(c.Histogram) == 0 {
		t.Errorf("%s", out)
	}
	code, out, errs = veratune("data", "check", "--model", model, "--strict", data)
	if code != exitFailed || !strings.Contains(out, data+": row 4: output is empty") ||
		!strings.Contains(out, data+": row 2: as "+data+": row 1") || !strings.Contains(errs, "strict") {
		t.Errorf("code %d: %s%s", code, out, errs)
	}
	for _, args := range [][]string{{}, {"x", "--no-such-option"}} {
		if code, _, errs := veratune(append([]string{"data", "check", "--model", model}, args...)...); code !=
			exitUsage {
			t.Errorf("%q: code %d, %s", args, code, errs)
		}
	}
}

// TestModelFromHub names the model as it is named on a hub, which is one on this machine.
func TestModelFromHub(t *testing.T) {
	path := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0})
	model := read(t, path)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a/b/resolve/main/tiny.gguf" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("X-Repo-Commit", strings.Repeat("a", 40))
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(model)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(model))
	}))
	defer server.Close()
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "")
	data := rows(t, 4)
	for _, c := range []struct {
		name, offline string
		code          int
		says          string
	}{
		{"hf:a/b/tiny.gguf", "1", exitFailed, "HF_HUB_OFFLINE"},
		{"hf:a/b/tiny.gguf", "", 0, "its hash is right"},
		{"hf:a/b/tiny.gguf", "1", 0, ""},
		{"hf:a/b/other.gguf", "", exitFailed, "404"},
		{"hf:../../x", "", exitUsage, "hf:OWNER/REPO/FILE"},
	} {
		t.Setenv("HF_HUB_OFFLINE", c.offline)
		if code, out, errs := veratune("data", "check", "--model", c.name, data); code != c.code ||
			!strings.Contains(errs, c.says) || code == 0 && !strings.Contains(out, "4 of kind instruction") {
			t.Errorf("%s, offline %q: code %d, %s%s", c.name, c.offline, code, out, errs)
		}
	}
	if code, out, errs := veratune("loss", "--model", "hf:a/b/tiny.gguf", "--data", data, "--threads", "1"); code !=
		0 || !strings.Contains(out, "perplexity") {
		t.Errorf("loss: code %d, %s%s", code, out, errs)
	}
}
