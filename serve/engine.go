package serve

import (
	"context"

	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/vera"
)

// engine makes answers with any of the adapters that are placed; *model.Server is one.
type engine interface {
	Generate(ctx context.Context, r model.Request, emit func(model.Token) bool) error
	Place(a *vera.Adapter) (*model.Placed, error)
	Remove(p *model.Placed)
	Close()
}
