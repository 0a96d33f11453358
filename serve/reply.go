package serve

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// format is how answers are put into words of the API.
type format interface {
	whole(i int, pieces []piece) any // the choice of an answer that has ended
	begin(i int) any                 // what the stream of an answer begins with, nil for nothing
	events(p piece) []any            // what the stream tells of a piece
}

// reply is what the replies to all requests for answers have.
type reply struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	System  string `json:"system_fingerprint"`
	Choices []any  `json:"choices"`
	Usage   *usage `json:"usage,omitempty"`

	w       http.ResponseWriter
	each    int   // answers to a prompt
	held    []int // tokens of each prompt that were not computed again
	stream  bool
	counted bool // the stream tells the usage
	used    usage
	pieces  [][]piece // of a reply that is sent whole
	format  format
	begun   []bool // whether the stream has told of an answer
}

// usage counts tokens.
type usage struct {
	PromptTokens     int          `json:"prompt_tokens"`
	CompletionTokens int          `json:"completion_tokens"`
	TotalTokens      int          `json:"total_tokens"`
	Details          usageDetails `json:"prompt_tokens_details"`
}

type usageDetails struct {
	CachedTokens int `json:"cached_tokens"` // that were not computed again
}

func (s *Server) newReply(w http.ResponseWriter, m *chosen, p *parameters, object, prefix string, prompt,
	answers int) *reply {
	r := &reply{ID: prefix + rand.Text(), Object: object, Created: time.Now().Unix(), Model: m.name,
		System: s.fingerprint, w: w, each: p.answers(), held: make([]int, answers/p.answers()), stream: p.Stream,
		counted: p.usage(),
		used:    usage{PromptTokens: prompt},
		pieces:  make([][]piece, answers), begun: make([]bool, answers)}
	if p.Stream && object == "chat.completion" {
		r.Object += ".chunk"
	}
	s.metrics.promptTokens.Add(float64(prompt))
	note(w, "model", m.name, "stream", p.Stream, "answers", answers, "prompt_tokens", prompt)
	return r
}

// run has the answers made and sends them, in a format.
func (r *reply) run(ctx context.Context, s *Server, asks []ask, f format) error {
	r.format = f
	err := s.answer(ctx, asks, r)
	for _, held := range r.held {
		r.used.Details.CachedTokens += held
	}
	r.used.TotalTokens = r.used.PromptTokens + r.used.CompletionTokens
	s.metrics.cachedTokens.Add(float64(r.used.Details.CachedTokens))
	note(r.w, "cached_tokens", r.used.Details.CachedTokens, "tokens", r.used.CompletionTokens)
	switch {
	case !r.stream && err != nil:
		return err
	case !r.stream:
		for i, pieces := range r.pieces {
			r.Choices = append(r.Choices, f.whole(i, pieces))
		}
		r.Usage = &r.used
		return writeJSON(r.w, http.StatusOK, r)
	case errors.Is(err, errSlow) || errors.Is(err, context.Canceled):
		return gone(err)
	case err != nil:
		return r.endStream(asFailure(err))
	}
	return r.endStream(nil)
}

// take keeps a piece, or sends it.
func (r *reply) take(p piece) error {
	if p.ending != "" {
		r.used.CompletionTokens += p.made
		of := p.answer / r.each
		r.held[of] = max(r.held[of], p.held)
	}
	if !r.stream {
		r.pieces[p.answer] = append(r.pieces[p.answer], p)
		return nil
	}
	if !r.begun[p.answer] {
		r.begun[p.answer] = true
		if first := r.format.begin(p.answer); first != nil {
			if err := r.choice(first); err != nil {
				return err
			}
		}
	}
	for _, event := range r.format.events(p) {
		if err := r.choice(event); err != nil {
			return err
		}
	}
	return nil
}

// choice sends an event of one answer.
func (r *reply) choice(c any) error {
	r.Choices = []any{c}
	return r.event(r)
}

// idle keeps connections open that close where nothing is heard: a comment, which clients skip.
func (r *reply) idle() error {
	if !r.stream {
		return nil
	}
	return r.send([]byte(": waiting\n\n"))
}

// event sends an object.
func (r *reply) event(v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.send(append(append([]byte("data: "), data...), "\n\n"...))
}

// errSlow is the error of a client that left, or doesn't take what it asked for.
var errSlow = errors.New("the client does not take the answer")

// send writes to the stream.
func (r *reply) send(data []byte) error {
	h := r.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for nginx
	_, err := r.w.Write(data)
	if err != nil || http.NewResponseController(r.w).Flush() != nil {
		return errSlow
	}
	return nil
}

// endStream ends the stream, after an error where there is one.
func (r *reply) endStream(f *failure) error {
	e, _ := r.w.(*exchange)
	if f != nil && e != nil && e.status == 0 {
		return f // it has not begun
	}
	if f != nil {
		if e != nil {
			e.failure = f
		}
		if err := r.event(f.envelope()); err != nil {
			return gone(err)
		}
		return f
	}
	if r.counted {
		r.Choices, r.Usage = []any{}, &r.used
		if err := r.event(r); err != nil {
			return gone(err)
		}
	}
	if err := r.send([]byte("data: [DONE]\n\n")); err != nil {
		return gone(err)
	}
	return nil
}

// gone is the error of a client that left.
func gone(err error) error {
	return newFailure(statusGone, typeInvalid, "", codeGone, "%v", err)
}
