package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/shirou/gopsutil/v4/disk"

	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/internal/terminal"
)

// incompleteSuffix is what Hugging Face's programs name a download that isn't finished.
const incompleteSuffix = ".incomplete"

// attempts is how often in a row a request may bring nothing.
const attempts = 5

// retry calls f until it succeeds, fails for good, or has failed attempts times in a row without getting on.
func (c *Client) retry(ctx context.Context, f func() (gotOn bool, err error)) error {
	wait := c.Retry
	for failed := 0; ; {
		gotOn, err := f()
		if err == nil || !worthRetrying(err) {
			return err
		}
		if gotOn {
			failed, wait = 0, c.Retry
		}
		if failed++; failed == attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// cut is a connection that ended early or stood still.
type cut struct{ error }

func (e cut) Unwrap() error { return e.error }

func worthRetrying(err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code == http.StatusTooManyRequests || status.code >= 500
	}
	return errors.As(err, new(cut))
}

// download puts the content of a file into its blob, going on where an earlier download ended.
func (c *Client) download(ctx context.Context, n Name, m metadata, line *terminal.Line) error {
	blob := c.blob(n, m.etag)
	if err := os.MkdirAll(filepath.Dir(blob), 0o777); err != nil {
		return errCache(n, err)
	}
	lock, err := c.lock(ctx, n, m.etag, line)
	if err != nil {
		return fmt.Errorf("%v: lock: %w", n, err)
	}
	defer lock.Unlock()
	if _, err := os.Stat(blob); err == nil {
		return nil
	}
	part, err := os.OpenFile(blob+incompleteSuffix, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return errCache(n, err)
	}
	defer part.Close()
	p := &progress{Line: line, name: n, total: m.size}
	err = c.retry(ctx, func() (bool, error) {
		before := p.done
		err := c.get(ctx, n, m, part, p)
		return p.done > before, err
	})
	line.End()
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%v: the same command goes on with the download: %w", n, ctx.Err())
		}
		return err
	}
	if err := verify(part, n, m); err != nil {
		return errors.Join(err, part.Close(), os.Remove(part.Name()))
	}
	if err := errors.Join(part.Sync(), part.Close(), durable.Rename(part.Name(), blob)); err != nil {
		return fmt.Errorf("%v: %w", n, err)
	}
	line.Note("%v: %s downloaded, its hash is right; kept in %s", n, humanize.Bytes(uint64(p.done)), c.Cache)
	return nil
}

// get appends the rest of the content to part.
func (c *Client) get(ctx context.Context, n Name, m metadata, part *os.File, p *progress) error {
	have, err := part.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if m.size >= 0 && have > m.size {
		have = 0
	}
	if m.size >= 0 && have == m.size && have > 0 {
		p.done = have
		return nil
	}
	if err := enoughSpace(part.Name(), m.size-have); err != nil {
		return fmt.Errorf("%v: %w", n, err)
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	request, err := c.request(reading, http.MethodGet, n)
	if err != nil {
		return err
	}
	if have > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	alive := time.AfterFunc(c.Timeout, cancel)
	defer alive.Stop()
	client := http.Client{CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if !c.ofEndpoint(r.URL) {
			r.Header.Del("Authorization")
		}
		if len(via) > 10 {
			return errors.New("more than 10 redirections")
		}
		return nil
	}}
	response, err := client.Do(request)
	if err != nil {
		if reading.Err() != nil && ctx.Err() == nil {
			err = context.DeadlineExceeded
		}
		return cut{c.unreachable(n, err)}
	}
	defer response.Body.Close()
	var from int64
	whole := response.ContentLength
	switch response.StatusCode {
	case http.StatusOK: // the server may not know how to go on
		have = 0
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != have {
			return fmt.Errorf("%v: asked for the bytes from %d on, the server sends %q", n, have,
				response.Header.Get("Content-Range"))
		}
		if whole >= 0 {
			whole += have
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(cut{fmt.Errorf("%v: the server has nothing from byte %d on", n, have)}, part.Truncate(0))
	default:
		return &statusError{n, response.StatusCode, c.Token != ""}
	}
	switch {
	case m.size >= 0 && whole >= 0 && whole != m.size:
		return fmt.Errorf("%v: the server has %d bytes, the hub says %d", n, whole, m.size)
	case m.size < 0 && whole < 0:
		return fmt.Errorf("%v: neither the hub nor the server says how large it is, so it can't be known when all of "+
			"it is there; download it by other means", n)
	case m.size < 0:
		m.size = whole
		if err := enoughSpace(part.Name(), m.size-have); err != nil {
			return fmt.Errorf("%v: %w", n, err)
		}
	}
	if err := part.Truncate(have); err != nil {
		return err
	}
	if _, err := part.Seek(have, io.SeekStart); err != nil {
		return err
	}
	p.start(have)
	// one more byte tells that there is too much
	err = c.copy(n, m, part, io.LimitReader(response.Body, m.size-have+1), p, alive)
	if err != nil && reading.Err() != nil && ctx.Err() == nil {
		err = cut{fmt.Errorf("%v: nothing came for %v after %d bytes; the same command goes on from there", n,
			c.Timeout, p.done)}
	}
	return err
}

// copy reads to the end, or until nothing has come for the client's timeout.
func (c *Client) copy(n Name, m metadata, to io.Writer, from io.Reader, p *progress, alive *time.Timer) error {
	buffer := make([]byte, 1<<18)
	for {
		got, err := from.Read(buffer)
		alive.Reset(c.Timeout)
		if _, err := to.Write(buffer[:got]); err != nil {
			return fmt.Errorf("%v: %w", n, err)
		}
		p.add(got)
		if p.done > m.size {
			return fmt.Errorf("%v: the server sends more than the %d bytes that the hub says", n, m.size)
		}
		switch {
		case errors.Is(err, io.EOF) && p.done < m.size:
			return cut{fmt.Errorf("%v: the connection ended after %d of %d bytes; the same command goes on from there",
				n, p.done, m.size)}
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return cut{fmt.Errorf("%v: the connection broke after %d bytes: %w; the same command goes on from there", n,
				p.done, err)}
		}
	}
}

func errCache(n Name, err error) error {
	return fmt.Errorf("%v: the cache can't be written to: %w; HF_HUB_CACHE names another place", n, err)
}

func enoughSpace(path string, need int64) error {
	usage, err := disk.Usage(filepath.Dir(path))
	if err != nil || need <= 0 || uint64(need) <= usage.Free {
		return nil // where the system doesn't say, writing will
	}
	return fmt.Errorf("needs %s in %s, where %s are free; HF_HUB_CACHE names another place",
		humanize.Bytes(uint64(need)), filepath.Dir(path), humanize.Bytes(usage.Free))
}

var (
	sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)
	gitHex    = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// verify compares the content with what the hub says of it.
func verify(content *os.File, n Name, m metadata) error {
	info, err := content.Stat()
	if err != nil {
		return err
	}
	if m.size >= 0 && info.Size() != m.size {
		return fmt.Errorf("%v: %d bytes came, the hub says %d; the download was removed, try again", n,
			info.Size(), m.size)
	}
	var h hash.Hash
	switch {
	case sha256Hex.MatchString(m.etag):
		h = sha256.New()
	case gitHex.MatchString(m.etag):
		h = sha1.New()
		fmt.Fprintf(h, "blob %d\x00", info.Size())
	default:
		return fmt.Errorf("%v: the hub gives no hash of it (ETag %q), so it can't be checked; the download was removed",
			n, m.etag)
	}
	if _, err := io.Copy(h, io.NewSectionReader(content, 0, info.Size())); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != m.etag {
		return fmt.Errorf("%v: the hash of what came is %s, the hub says %s; the download was removed, try again", n,
			got, m.etag)
	}
	return nil
}

// progress tells how a download gets on.
type progress struct {
	*terminal.Line
	name        Name
	done, total int64
	percent     int
	began       time.Time
	from        int64 // done when it began
	shown       time.Time
}

func (p *progress) start(have int64) {
	p.done, p.from, p.began = have, have, time.Now()
	if have > 0 {
		p.Note("%v: going on after %s", p.name, humanize.Bytes(uint64(have)))
	}
}

func (p *progress) add(n int) {
	p.done += int64(n)
	now := time.Now()
	percent := 0
	if p.total > 0 {
		percent = int(100 * p.done / p.total)
	}
	if percent == p.percent && now.Sub(p.shown) < 200*time.Millisecond {
		return
	}
	text := fmt.Sprintf("%v: %s", p.name, humanize.Bytes(uint64(p.done)))
	speed := float64(p.done-p.from) / now.Sub(p.began).Seconds()
	if p.total > 0 {
		text += fmt.Sprintf(" of %s, %d%%", humanize.Bytes(uint64(p.total)), percent)
	}
	if speed > 0 {
		text += fmt.Sprintf("  %s/s", humanize.Bytes(uint64(speed)))
		if p.total > 0 {
			text += fmt.Sprintf("  %v left",
				(time.Duration(float64(p.total-p.done) / speed * float64(time.Second))).Round(time.Second))
		}
	}
	if p.total > 0 && percent > p.percent {
		p.Step(percent, 100, text)
	} else {
		p.Status(text)
	}
	p.percent, p.shown = percent, now
}
