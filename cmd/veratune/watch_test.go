package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/veratune/veratune/bindings"
	"github.com/veratune/veratune/internal/testutil"
)

// A run is shown as a file and by a server, which Ctrl-C ends with exit code 0.
func TestWatch(t *testing.T) {
	model, out := testutil.TinyLlama(t, testutil.TinyOptions{Type: bindings.Q4_0}), filepath.Join(t.TempDir(), "run")
	if code, _, stderr := veratune(alpacaArgs(model, rows(t, 20), out, "--sample", "add 3")...); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "run.html")
	if code, stdout, stderr := veratune("watch", "--html", file, out); code != 0 || stdout+stderr != "" {
		t.Fatalf("exit code %d, %q, %q", code, stdout, stderr)
	}
	for _, want := range []string{`"finished":true`, `"prompt":"add 3"`, `"setup.vera.rank":"8"`,
		`"layers":["blk.0.attn_q"`, `"live":false`} {
		if !strings.Contains(string(read(t, file)), want) {
			t.Errorf("the page doesn't have %s", want)
		}
	}

	cmd, _ := process("watch", "--listen", "127.0.0.1:0", out)
	cmd.Stdout = nil
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line := make([]byte, 200)
	n, err := stdout.Read(line)
	address, _, _ := strings.Cut(string(line[:n]), " ")
	if err != nil || !strings.HasPrefix(address, "http://127.0.0.1:") {
		t.Fatalf("%q, %v", line[:n], err)
	}
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	request, err := http.NewRequestWithContext(ctx, "GET", address+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	start := make([]byte, 20)
	if _, err := io.ReadFull(response.Body, start); err != nil || string(start) != `data: {"run":0,"begi` {
		t.Errorf("%q, %v", start, err)
	}
	// A page that is still open doesn't keep it from ending.
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		t.Error(err)
	}
}

func TestWatchUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "one run folder or more"},
		{[]string{"run", "--html"}, exitUsage, "--html: needs a value"},
		{[]string{t.TempDir()}, exitFailed, "is no run"},
		{[]string{"--html", "x.html", t.TempDir()}, exitFailed, "is no run"},
	} {
		code, _, stderr := veratune(append([]string{"watch"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit code %d, %q", c.args, code, stderr)
		}
	}
}
