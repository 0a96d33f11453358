package finetune

import (
	"encoding/json"
	"path/filepath"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/internal/durable"
	"github.com/veratune/veratune/model"
	"github.com/veratune/veratune/session"
	"github.com/veratune/veratune/train"
	"github.com/veratune/veratune/vera"
)

// run is what package train is asked for.
func (p *Prepared) run() (run *train.Run, err error) {
	o, adapter := p.options, p.Adapter
	run = &train.Run{
		Config: o.Train, Engine: p.engine, Params: adapter.Params, Training: p.Training.Source(o.Rows),
		SaveAdapter: func(path string, facts map[string]string) error {
			adapter.Facts = facts
			return adapter.Save(path)
		},
		Facts: o.facts(p.Training),
		Setup: p.setup(),
		About: about{Version: o.Version, Model: o.Model, Data: p.Training.Name, Threads: o.Engine.Threads,
			Device: o.Engine.Device, Ranks: o.ranks()},
		MaxSteps: o.MaxSteps, MaxTime: o.MaxTime, NoHalt: o.NoHalt,
		Folder: o.Folder, Resume: o.Resume, Force: o.Force, Inputs: o.Inputs(), Group: o.Group, Progress: o.Progress,
	}
	if o.Config != nil {
		if run.Options, err = o.Config(); err != nil {
			return nil, err
		}
	}
	for part := range adapter.Trained {
		run.Parts = append(run.Parts, train.Part{Layer: part.Name(), Name: part.Part, Size: len(part.Values)})
	}
	if p.prompts != nil {
		run.Samples = p.samples
	}
	if p.HeldOut != nil {
		run.HeldOut = p.HeldOut.InOrder(o.Rows.Batch)
	}
	if o.Halt != nil {
		most := run.Steps()
		if o.MaxSteps > 0 {
			most = min(most, o.MaxSteps)
		}
		if step := o.Halt(most); step > 0 {
			run.MaxSteps = step
		}
	}
	return run, nil
}

// ranks is the number of processes that train.
func (o *Options) ranks() int {
	if o.Group == nil {
		return 1
	}
	return o.Group.Size()
}

// setup is what decides the result beside the recipe and the data: a run is resumed only where it is equal.
type setup struct {
	Vera    vera.Config    `json:"vera"`
	From    string         `json:"from,omitempty"` // digest of the trained numbers that it began with
	Data    alpaca.Options `json:"data"`
	Base    string         `json:"base"` // fingerprint of the model
	Compute model.Compute  `json:"compute"`
	Plan    model.Plan     `json:"plan"`

	PreTokenizer string `json:"pre_tokenizer,omitempty"`
}

func (p *Prepared) setup() setup {
	o := p.options
	data := o.Rows
	data.Form = p.Training.Form
	s := setup{Vera: o.Adapter, Data: data, Base: p.Base().Fingerprint, Compute: p.Compute(), Plan: o.Engine.Plan,
		PreTokenizer: o.PreTokenizer}
	if o.From != "" {
		s.From = p.Adapter.Digest()
	}
	return s
}

// about is kept with a run for people.
type about struct {
	Version string `json:"version"`
	Model   string `json:"model"`
	Data    string `json:"data"`
	Threads int    `json:"threads"`
	Device  string `json:"device"`
	Ranks   int    `json:"ranks"`
}

// facts are what an adapter says of its training data.
func (o *Options) facts(d *alpaca.Dataset) map[string]string {
	facts := map[string]string{session.FactTemplate: d.Form.Template, session.FactTrainingData: d.Titles()}
	if d.Form.Source != "" {
		facts[session.FactSource] = d.Form.Source
	}
	if o.PreTokenizer != "" {
		facts[session.FactPreTokenizer] = o.PreTokenizer
	}
	if len(d.Form.Variables) > 0 {
		if text, err := json.Marshal(d.Form.Variables); err == nil {
			facts[session.FactVariables] = string(text)
		}
	}
	return facts
}

// settle has a run that is resumed write the day that it has written before, and compute as before, where that is not
// given.
func (o *Options) settle() {
	if !o.Resume {
		return
	}
	var config struct {
		Setup struct {
			Data struct {
				Date string `json:"date"`
			} `json:"data"`
			Compute model.Compute `json:"compute"`
		} `json:"setup"`
	}
	text, err := durable.ReadFile(filepath.Join(o.Folder, train.ConfigFile), train.MaxConfig)
	if err != nil || json.Unmarshal(text, &config) != nil {
		return // train.Run tells what is wrong
	}
	if o.Rows.Date == "" {
		o.Rows.Date = config.Setup.Data.Date
	}
	if o.Engine.Compute == model.ComputeAuto && config.Setup.Compute != "" {
		o.Engine.Compute = config.Setup.Compute
	}
}
