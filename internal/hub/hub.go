// Package hub fetches single files from the Hugging Face hub into the cache that Hugging Face's own programs use, where
// either finds what the other has fetched. A file in the cache is whole: it is put there under its name only after its
// size and its hash are what the hub says.
package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/internal/terminal"
)

// Scheme begins the names of files on the hub.
const Scheme = "hf:"

// revision is what a file is looked for in.
const revision = "main"

// Name is a file on the hub, hf:OWNER/REPO/FILE, where FILE may be in folders.
type Name struct{ Repo, File string }

func (n Name) String() string { return Scheme + n.Repo + "/" + n.File }

// Parse reads a name. Names that could leave their place in the cache are errors.
func Parse(s string) (Name, error) {
	path, ok := strings.CutPrefix(s, Scheme)
	parts := strings.Split(path, "/")
	if !ok || len(parts) < 3 {
		return Name{}, fmt.Errorf("%s: want hf:OWNER/REPO/FILE", s)
	}
	for i, part := range parts {
		repo := i < 2
		if repo && (!plain.MatchString(part) || strings.Contains(part, "--")) || !repo && !inPlace(part) {
			return Name{}, fmt.Errorf("%s: %q is no name on the hub; want hf:OWNER/REPO/FILE", s, part)
		}
	}
	return Name{Repo: parts[0] + "/" + parts[1], File: strings.Join(parts[2:], "/")}, nil
}

// inPlace tells whether a part of a path names something in its own folder, on every system.
func inPlace(part string) bool {
	return part != "" && strings.Trim(part, ".") != "" && !strings.ContainsFunc(part, func(r rune) bool {
		return r < ' ' || strings.ContainsRune(`\:*?"<>|`, r)
	})
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// Client fetches files. Its zero values are no defaults: see FromEnvironment.
type Client struct {
	Endpoint string // URL
	Cache    string // folder
	Token    string // is sent to Endpoint alone and never written anywhere; "" for none
	Offline  bool   // never asks the hub

	Timeout time.Duration // to wait for an answer, or for the next bytes of a file
	Retry   time.Duration // wait before the first repetition; each next one takes twice as long
	Report  io.Writer     // gets progress and what a person should know
}

// Fetch gives the path of a file in the cache, which it downloads where that hasn't been done. Where the hub can't be
// reached, the copy that was downloaded last is used, if there is one.
func (c *Client) Fetch(ctx context.Context, n Name) (string, error) {
	line := terminal.NewLine(c.Report)
	if c.Offline {
		path, err := c.cached(n)
		if err != nil {
			return "", fmt.Errorf("%v: is not in the cache %s, and HF_HUB_OFFLINE is set", n, c.Cache)
		}
		return path, nil
	}
	m, err := c.ask(ctx, n)
	if err != nil {
		var refused *statusError
		if ctx.Err() != nil || errors.As(err, &refused) && refused.missing() {
			return "", err
		}
		path, missing := c.cached(n)
		if missing != nil {
			return "", fmt.Errorf("%w; and it is not in the cache %s", err, c.Cache)
		}
		line.Note("%v; the copy in the cache is used", err)
		return path, nil
	}
	path := c.snapshot(n, m.commit)
	if _, err := os.Stat(path); err == nil {
		c.keepCommit(n, m.commit) // a cache that can't be written to can be used
		return path, nil
	}
	if err := c.download(ctx, n, m, line); err != nil {
		return "", err
	}
	if err := errors.Join(link(c.blob(n, m.etag), path), c.keepCommit(n, m.commit)); err != nil {
		return "", fmt.Errorf("%v: %w", n, err)
	}
	return path, nil
}

// metadata is what the hub says of a file.
type metadata struct {
	commit string
	etag   string // of large files the SHA-256 of the content, of others git's hash of it
	size   int64  // -1 where it is not said
}

// ask gets the metadata, again and again where the hub is busy.
func (c *Client) ask(ctx context.Context, n Name) (m metadata, err error) {
	err = c.retry(ctx, func() (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		m, err = c.head(ctx, n)
		return false, err
	})
	return m, err
}

func (c *Client) head(ctx context.Context, n Name) (m metadata, err error) {
	request, err := c.request(ctx, http.MethodHead, n)
	if err != nil {
		return m, err
	}
	// Another host than the hub has the content, but not the hub's headers.
	client := http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if !c.ofEndpoint(r.URL) || len(via) > 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		return m, c.unreachable(n, err)
	}
	response.Body.Close()
	if response.StatusCode >= 400 {
		return m, &statusError{n, response.StatusCode, c.Token != ""}
	}
	header := response.Header
	m.commit = header.Get("X-Repo-Commit")
	m.etag = header.Get("X-Linked-Etag")
	if m.etag == "" {
		m.etag = header.Get("ETag")
	}
	m.etag = strings.Trim(strings.TrimPrefix(m.etag, "W/"), `"`)
	m.size = response.ContentLength
	if size := header.Get("X-Linked-Size"); size != "" {
		if _, err := fmt.Sscan(size, &m.size); err != nil {
			return m, fmt.Errorf("%v: the hub gives its size as %q", n, size)
		}
	} else if response.StatusCode >= 300 {
		m.size = -1
	}
	if !commitHash.MatchString(m.commit) || !plain.MatchString(m.etag) {
		return m, fmt.Errorf("%v: %s answers, but not as a Hugging Face hub does (commit %q, ETag %q); check "+
			"HF_ENDPOINT and the proxy", n, c.Endpoint, m.commit, m.etag)
	}
	return m, nil
}

func (c *Client) request(ctx context.Context, method string, n Name) (*http.Request, error) {
	file := strings.ReplaceAll(url.PathEscape(n.File), "%2F", "/")
	r, err := http.NewRequestWithContext(ctx, method, c.Endpoint+"/"+n.Repo+"/resolve/"+revision+"/"+file, nil)
	if err != nil {
		return nil, fmt.Errorf("HF_ENDPOINT %q: want a URL such as https://huggingface.co", c.Endpoint)
	}
	r.Header.Set("User-Agent", "veratune")
	r.Header.Set("Accept-Encoding", "identity") // else a length may be that of compressed content
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	return r, nil
}

// ofEndpoint tells whether a URL is the hub's own.
func (c *Client) ofEndpoint(u *url.URL) bool {
	endpoint, err := url.Parse(c.Endpoint)
	return err == nil && u.Scheme == endpoint.Scheme && u.Host == endpoint.Host
}

// unreachable takes the URL out of an error: where a hub redirects to, it holds a signature that lets anyone download.
func (c *Client) unreachable(n Name, err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		err = at.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v", c.Timeout)
	}
	return fmt.Errorf("%v: %s can't be reached: %w", n, c.Endpoint, err)
}

// statusError is a refusal of the hub.
type statusError struct {
	name  Name
	code  int
	token bool // one was sent
}

// missing tells that the hub has no such file, so that no copy of it will do either.
func (e *statusError) missing() bool { return e.code == http.StatusNotFound }

func (e *statusError) Error() string {
	said := fmt.Sprintf("%v: the hub says %d %s", e.name, e.code, http.StatusText(e.code))
	switch {
	case e.code == http.StatusNotFound:
		return said + "; check the names of owner, repository and file"
	case (e.code == http.StatusUnauthorized || e.code == http.StatusForbidden) && e.token:
		return said + "; check the name, whether your token may read the repository, and whether its page asks you " +
			"to accept terms"
	case e.code == http.StatusUnauthorized || e.code == http.StatusForbidden:
		return said + "; check the name; a private or gated repository takes a token in HF_TOKEN"
	}
	return said
}

// The layout of the cache.
func (c *Client) folder(n Name) string {
	return filepath.Join(c.Cache, "models--"+strings.ReplaceAll(n.Repo, "/", "--"))
}

func (c *Client) blob(n Name, etag string) string { return filepath.Join(c.folder(n), "blobs", etag) }

func (c *Client) snapshot(n Name, commit string) string {
	return filepath.Join(c.folder(n), "snapshots", commit, filepath.FromSlash(n.File))
}

// maxRef is the most that a file with a commit, or with a token, can hold.
const maxRef = 1 << 16

func (c *Client) ref(n Name) string { return filepath.Join(c.folder(n), "refs", revision) }

// cached gives the copy of the commit that was asked for last.
func (c *Client) cached(n Name) (string, error) {
	commit, err := durable.ReadFile(c.ref(n), maxRef)
	if err != nil {
		return "", err
	}
	if !commitHash.Match(commit) {
		return "", fmt.Errorf("%s: holds no commit", c.ref(n))
	}
	path := c.snapshot(n, string(commit))
	_, err = os.Stat(path)
	return path, err
}

func (c *Client) keepCommit(n Name, commit string) error {
	path := c.ref(n)
	if kept, err := durable.ReadFile(path, maxRef); err == nil && string(kept) == commit {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return durable.WriteFile(path, []byte(commit), 0o666)
}

// link makes path a relative link to a blob, so that the cache can be moved. On Windows, where such links take a right
// that most people have not, it is a second name; the only one where the file system has no second names.
func link(blob, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	to, err := filepath.Rel(filepath.Dir(path), blob)
	if err != nil {
		return err
	}
	if runtime.GOOS != "windows" {
		err = os.Symlink(to, path)
	} else if err = os.Link(blob, path); err != nil && !errors.Is(err, fs.ErrExist) {
		err = durable.Rename(blob, path)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	_, err = os.Stat(path)
	return err
}

// lock waits until no other process downloads the same content.
func (c *Client) lock(ctx context.Context, n Name, etag string, line *terminal.Line) (*flock.Flock, error) {
	path := filepath.Join(c.Cache, ".locks", filepath.Base(c.folder(n)), etag+".lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return nil, err
	}
	l := flock.New(path)
	ok, err := l.TryLock()
	if err != nil || ok {
		return l, err
	}
	line.Note("%v: another process is downloading it; waiting", n)
	_, err = l.TryLockContext(ctx, 200*time.Millisecond)
	return l, err
}
