package serve

import (
	"github.com/veratune/veratune/generate"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// engine makes answers with any of the adapters that are placed; *model.Server is one.
type engine interface {
	generate.Server
	Place(a *vera.Adapter) (*model.Placed, error)
	Remove(p *model.Placed)
	Close()
}
