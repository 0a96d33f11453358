package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"

	"github.com/veratune/veratune/model"
)

// TestKey: without the key nothing is answered but what tells nothing, and the key gets nowhere.
func TestKey(t *testing.T) {
	r := start(t, func(o *Options) { o.Key = testKey })
	for _, headers := range [][]string{nil, {"Authorization", "Bearer"}, {"Authorization", "Bearer " + testKey[:10]},
		{"Authorization", "Basic " + testKey}, {"Authorization", testKey},
		{"Authorization", "Bearer " + testKey + "x"}} {
		for _, q := range []string{"GET /v1/models", "GET /v1/models/one", "POST /v1/chat/completions",
			"POST /v1/completions"} {
			method, path, _ := strings.Cut(q, " ")
			if status, body := r.ask(t, method, path, chatBody("one", ""), headers...); status !=
				http.StatusUnauthorized || strings.Contains(body, testKey) {
				t.Errorf("%s with %q: status %d, %s", q, headers, status, body)
			}
		}
	}
	for _, path := range []string{"/health", "/metrics", "/openapi.json"} {
		if status, body := r.ask(t, "GET", path, ""); status != http.StatusOK || strings.Contains(body, testKey) {
			t.Errorf("%s: status %d", path, status)
		}
	}
	for _, headers := range [][]string{{"Authorization", "Bearer " + testKey},
		{"authorization", "bearer  " + testKey}} {
		if status, body := r.ask(t, "GET", "/v1/models?api_key="+testKey, "", headers...); status != http.StatusOK {
			t.Errorf("with %q: status %d, %s", headers, status, body)
		}
	}
	r.ask(t, "GET", "/v1/models/"+testKey, "", "Authorization", "Bearer "+testKey)
	r.ask(t, "GET", "/"+testKey, "")
	r.ask(t, "POST", "/v1/chat/completions", chatBody(testKey, ""), "Authorization", "Bearer "+testKey)
	r.ask(t, "POST", "/v1/chat/completions", chatBody("one", ""), "Authorization", "Bearer "+testKey)
	r.stop()
	log := r.log.String()
	if strings.Contains(log, testKey) || strings.Contains(log, "add 3") || !strings.Contains(log, "model=one") {
		t.Error(log)
	}
}

// TestOrigins: pages of allowed origins may ask, others may not, and neither may a page whose name points here.
func TestOrigins(t *testing.T) {
	closed := start(t, nil)
	open := serve(t, closed.base, closed.folder, func(o *Options) { o.Origins = []string{"https://page.example"} })
	any := serve(t, closed.base, closed.folder, func(o *Options) { o.Origins = []string{"*"} })
	const page, other = "https://page.example", "https://other.example"
	for _, x := range []struct {
		server *running
		origin string
		status int
	}{
		{closed, "", 200}, {closed, page, 403}, {closed, closed.url, 200}, {open, page, 200}, {open, other, 403},
		{open, "null", 403}, {any, other, 200},
	} {
		headers := []string{"Content-Type", "text/plain"}
		if x.origin != "" {
			headers = append(headers, "Origin", x.origin)
		}
		status, body := x.server.ask(t, "POST", "/v1/chat/completions", chatBody(baseName, ""), headers...)
		if status != x.status {
			t.Errorf("origin %q, allowed %q: status %d, %s", x.origin, x.server.options.Origins, status, body)
		}
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, open.url+"/v1/chat/completions", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Origin", page)
	q.Header.Set("Access-Control-Request-Method", "POST")
	q.Header.Set("Access-Control-Request-Headers", "authorization,content-type,x-stainless-os")
	response, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if h := response.Header; response.StatusCode != http.StatusNoContent ||
		h.Get("Access-Control-Allow-Origin") != page || !strings.Contains(h.Get("Access-Control-Allow-Headers"),
		"x-stainless-os") || h.Get("Access-Control-Allow-Methods") == "" {
		t.Errorf("before a request of a page: %s, %v", response.Status, h)
	}

	for host, status := range map[string]int{"rebound.example": http.StatusMisdirectedRequest, "localhost:80": 200,
		"page.example": 200} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, open.url+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Host = host
		response, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != status {
			t.Errorf("host %s: %s", host, response.Status)
		}
	}
}

// zeros are so many of them.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	clear(p[:n])
	z.left -= n
	return int(n), nil
}

// TestLargeBody: a body of 1 GB is refused before it has come.
func TestLargeBody(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxBody = 1 << 20 })
	for _, length := range []int64{1 << 30, -1} {
		body := &zeros{1 << 30}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/chat/completions", body)
		if err != nil {
			t.Fatal(err)
		}
		q.ContentLength = length
		began := time.Now()
		response, err := http.DefaultClient.Do(q)
		if err == nil {
			if response.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("length %d: %s", length, response.Status)
			}
			response.Body.Close()
		} else if !strings.Contains(err.Error(), "broken pipe") && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		if sent := 1<<30 - body.left; sent > 64<<20 || time.Since(began) > 10*time.Second {
			t.Errorf("length %d: %d bytes were taken, in %v", length, sent, time.Since(began))
		}
	}
}

// TestBrokenBodies are all refused in words, at once.
func TestBrokenBodies(t *testing.T) {
	r := start(t, nil)
	for _, body := range []string{"", "{", "[]", "3", "null", "\xff", `{"model": 3}`, `{"model": "one"}`,
		`{"model": "one", "messages": 3}`, `{"model": "one", "messages": []}`, `{"model": "one", "messages": [3]}`,
		`{"model": "one", "messages": [{}]}`, `{"model": "one", "messages": [{"role": "user"}]}`,
		`{"model": "one", "messages": [{"role": "user", "content": {"a": 1}}]}`,
		`{"model": "one", "messages": [{"role": "user", "content": "a\u0000b"}]}`,
		chatBody("one", `, "n": 0`), chatBody("one", `, "n": 129`), chatBody("one", `, "n": 1.5`),
		chatBody("one", `, "temperature": -1`), chatBody("one", `, "top_p": 2`), chatBody("one", `, "top_k": "x"`),
		chatBody("one", `, "max_tokens": 0`), chatBody("one", `, "max_completion_tokens": -3`),
		chatBody("one", `, "stop": ""`), chatBody("one", `, "stop": 3`), chatBody("one", `, "stop": ["a", 3]`),
		chatBody("one", `, "top_logprobs": 2`), chatBody("one", `, "logprobs": true, "top_logprobs": 21`),
		chatBody("one", `, "logprobs": 2`), chatBody("one", `, "seed": "x"`), chatBody("one", `, "stream": "yes"`),
		chatBody("one", `, "stream_options": {"include_usage": true}`), chatBody("one", `, "tools": {"a": 1}`),
		chatBody("one", `, "tool_choice": "required"`), chatBody("one", `, "logit_bias": {"3": 1}`),
		chatBody("one", `, "presence_penalty": 0.5`), chatBody("one", `, "chat_template_kwargs": {"messages": 3}`),
		chatBody("one", `, "response_format": {"type": "json_schema"}`),
		strings.Repeat(`{"a":`, 20_000), strings.Repeat("[", 100_000)} {
		status, reply := r.ask(t, "POST", "/v1/chat/completions", body)
		if status != http.StatusBadRequest || !strings.Contains(reply, `"type":"invalid_request_error"`) ||
			strings.Contains(reply, "json:") || strings.Contains(reply, "Go ") {
			t.Errorf("%.100q: status %d, %s", body, status, reply)
		}
	}
	for _, body := range []string{`{"model": "one"}`, `{"model": "one", "prompt": 3.5}`,
		`{"model": "one", "prompt": []}`,
		`{"model": "one", "prompt": [[]]}`, `{"model": "one", "prompt": [-1]}`, `{"model": "one", "prompt": [300]}`,
		`{"model": "one", "prompt": "a", "logprobs": true}`, `{"model": "one", "prompt": "a", "suffix": "b"}`,
		`{"model": "one", "prompt": "a", "best_of": 4}`, `{"model": "one", "prompt": "a", "echo": true, "logprobs": 1}`,
		`{"model": "one", "prompt": ""}`} {
		status, reply := r.ask(t, "POST", "/v1/completions", body)
		if status != http.StatusBadRequest || !strings.Contains(reply, `"type":"invalid_request_error"`) {
			t.Errorf("%.100q: status %d, %s", body, status, reply)
		}
	}
}

// TestKnownClients have requests of other programs answered, with fields that OpenAI's API has and this server hasn't,
// or the other way round.
func TestKnownClients(t *testing.T) {
	r := start(t, nil)
	for name, more := range map[string]string{
		"vLLM": `, "top_k": -1, "min_p": 0.05, "repetition_penalty": 1.1, "chat_template_kwargs": {}, ` +
			`"ignore_eos": true`,
		"llama.cpp": `, "top_k": 40, "repeat_penalty": 1.1, "seed": -1, "cache_prompt": true, "samplers": ["top_k"]`,
		"LangChain": `, "n": 1, "stream": false, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, ` +
			`"stop": null`,
		"Open WebUI": `, "stream": true, "stream_options": {"include_usage": true}, "metadata": {"a": 1}, "tools": []`,
		"OpenAI": `, "store": false, "user": "x", "service_tier": "auto", "parallel_tool_calls": true, "top_p": ` +
			`0, "response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "auto"`,
	} {
		status, body := r.ask(t, "POST", "/v1/chat/completions", chatBody("one", more))
		if status != http.StatusOK {
			t.Errorf("%s: status %d, %s", name, status, body)
		}
	}
	if status, body := r.ask(t, "POST", "/v1/completions",
		`{"model": "one", "prompt": [[5, 6], [7]], "max_tokens": 2}`); status !=
		http.StatusOK || strings.Count(body, `"text"`) != 2 {
		t.Errorf("prompts of tokens: %d, %s", status, body)
	}
	if status, body := r.ask(t, "GET", "/v1/chat/completions", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("GET of completions: %d, %s", status, body)
	}
	if status, body := r.ask(t, "GET", "/v1/none", ""); status != http.StatusNotFound ||
		!strings.Contains(body, "error") {
		t.Errorf("a path that is not there: %d, %s", status, body)
	}
}

// TestSlowClients: who sends a request too slowly is left, and who doesn't take an answer keeps no place.
func TestSlowClients(t *testing.T) {
	patient = &patience{200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, time.Second,
		time.Second, time.Second}
	defer func() { patient = nil }()
	r := start(t, nil)
	r.engine = &scripted{engine: r.engine}
	body := strings.Replace(chatBody("one", `, "stream": true, "logprobs": true, "top_logprobs": 20, "n": 32`),
		`"max_tokens": 8`, `"max_tokens": 400`, 1)
	head := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n", len(body))
	for name, c := range map[string]struct{ sent, answer string }{
		"half a head": {head, ""},
		"half a body": {head + "\r\n" + body[:30], "HTTP/1.1 400"},
		"no reading":  {head + "\r\n" + body, ""},
	} {
		c1, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c1.Close()
		c1.(*net.TCPConn).SetReadBuffer(4096)
		io.WriteString(c1, c.sent)
		if name == "no reading" {
			becomes(t, name+": answers are made", func() bool { return r.places.all.Load() > 0 })
			becomes(t, name+": they are not made any more", func() bool { return r.places.all.Load() == 0 })
			continue // what lies between the two takes long to read
		}
		c1.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, err := io.ReadAll(c1)
		if !strings.HasPrefix(string(answer), c.answer) || strings.Contains(string(answer), "[DONE]") ||
			errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %.100q, %v", name, answer, err)
		}
	}
}

// becomes waits for something to be true.
func becomes(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 500 {
		if is() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("never: %s", what)
}

// TestEnd: Ctrl-C ends open answers, in the form of the API, and goes.
func TestEnd(t *testing.T) {
	r := start(t, nil)
	r.engine = &scripted{engine: r.engine, pause: 5 * time.Millisecond, text: strings.Repeat("word ", 5000)}
	stream, err := http.Post(r.url+"/v1/chat/completions", "application/json",
		strings.NewReader(strings.Replace(chatBody("one", `, "stream": true`), `"max_tokens": 8`,
			`"max_tokens": 400`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if _, err := stream.Body.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	whole := make(chan string, 1)
	go func() {
		_, body := r.ask(t, "POST", "/v1/chat/completions",
			strings.Replace(chatBody("two", ""), `"max_tokens": 8`, `"max_tokens": 400`, 1))
		whole <- body
	}()
	becomes(t, "two answers are made", func() bool { return r.places.all.Load() == 2 })
	began := time.Now()
	r.stop()
	rest, err := io.ReadAll(stream.Body)
	if err != nil || !bytes.Contains(rest, []byte(codeClosing)) || !bytes.HasSuffix(rest, []byte("\n\n")) {
		t.Errorf("the stream ends with %q, %v", rest[max(0, len(rest)-300):], err)
	}
	if body := <-whole; !strings.Contains(body, codeClosing) {
		t.Errorf("the other answer is %q", body)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestLimits: too many requests are refused, and one that takes too long is ended.
func TestLimits(t *testing.T) {
	r := start(t, func(o *Options) { o.Texts, o.Queue, o.MaxPrompt, o.Timeout = 1, 1, 30, 200*time.Millisecond })
	r.engine = &scripted{engine: r.engine, pause: 10 * time.Millisecond, text: strings.Repeat("word ", 5000)}
	long := strings.Replace(chatBody("one", ""), `"max_tokens": 8`, `"max_tokens": 400`, 1)
	if status, body := r.ask(t, "POST", "/v1/chat/completions", strings.Replace(long, "add 3", strings.Repeat("a ", 40),
		1)); status != http.StatusBadRequest || !strings.Contains(body, codeContext) {
		t.Errorf("a long prompt: %d, %s", status, body)
	}
	if status, body := r.ask(t, "POST", "/v1/chat/completions", chatBody("one", `, "n": 3`)); status !=
		http.StatusBadRequest {
		t.Errorf("more answers than the server has: %d, %s", status, body)
	}
	statuses := make(chan int, 8)
	for range 8 {
		go func() {
			status, _ := r.ask(t, "POST", "/v1/chat/completions", long)
			statuses <- status
		}()
	}
	count := map[int]int{}
	for range 8 {
		count[<-statuses]++
	}
	if count[http.StatusTooManyRequests] == 0 || count[http.StatusServiceUnavailable] == 0 || len(count) != 2 {
		t.Errorf("statuses %v", count)
	}
	becomes(t, "no answer is made", func() bool { return r.places.all.Load() == 0 })
}

// TestQuiet: a stream on which nothing comes for long has comments, which clients skip.
func TestQuiet(t *testing.T) {
	p := defaultPatience
	p.quiet = 20 * time.Millisecond
	patient = &p
	defer func() { patient = nil }()
	r := start(t, nil)
	want := r.say(t, "one")
	r.engine = &slow{r.engine}
	_, body := r.ask(t, "POST", "/v1/chat/completions", chatBody("one", `, "stream": true`))
	if !strings.HasPrefix(body, ": waiting\n\n") || !strings.HasSuffix(body, "[DONE]\n\n") {
		t.Errorf("%q", body)
	}
	c := r.client("")
	q := streamed(question("one"))
	q.Messages, q.MaxTokens = []openai.ChatCompletionMessageParamUnion{openai.UserMessage("add 3")}, openai.Int(8)
	stream := c.Chat.Completions.NewStreaming(t.Context(), q)
	var all openai.ChatCompletionAccumulator
	for stream.Next() {
		all.AddChunk(stream.Current())
	}
	if stream.Err() != nil || all.Choices[0].Message.Content != want {
		t.Errorf("%+v, %v", all.Choices, stream.Err())
	}
}

// slow is an engine that takes its time before it begins.
type slow struct{ engine }

func (s *slow) Generate(ctx context.Context, r model.Request, emit func(model.Token) bool) error {
	time.Sleep(150 * time.Millisecond)
	return s.engine.Generate(ctx, r, emit)
}

// TestFlood: a model whose requests fill the queue leaves places for others.
func TestFlood(t *testing.T) {
	r := start(t, func(o *Options) { o.Texts, o.Queue = 2, 20 })
	r.engine = &scripted{engine: r.engine, pause: 5 * time.Millisecond}
	long := strings.Replace(chatBody("one", ""), `"max_tokens": 8`, `"max_tokens": 300`, 1)
	var all sync.WaitGroup
	var refused atomic.Int64
	for range 40 {
		all.Go(func() {
			if status, _ := r.ask(t, "POST", "/v1/chat/completions", long); status == http.StatusTooManyRequests {
				refused.Add(1)
			}
		})
	}
	becomes(t, "the queue is as full as one may make it", func() bool { return refused.Load() > 0 })
	for range 3 {
		r.say(t, "two")
	}
	all.Wait()
	if n := refused.Load(); n < 20 || n > 40-12 {
		t.Errorf("%d of 40 are refused, with 2 places and a queue of 20", n)
	}
}

// TestClientLeaves: an answer whose client has gone is not made on.
func TestClientLeaves(t *testing.T) {
	r := start(t, nil)
	script := &scripted{engine: r.engine, pause: 5 * time.Millisecond, text: strings.Repeat("word ", 5000)}
	r.engine = script
	for _, more := range []string{"", `, "stream": true`} {
		ctx, cancel := context.WithCancel(t.Context())
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions",
			strings.NewReader(strings.Replace(chatBody("one", more), `"max_tokens": 8`, `"max_tokens": 400`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if response, err := http.DefaultClient.Do(q); err == nil {
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		}()
		becomes(t, "the answer is made", func() bool { return r.places.all.Load() == 1 })
		cancel()
		<-done
		becomes(t, "the answer is not made any more", func() bool { return r.places.all.Load() == 0 })
	}
}
