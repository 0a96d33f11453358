package serve

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/model"
)

// ask is one answer that is asked for.
type ask struct {
	model.Request
	form  *form
	stops []string
}

// piece is the next part of an answer.
type piece struct {
	answer int // among those of the request
	text   string
	tokens []said // whose texts begin in it, where log probabilities are asked for
	ending string // why the answer ends here, "" where it goes on
	made   int    // tokens of the whole answer, at its end
	held   int    // tokens of the prompt that were not computed again, at its end
	err    error  // why there will be no more
}

// Why an answer ends, in OpenAI's words.
const (
	endStop   = "stop"
	endLength = "length"
	endCalls  = "tool_calls"
)

// receiver takes what comes of the answers of a request.
type receiver interface {
	take(p piece) error
	idle() error // nothing has come for a while
}

// line is where answers put their pieces, which must not wait, as the server of all answers calls.
type line struct {
	mu     sync.Mutex
	pieces []piece
	wake   chan struct{} // has a value when there are pieces
}

func (l *line) put(p piece) {
	l.mu.Lock()
	l.pieces = append(l.pieces, p)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *line) all() []piece {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.pieces
	l.pieces = nil
	return all
}

// until is a context that ends with the request, after the limit of time, or when the server is told to go.
func (s *Server) until(r *http.Request) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(s.options.Timeout, func() {
		f := newFailure(http.StatusServiceUnavailable, typeServer, "", codeTimeout,
			"there was no whole answer within %v",
			s.options.Timeout)
		f.final = true
		cancel(f)
	})
	stop := context.AfterFunc(s.closing, func() { cancel(s.goodbye()) })
	return ctx, func() {
		timer.Stop()
		stop()
		cancel(nil)
	}
}

// places counts the answers that wait or are being made.
type places struct {
	texts, queue int // answers that are made at a time, and that may wait besides
	all          atomic.Int64
	waiting      atomic.Int64 // for their first token

	mu sync.Mutex
	of map[string]int // answers of each model
}

// admit lets so many answers of a model in, unless too many wait; leave must be called after them. A model may have no
// more waiting than there are places left (Choudhury and Hahne's dynamic threshold), so that one that floods doesn't
// shut the others out.
func (p *places) admit(model string, n int) (leave func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := p.texts + p.queue - int(p.all.Load())
	switch {
	case n > p.texts+p.queue:
		return nil, invalid("n", "%d answers are more than the %d that this server makes and has waiting", n,
			p.texts+p.queue)
	case n > left || p.of[model] > 0 && p.of[model]+n > p.texts+left:
		return nil, busy(http.StatusTooManyRequests, codeQueue, 1, "too many requests are waiting; try again later")
	}
	p.count(model, n)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.count(model, -n)
	}, nil
}

func (p *places) count(model string, more int) {
	p.all.Add(int64(more))
	if p.of[model] += more; p.of[model] == 0 {
		delete(p.of, model)
	}
}

// answer makes all answers of a request side by side, and has their pieces taken in the caller's goroutine. When it
// returns, none is made any more. An error is the first answer's that failed, or the receiver's.
func (s *Server) answer(ctx context.Context, asks []ask, to receiver) error {
	ctx, cancel := context.WithCancel(ctx)
	out := &line{wake: make(chan struct{}, 1)}
	var making sync.WaitGroup
	defer making.Wait()
	defer cancel()
	for i, a := range asks {
		making.Go(func() { s.make(ctx, i, a, out) })
	}
	quiet := time.NewTicker(s.patience.quiet)
	defer quiet.Stop()
	for left := len(asks); left > 0; {
		select {
		case <-out.wake:
			quiet.Reset(s.patience.quiet)
		case <-quiet.C:
			if err := to.idle(); err != nil {
				return err
			}
		}
		for _, p := range out.all() {
			if p.err != nil {
				return p.err
			}
			if err := to.take(p); err != nil {
				return err
			}
			if p.ending != "" {
				left--
			}
		}
	}
	return nil
}

// make makes one answer, and puts it on the line.
func (s *Server) make(ctx context.Context, i int, a ask, out *line) {
	began := s.metrics.begin(&s.places)
	defer began.end()
	spool := &spool{form: a.form, wanted: a.LogProbs}
	made, held := 0, 0
	stream := &generate.Stream{Tokenizer: a.form.tokenizer, Stops: a.stops,
		Emit: func(text string) error {
			out.put(piece{answer: i, text: text, tokens: spool.take(text)})
			return nil
		},
		Token: func(t model.Token) {
			made, held = made+1, held+t.Held
			began.token()
			spool.add(t)
		}}
	ended, err := stream.Generate(ctx, s.engine, a.Request)
	switch {
	case err == nil:
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		out.put(piece{answer: i, err: context.Cause(ctx)})
		return
	default:
		out.put(piece{answer: i, err: err})
		return
	}
	p := piece{answer: i, ending: endLength, made: made, held: held}
	if ended {
		p.ending = endStop
	}
	out.put(p)
}
