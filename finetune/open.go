package finetune

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// Prepared is all that a training needs: an open model with an adapter, and rows.
type Prepared struct {
	*session.Session
	Training, HeldOut *alpaca.Dataset // HeldOut is nil where no rows are kept back

	options *Options
	engine  train.Engine
	prompts *prompts // of the sample answers; nil for none
}

// Open gets everything ready that Run trains with, to look at it. The result must be closed.
func Open(ctx context.Context, o *Options) (*Prepared, error) {
	o.Rows.Context = ctx
	s, err := session.Open(session.Options{Model: o.Model, PreTokenizer: o.PreTokenizer, Engine: o.Engine})
	if err != nil {
		return nil, err
	}
	p := &Prepared{Session: s, options: o}
	if err := p.fill(); err != nil {
		s.Close()
		return nil, err
	}
	return p, nil
}

func (p *Prepared) fill() (err error) {
	o := p.options
	if p.Adapter, err = o.newAdapter(p.Base()); err != nil {
		return err
	}
	if err = p.loadRows(); err != nil {
		return err
	}
	if o.Fraction != 1 {
		if _, p.Training, err = p.Training.Split(o.Fraction, o.Rows.Seed); err != nil {
			return err
		}
	}
	if err := p.Attach(p.Adapter); err != nil {
		return err
	}
	where := "the whole step is computed there"
	if o.Group != nil {
		p.engine, where = p.Model, "losses and gradients are computed there, the update on the CPU"
	} else if p.engine, err = Engine(p.Model, o.Train); err != nil {
		return err
	}
	if len(o.Samples) > 0 {
		if p.prompts, err = p.encodeSamples(); err != nil {
			return err
		}
	}
	if device := p.Device(); !device.Host {
		o.Report.Notef("device %s: %s, in %s", device.Name, where, p.Compute())
	} else {
		o.Report.Notef("compute %s: %s", p.Compute(), p.Compute().Products())
	}
	o.Report.Notef("%s: %s, %d blocks, width %d; %s rank %d on %d layers (%s), %d trained numbers",
		cmp.Or(p.Name, o.Model), p.Architecture, p.Blocks, p.Width, p.Adapter.Method, p.Adapter.Rank,
		len(p.Adapter.Layers), strings.Join(p.Targets(), ", "), len(p.Adapter.Params))
	return nil
}

// Engine is what trains the adapter that is attached to a model. A device other than the CPU also makes the updates.
func Engine(m *model.Model, c train.Config) (train.Engine, error) {
	if m.Device().Host {
		return m, nil
	}
	return m.MakeDeviceAdamW(c.Beta1, c.Beta2, c.Eps, c.WeightDecay)
}

// newAdapter gives the adapter before training.
func (o *Options) newAdapter(base vera.Base) (*vera.Adapter, error) {
	if o.From == "" {
		a, err := vera.New(o.Adapter, base)
		if err != nil {
			return nil, OptionError{err}
		}
		if len(o.Adapter.Targets) == 0 {
			o.Adapter.Targets = a.Targets // a run's record names them
		}
		return a, nil
	}
	a, err := vera.Load(o.From, base)
	if err != nil {
		return nil, err
	}
	if a.Method != o.Adapter.Method {
		return nil, OptionError{fmt.Errorf("from %s: its method is %s; give --method %[2]s", o.From, a.Method)}
	}
	a.Dropout = o.Adapter.Dropout
	o.Adapter = a.Config
	return a, nil
}

// loadRows gives the rows to train on and those to measure.
func (p *Prepared) loadRows() (err error) {
	o := p.options
	if p.Training, err = p.Rows(o.Data, o.Rows, o.Report); err != nil {
		return err
	}
	if len(o.EvalData) > 0 {
		if p.HeldOut, err = p.Rows(o.EvalData, o.Rows, o.Report); err != nil {
			return err
		}
		if shared, all := p.HeldOut.In(p.Training); shared > 0 {
			o.Report.Notef("warning: %d of the %d held-out rows are in the training data, too, so that their loss "+
				"says little about new rows; take them out of --data or --eval-data", shared, all)
		}
		return nil
	}
	if o.HeldOut == 0 {
		return nil
	}
	p.Training, p.HeldOut, err = p.Training.Split(o.HeldOut, o.Rows.Seed)
	if err == nil && p.Training.LeftOut > 0 {
		o.Report.Notef("%d rows that repeat held-out ones are left out of training", p.Training.LeftOut)
	}
	return err
}

// Targets are the kinds of layers that the adapter adapts.
func (p *Prepared) Targets() (list []string) {
	for _, l := range p.Adapter.Layers {
		if !slices.Contains(list, l.Target) {
			list = append(list, l.Target)
		}
	}
	return list
}

// Memory plans the memory of the step with the most tokens.
func (p *Prepared) Memory() (model.Memory, error) {
	tokens, targets, lengths, err := p.options.Train.LargestStep(p.Training.Source(p.options.Rows))
	if err != nil {
		return model.Memory{}, err
	}
	return p.EstimateMemory(tokens, targets, lengths)
}
