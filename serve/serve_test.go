package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/internal/testutil"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// baseName is what tests call the model without an adapter.
const baseName = "tiny"

// openTiny opens a tiny model.
func openTiny(t testing.TB) *session.Session {
	t.Helper()
	engine := generate.Engine()
	engine.Threads = 1
	s, err := session.Open(session.Options{Model: testutil.TinyLlama(t, testutil.TinyOptions{}), Engine: engine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// saveAdapter writes an adapter with random vectors.
func saveAdapter(t testing.TB, base *session.Session, path string, seed uint64, change func(*vera.Config),
	facts map[string]string) {
	t.Helper()
	c := vera.Default()
	c.Rank = 32
	if change != nil {
		change(&c)
	}
	a, err := vera.New(c, base.Base())
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range a.Params {
		a.Params[i] = float32(random.NormFloat64())
	}
	a.Facts = facts
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
}

// running is a server that tests talk to.
type running struct {
	*Server
	url    string
	folder string
	base   *session.Session
	stop   func() // as Ctrl-C does
	log    *bytes.Buffer
}

// start starts a server over a folder of adapters, one, two and lora.
func start(t testing.TB, change func(*Options)) *running {
	t.Helper()
	base := openTiny(t)
	folder := t.TempDir()
	saveAdapter(t, base, filepath.Join(folder, "one.gguf"), 1, nil, map[string]string{"steps": "12"})
	saveAdapter(t, base, filepath.Join(folder, "two.gguf"), 2, func(c *vera.Config) { c.Rank = 64 }, nil)
	saveAdapter(t, base, filepath.Join(folder, "lora.gguf"), 3, func(c *vera.Config) {
		*c = vera.LoRADefault()
		c.Rank = 4
	}, nil)
	return serve(t, base, folder, change)
}

// patient is how long servers wait for slow clients that tests start; nil for as long as others do.
var patient *patience

// serve starts a server over a folder.
func serve(t testing.TB, base *session.Session, folder string, change func(*Options)) *running {
	t.Helper()
	o := Default()
	o.Name, o.Folder, o.Texts = baseName, folder, 4
	log := new(bytes.Buffer)
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	if change != nil {
		change(&o)
	}
	s, err := New(base, o)
	if err != nil {
		t.Fatal(err)
	}
	if patient != nil {
		s.patience = *patient
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	t.Cleanup(stop)
	return &running{s, "http://" + l.Addr().String(), folder, base, stop, log}
}

// ask sends a request and gives its status and body.
func (r *running) ask(t testing.TB, method, path, body string, headers ...string) (int, string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		q.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

// json is ask for a status and a body that is read into v.
func (r *running) json(t testing.TB, method, path, body string, status int, v any) {
	t.Helper()
	got, data := r.ask(t, method, path, body)
	if got != status {
		t.Fatalf("%s %s %.200s: status %d, want %d: %.500s", method, path, body, got, status, data)
	}
	if err := json.Unmarshal([]byte(data), v); err != nil {
		t.Fatalf("%s %s: %v: %s", method, path, err, data)
	}
}

// chatBody is a request for a short answer.
func chatBody(model, more string) string {
	return fmt.Sprintf(`{"model": %q, "messages": [{"role": "user", "content": "add 3"}], "max_tokens": 8, `+
		`"temperature": 0%s}`,
		model, more)
}
