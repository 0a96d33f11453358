package mtbench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3/option"
)

const testKey = "sk-test-0123456789abcdef"

// request is what a stub server is asked.
type request struct {
	Model               string
	Messages            []struct{ Role, Content string }
	Temperature         *float64
	Seed                *uint64
	MaxTokens           *int `json:"max_tokens"`
	MaxCompletionTokens *int `json:"max_completion_tokens"`

	path, authorization string
	at                  time.Time
}

// stub is a server whose answer to the n-th request, counted from 0, is what a function writes.
type stub struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
}

func newStub(t *testing.T, reply func(w http.ResponseWriter, r *http.Request, n int)) *stub {
	s := &stub{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := request{path: r.URL.Path, authorization: r.Header.Get("Authorization"), at: time.Now()}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		n := len(s.requests)
		s.requests = append(s.requests, q)
		s.mu.Unlock()
		reply(w, r, n)
	}))
	t.Cleanup(s.Close)
	return s
}

// seen are the requests so far.
func (s *stub) seen() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// quick makes the waits between tries a millisecond.
var quick = option.WithMaxRetryDelay(time.Millisecond)

func (s *stub) endpoint(t *testing.T, more ...option.RequestOption) *Endpoint {
	t.Helper()
	e, err := newEndpoint(EndpointOptions{URL: s.URL + "/v1", Model: "a-judge", Key: testKey, Timeout: time.Second},
		more...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var hello = []Message{{"user", "Hello"}}

func completion(w http.ResponseWriter, content string) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"object": "chat.completion", "choices": []any{
		map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant",
			"content": content}}}})
}

func apiError(status int, message string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": message, "type": "t", "param": nil,
			"code": nil}})
	}
}

func text(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestEndpointRequest(t *testing.T) {
	s := newStub(t, func(w http.ResponseWriter, _ *http.Request, _ int) { completion(w, "Hi.") })
	e := s.endpoint(t)
	conversation := []Message{{"system", "Be kind."}, {"user", "Hello <b>"}, {"assistant", "Hi."}, {"user", "Again"}}
	for _, temperature := range []float64{0, 0.7} {
		if text, err := e.Complete(context.Background(), conversation, Sampling{Temperature: temperature, MaxTokens: 99,
			Seed: 5}); err != nil || text != "Hi." {
			t.Fatalf("%q, %v", text, err)
		}
	}
	for i, r := range s.seen() {
		if r.path != "/v1/chat/completions" || r.authorization != "Bearer "+testKey || r.Model != "a-judge" ||
			*r.MaxTokens != 99 || *r.Temperature != []float64{0, 0.7}[i] {
			t.Errorf("%+v", r)
		}
		for k, m := range r.Messages {
			if (Message{m.Role, m.Content}) != conversation[k] {
				t.Errorf("%+v", r.Messages)
			}
		}
	}
	if s.seen()[0].Seed != nil || *s.seen()[1].Seed != 5 {
		t.Errorf("seeds %v and %v", s.seen()[0].Seed, s.seen()[1].Seed)
	}
}

// TestEndpointFaults has each fault twice, after which the server answers, and for ever.
func TestEndpointFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault func(w http.ResponseWriter, r *http.Request)
		says  string
	}{
		"429":            {apiError(429, "slow down"), "slow down"},
		"500":            {text(500, "oh no"), "oh no"},
		"503":            {apiError(503, "loading the model"), "loading the model"},
		"408":            {apiError(408, "too late"), "too late"},
		"malformed JSON": {text(200, `{"choices": [{"mess`), "not a completion"},
		"HTML":           {text(200, "<html>welcome</html>"), "welcome"},
		"no choice":      {text(200, `{"choices": []}`), "no message"},
		"no message":     {text(200, `{"choices": [{"finish_reason": "stop"}]}`), "no message"},
		"no end": {text(200, `{"choices": [{"message": {"content": "I think that"}, "finish_reason": null}]}`),
			"cut off"},
		"cut off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, `{"choices": [{"message": {"content": "I think that`)
		}, "cut off"},
		"closed": {func(w http.ResponseWriter, _ *http.Request) {
			connection, _, _ := w.(http.Hijacker).Hijack()
			connection.Close()
		}, "EOF"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "within 50ms"},
		"slow body": {func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"choices": [`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "within 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, faults := range []int{2, endpointRetries + 1} {
				s := newStub(t, func(w http.ResponseWriter, r *http.Request, n int) {
					if n < faults {
						c.fault(w, r)
					} else {
						completion(w, "well")
					}
				})
				e := s.endpoint(t, quick)
				if strings.HasPrefix(name, "slow") {
					e.options.Timeout = 50 * time.Millisecond
				}
				answer, err := e.Complete(context.Background(), hello, Sampling{MaxTokens: 10})
				if faults == 2 && (err != nil || answer != "well" || len(s.seen()) != 3) {
					t.Errorf("%q, %v after %d requests", answer, err, len(s.seen()))
				}
				if faults > 2 {
					wantError(t, err, c.says, s.URL)
					if len(s.seen()) != endpointRetries+1 || errors.As(err, new(hopeless)) {
						t.Errorf("%d requests, %v", len(s.seen()), err)
					}
				}
			}
		})
	}
}

// endless writes to a client for as long as it reads, and says how much that was.
func endless(w http.ResponseWriter, begin, more string) (sent int) {
	io.WriteString(w, begin)
	for block := []byte(strings.Repeat(more, 1<<16/len(more))); ; {
		n, err := w.Write(block)
		if sent += n; err != nil {
			return sent
		}
	}
}

// TestEndpointEndless has servers that never come to an end, by any way an answer is read.
func TestEndpointEndless(t *testing.T) {
	for name, c := range map[string]struct {
		status            int
		begin, more, says string
	}{
		"completion": {200, `{"choices": [{"message": {"content": "`, "and then ", "goes on after 16 MiB"},
		"stream":     {200, "", "data: {\"choices\": [{\"delta\": {\"content\": \"x\"}}]}\n\n", "goes on after 16 MiB"},
		"refusal":    {400, `{"error": {"message": "`, "no and ", "400"},
		"fault":      {503, "", "busy ", "busy"},
		"redirect":   {302, "", "there ", "302"},
		"forbidden":  {403, "<html>", "<p>no</p>", "<p>no</p>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := make(chan int, endpointRetries+1)
			s := newStub(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.status)
				sent <- endless(w, c.begin, c.more)
			})
			e := s.endpoint(t, quick)
			e.options.Timeout = time.Minute
			_, err := e.Complete(context.Background(), hello, Sampling{MaxTokens: 10})
			wantError(t, err, c.says, s.URL)
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if n := <-sent; n > 2*largestAnswer {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}

// TestEndpointRefusals fail at once with the server's words.
func TestEndpointRefusals(t *testing.T) {
	for status, reply := range map[int]func(http.ResponseWriter, *http.Request){
		400: apiError(400, "the prompt is too long"),
		401: apiError(401, "wrong key"),
		403: text(403, `{"error": "not for you"}`),
		404: text(404, "404 page not found"),
		422: text(422, `{"detail": [{"msg": "extra field"}]}`),
	} {
		s := newStub(t, func(w http.ResponseWriter, r *http.Request, _ int) { reply(w, r) })
		_, err := s.endpoint(t).Complete(context.Background(), hello, Sampling{MaxTokens: 10})
		wantError(t, err, fmt.Sprint(status), map[int]string{400: "the prompt is too long", 401: "wrong key",
			403: "not for you", 404: "page not found", 422: "extra field"}[status])
		if len(s.seen()) != 1 {
			t.Errorf("%d: %d requests", status, len(s.seen()))
		}
	}
}

// TestEndpointWaits as long as the server says, which is longer here than the client's own first wait.
func TestEndpointWaits(t *testing.T) {
	s := newStub(t, func(w http.ResponseWriter, r *http.Request, n int) {
		if n == 0 {
			w.Header().Set("Retry-After", "0.6")
			apiError(429, "slow down")(w, r)
			return
		}
		completion(w, "well")
	})
	if _, err := s.endpoint(t).Complete(context.Background(), hello, Sampling{MaxTokens: 10}); err != nil {
		t.Fatal(err)
	}
	if waited := s.seen()[1].at.Sub(s.seen()[0].at); waited < 600*time.Millisecond {
		t.Errorf("waited %v", waited)
	}
}

// elsewhere sends the first requests to another address.
type elsewhere struct {
	address string
	first   int
}

func (e *elsewhere) RoundTrip(r *http.Request) (*http.Response, error) {
	if e.first--; e.first >= 0 {
		r = r.Clone(r.Context())
		r.URL.Host = e.address
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestEndpointRefusedConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	s := newStub(t, func(w http.ResponseWriter, _ *http.Request, _ int) { completion(w, "well") })
	restarting := s.endpoint(t, quick, option.WithHTTPClient(&http.Client{Transport: &elsewhere{closed, 3}}))
	if text, err := restarting.Complete(context.Background(), hello, Sampling{MaxTokens: 10}); err != nil ||
		text != "well" {
		t.Errorf("%q, %v", text, err)
	}
	// A server that stays away ends the judging: every further question would wait for it as long.
	down, err := newEndpoint(EndpointOptions{URL: "http://" + closed, Model: "m", Timeout: time.Second}, quick)
	if err != nil {
		t.Fatal(err)
	}
	_, err = judgeIn(context.Background(), answered(t, "base"), down, oneByOne)
	wantError(t, err, "1 of 6 judgments failed and 5 were not tried", closed, "refused")
}

func TestEndpointCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := newStub(t, func(w http.ResponseWriter, r *http.Request, n int) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := s.endpoint(t).Complete(ctx, hello, Sampling{MaxTokens: 10}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestEndpointKey is sent to the server and shown nowhere, whatever the server does with it.
func TestEndpointKey(t *testing.T) {
	padding := strings.Repeat("x", 290)
	for name, reply := range map[string]func(http.ResponseWriter, *http.Request){
		"in a refusal":       apiError(401, "Incorrect API key provided: "+testKey),
		"in a refusal twice": text(403, testKey+" is not "+testKey),
		"where text is cut":  text(403, padding+testKey),
		"after retries":      text(500, "dump: "+testKey),
		"in malformed JSON":  text(200, `{"you sent": "`+testKey),
		"in a late cut":      text(200, padding+testKey),
		"in the answer":      func(w http.ResponseWriter, _ *http.Request) { completion(w, "[[5]] you sent "+testKey) },
		"in a header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1:1/"+testKey)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, func(w http.ResponseWriter, r *http.Request, _ int) { reply(w, r) })
			dir := answered(t, "base")
			var words strings.Builder
			judged, err := judgeIn(context.Background(), dir, s.endpoint(t, quick), func(o *JudgeOptions) {
				o.Progress = func(p Progress) { fmt.Fprintf(&words, "%+v\n", p) }
			})
			fmt.Fprintf(&words, "%v %+v %#v %v", err, err, err, judged)
			for name, content := range contents(t, dir) {
				fmt.Fprintf(&words, "%s: %s\n", name, content)
			}
			if strings.Contains(words.String(), testKey[:12]) {
				t.Errorf("the key is shown: %s", words.String())
			}
			for _, r := range s.seen() {
				if r.authorization != "Bearer "+testKey {
					t.Errorf("authorization %q", r.authorization)
				}
			}
		})
	}
}

// TestEndpointEnvironment sends no key but the one it is given.
func TestEndpointEnvironment(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", testKey)
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
	s := newStub(t, func(w http.ResponseWriter, _ *http.Request, _ int) { completion(w, "well") })
	e, err := NewEndpoint(EndpointOptions{URL: s.URL, Model: "m", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Complete(context.Background(), hello, Sampling{MaxTokens: 10}); err != nil {
		t.Fatal(err)
	}
	if s.seen()[0].authorization != "" || s.seen()[0].path != "/chat/completions" {
		t.Errorf("%+v", s.seen()[0])
	}
}

// TestEndpointParameters learns once what a reasoning model refuses.
func TestEndpointParameters(t *testing.T) {
	refuse := func(w http.ResponseWriter, param string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"error": {"message": "Unsupported: %s", "type": "invalid_request_error", "param": %q, `+
			`"code": "unsupported_parameter"}}`, param, param)
	}
	var s *stub
	s = newStub(t, func(w http.ResponseWriter, _ *http.Request, n int) {
		switch r := s.seen()[n]; {
		case r.MaxTokens != nil:
			refuse(w, "max_tokens")
		case r.Temperature != nil:
			refuse(w, "temperature")
		case r.Messages[0].Content == "refuse this":
			refuse(w, "temperature") // though it isn't there
		default:
			completion(w, "well")
		}
	})
	e := s.endpoint(t)
	if text, err := e.Complete(context.Background(), hello, Sampling{MaxTokens: 10}); err != nil || text != "well" ||
		len(s.seen()) != 3 {
		t.Errorf("%q, %v after %d requests", text, err, len(s.seen()))
	}
	if r := s.seen()[2]; *r.MaxCompletionTokens != 10 {
		t.Errorf("%+v", r)
	}
	if _, err := e.Complete(context.Background(), hello, Sampling{MaxTokens: 10}); err != nil || len(s.seen()) != 4 {
		t.Errorf("%v after %d requests", err, len(s.seen()))
	}
	_, err := e.Complete(context.Background(), []Message{{"user", "refuse this"}}, Sampling{MaxTokens: 10})
	wantError(t, err, "Unsupported: temperature")
}

func TestEndpointOptions(t *testing.T) {
	good := EndpointOptions{URL: "http://localhost:1/v1", Model: "m", Timeout: time.Second}
	for says, spoil := range map[string]func(*EndpointOptions){
		"not a URL":             func(o *EndpointOptions) { o.URL = "http://user:password@host:port" },
		"v1: invalid control":   func(o *EndpointOptions) { o.URL = "http://a\x01b" },
		"http://localhost:8080": func(o *EndpointOptions) { o.URL = "localhost:8080/v1" },
		"name of the model":     func(o *EndpointOptions) { o.Model = "" },
		"timeout":               func(o *EndpointOptions) { o.Timeout = 0 },
	} {
		o := good
		spoil(&o)
		_, err := NewEndpoint(o)
		wantError(t, err, says)
		if strings.Contains(err.Error(), "password") {
			t.Errorf("%v shows the password", err)
		}
	}
}

// TestJudgeOverEndpoint has one judgment that the server never gives; the others are kept, and given.
func TestJudgeOverEndpoint(t *testing.T) {
	healthy := false
	var s *stub
	var begun sync.Map // prompts that have been sent once
	s = newStub(t, func(w http.ResponseWriter, r *http.Request, n int) {
		q := s.seen()[n]
		prompt := q.Messages[len(q.Messages)-1].Content
		_, again := begun.LoadOrStore(prompt, true)
		switch question, turn, _ := asked([]Message{{"user", prompt}}); {
		case question == 3 && turn == 1 && !healthy:
			apiError(500, "out of memory")(w, r)
		case !again:
			apiError(503, "busy")(w, r)
		default:
			completion(w, fmt.Sprintf("Rating: [[%d]]", question%10))
		}
	})
	dir := answered(t, "base")
	judged, err := judgeIn(context.Background(), dir, s.endpoint(t, quick))
	var failed *Failed
	if !errors.As(err, &failed) || len(failed.Items) != 1 || judged.Judgments != 5 {
		t.Fatalf("%+v, %v", judged, err)
	}
	wantError(t, err, "question 3, turn 1, base", "out of memory")
	healthy = true
	if judged, err := judgeIn(context.Background(), dir, s.endpoint(t, quick)); err != nil ||
		judged != (Judged{Judgments: 6}) {
		t.Errorf("%+v, %v", judged, err)
	}
	rows, err := readLines[Single](filepath.Join(dir, judgmentFolder, "judge_single.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows.rows {
		if r.Score != float64(r.QuestionID%10) {
			t.Errorf("%+v", r)
		}
	}
}
