package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/veratune/veratune/vera"
)

// storm is many clients at once, while the files of adapters are replaced and deleted.
type storm struct {
	*running
	answers map[string]map[string]bool // to a model's name: those that are right
	counts  [8]atomic.Int64
}

// What became of requests.
const (
	answered = iota
	cancelled
	notThere
	broken
	refusedBusy
)

// TestStorm: whatever clients and files do, no answer is wrong, and nothing is left behind.
func TestStorm(t *testing.T) {
	requests, clients := 2000, 64
	if testing.Short() {
		requests = 300
	}
	r := start(t, func(o *Options) { o.Texts, o.Queue = 16, 64 })
	s := &storm{running: r, answers: map[string]map[string]bool{}}
	vault := t.TempDir() // of versions of adapters
	version := func(i, v int) string { return filepath.Join(vault, fmt.Sprintf("a%d-%d.gguf", i, v)) }
	const names, versions = 8, 3
	for i := range names {
		name := fmt.Sprintf("a%d", i)
		s.answers[name] = map[string]bool{}
		for v := range versions {
			saveAdapter(t, r.base, version(i, v), uint64(100*i+v), nil, nil)
			copyFile(t, version(i, v), filepath.Join(r.folder, name+".gguf"))
			s.answers[name][r.say(t, name)] = true // alone
		}
	}
	s.answers[baseName] = map[string]bool{r.say(t, baseName): true}
	s.answers["lora"] = map[string]bool{r.say(t, "lora"): true}
	r.adapters.limit = 9*r.adapters.held["a0"].placed.Bytes() + r.adapters.held["lora"].placed.Bytes()
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()

	ctx, cancel := context.WithCancel(t.Context())
	var replacing sync.WaitGroup
	replacing.Go(func() {
		random := rand.New(rand.NewPCG(1, 1))
		for n := 0; ctx.Err() == nil; n++ {
			i := random.IntN(names)
			path := filepath.Join(r.folder, fmt.Sprintf("a%d.gguf", i))
			switch random.IntN(8) {
			case 0:
				os.Remove(path)
			case 1:
				os.WriteFile(filepath.Join(r.folder, "beside"), []byte("GGUF"), 0o600)
				os.Rename(filepath.Join(r.folder, "beside"), path)
			default:
				copyFile(t, version(i, random.IntN(versions)), filepath.Join(r.folder, "beside"))
				os.Rename(filepath.Join(r.folder, "beside"), path)
			}
			time.Sleep(3 * time.Millisecond)
		}
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	var all sync.WaitGroup
	next := make(chan int)
	for i := range clients {
		all.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(i)))
			for range next {
				s.request(t, client, random)
			}
		})
	}
	for i := range requests {
		next <- i
	}
	close(next)
	all.Wait()
	cancel()
	replacing.Wait()
	client.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	t.Logf("%d answered, %d cancelled, %d not there, %d broken, %d refused", s.counts[answered].Load(),
		s.counts[cancelled].Load(), s.counts[notThere].Load(), s.counts[broken].Load(), s.counts[refusedBusy].Load())
	if s.counts[answered].Load() < int64(requests/4) {
		t.Error("too few were answered")
	}

	becomes(t, "no answer is made", func() bool { return r.places.all.Load() == 0 && r.places.waiting.Load() == 0 })
	becomes(t, fmt.Sprintf("there are no more goroutines than %d", before), func() bool {
		return runtime.NumGoroutine() <= before
	})
	r.adapters.mu.Lock()
	sum := int64(0)
	for name, x := range r.adapters.held {
		if x.uses != 0 {
			t.Errorf("%s is used %d times", name, x.uses)
		}
		if x.placed != nil {
			sum += x.placed.Bytes()
		}
	}
	if sum != r.adapters.bytes || sum > r.adapters.limit {
		t.Errorf("adapters take %d bytes, counted as %d, of %d", sum, r.adapters.bytes, r.adapters.limit)
	}
	r.adapters.mu.Unlock()
}

// request sends one of many kinds.
func (s *storm) request(t *testing.T, client *http.Client, random *rand.Rand) {
	names := []string{baseName, "lora", "none", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"}
	name := names[random.IntN(len(names))]
	stream := random.IntN(2) == 0
	body := chatBody(name, fmt.Sprintf(`, "stream": %t`, stream))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	isBroken := random.IntN(10) == 0
	switch kind := random.IntN(10); {
	case isBroken:
		body = body[:random.IntN(len(body))]
	case kind < 3:
		time.AfterFunc(time.Duration(random.IntN(30))*time.Millisecond, cancel)
	case kind == 3:
		s.listed(t)
	}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	response, err := client.Do(q)
	var data []byte
	if err == nil {
		data, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	if err != nil {
		if ctx.Err() == nil {
			t.Errorf("%s: %v", body, err)
		}
		s.counts[cancelled].Add(1)
		return
	}
	switch {
	case isBroken && response.StatusCode == http.StatusBadRequest:
		s.counts[broken].Add(1)
	case isBroken:
		t.Errorf("a broken body: %s, %s", response.Status, data)
	case response.StatusCode == http.StatusNotFound:
		s.counts[notThere].Add(1)
		if s.answers[name] != nil && name[0] != 'a' {
			t.Errorf("%s: %s", name, data)
		}
	case response.StatusCode == http.StatusInternalServerError && bytes.Contains(data, []byte(codeAdapter)):
		s.counts[broken].Add(1)
	case response.StatusCode == http.StatusTooManyRequests,
		response.StatusCode == http.StatusServiceUnavailable && bytes.Contains(data, []byte(codeMemory)):
		s.counts[refusedBusy].Add(1)
	case response.StatusCode != http.StatusOK:
		t.Errorf("%s: %s, %s", name, response.Status, data)
	default:
		s.counts[answered].Add(1)
		if text := textOf(t, stream, data); !s.answers[name][text] {
			t.Errorf("%s answers %q, want one of %v", name, text, s.answers[name])
		}
	}
}

// textOf is the text of an answer, whole or streamed.
func textOf(t *testing.T, stream bool, data []byte) (text string) {
	if !stream {
		var reply chatReply
		if err := json.Unmarshal(data, &reply); err != nil {
			t.Error(err)
			return ""
		}
		return *reply.Choices[0].Message.Content
	}
	if !bytes.HasSuffix(data, []byte("data: [DONE]\n\n")) {
		t.Errorf("a stream without its end: %q", data)
	}
	for line := range strings.Lines(string(data)) {
		var event struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		object, ok := strings.CutPrefix(line, "data: {")
		if ok && json.Unmarshal([]byte("{"+object), &event) == nil && len(event.Choices) > 0 {
			text += event.Choices[0].Delta.Content
		}
	}
	return text
}

// TestTogether: 16 adapters of different ranks answer together as each does alone, to the last bit of their log
// probabilities.
func TestTogether(t *testing.T) {
	r := start(t, func(o *Options) { o.Texts = 16 })
	stable := regexp.MustCompile(`"id":"[^"]*"|"(created|cached_tokens)":[0-9]+`)
	say := func(name string) string {
		_, body := r.ask(t, "POST", "/v1/chat/completions", strings.Replace(chatBody(name,
			`, "seed": 5, "logprobs": true, "top_logprobs": 3`), `"temperature": 0`, `"temperature": 0.7`, 1))
		return stable.ReplaceAllString(body, "")
	}
	alone := map[string]string{baseName: say(baseName), "lora": say("lora")}
	for i := range 14 {
		name := fmt.Sprintf("x%d", i)
		saveAdapter(t, r.base, filepath.Join(r.folder, name+".gguf"), uint64(i), func(c *vera.Config) {
			c.Rank = 32 + 32*(i%3)
			if i%5 == 4 {
				c.Targets = []string{"attn_q", "ffn_down"}
			}
		}, nil)
		alone[name] = say(name)
	}
	var all sync.WaitGroup
	for range 3 {
		for name, want := range alone {
			all.Go(func() {
				if got := say(name); got != want {
					t.Errorf("%s among others: %.300s\nalone: %.300s", name, got, want)
				}
			})
		}
	}
	all.Wait()
}
