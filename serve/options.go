package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/veratune/veratune/alpaca"
	"github.com/veratune/veratune/model"
)

// Options say what is served, to whom, and how much of it.
type Options struct {
	Name     string            // of the model without an adapter, as requests call it
	Folder   string            // of adapters, "" for none
	Adapters map[string]string // files of more adapters by their names

	Form     alpaca.Form    // of prompts; auto is that of each adapter's training
	Sampling model.Sampling // what a request takes that does not say; 0 for MaxTokens is as far as the room goes

	Key     string   // that requests must show, "" for none
	Origins []string // of pages in browsers that may ask, such as https://example.com; "*" is all

	Texts         int           // answers that are made at a time
	Room          int           // of a prompt with its answer, in tokens
	Queue         int           // answers that may wait for a place
	MaxBody       int64         // of a request, in bytes
	MaxPrompt     int           // in tokens; 0 is as far as the room goes
	Timeout       time.Duration // of a request
	AdapterMemory int64         // of adapters, in bytes

	Jobs *Jobs // that adapters are trained with for clients, nil for none; whoever opened it closes it

	Log *slog.Logger // of requests, without what is in them
}

// Default is a server of 16 answers at a time.
func Default() Options {
	o := Options{Form: alpaca.Form{Template: alpaca.Auto}, Sampling: model.DefaultSampling(), Texts: 16, Room: 4096,
		Queue: 256, MaxBody: 4 << 20, Timeout: 10 * time.Minute, AdapterMemory: 1 << 30}
	o.Sampling.MaxTokens, o.Sampling.Temperature = 0, 1 // as OpenAI has it
	return o
}

// Validate says what is allowed for the first option that is wrong.
func (o Options) Validate() error {
	sampling := o.Sampling
	sampling.MaxTokens = max(sampling.MaxTokens, 1)
	switch {
	case o.Name == "":
		return errors.New("name: the model needs one")
	case o.Texts < 1:
		return fmt.Errorf("parallel %d: at least 1", o.Texts)
	case o.Room < 2:
		return fmt.Errorf("context %d: at least 2 tokens", o.Room)
	case o.Queue < 0:
		return fmt.Errorf("queue %d: 0 or more", o.Queue)
	case o.MaxBody < 1:
		return fmt.Errorf("max-body %d: at least 1 byte", o.MaxBody)
	case o.MaxPrompt < 0:
		return fmt.Errorf("max-prompt %d: 0 or more", o.MaxPrompt)
	case o.Timeout <= 0:
		return fmt.Errorf("timeout %v: more than 0", o.Timeout)
	case o.AdapterMemory < 1:
		return fmt.Errorf("adapter-memory %d: at least 1 byte", o.AdapterMemory)
	}
	for _, origin := range o.Origins {
		if origin != "*" && http.NewCrossOriginProtection().AddTrustedOrigin(origin) != nil {
			return fmt.Errorf("origin %q: want a scheme and a host, such as https://example.com, or *", origin)
		}
	}
	for name, file := range o.Adapters {
		switch {
		case name == o.Name:
			return fmt.Errorf("adapter %s=%s: that is the model's own name", name, file)
		case checkName(name) != nil:
			return fmt.Errorf("adapter %s=%s: %w", name, file, checkName(name))
		}
	}
	return errors.Join(sampling.Validate(), o.Form.Validate())
}
