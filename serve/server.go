// Package serve answers OpenAI's API over HTTP, with a model and with any number of adapters of it.
//
// It must not compute answers, which a model.Server does, nor print: what happens goes to a log and into metrics. No
// text of a request or an answer, and no key, may get there.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/veratune/veratune/session"
)

// Server is the service. It is safe for concurrent use.
type Server struct {
	options     Options
	base        *session.Session
	fingerprint string // of the model's weights
	engine      engine
	forms       *forms
	adapters    *adapters
	catalogue   catalogue
	places      places
	metrics     *metrics
	started     time.Time
	log         *slog.Logger
	mux         *http.ServeMux
	patterns    []string // of what the mux has
	patience    patience
	closing     context.Context // ends when the server is told to go
	close       context.CancelFunc
	local       bool // nobody but this machine reaches the server
}

// New makes a server of a session's model, which belongs to it until it is closed.
func New(base *session.Session, o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Room = min(o.Room, base.Context)
	s := &Server{options: o, base: base, fingerprint: fmt.Sprintf("fp_%.12s", base.Base().Fingerprint),
		started: time.Now(),
		log:     cmp.Or(o.Log, slog.New(slog.DiscardHandler)), mux: http.NewServeMux(),
		patience:  defaultPatience,
		catalogue: catalogue{known: map[string]described{}}, places: places{texts: o.Texts, queue: o.Queue,
			of: map[string]int{}}}
	s.closing, s.close = context.WithCancel(context.Background())
	s.metrics = newMetrics(o, &s.places)
	var err error
	if s.forms, err = newForms(base, o.Form); err != nil {
		return nil, err
	}
	if s.engine, err = base.Serve(o.Texts, o.Room); err != nil {
		return nil, err
	}
	if s.adapters, err = newAdapters(s); err != nil {
		s.engine.Close()
		return nil, err
	}
	s.routes()
	return s, nil
}

// Close frees what the server holds; the session stays open. It must be called once, after all requests.
func (s *Server) Close() {
	s.close()
	s.adapters.close()
	s.engine.Close()
}

// patience is how long is waited for clients, and they are let wait.
type patience struct {
	header time.Duration // for the head of a request
	body   time.Duration // for its body
	take   time.Duration // for taking a piece of the answer
	idle   time.Duration // between requests
	end    time.Duration // for open answers to be ended
	quiet  time.Duration // until a stream on which nothing comes says that it is there
}

var defaultPatience = patience{10 * time.Second, time.Minute, 30 * time.Second, 2 * time.Minute, 5 * time.Second,
	10 * time.Second}

// maxHeader is the size of the largest head of a request, in bytes.
const maxHeader = 64 << 10

// Serve answers at a listener until ctx is cancelled. Then open answers are ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	a, isTCP := l.Addr().(*net.TCPAddr)
	s.local = isTCP && a.IP.IsLoopback()
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: s.patience.header, IdleTimeout: s.patience.idle,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.close()
		late, cancel := context.WithTimeout(context.Background(), s.patience.end)
		defer cancel()
		if server.Shutdown(late) != nil {
			server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-ended
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// Handler answers all requests.
func (s *Server) Handler() http.Handler { return s.guard(s.mux) }
