package serve

import (
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"sync"

	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/vera"
)

// modelObject is a model as OpenAI's API lists it, with what is known of an adapter.
type modelObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Parent  string `json:"parent,omitempty"` // the model that an adapter is of
	About   any    `json:"veratune"`
}

// aboutBase says what the model without an adapter is.
type aboutBase struct {
	Name         string `json:"name"`
	Architecture string `json:"architecture"`
	Context      int    `json:"context"` // tokens of a prompt with its answer
	Template     string `json:"template"`
}

// aboutAdapter says what an adapter is.
type aboutAdapter struct {
	Method  string            `json:"method"`
	Rank    int               `json:"rank"`
	Targets []string          `json:"targets"`
	Base    string            `json:"base"` // what it was trained on
	Bytes   int64             `json:"bytes"`
	Facts   map[string]string `json:"facts"` // of its training
}

// catalogue keeps what files of adapters say of themselves, as long as they stay as they are.
type catalogue struct {
	mu    sync.Mutex
	known map[string]described
}

type described struct {
	source source
	object modelObject
	err    error
}

// describe reads what an adapter says of itself, where it is not known.
func (s *Server) describe(name string, src source) described {
	c, l := &s.catalogue, s.adapters.library
	c.mu.Lock()
	d, known := c.known[name]
	c.mu.Unlock()
	if known && d.source.same(src) {
		return d
	}
	d = described{source: src}
	path, err := l.adapter(src)
	var a vera.Summary
	if err == nil {
		a, err = vera.Describe(path)
	}
	if d.err = err; err != nil {
		s.log.Warn("an adapter can't be read", "model", name, "error", err)
	}
	facts := maps.Clone(a.Facts)
	delete(facts, session.FactSource) // which is long
	d.object = modelObject{ID: name, Object: "model", Created: src.changed().Unix(), OwnedBy: owner,
		Parent: s.options.Name, About: aboutAdapter{Method: a.Method, Rank: a.Rank, Targets: a.Targets, Base: a.Base,
			Bytes: a.Bytes, Facts: facts}}
	c.mu.Lock()
	c.known[name] = d
	c.mu.Unlock()
	return d
}

// keep forgets all others than these.
func (c *catalogue) keep(names map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.known, func(name string, _ described) bool { return !names[name] })
}

// owner is who all models belong to.
const owner = "veratune"

// listModels lists the model and all adapters whose files can be read.
func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) error {
	names, err := s.adapters.library.names()
	if err != nil {
		return errors.New("the folder of adapters can't be read")
	}
	list, there := []modelObject{s.baseObject()}, map[string]bool{}
	for _, name := range names {
		src, err := s.adapters.library.find(name)
		if err != nil || name == s.options.Name {
			continue
		}
		there[name] = true
		if d := s.describe(name, src); d.err == nil {
			list = append(list, d.object)
		}
	}
	s.catalogue.keep(there)
	s.adapters.keep(there)
	return writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

// showModel describes one.
func (s *Server) showModel(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("id")
	if name == s.options.Name {
		return writeJSON(w, http.StatusOK, s.baseObject())
	}
	src, err := s.adapters.library.find(name)
	if err != nil {
		return lost(name, err)
	}
	d := s.describe(name, src)
	switch {
	case errors.Is(d.err, fs.ErrNotExist):
		return lost(name, d.err)
	case d.err != nil:
		return unusable(name, errors.New("its file is broken, or is no adapter"))
	}
	return writeJSON(w, http.StatusOK, d.object)
}

// baseObject is the model without an adapter.
func (s *Server) baseObject() modelObject {
	about := aboutBase{Name: s.base.Name, Architecture: s.base.Architecture, Context: s.options.Room}
	if f, err := s.forms.of(nil, nil); err == nil {
		about.Template = f.Form().Template
	}
	return modelObject{ID: s.options.Name, Object: "model", Created: s.started.Unix(), OwnedBy: owner, About: about}
}
