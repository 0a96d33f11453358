package model

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/veratune/veratune/vera"
)

// Server continues several prompts at a time. A request joins those that are being answered, and leaves when it ends.
// Each answer is the same as if it were alone. A prompt's beginning that the server still holds as a text of the same
// adapter is not computed again. The model belongs to the server until that is closed.
type Server struct {
	m        *Model
	cache    *Cache
	requests chan *request
	calls    chan func()
	stop     chan struct{}
	stopped  chan struct{}

	// Of the serving goroutine.
	waiting, active []*request
	served          map[*Placed]int // the turn in which an adapter that is in use last began an answer
	used            []int           // the turn in which each text was last begun
	turn            int
	removed         map[*Placed]bool // as soon as no request has them
}

// Request is a prompt that is to be continued.
type Request struct {
	Prompt []int32
	Sampling
	Adapter  *Placed // of the server; nil for the attached one, or none
	LogProbs bool    // the log probability of each token is wanted, with those of the Top most likely ones
	Top      int
}

// Token is a token of an answer. Log probabilities are the model's, before any part of the sampling.
type Token struct {
	ID      int32
	LogProb float32
	Top     []LogProb // the most likely first
	Held    int       // with the first token, how many of the prompt were not computed again
}

// LogProb is the log probability of a token.
type LogProb struct {
	ID      int32
	LogProb float32
}

// request is a Request under way.
type request struct {
	ctx context.Context
	Request
	emit func(Token) bool
	done chan error

	text   int     // in the cache
	held   int     // tokens of the prompt that it had
	next   []int32 // tokens to compute
	made   int
	random *rand.Rand
	chosen Token // in the step under way
	err    error
}

// Serve makes a server of so many texts of so many tokens each, prompts included.
func (m *Model) Serve(texts, room int) (*Server, error) {
	cache, err := m.NewCache(texts, min(room, m.Context))
	if err != nil {
		return nil, err
	}
	s := &Server{m: m, cache: cache, requests: make(chan *request), calls: make(chan func()),
		stop: make(chan struct{}), stopped: make(chan struct{}), served: map[*Placed]int{}, used: make([]int, texts),
		removed: map[*Placed]bool{}}
	go s.serve()
	return s, nil
}

// Close ends the server after the answers that are under way. It must be called once.
func (s *Server) Close() {
	close(s.stop)
	<-s.stopped
	s.cache.Close()
}

// Room is the most tokens that a prompt may have with its answer.
func (s *Server) Room() int { return min(s.cache.room, s.m.Context) }

// Generate continues a prompt token by token and gives each to emit, until emit returns false, MaxTokens are made, the
// room of a text is full, or ctx is cancelled. It is safe for concurrent use; emit must be quick, as all wait for it.
// Where more requests come than texts are free, the next is of the adapter with the fewest answers under way.
func (s *Server) Generate(ctx context.Context, r Request, emit func(Token) bool) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if len(r.Prompt) == 0 {
		return errors.New("the prompt has no tokens")
	}
	if room := s.Room(); len(r.Prompt) >= room {
		return fmt.Errorf("a prompt of %d tokens, and there is room for %d: shorten it, or take a model with a "+
			"longer context", len(r.Prompt), room-1)
	}
	if i := slices.IndexFunc(r.Prompt, func(t int32) bool { return t < 0 || int(t) >= s.m.Vocab }); i >= 0 {
		return fmt.Errorf("token %d: the model's vocabulary has %d tokens", r.Prompt[i], s.m.Vocab)
	}
	q := &request{ctx: ctx, Request: r, emit: emit, done: make(chan error, 1),
		random: rand.New(rand.NewPCG(r.Seed, 0))}
	select {
	case s.requests <- q:
	case <-s.stopped:
		return errors.New("generate: the server is closed")
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-q.done
}

// Place puts an adapter of the model beside those that have its pair, in 16 bits. It is safe for concurrent use.
func (s *Server) Place(a *vera.Adapter) (p *Placed, err error) {
	closed := s.between(func() { p, err = s.cache.Place(a) })
	return p, errors.Join(closed, err)
}

// Remove frees an adapter's memory as soon as no request that was made before has it.
func (s *Server) Remove(p *Placed) {
	_ = s.between(func() { // a closed server has freed all of them
		s.removed[p] = true
		s.remove()
	})
}

// remove frees what nothing uses any more.
func (s *Server) remove() {
	for p := range s.removed {
		uses := func(r *request) bool { return r.Adapter == p }
		if !slices.ContainsFunc(s.active, uses) && !slices.ContainsFunc(s.waiting, uses) {
			s.cache.Remove(p)
			delete(s.removed, p)
			delete(s.served, p)
		}
	}
}

// between calls f while nothing is computed.
func (s *Server) between(f func()) error {
	done := make(chan struct{})
	select {
	case s.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-s.stopped:
		return errors.New("the server is closed")
	}
}

// serve runs until the server is told to stop and has nothing left to do.
func (s *Server) serve() {
	defer close(s.stopped)
	for open := true; open || len(s.active)+len(s.waiting) > 0; {
		open = s.receive()
		s.begin()
		if len(s.active) > 0 {
			s.step()
		}
		s.remove()
	}
}

// receive takes all that has come. With nothing to do it waits for something to come.
func (s *Server) receive() (open bool) {
	if len(s.active)+len(s.waiting) == 0 {
		select {
		case r := <-s.requests:
			s.waiting = append(s.waiting, r)
		case f := <-s.calls:
			f()
		case <-s.stop:
			return false
		}
	}
	for {
		select {
		case r := <-s.requests:
			s.waiting = append(s.waiting, r)
		case f := <-s.calls:
			f()
		default:
			return true
		}
	}
}

// begin gives free texts to those who wait.
func (s *Server) begin() {
	s.waiting = slices.DeleteFunc(s.waiting, func(r *request) bool {
		err := r.ctx.Err()
		if err != nil {
			r.done <- err
		}
		return err != nil
	})
	for len(s.waiting) > 0 && len(s.active) < len(s.cache.texts) {
		r := s.fairest()
		s.waiting = slices.DeleteFunc(s.waiting, func(x *request) bool { return x == r })
		s.turn++
		s.served[r.Adapter] = s.turn
		s.seat(r)
		s.active = append(s.active, r)
	}
}

// fairest is the first request of the adapter that has the fewest answers under way; of several such adapters, of the
// one whose last answer began longest ago.
func (s *Server) fairest() (best *request) {
	under := map[*Placed]int{}
	for _, r := range s.active {
		under[r.Adapter]++
	}
	for _, r := range s.waiting {
		if best == nil || under[r.Adapter] < under[best.Adapter] ||
			under[r.Adapter] == under[best.Adapter] && s.served[r.Adapter] < s.served[best.Adapter] {
			best = r
		}
	}
	return best
}

// seat gives a request the free text that has most in common with its prompt; of several such texts, the one that was
// begun longest ago.
func (s *Server) seat(r *request) {
	busy := map[int]bool{}
	for _, a := range s.active {
		busy[a.text] = true
	}
	most := -1
	for i := range s.cache.texts {
		if busy[i] {
			continue
		}
		n := 0
		if s.cache.adapters[i] == r.Adapter {
			n = min(common(s.cache.Held(i), r.Prompt), len(r.Prompt)-1) // the last token's logits are needed
			n = s.cache.reusable(i, n)
		}
		if n > most || n == most && s.used[i] < s.used[r.text] {
			most, r.text = n, i
		}
	}
	s.cache.Cut(r.text, most)
	s.used[r.text] = s.turn
	r.held, r.next = most, r.Prompt[most:]
}

// common is the number of tokens that two texts have in common at their beginning.
func common(a, b []int32) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// promptRows bounds the tokens of prompts in a step while answers are under way, which wait for it.
const promptRows = 256

// step makes a token for each active request whose prompt is computed with it, and drops those that end.
func (s *Server) step() {
	s.active = slices.DeleteFunc(s.active, func(r *request) bool {
		err := r.ctx.Err()
		if err != nil {
			r.done <- err
		}
		return err != nil
	})
	var parts []part
	left := promptRows
	for _, r := range s.active { // the first to come is the first served
		n := len(r.next)
		if n > 1 {
			n = min(n, left)
			left -= n
		}
		if n > 0 {
			parts = append(parts, part{r, n})
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return a.pair() - b.pair() })
	var adds []Addition
	var making []*request
	for _, p := range parts {
		add := Addition{Text: p.text, Tokens: p.next[:p.n], Adapter: p.Adapter}
		if p.next = p.next[p.n:]; len(p.next) == 0 {
			add.Rows = 1
			making = append(making, p.request)
		}
		adds = append(adds, add)
	}
	logits, err := s.cache.Append(adds...)
	if err != nil {
		for _, r := range s.active {
			r.done <- err
		}
		s.active = nil
		return
	}
	s.choose(making, logits)
	s.active = slices.DeleteFunc(s.active, func(r *request) bool {
		ended := slices.Contains(making, r) && !s.give(r)
		if ended {
			r.done <- r.err
		}
		return ended
	})
}

// part is so many tokens of a request that are computed in a step.
type part struct {
	*request
	n int
}

// pair is a number that parts of one pair have in common.
func (p part) pair() int {
	if x := mixtureOf(p.Adapter); x != nil {
		return x.number
	}
	return 0
}

// choose makes the next token of each request, on as many processors as there are.
func (s *Server) choose(making []*request, logits []float32) {
	var all sync.WaitGroup
	for i, r := range making {
		all.Go(func() { r.chosen, r.err = r.token(logits[i*s.m.Vocab:][:s.m.Tokens], s.cache.Held(r.text)) })
	}
	all.Wait()
}

// token chooses the next one by its logits, which it may change.
func (r *request) token(logits []float32, text []int32) (t Token, err error) {
	if !r.LogProbs {
		t.ID, err = r.Sampling.choose(logits, text, r.random)
		return t, err
	}
	before := slices.Clone(logits)
	if t.ID, err = r.Sampling.choose(logits, text, r.random); err != nil {
		return t, err
	}
	t.LogProb, t.Top = logProbs(before, t.ID, r.Top)
	return t, nil
}

// give hands a request its token, and tells whether it goes on.
func (s *Server) give(r *request) bool {
	if r.err != nil {
		return false
	}
	if r.made == 0 {
		r.chosen.Held = r.held
	}
	r.made++
	r.next = []int32{r.chosen.ID}
	return r.emit(r.chosen) && r.made < r.MaxTokens && len(s.cache.Held(r.text)) < s.Room()
}
