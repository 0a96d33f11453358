package mtbench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// endpointRetries with the client's back-off take a quarter of a minute, in which a server can restart.
const endpointRetries = 5

// EndpointOptions say how to reach a model behind an OpenAI-compatible server.
type EndpointOptions struct {
	URL     string        // up to what precedes /chat/completions, so it ends in /v1 for most servers
	Model   string        // as the server calls it
	Key     string        // sent to the server and shown nowhere; "" for none
	Timeout time.Duration // of a request
}

// Endpoint is a model behind an OpenAI-compatible server.
type Endpoint struct {
	options EndpointOptions
	chat    openai.ChatCompletionService

	mu      sync.Mutex
	refused map[string]bool // parameters that the model does not take
}

// NewEndpoint checks the options; it does not reach for the server yet.
func NewEndpoint(o EndpointOptions) (*Endpoint, error) {
	return newEndpoint(o)
}

func newEndpoint(o EndpointOptions, more ...option.RequestOption) (*Endpoint, error) {
	o.Key = strings.TrimSpace(o.Key) // a header cannot hold the newline of a file that the key came from
	base, err := url.Parse(o.URL)
	switch {
	case err != nil:
		reason := strings.TrimPrefix(errors.Unwrap(err).Error(), "net/url: ") // the error itself shows a password
		return nil, fmt.Errorf("endpoint: not a URL, such as http://localhost:8080/v1: %s", reason)
	case base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, fmt.Errorf("endpoint %q: want a URL such as http://localhost:8080/v1", base.Redacted())
	case o.Model == "":
		return nil, errors.New("endpoint: want the name of the model there")
	case o.Timeout <= 0:
		return nil, fmt.Errorf("timeout %v: more than 0", o.Timeout)
	}
	e := &Endpoint{options: o, refused: map[string]bool{}}
	if o.Key != "" {
		more = append(more, option.WithAPIKey(o.Key))
	}
	// The service by itself, unlike a whole client, takes nothing from the environment: no other key is sent than the
	// one that was named.
	e.chat = openai.NewChatCompletionService(append(more, option.WithBaseURL(o.URL),
		option.WithMaxRetries(endpointRetries), option.WithMiddleware(e.attempt))...)
	return e, nil
}

// Complete asks the server, and again where it did not answer, or not whole.
func (e *Endpoint) Complete(ctx context.Context, conversation []Message, s Sampling) (string, error) {
	for {
		p := e.params(conversation, s)
		var response *http.Response
		answer, err := e.chat.New(ctx, p, option.WithResponseInto(&response))
		switch {
		case err == nil:
			return e.conceal(answer.Choices[0].Message.Content), nil
		case ctx.Err() != nil:
			return "", ctx.Err()
		case e.learn(p, err):
			continue
		}
		return "", e.explain(err, response)
	}
}

const (
	paramMaxTokens   = "max_tokens"
	paramTemperature = "temperature"
)

// params leaves out what the model is known to refuse. At temperature 0 a seed decides nothing, and some servers know
// none.
func (e *Endpoint) params(conversation []Message, s Sampling) openai.ChatCompletionNewParams {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := openai.ChatCompletionNewParams{Model: e.options.Model}
	if e.refused[paramMaxTokens] {
		p.MaxCompletionTokens = openai.Int(int64(s.MaxTokens))
	} else {
		p.MaxTokens = openai.Int(int64(s.MaxTokens))
	}
	if !e.refused[paramTemperature] {
		p.Temperature = openai.Float(s.Temperature)
	}
	if s.Temperature > 0 {
		p.Seed = openai.Int(int64(s.Seed))
	}
	for _, m := range conversation {
		switch m.Role {
		case "system":
			p.Messages = append(p.Messages, openai.SystemMessage(m.Content))
		case "assistant":
			p.Messages = append(p.Messages, openai.AssistantMessage(m.Content))
		default:
			p.Messages = append(p.Messages, openai.UserMessage(m.Content))
		}
	}
	return p
}

// learn tells whether the error is that the model refuses a parameter which can do without: OpenAI's reasoning models
// have one temperature only, and call the limit by another name.
func (e *Endpoint) learn(p openai.ChatCompletionNewParams, err error) bool {
	var refusal *openai.Error
	if !errors.As(err, &refusal) || refusal.StatusCode != http.StatusBadRequest {
		return false
	}
	sent := refusal.Param == paramMaxTokens && p.MaxTokens.Valid() || refusal.Param == paramTemperature &&
		p.Temperature.Valid()
	if sent {
		e.mu.Lock()
		e.refused[refusal.Param] = true
		e.mu.Unlock()
	}
	return sent
}

// attempt is a single request, within the client's own retrying: that repeats refused connections and certain statuses,
// and whatever fails here without a response. So a timeout, an answer that is cut off, and one that is no whole
// completion are made such failures.
func (e *Endpoint) attempt(request *http.Request, next option.MiddlewareNext) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(request.Context(), e.options.Timeout)
	defer cancel()
	response, err := next(request.WithContext(ctx))
	if err == nil {
		err = e.readWhole(response)
	}
	if err != nil && ctx.Err() != nil && request.Context().Err() == nil {
		err = fmt.Errorf("no whole answer within %v", e.options.Timeout)
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}

// largestAnswer is the size that an answer may have, in bytes; those of judges are a few kilobytes long.
const largestAnswer = 16 << 20

// readWhole takes the body of a response into memory, and checks it where it should be a completion. Of a refusal, the
// beginning suffices.
func (e *Endpoint) readWhole(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, largestAnswer+1))
	response.Body.Close()
	if err != nil {
		return fmt.Errorf("the answer is cut off: %w", err)
	}
	refused := response.StatusCode >= http.StatusMultipleChoices
	if len(body) > largestAnswer && !refused {
		return fmt.Errorf("the answer goes on after %d MiB, which is no completion: %s", largestAnswer>>20,
			e.excerpt(body))
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	if refused {
		return nil
	}
	var completion struct {
		Choices []struct {
			Message      *struct{ Content *string }
			FinishReason string `json:"finish_reason"`
		}
	}
	if err := json.Unmarshal(body, &completion); err != nil {
		return fmt.Errorf("the answer is not a completion: %w: %s", err, e.excerpt(body))
	}
	if len(completion.Choices) == 0 || completion.Choices[0].Message == nil {
		return fmt.Errorf("the answer holds no message: %s", e.excerpt(body))
	}
	if completion.Choices[0].FinishReason == "" {
		return errors.New("the answer is cut off: it has no finish reason")
	}
	response.Header.Set("Content-Type", "application/json") // which the client insists on
	return nil
}

// excerpt is the beginning of what a server sent, in one line.
func (e *Endpoint) excerpt(body []byte) string {
	const most = 300
	body = body[:min(len(body), 100*most)]
	text := strings.Join(strings.Fields(e.conceal(strings.ToValidUTF8(string(body), "?"))), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// explain makes an error for people of the client's: with the server's own words, without the key.
func (e *Endpoint) explain(err error, response *http.Response) error {
	base, _ := url.Parse(e.options.URL)
	text := err.Error()
	var request *url.Error
	switch {
	case response != nil && response.StatusCode >= http.StatusMultipleChoices:
		text = response.Status + ": " + e.serverMessage(err, response)
	case errors.As(err, &request):
		text = request.Err.Error() // without the URL once more
	}
	shown := fmt.Errorf("%s: %s", base.Redacted(), e.conceal(text))
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return hopeless{shown}
	}
	return shown
}

func (e *Endpoint) serverMessage(err error, response *http.Response) string {
	var refusal *openai.Error
	if errors.As(err, &refusal) && refusal.Message != "" {
		return e.excerpt([]byte(refusal.Message))
	}
	body, _ := io.ReadAll(response.Body)
	return e.excerpt(body)
}

// conceal takes the key out of a text that a server may have written it into.
func (e *Endpoint) conceal(text string) string {
	if e.options.Key == "" {
		return text
	}
	return strings.ReplaceAll(text, e.options.Key, "[key]")
}
