package model

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// Server continues several prompts at a time. A request joins those that are being answered, and leaves when it ends.
// Each answer is the same as if it were alone. A prompt's beginning that the server still holds as a text is not
// computed again. The model belongs to the server until that is closed.
type Server struct {
	m        *Model
	cache    *Cache
	requests chan *request
	stop     chan struct{}
	stopped  chan struct{}
}

// request is a prompt that is being continued.
type request struct {
	ctx    context.Context
	prompt []int32
	Sampling
	emit func(token int32) bool
	done chan error

	text   int // in the cache
	next   []int32
	made   int
	random *rand.Rand
}

// Serve makes a server of so many texts of so many tokens each, prompts included.
func (m *Model) Serve(texts, room int) (*Server, error) {
	cache, err := m.NewCache(texts, min(room, m.Context))
	if err != nil {
		return nil, err
	}
	s := &Server{m: m, cache: cache, requests: make(chan *request), stop: make(chan struct{}),
		stopped: make(chan struct{})}
	go s.serve()
	return s, nil
}

// Close ends the server after the answers that are under way. It must be called once.
func (s *Server) Close() {
	close(s.stop)
	<-s.stopped
	s.cache.Close()
}

// Generate continues a prompt token by token and gives each to emit, until emit returns false, MaxTokens are made, the
// room of a text is full, or ctx is cancelled. It is safe for concurrent use; emit must be quick, as all wait for it.
func (s *Server) Generate(ctx context.Context, prompt []int32, sampling Sampling, emit func(token int32) bool) error {
	if err := sampling.Validate(); err != nil {
		return err
	}
	if len(prompt) == 0 {
		return errors.New("the prompt has no tokens")
	}
	if room := min(s.cache.room, s.m.Context); len(prompt) >= room {
		return fmt.Errorf("a prompt of %d tokens, and there is room for %d: shorten it, or take a model with a "+
			"longer context", len(prompt), room-1)
	}
	r := &request{ctx: ctx, prompt: prompt, Sampling: sampling, emit: emit, done: make(chan error, 1),
		random: rand.New(rand.NewPCG(sampling.Seed, 0))}
	select {
	case s.requests <- r:
	case <-s.stopped:
		return errors.New("generate: the server is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-r.done
}

// serve runs until the server is told to stop and has nothing left to do.
func (s *Server) serve() {
	defer close(s.stopped)
	var active []*request
	for {
		r, open := s.receive(len(active))
		if r != nil {
			if err := s.begin(r, active); err != nil {
				r.done <- err
				continue
			}
			active = append(active, r)
			continue // others may be waiting, and prompts are better computed together
		}
		if len(active) == 0 && !open {
			return
		}
		active = s.step(active)
	}
}

// receive gives a new request if there is one and a text is free. With nothing to do it waits.
func (s *Server) receive(active int) (r *request, open bool) {
	if active == len(s.cache.texts) {
		return nil, true
	}
	if active == 0 {
		select {
		case r = <-s.requests:
			return r, true
		case <-s.stop:
			return nil, false
		}
	}
	select {
	case r = <-s.requests:
	default:
	}
	return r, true
}

// begin gives a request the free text that has most in common with its prompt.
func (s *Server) begin(r *request, active []*request) error {
	busy := map[int]bool{}
	for _, a := range active {
		busy[a.text] = true
	}
	most := -1
	for i := range s.cache.texts {
		n := min(common(s.cache.Held(i), r.prompt), len(r.prompt)-1) // the last token's logits are needed
		if n = s.cache.reusable(i, n); !busy[i] && n > most {
			most, r.text = n, i
		}
	}
	s.cache.Cut(r.text, most)
	r.next = r.prompt[most:]
	return r.ctx.Err()
}

// common is the number of tokens that two texts have in common at their beginning.
func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// step makes a token for each active request, and gives those that continue.
func (s *Server) step(active []*request) (left []*request) {
	adds := make([]Addition, len(active))
	for i, r := range active {
		adds[i] = Addition{r.text, r.next, 1}
	}
	logits, err := s.cache.Append(adds...)
	for i, r := range active {
		if err == nil {
			more, failed := s.choose(r, logits[i*s.m.Vocab:][:s.m.Tokens])
			if more {
				left = append(left, r)
				continue
			}
			r.done <- failed
			continue
		}
		r.done <- err
	}
	return left
}

// choose makes a request's next token, and tells whether it continues.
func (s *Server) choose(r *request, logits []float32) (more bool, err error) {
	if err := r.ctx.Err(); err != nil {
		return false, err
	}
	token, err := r.Sampling.choose(logits, s.cache.Held(r.text), r.random)
	if err != nil {
		return false, err
	}
	r.made++
	r.next = []int32{token}
	return r.emit(token) && r.made < r.MaxTokens && len(s.cache.Held(r.text)) < min(s.cache.room, s.m.Context), nil
}
