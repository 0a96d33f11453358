package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestSplit has every command work on a model in parts as on the same one in a single file.
func TestSplit(t *testing.T) {
	model, data, dir := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), rows(t, 12), t.TempDir()
	parts := testutil.Split(t, model, 7, false)
	run, adapter := filepath.Join(dir, "run"), ""
	work := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := veratune(args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d, %q", args, code, stderr)
		}
		return stdout
	}
	work(alpacaArgs(model, data, run)...)
	work(alpacaArgs(parts[1], data, run+" of parts")...)
	adapter = filepath.Join(run, train.AdapterFile)
	if !bytes.Equal(read(t, adapter), read(t, filepath.Join(run+" of parts", train.AdapterFile))) {
		t.Error("another adapter is trained")
	}
	for name, args := range map[string][]string{
		"inspect": {"inspect", "--json", "MODEL"},
		"loss":    {"loss", "--threads", "1", "--model", "MODEL", "--adapter", adapter, "--data", data},
		"generate": {"generate", "--threads", "1", "--model", "MODEL", "--adapter", adapter, "--max-tokens", "8",
			"-p", "add 3"},
		"devices": {"devices", "--model", "MODEL"},
		"lora": {"export", "--model", "MODEL", "--adapter", adapter, "--to", "lora", "-o", "OUT.gguf",
			"--modelfile"},
		"merged": {"export", "--model", "MODEL", "--adapter", adapter, "--to", "merged", "-o", "OUT.gguf"},
		"peft":   {"export", "--model", "MODEL", "--adapter", adapter, "--to", "peft", "-o", "OUT"},
	} {
		var said, written []string
		for _, path := range []string{model, parts[len(parts)-1]} {
			out := filepath.Join(t.TempDir(), "out")
			replaced := strings.NewReplacer("MODEL", path, "OUT", out)
			var with []string
			for _, arg := range args {
				with = append(with, replaced.Replace(arg))
			}
			said = append(said, strings.ReplaceAll(work(with...), out, "OUT"))
			if name == "lora" || name == "merged" {
				written = append(written, string(read(t, out+".gguf")))
			}
		}
		if said[0] != said[1] && name != "devices" { // which tells how much memory is free
			t.Errorf("%s says %q, of the parts %q", name, said[0], said[1])
		}
		if len(written) == 2 && written[0] != written[1] {
			t.Errorf("%s writes another file", name)
		}
	}
	if code, stdout, stderr := veratune("plan", "--model", parts[2], "--data", data, "--rank", "8", "--threads",
		"1"); code != 0 || !strings.Contains(stdout, "model file") {
		t.Errorf("plan: exit code %d, %q, %q", code, stdout, stderr)
	}
	for _, to := range []string{"vera", "lora", "merged"} {
		code, _, stderr := veratune("export", "--model", parts[0], "--adapter", adapter, "--to", to, "-o", parts[2],
			"--overwrite")
		if code != exitFailed || !strings.Contains(stderr, "read by this command") {
			t.Errorf("%s over a part: exit code %d, %q", to, code, stderr)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, found := strings.CutPrefix(r.URL.Path, "/a/b/resolve/main/q4/")
		if !found {
			http.NotFound(w, r)
			return
		}
		part := read(t, filepath.Join(filepath.Dir(parts[0]), file))
		w.Header().Set("X-Repo-Commit", strings.Repeat("a", 40))
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(part)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(part))
	}))
	defer server.Close()
	t.Setenv("HF_ENDPOINT", server.URL)
	t.Setenv("HF_HUB_CACHE", t.TempDir())
	t.Setenv("HF_HUB_OFFLINE", "")
	work("generate", "--threads", "1", "--model", "hf:a/b/q4/"+filepath.Base(parts[1]), "--adapter", adapter,
		"--max-tokens", "2", "-p", "add 3")
	if modelName(parts[0]) != "tiny" || modelName(model) != "tiny" {
		t.Errorf("called %q", modelName(parts[0]))
	}
	if err := os.Remove(parts[0]); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := veratune("inspect", parts[1]); code != exitFailed || !strings.Contains(stderr, parts[0]) ||
		!strings.Contains(stderr, "missing") {
		t.Errorf("a part is missing: exit code %d, %q", code, stderr)
	}
}
