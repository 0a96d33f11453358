package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// failure is an error in the form that OpenAI's clients read.
type failure struct {
	status     int
	retryAfter int  // seconds, 0 where another attempt is no use soon
	final      bool // the same request would fail again
	errorBody
}

type errorBody struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (f *failure) Error() string { return f.Message }

// Types of errors.
const (
	typeInvalid = "invalid_request_error"
	typeLimit   = "rate_limit_error"
	typeServer  = "server_error"
)

// Codes of errors that programs act on.
const (
	codeKey         = "invalid_api_key"
	codeModel       = "model_not_found"
	codeContext     = "context_length_exceeded"
	codeTooLarge    = "request_too_large"
	codeQueue       = "queue_full"
	codeJobs        = "too_many_jobs"
	codeMemory      = "adapter_memory_full"
	codeAdapter     = "adapter_unusable"
	codeTimeout     = "timeout"
	codeClosing     = "server_closing"
	codeGone        = "client_closed_request"
	codeUnsupported = "unsupported_value"
)

// statusGone is nginx's for a client that left; only the log and the metrics see it.
const statusGone = 499

func newFailure(status int, kind, param, code, format string, args ...any) *failure {
	f := &failure{status: status, errorBody: errorBody{Message: fmt.Sprintf(format, args...), Type: kind}}
	if param != "" {
		f.Param = &param
	}
	if code != "" {
		f.Code = &code
	}
	return f
}

// invalid is the error of a request whose parameter is wrong; param may be "".
func invalid(param, format string, args ...any) *failure {
	return newFailure(http.StatusBadRequest, typeInvalid, param, "", format, args...)
}

// unsupported is the error of a request for what there is not.
func unsupported(param, format string, args ...any) *failure {
	return newFailure(http.StatusBadRequest, typeInvalid, param, codeUnsupported, format, args...)
}

// notFound is the error of an id that nothing has.
func notFound(param, code, format string, args ...any) *failure {
	return newFailure(http.StatusNotFound, typeInvalid, param, code, format, args...)
}

// busy is the error of a request that may succeed after some seconds.
func busy(status int, code string, seconds int, format string, args ...any) *failure {
	kind := typeServer
	if status == http.StatusTooManyRequests {
		kind = typeLimit
	}
	f := newFailure(status, kind, "", code, format, args...)
	f.retryAfter = seconds
	return f
}

// asFailure gives any error its form. What is none of ours is the server's fault.
func asFailure(err error) *failure {
	var f *failure
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &large):
		return newFailure(http.StatusRequestEntityTooLarge, typeInvalid, "", codeTooLarge,
			"the body has more than %d bytes, which is the limit", large.Limit)
	case errors.Is(err, context.Canceled):
		return newFailure(statusGone, typeInvalid, "", codeGone, "the client left")
	}
	return newFailure(http.StatusInternalServerError, typeServer, "", "", "%v", err)
}

// write answers with the error.
func (f *failure) write(w http.ResponseWriter) {
	h := w.Header()
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(f.retryAfter))
	}
	if f.final {
		h.Set("X-Should-Retry", "false") // OpenAI's clients repeat what fails on the server's side
	}
	writeJSON(w, f.status, f.envelope())
}

// envelope is the error as it stands in a body or an event.
func (f *failure) envelope() any {
	return struct {
		Error errorBody `json:"error"`
	}{f.errorBody}
}

// writeJSON answers with a JSON object.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, err = w.Write(append(body, '\n'))
	return err
}
