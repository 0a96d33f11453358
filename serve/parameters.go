package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/veratune/veratune/model"
)

// parameters are what both forms of completions have.
type parameters struct {
	Model             string         `json:"model"`
	Stream            bool           `json:"stream"`
	StreamOptions     *streamOptions `json:"stream_options"`
	MaxTokens         *int           `json:"max_tokens"`
	Temperature       *float64       `json:"temperature"`
	TopP              *float64       `json:"top_p"`
	TopK              *int           `json:"top_k"` // this and the next four are not OpenAI's
	MinP              *float64       `json:"min_p"`
	RepetitionPenalty *float64       `json:"repetition_penalty"`
	RepeatPenalty     *float64       `json:"repeat_penalty"` // llama.cpp's name for it
	Seed              *int64         `json:"seed"`
	Stop              texts          `json:"stop"`
	N                 *int           `json:"n"`

	FrequencyPenalty float64         `json:"frequency_penalty"`
	PresencePenalty  float64         `json:"presence_penalty"`
	LogitBias        json.RawMessage `json:"logit_bias"`
	ResponseFormat   *struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// texts is a string or a list of strings.
type texts []string

// UnmarshalJSON reads either.
func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	switch data = bytes.TrimSpace(data); {
	case string(data) == "null":
		return nil
	case json.Unmarshal(data, &one) == nil:
		*t = texts{one}
		return nil
	case json.Unmarshal(data, (*[]string)(t)) == nil:
		return nil
	}
	return errors.New("want a string or a list of strings")
}

// Limits of what a request may have many of.
const (
	mostAnswers   = 128
	mostStops     = 16
	mostLogProbs  = 20
	mostStopBytes = 1000
	mostVariables = 10_000 // bytes
)

// check refuses what the server does not have, in words.
func (p *parameters) check() error {
	switch {
	case p.Model == "":
		return invalid("model", "model: is missing; /v1/models lists those that there are")
	case p.N != nil && (*p.N < 1 || *p.N > mostAnswers):
		return invalid("n", "n: must be from 1 to %d", mostAnswers)
	case p.MaxTokens != nil && *p.MaxTokens < 1:
		return invalid("max_tokens", "max_tokens: must be at least 1")
	case len(p.Stop) > mostStops:
		return invalid("stop", "stop: has %d texts, and may have %d", len(p.Stop), mostStops)
	case p.StreamOptions != nil && !p.Stream:
		return invalid("stream_options", "stream_options: are for streams; set stream, too")
	case p.FrequencyPenalty != 0:
		return unsupported("frequency_penalty", "frequency_penalty: can only be 0; repetition_penalty is there")
	case p.PresencePenalty != 0:
		return unsupported("presence_penalty", "presence_penalty: can only be 0; repetition_penalty is there")
	case holds(p.LogitBias):
		return unsupported("logit_bias", "logit_bias: is not supported")
	case p.ResponseFormat != nil && p.ResponseFormat.Type != "text" && p.ResponseFormat.Type != "":
		return unsupported("response_format", "response_format: can only be text; ask for JSON in the messages")
	}
	for _, stop := range p.Stop {
		if stop == "" || len(stop) > mostStopBytes {
			return invalid("stop", "stop: a text has 1 to %d bytes", mostStopBytes)
		}
	}
	return nil
}

// holds tells whether a value is there that says something.
func holds(raw json.RawMessage) bool {
	switch string(bytes.Join(bytes.Fields(raw), nil)) {
	case "", "null", "{}", "[]", `""`, "false":
		return false
	}
	return true
}

func (p *parameters) answers() int {
	if p.N == nil {
		return 1
	}
	return *p.N
}

// usage tells whether a stream ends with the count of tokens.
func (p *parameters) usage() bool { return p.StreamOptions != nil && p.StreamOptions.IncludeUsage }

// sampling is how the next tokens are chosen: as the request says, or else as the server's options.
func (p *parameters) sampling(s model.Sampling) (model.Sampling, error) {
	set(&s.MaxTokens, p.MaxTokens)
	set(&s.Temperature, p.Temperature)
	set(&s.TopK, p.TopK)
	set(&s.TopP, p.TopP)
	set(&s.MinP, p.MinP)
	set(&s.RepetitionPenalty, p.RepeatPenalty)
	set(&s.RepetitionPenalty, p.RepetitionPenalty)
	s.TopK = max(s.TopK, 0) // for all, others have -1
	if s.TopP == 0 {        // as OpenAI's API takes it: the most likely token alone
		s.TopP = math.SmallestNonzeroFloat64
	}
	s.Seed = rand.Uint64()
	if p.Seed != nil && *p.Seed != -1 { // llama.cpp's for any
		s.Seed = uint64(*p.Seed)
	}
	limits := s
	limits.MaxTokens = max(s.MaxTokens, 1)
	if err := limits.Validate(); err != nil {
		return s, invalid("", "%v", err)
	}
	return s, nil
}

// set takes a value over where it is given.
func set[T any](to *T, given *T) {
	if given != nil {
		*to = *given
	}
}
