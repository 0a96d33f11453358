package serve

import (
	"crypto/rand"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// handler answers a request, or says why it cannot. An error after the answer has begun is only counted and logged.
type handler func(w http.ResponseWriter, r *http.Request) error

// routes has the server answer everything that it answers.
func (s *Server) routes() {
	s.handle("GET /v1/models", s.listModels)
	s.handle("GET /v1/models/{id...}", s.showModel)
	s.handle("POST /v1/chat/completions", s.chat)
	s.handle("POST /v1/completions", s.complete)
	if s.options.Jobs != nil {
		s.options.Jobs.routes(s.handle)
	}
	s.open("GET /{$}", showPage)
	s.open("GET /health", s.health)
	s.open("GET /metrics", s.metrics.serve)
	s.open("GET /openapi.json", s.openAPI)
	s.open("/", s.nothing)
}

// handle has requests of a pattern answered that show the key.
func (s *Server) handle(pattern string, h handler) {
	s.open(pattern, func(w http.ResponseWriter, r *http.Request) error {
		if err := s.authorize(r); err != nil {
			return err
		}
		return h(w, r)
	})
}

// open has requests of a pattern answered, whoever asks. Each is counted and logged.
func (s *Server) open(pattern string, h handler) {
	s.patterns = append(s.patterns, pattern)
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		e := &exchange{ResponseWriter: w, id: rand.Text(), began: time.Now(), pattern: pattern,
			patience: s.patience.take}
		w.Header().Set("X-Request-Id", e.id)
		http.NewResponseController(w).SetReadDeadline(e.began.Add(s.patience.body))
		defer func() {
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler {
					s.log.Error("panic", "request", e.id, "value", p, "stack", string(debug.Stack()))
				}
				e.fail(newFailure(http.StatusInternalServerError, typeServer, "", "", "the server failed"))
				defer panic(http.ErrAbortHandler) // an answer that has begun must not look whole
			}
			s.record(e, r)
		}()
		if err := h(e, r); err != nil {
			e.fail(asFailure(err))
		}
	})
}

// exchange is a request with its answer.
type exchange struct {
	http.ResponseWriter
	id       string
	began    time.Time
	pattern  string
	patience time.Duration // for taking a piece of the answer
	status   int           // 0 before the answer begins
	failure  *failure
	facts    []any // for the log
}

// Unwrap is for http.ResponseController.
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// WriteHeader begins the answer.
func (e *exchange) WriteHeader(status int) {
	if e.status == 0 {
		e.status = status
	}
	e.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the answer, which the client must take in time.
func (e *exchange) Write(data []byte) (int, error) {
	if e.status == 0 {
		e.WriteHeader(http.StatusOK)
	}
	http.NewResponseController(e.ResponseWriter).SetWriteDeadline(time.Now().Add(e.patience))
	return e.ResponseWriter.Write(data)
}

// fail answers with an error, unless the answer has begun.
func (e *exchange) fail(f *failure) {
	e.failure = f
	if e.status == 0 && f.status != statusGone {
		f.write(e)
	}
}

// note adds facts of the request to its line in the log: names and values in turn. They must hold nothing of what was
// said, and no text of the client's.
func note(w http.ResponseWriter, facts ...any) {
	if e, ok := w.(*exchange); ok {
		e.facts = append(e.facts, facts...)
	}
}

// record counts a request and logs it.
func (s *Server) record(e *exchange, r *http.Request) {
	status, took := e.status, time.Since(e.began)
	if e.failure != nil && e.failure.status == statusGone {
		status = statusGone
	}
	s.metrics.request(e.pattern, status, took)
	facts := append([]any{"request", e.id, "route", e.pattern, "status", status, "took", took, "from", r.RemoteAddr},
		e.facts...)
	level := slog.LevelInfo
	switch f := e.failure; {
	case f == nil && !strings.Contains(e.pattern, "/v1/"): // what asks for it does so all the time
		level = slog.LevelDebug
	case f != nil && f.status >= http.StatusInternalServerError:
		level = slog.LevelWarn
		facts = append(facts, "error", f.Message)
	case f != nil && f.Code != nil:
		facts = append(facts, "code", *f.Code)
	}
	s.log.Log(r.Context(), level, "answered", facts...)
}

// health says that the server answers.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	if s.closing.Err() != nil {
		return s.goodbye()
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// goodbye is the error of what comes while the server goes.
func (s *Server) goodbye() error {
	return busy(http.StatusServiceUnavailable, codeClosing, 1, "the server is being ended")
}

// methods are those that anything here has.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodDelete}

// nothing answers for what is not there, or not with that method.
func (s *Server) nothing(w http.ResponseWriter, r *http.Request) error {
	other := *r
	for _, method := range methods {
		other.Method = method
		if _, pattern := s.mux.Handler(&other); pattern != "/" && pattern != "" {
			w.Header().Add("Allow", method)
		}
	}
	if w.Header().Get("Allow") != "" {
		return newFailure(http.StatusMethodNotAllowed, typeInvalid, "", "", "this path has no method %.20q; see "+
			"/openapi.json", r.Method)
	}
	return notFound("", "", "there is nothing at this path; see /openapi.json")
}
