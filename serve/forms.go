package serve

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
)

// form is how an adapter, or the model alone, is asked.
type form struct {
	*alpaca.Encoder
	tokenizer model.Tokenizer
	calls     callForm // how the template has tools called
}

// forms keeps what is costly to make of a form, which many adapters share.
type forms struct {
	base  *session.Session
	asked alpaca.Form

	mu         sync.Mutex
	tokenizers map[string]model.Tokenizer // by pre-tokenizer
	made       map[string]*form
}

// mostForms that are kept: clients may ask for any template options.
const mostForms = 64

// newForms fails where the model alone cannot be asked in the form.
func newForms(base *session.Session, asked alpaca.Form) (*forms, error) {
	f := &forms{base: base, asked: asked, tokenizers: map[string]model.Tokenizer{base.PreTokenizer: base.Tokenizer},
		made: map[string]*form{}}
	_, err := f.of(nil, nil)
	return f, err
}

// of is the form of an adapter with these facts, with a request's own options of the template.
func (f *forms) of(facts map[string]string, variables map[string]json.RawMessage) (*form, error) {
	asked, err := session.FormOf(facts, f.asked)
	if err != nil {
		return nil, err
	}
	if asked.Source == "" && strings.ContainsAny(asked.Template, `./\`) && asked.Template != f.asked.Template {
		return nil, errors.New("the adapter names a file of a chat template, and has no template; it is damaged")
	}
	if len(variables) > 0 {
		asked.Variables = maps.Clone(asked.Variables)
		if asked.Variables == nil {
			asked.Variables = map[string]json.RawMessage{}
		}
		maps.Copy(asked.Variables, variables)
	}
	pre := f.base.Options.PreTokenizer
	if pre == "" {
		pre = facts[session.FactPreTokenizer]
	}
	day := time.Now().Format(time.DateOnly) // which templates may write
	key, err := json.Marshal([]any{asked, pre, day})
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.made[string(key)]; known != nil {
		return known, nil
	}
	made, err := f.make(asked, pre)
	if err != nil {
		return nil, err
	}
	if len(f.made) >= mostForms {
		clear(f.made)
	}
	f.made[string(key)] = made
	return made, nil
}

func (f *forms) make(asked alpaca.Form, pre string) (*form, error) {
	tokenizer, known := f.tokenizers[pre]
	if !known {
		var err error
		if tokenizer, err = f.base.Model.Tokenizer(pre); err != nil {
			return nil, err
		}
		f.tokenizers[pre] = tokenizer
	}
	encoder, err := alpaca.NewEncoder(asked, tokenizer)
	if err != nil {
		return nil, err
	}
	return &form{Encoder: encoder, tokenizer: tokenizer, calls: callFormOf(encoder.ToolSource())}, nil
}
