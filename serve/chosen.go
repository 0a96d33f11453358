package serve

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/veratune/veratune/model"
)

// chosen is what the model of a request's name is: an adapter, or the model alone, and how it is asked.
type chosen struct {
	*form
	name    string
	adapter *adapter // nil for the model alone
	release func()   // after the last answer
}

// placed is the adapter as the engine has it.
func (m *chosen) placed() *model.Placed {
	if m.adapter == nil {
		return nil
	}
	return m.adapter.placed
}

// adapter gives what a request's model is, to be asked with its own options of the chat template.
func (s *Server) adapter(ctx context.Context, name string, variables map[string]json.RawMessage) (*chosen, error) {
	m := &chosen{name: name, release: func() {}}
	var facts map[string]string
	if name != s.options.Name {
		x, err := s.adapters.use(ctx, name)
		if err != nil {
			return nil, err
		}
		m.adapter, m.release, facts = x, func() { s.adapters.release(x) }, x.facts
	}
	var err error
	if m.form, err = s.forms.of(facts, variables); err != nil {
		m.release()
		if len(variables) > 0 {
			return nil, invalid("chat_template_kwargs", "chat_template_kwargs: %v", err)
		}
		return nil, unusable(name, err)
	}
	return m, nil
}

// asks are the answers to a prompt. The parameter that it came from is named where it is too long.
func (s *Server) asks(m *chosen, p *parameters, prompt []int32, param string, logProbs int) ([]ask, error) {
	most := s.options.Room - 1
	if s.options.MaxPrompt > 0 {
		most = min(most, s.options.MaxPrompt)
	}
	if len(prompt) > most {
		return nil, newFailure(http.StatusBadRequest, typeInvalid, param, codeContext,
			"%s: a prompt may have %d tokens "+
				"here, and this one has %d; shorten it", param, most, len(prompt))
	}
	if len(prompt) == 0 {
		return nil, asFailure(errors.New("the template writes nothing"))
	}
	sampling, err := p.sampling(s.options.Sampling)
	if err != nil {
		return nil, err
	}
	room := s.options.Room - len(prompt)
	if sampling.MaxTokens == 0 {
		sampling.MaxTokens = room
	}
	sampling.MaxTokens = min(sampling.MaxTokens, room)
	a := ask{model.Request{Prompt: prompt, Sampling: sampling, Adapter: m.placed(), LogProbs: logProbs >= 0,
		Top: max(logProbs, 0)}, m.form,
		append(m.Stops(), p.Stop...)}
	if param == "prompt" { // which has no template, whose end could be missed
		a.stops = p.Stop
	}
	var list []ask
	for range p.answers() {
		list = append(list, a)
		a.Seed++ // so that the answers differ
	}
	return list, nil
}
