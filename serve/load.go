package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Load is what clients ask of a server that speaks OpenAI's API, to measure it. All ask at once, each again as soon as
// it is answered.
type Load struct {
	URL      string // of the server, without /v1
	Clients  int
	Requests int                              // of each client
	Tokens   int                              // of an answer, at most
	Prompt   string                           // behind a number of the request's own, so that none is known already
	Models   []string                         // asked in turn
	Fields   func(request int) map[string]any // added to the body of a request; nil for none
}

// Measured is how a server bore a load.
type Measured struct {
	TokensPerSecond float64   `json:"tokens_per_second"` // of all answers
	First           Quantiles `json:"first"`             // seconds to the first token
	Between         Quantiles `json:"between"`           // seconds from one token to the next
}

// Quantiles of what was measured.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Run measures until all are answered, or one isn't.
func (l Load) Run(ctx context.Context) (m Measured, err error) {
	var next, tokens atomic.Int64
	var mu sync.Mutex
	var first, between []float64
	clients, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range l.Clients {
		clients.Go(func() error {
			for range l.Requests {
				a, err := l.ask(ctx, int(next.Add(1)-1))
				if err != nil {
					return err
				}
				tokens.Add(int64(a.tokens))
				mu.Lock()
				first = append(first, a.gaps[0])
				between = append(between, a.gaps[1:]...)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := clients.Wait(); err != nil {
		return m, err
	}
	return Measured{float64(tokens.Load()) / time.Since(start).Seconds(), quantiles(first), quantiles(between)}, nil
}

func quantiles(list []float64) Quantiles {
	if len(list) == 0 {
		return Quantiles{}
	}
	slices.Sort(list)
	at := func(q float64) float64 { return list[int(q*float64(len(list)-1))] }
	return Quantiles{at(0.5), at(0.99)}
}

// timing is when an answer's pieces came, in seconds since the one before, and how many tokens it had.
type timing struct {
	gaps   []float64
	tokens int
}

// ask makes one request.
func (l Load) ask(ctx context.Context, i int) (a timing, err error) {
	body := map[string]any{"model": l.Models[i%len(l.Models)], "prompt": fmt.Sprintf("%d. %s", i, l.Prompt),
		"max_tokens":  l.Tokens,
		"temperature": 0, "stream": true, "stream_options": map[string]bool{"include_usage": true}}
	if l.Fields != nil {
		for name, value := range l.Fields(i) {
			body[name] = value
		}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return a, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.URL+"/v1/completions", bytes.NewReader(text))
	if err != nil {
		return a, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Close = true // some servers close connections that are reused
	last := time.Now()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return a, fmt.Errorf("%s: %s: %s", l.URL, answer.Status, text)
	}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData || data == "[DONE]" {
			continue
		}
		var piece struct {
			Usage *struct {
				Tokens int `json:"completion_tokens"`
			}
			Error *struct{ Message string }
		}
		if err := json.Unmarshal([]byte(data), &piece); err != nil {
			return a, fmt.Errorf("%s: %q is no piece of an answer: %w", l.URL, data, err)
		}
		if piece.Error != nil {
			return a, fmt.Errorf("%s: an answer of %s ends: %s", l.URL, body["model"], piece.Error.Message)
		}
		if piece.Usage != nil {
			a.tokens = piece.Usage.Tokens
			continue
		}
		now := time.Now()
		a.gaps = append(a.gaps, now.Sub(last).Seconds())
		last = now
	}
	if len(a.gaps) == 0 {
		return a, fmt.Errorf("%s: an answer of %s has no pieces", l.URL, body["model"])
	}
	return a, ctx.Err()
}
