package hub

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const secret = "hf_secretsecret"

var (
	content = bytes.Repeat([]byte("GGUF and much more. "), 50_000)
	commit  = strings.Repeat("0123456789", 4)
	name    = Name{"someone/small-GGUF", "q4/small model.gguf"}
)

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// fakeHub answers as Hugging Face does: the hub knows the file, and another host has its content.
type fakeHub struct {
	hub, storage *httptest.Server
	header       map[string]string                            // of the hub's answers
	serve        func(w http.ResponseWriter, r *http.Request) // of the storage
	status       int                                          // of the hub, where it refuses
	asked        atomic.Int32
	fetched      atomic.Int32
	ranges       []string
	mu           sync.Mutex
}

func newHub(t *testing.T) *fakeHub {
	f := &fakeHub{header: map[string]string{
		"X-Repo-Commit": commit, "X-Linked-Etag": `"` + sum(content) + `"`, "X-Linked-Size": fmt.Sprint(len(content)),
		"ETag": `W/"other"`,
	}}
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	f.storage = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.fetched.Add(1)
		f.mu.Lock()
		f.ranges = append(f.ranges, r.Header.Get("Range"))
		f.mu.Unlock()
		if r.Header.Get("Authorization") != "" {
			t.Error("the token was sent to the storage")
		}
		f.serve(w, r)
	}))
	t.Cleanup(f.storage.Close)
	f.hub = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked.Add(1)
		if r.URL.Path != "/someone/small-GGUF/resolve/main/q4/small model.gguf" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer "+secret {
			t.Errorf("authorization %q", got)
		}
		if f.status != 0 {
			w.WriteHeader(f.status)
			return
		}
		for key, value := range f.header {
			w.Header().Set(key, value)
		}
		http.Redirect(w, r, f.storage.URL+"/blob?Signature=private", http.StatusFound)
	}))
	t.Cleanup(f.hub.Close)
	return f
}

func (f *fakeHub) client(t *testing.T) (*Client, *bytes.Buffer) {
	var report bytes.Buffer
	return &Client{Endpoint: f.hub.URL, Cache: t.TempDir(), Token: secret, Timeout: 5 * time.Second,
		Retry: time.Millisecond, Report: &report}, &report
}

// check looks for the content in the cache's layout, and for the token and the signature nowhere.
func check(t *testing.T, c *Client, path string, err error, said string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(c.Cache, "models--someone--small-GGUF", "snapshots", commit, "q4",
		"small model.gguf"); path != want {
		t.Errorf("path %s, want %s", path, want)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	blob, blobErr := os.Stat(filepath.Join(c.Cache, "models--someone--small-GGUF", "blobs", sum(content)))
	info, err := os.Stat(path)
	if err := errors.Join(err, blobErr); err != nil || !os.SameFile(info, blob) {
		t.Errorf("no link to the blob: %v", err)
	}
	if to, _ := os.Readlink(path); to != filepath.Join("..", "..", "..", "blobs", sum(content)) &&
		runtime.GOOS != "windows" {
		t.Errorf("a link to %q", to)
	}
	if ref, _ := os.ReadFile(filepath.Join(c.Cache, "models--someone--small-GGUF", "refs", "main")); string(
		ref) != commit {
		t.Errorf("refs/main is %q", ref)
	}
	noSecrets(t, c, said)
}

func noSecrets(t *testing.T, c *Client, said string) {
	t.Helper()
	if strings.Contains(said, secret) || strings.Contains(said, "Signature") {
		t.Errorf("a secret was told: %s", said)
	}
	filepath.WalkDir(c.Cache, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if data, _ := os.ReadFile(path); bytes.Contains(data, []byte(secret)) || strings.Contains(path, secret) {
				t.Errorf("%s holds the token", path)
			}
		}
		return err
	})
}

func TestFetch(t *testing.T) {
	f := newHub(t)
	c, report := f.client(t)
	path, err := c.Fetch(t.Context(), name)
	check(t, c, path, err, report.String())
	if f.fetched.Load() != 1 || !strings.Contains(report.String(), "100%") {
		t.Errorf("fetched %d times; %s", f.fetched.Load(), report)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Cache, "*", "blobs", "*.incomplete")); left != nil {
		t.Errorf("%v is left", left)
	}
	path, err = c.Fetch(t.Context(), name)
	check(t, c, path, err, report.String())
	c.Offline = true
	asked := f.asked.Load()
	path, err = c.Fetch(t.Context(), name)
	check(t, c, path, err, report.String())
	if f.fetched.Load() != 1 || f.asked.Load() != asked {
		t.Error("what is in the cache was fetched again, or the hub was asked offline")
	}
	// A new commit with the same content only gets another link, and the net's being away leaves the last one.
	c.Offline = false
	f.header["X-Repo-Commit"] = strings.Repeat("a", 40)
	if path, err = c.Fetch(t.Context(), name); err != nil || !strings.Contains(path, strings.Repeat("a", 40)) ||
		f.fetched.Load() != 1 {
		t.Errorf("%s, %v, fetched %d times", path, err, f.fetched.Load())
	}
	f.hub.Close()
	if again, err := c.Fetch(t.Context(), name); err != nil || again != path ||
		!strings.Contains(report.String(), "the copy in the cache is used") {
		t.Errorf("%s, %v; %s", again, err, report)
	}
}

func TestResume(t *testing.T) {
	half := len(content) / 2
	for what, c := range map[string]struct {
		existing []byte
		serve    func(w http.ResponseWriter, r *http.Request) bool // whether it has answered
		ranges   string
	}{
		"from the middle": {existing: content[:half], ranges: fmt.Sprintf("[bytes=%d-]", half)},
		"all there":       {existing: content, ranges: "[]"},
		"too much there":  {existing: append(bytes.Clone(content), 'x'), ranges: "[]"},
		"no ranges": {existing: content[:half], ranges: fmt.Sprintf("[bytes=%d-]", half),
			serve: func(w http.ResponseWriter, r *http.Request) bool {
				w.Write(content)
				return true
			}},
		"cut connections": {ranges: fmt.Sprintf("[ bytes=%d- bytes=%d-]", 300_000, 600_000),
			serve: func(w http.ResponseWriter, r *http.Request) bool {
				var from int
				fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				if from >= 600_000 {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(content)-from))
				if from > 0 {
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
					w.WriteHeader(http.StatusPartialContent)
				}
				w.Write(content[from : from+300_000])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}},
		"busy": {ranges: "[ ]", serve: func() func(w http.ResponseWriter, r *http.Request) bool {
			calls := 0
			return func(w http.ResponseWriter, r *http.Request) bool {
				calls++
				if calls == 1 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return calls == 1
			}
		}()},
	} {
		t.Run(what, func(t *testing.T) {
			f := newHub(t)
			whole := f.serve
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				if c.serve == nil || !c.serve(w, r) {
					whole(w, r)
				}
			}
			client, report := f.client(t)
			if c.existing != nil {
				part := client.blob(name, sum(content)) + incompleteSuffix
				if err := errors.Join(os.MkdirAll(filepath.Dir(part), 0o777),
					os.WriteFile(part, c.existing, 0o666)); err != nil {
					t.Fatal(err)
				}
			}
			path, err := client.Fetch(t.Context(), name)
			check(t, client, path, err, report.String())
			if got := fmt.Sprint(f.ranges); got != c.ranges {
				t.Errorf("ranges %s, want %s", got, c.ranges)
			}
		})
	}
}

// endless sends for as long as the client reads.
func endless(w http.ResponseWriter, r *http.Request) {
	for block := make([]byte, 1<<16); ; {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

func TestFailures(t *testing.T) {
	wrong := bytes.Clone(content)
	wrong[len(wrong)/2] ^= 1
	send := func(b []byte) func(f *fakeHub, c *Client) {
		return func(f *fakeHub, c *Client) {
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			}
		}
	}
	refuse := func(code int) func(f *fakeHub, c *Client) { return func(f *fakeHub, c *Client) { f.status = code } }
	for what, c := range map[string]struct {
		spoil func(f *fakeHub, c *Client)
		want  string
	}{
		"wrong content": {send(wrong), "the hash of what came is " + sum(wrong)},
		"too short":     {send(content[:1000]), "the server has 1000 bytes, the hub says 1000000"},
		"too long":      {send(append(bytes.Clone(content), "more"...)), "the server has 1000004 bytes"},
		"too long, unannounced": {func(f *fakeHub, c *Client) {
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				w.Write(append(bytes.Clone(content), "more"...))
			}
		}, "the server sends more than the 1000000 bytes"},
		"endless": {func(f *fakeHub, c *Client) { f.serve = endless }, "the server sends more than the 1000000 bytes"},
		"endless, of no size": {func(f *fakeHub, c *Client) {
			delete(f.header, "X-Linked-Size")
			f.serve = endless
		}, "neither the hub nor the server says how large it is"},
		"a longer one, of no size": {func(f *fakeHub, c *Client) {
			delete(f.header, "X-Linked-Size")
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(bytes.Clone(content), "more"...)))
			}
		}, "the hash of what came"},
		"endless refusal": {func(f *fakeHub, c *Client) {
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				endless(w, r)
			}
		}, "403"},
		"always cut": {func(f *fakeHub, c *Client) {
			f.serve = func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }
		}, "EOF"},
		"stands still": {func(f *fakeHub, c *Client) {
			c.Timeout = 20 * time.Millisecond
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
		}, "nothing came for 20ms"},
		"other range": {func(f *fakeHub, c *Client) {
			part := c.blob(name, sum(content)) + incompleteSuffix
			os.MkdirAll(filepath.Dir(part), 0o777)
			os.WriteFile(part, content[:10], 0o666)
			f.serve = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Range", "bytes 0-9/10")
				w.WriteHeader(http.StatusPartialContent)
			}
		}, "asked for the bytes from 10 on"},
		"not found": {refuse(404), "404 Not Found; check the names"},
		"no access": {refuse(401), "whether your token may read"},
		"gated":     {refuse(403), "accept terms"},
		"broken":    {refuse(500), "500 Internal Server Error; and it is not in the cache"},
		"no hub":    {func(f *fakeHub, c *Client) { f.header = nil }, "not as a Hugging Face hub does"},
		"hostile etag": {func(f *fakeHub, c *Client) { f.header["X-Linked-Etag"] = `"../../../evil"` },
			"not as a Hugging Face hub does"},
		"hostile commit": {func(f *fakeHub, c *Client) {
			f.header["X-Repo-Commit"] = "../../../../../../../../../../../../../evil/"
		}, "not as a Hugging Face hub does"},
		"no hash": {func(f *fakeHub, c *Client) { f.header["X-Linked-Etag"] = `"abc"` }, "can't be checked"},
		"no size": {func(f *fakeHub, c *Client) { f.header["X-Linked-Size"] = "many" }, `its size as "many"`},
		"too large": {func(f *fakeHub, c *Client) { f.header["X-Linked-Size"] = "1000000000000000000" },
			"HF_HUB_CACHE names another place"},
		"cache is a file": {func(f *fakeHub, c *Client) {
			c.Cache = filepath.Join(c.Cache, "file")
			os.WriteFile(c.Cache, nil, 0o666)
		}, "the cache can't be written to"},
		"net away":     {func(f *fakeHub, c *Client) { f.hub.Close() }, "can't be reached"},
		"offline":      {func(f *fakeHub, c *Client) { c.Offline = true }, "HF_HUB_OFFLINE is set"},
		"bad endpoint": {func(f *fakeHub, c *Client) { c.Endpoint = "://x" }, "want a URL"},
	} {
		t.Run(what, func(t *testing.T) {
			f := newHub(t)
			client, report := f.client(t)
			c.spoil(f, client)
			path, err := client.Fetch(t.Context(), name)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, context.Canceled) {
				t.Fatalf("%s, %v, want %s", path, err, c.want)
			}
			noSecrets(t, client, report.String()+err.Error())
			for _, pattern := range []string{"*/snapshots/*/*/*", "*/blobs/*[^e]"} {
				if left, _ := filepath.Glob(filepath.Join(client.Cache, pattern)); left != nil {
					t.Errorf("%v is there", left)
				}
			}
			if strings.Contains(c.want, "hash of what came") {
				if left, _ := filepath.Glob(filepath.Join(client.Cache, "*/blobs/*")); left != nil {
					t.Errorf("%v would be gone on with", left)
				}
			}
		})
	}
	f := newHub(t)
	f.status = 401
	f.hub.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) })
	client, _ := f.client(t)
	client.Token = ""
	if _, err := client.Fetch(t.Context(), name); err == nil ||
		!strings.Contains(err.Error(), "takes a token in HF_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
}

// Cancelled, a download stops at once and is gone on with later.
func TestCancel(t *testing.T) {
	f := newHub(t)
	whole := f.serve
	ctx, cancel := context.WithCancel(t.Context())
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:500_000])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}
	c, report := f.client(t)
	if _, err := c.Fetch(ctx, name); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	f.serve = whole
	path, err := c.Fetch(t.Context(), name)
	check(t, c, path, err, report.String())
}

func TestTwoAtOnce(t *testing.T) {
	f := newHub(t)
	whole, begun := f.serve, make(chan bool)
	f.serve = func(w http.ResponseWriter, r *http.Request) {
		close(begun) // a second call would panic
		time.Sleep(50 * time.Millisecond)
		whole(w, r)
	}
	c, report := f.client(t)
	second := *c
	second.Report = new(bytes.Buffer)
	done := make(chan error)
	go func() {
		_, err := c.Fetch(context.Background(), name)
		done <- err
	}()
	<-begun
	path, err := second.Fetch(t.Context(), name)
	if err := <-done; err != nil {
		t.Error(err)
	}
	check(t, c, path, err, report.String())
}

// Small files have git's hash in place of the SHA-256.
func TestGitHash(t *testing.T) {
	f := newHub(t)
	s := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	delete(f.header, "X-Linked-Etag")
	delete(f.header, "X-Linked-Size")
	f.header["ETag"] = `"` + hex.EncodeToString(s[:]) + `"`
	c, _ := f.client(t)
	if path, err := c.Fetch(t.Context(), name); err != nil || !strings.HasSuffix(path, filepath.FromSlash(name.File)) {
		t.Errorf("%s, %v", path, err)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Name{
		"hf:a/b/c.gguf": {"a/b", "c.gguf"}, "hf:a-1/b.2_c/d/é (1).gguf": {"a-1/b.2_c", "d/é (1).gguf"},
	} {
		if n, err := Parse(s); err != nil || n != want || n.String() != s {
			t.Errorf("%s: %+v, %v", s, n, err)
		}
	}
	for _, s := range []string{
		"", "a/b/c", "hf:", "hf:a/b", "hf:a/b/", "hf:../../etc/passwd", "hf:../b/c", "hf:a/../c", "hf:a/b/..",
		"hf:a/b/../../c", "hf:a/b/c/..", "hf:a/b//c", "hf:/a/b/c",
		"hf:a/b/.", `hf:a/b/..\c`, "hf:a--b/c/d", "hf:a/b--c/d", "hf:a/b/c\n", "hf:a/b/c\x00", "hf:a b/c/d",
		"hf:.a/b/c", "hf:a/b/c:stream", "hf:a/b/...",
	} {
		if n, err := Parse(s); err == nil {
			t.Errorf("%q was taken as %+v", s, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"hf:a/b/c.gguf", "hf:../b/c", "hf:a/b/../c", `hf:a/b/..\c`, "hf:a/b/c/d"} {
		f.Add(s)
	}
	c := &Client{Cache: "/cache"}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			return
		}
		rest, err := filepath.Rel(filepath.Join(c.folder(n), "snapshots", commit), c.snapshot(n, commit))
		if err != nil || !filepath.IsLocal(rest) || filepath.Dir(c.folder(n)) != filepath.FromSlash(c.Cache) ||
			n.String() != s {
			t.Errorf("%q is kept at %s", s, c.snapshot(n, commit))
		}
	})
}

func TestFromEnvironment(t *testing.T) {
	home := t.TempDir()
	os.MkdirAll(filepath.Join(home, ".cache", "huggingface"), 0o700)
	os.WriteFile(filepath.Join(home, ".cache", "huggingface", "token"), []byte(secret+"\n"), 0o600)
	variables := []string{"HF_HOME", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE", "HF_TOKEN",
		"HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}
	for _, c := range []struct {
		set                    map[string]string
		cache, token, endpoint string
		offline                bool
	}{
		{nil, home + "/.cache/huggingface/hub", secret, "https://huggingface.co", false},
		{map[string]string{"XDG_CACHE_HOME": "/x", "HF_ENDPOINT": "http://h:1/"}, "/x/huggingface/hub", "",
			"http://h:1", false},
		{map[string]string{"HF_HOME": "~/hf", "HF_TOKEN": " t\n", "HF_HUB_OFFLINE": "yes"}, home + "/hf/hub", "t",
			"https://huggingface.co", true},
		{map[string]string{"HF_HUB_CACHE": "$HOME/c", "HF_HOME": "/h", "HF_HUB_OFFLINE": "0"}, home + "/c", "",
			"https://huggingface.co", false},
		{map[string]string{"HUGGINGFACE_HUB_CACHE": "/old", "TRANSFORMERS_OFFLINE": "1"}, "/old", secret,
			"https://huggingface.co", true},
	} {
		for _, v := range variables {
			t.Setenv(v, c.set[v])
		}
		t.Setenv("HOME", home)
		t.Setenv("USERPROFILE", home) // Windows's
		got, err := FromEnvironment(nil)
		if err != nil || filepath.Clean(got.Cache) != filepath.FromSlash(c.cache) || got.Token != c.token ||
			got.Endpoint != c.endpoint ||
			got.Offline != c.offline {
			t.Errorf("%v: %+v, %v", c.set, got, err)
		}
	}
}
