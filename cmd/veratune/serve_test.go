package main

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/train"
)

// TestServe trains an adapter, and serves it until Ctrl-C.
func TestServe(t *testing.T) {
	model, folder := testutil.TinyLlama(t, testutil.TinyOptions{}), t.TempDir()
	if code, _, stderr := veratune(alpacaArgs(model, rows(t, 20), filepath.Join(folder, "run"))...); code != 0 {
		t.Fatalf("exit code %d, %s", code, stderr)
	}
	const key = "sk-test-0123456789"
	cmd, errs := process("serve", "--model", model, "--adapters", folder, "--adapter",
		"other="+filepath.Join(folder, "run", train.AdapterFile), "--listen", "0.0.0.0:0", "--threads", "1", "--name",
		"tiny", "--key-env", "SERVE_TEST_KEY")
	cmd.Env = append(cmd.Env, "SERVE_TEST_KEY="+key)
	cmd.Stdout = nil
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	m := regexp.MustCompile(`^http://\S+:(\d+)/v1 `).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("%q, %v", line, err)
	}
	client := http.Client{Timeout: time.Minute}
	for _, name := range []string{"tiny", "run", "other", "none"} {
		q, err := http.NewRequest("POST", "http://127.0.0.1:"+m[1]+"/v1/chat/completions",
			strings.NewReader(`{"model": "`+
				name+`", "messages": [{"role": "user", "content": "add 3"}], "max_tokens": 3}`))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+key)
		response, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if want := map[bool]int{true: 404, false: 200}[name == "none"]; response.StatusCode != want {
			t.Errorf("%s: %s", name, response.Status)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if log := errs.String(); strings.Contains(log, key) || !strings.Contains(log, "model=run") ||
		strings.Contains(log, "warning") {
		t.Error(log)
	}
}

// TestServeRefuses: what can't be served is told before the server listens.
func TestServeRefuses(t *testing.T) {
	model := testutil.TinyLlama(t, testutil.TinyOptions{})
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	os.Unsetenv("VERATUNE_TEST_NO_KEY")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--listen 8080", exitUsage, "listen 8080: want an address and a port"},
		{"--listen " + taken.Addr().String(), exitFailed, "another address can be given with --listen"},
		{"--adapters /absent", exitFailed, "adapters: /absent: no such file or folder"},
		{"--adapter x", exitUsage, "want NAME=FILE"},
		{"--adapter x=/absent.gguf", exitFailed, "adapter x: /absent.gguf: no such file or folder"},
		{"--adapter ../x=" + model, exitUsage, "has no slashes"},
		{"--adapter tiny=" + model, exitUsage, "that is the model's own name"},
		{"--key-env VERATUNE_TEST_NO_KEY", exitUsage, "the environment holds no such variable"},
		{"--origin example.com", exitUsage, "want a scheme and a host"},
		{"--parallel 0", exitUsage, "parallel 0: at least 1"},
		{"--context 100000", exitUsage, "context 100000: the model's is 512"},
		{"--max-body none", exitUsage, "want a size such as 6GB"},
		{"--timeout -1s", exitUsage, "timeout -1s: more than 0"},
		{"word", exitUsage, `unexpected argument "word"`},
	} {
		code, _, stderr := veratune(append([]string{"serve", "--model", model, "--listen", "127.0.0.1:0"},
			strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit code %d, %q", c.args, code, stderr)
		}
	}
}
