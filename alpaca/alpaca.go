// Package alpaca turns instruction data into batches of tokens to train on: it reads rows from JSON and JSONL
// files, renders them in a prompt template, masks the loss to the responses, and packs shuffled samples without
// padding. Multiple-choice questions become a sample for each choice, to be measured, not trained on. The package knows
// nothing of models or training, and reaches a tokenizer only through its own interface.
package alpaca

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// What the loss is taken on.
const (
	TrainAssistant = "assistant" // all that the assistant says
	TrainLast      = "last"      // what it says last in a row
	TrainAll       = "all"       // every token of a row
)

// TrainOns lists the values that Options.TrainOn may have.
var TrainOns = []string{TrainAssistant, TrainLast, TrainAll}

// Options says how rows become samples and samples become batches.
type Options struct {
	Form
	TrainOn   string `json:"train_on"`   // one of TrainOns; rows of text are learnt whole
	MaxLength int    `json:"max_length"` // most tokens of a sample: prompt, response and end token together
	Strict    bool   `json:"strict"`     // fail on the first bad row instead of skipping it
	Batch     int    `json:"batch"`      // samples in a batch
	Seed      uint64 `json:"seed"`       // decides the order of every epoch
	Shuffle   bool   `json:"shuffle"`    // a new order every epoch, or the order of the file

	// the file's names of a row's fields, by the names that this package knows them under
	Columns map[string]string `json:"columns,omitempty"`
	// take the preferred answer of preference pairs, which are refused otherwise
	Chosen bool `json:"chosen,omitempty"`

	// Context, where it isn't nil, ends the reading of files.
	Context context.Context `json:"-"`

	// Progress, where it isn't nil, is told now and then which part of a file has been read.
	Progress func(file string, part float64) `json:"-"`
}

// Default returns the options of every command that reads data; the batch size is that of the VeRA paper's Table 9.
func Default() Options {
	return Options{Form: Form{Template: Auto}, TrainOn: TrainAssistant, MaxLength: 512, Batch: 4, Shuffle: true}
}

// Validate returns an error that names the first option out of its range and what is allowed.
func (o Options) Validate() error {
	if err := o.Form.Validate(); err != nil {
		return err
	}
	switch {
	case !slices.Contains(TrainOns, o.TrainOn):
		return fmt.Errorf("train-on %q: want one of %s", o.TrainOn, strings.Join(TrainOns, ", "))
	case o.MaxLength < 2:
		return fmt.Errorf("max-length %d: want at least 2 tokens, one of prompt and one of response", o.MaxLength)
	case o.Batch < 1:
		return fmt.Errorf("batch %d: want at least 1 sample", o.Batch)
	}
	return validateColumns(o.Columns)
}

func (o Options) context() context.Context {
	if o.Context == nil {
		return context.Background()
	}
	return o.Context
}

// Tokenizer is what alpaca needs of a model's vocabulary. Its methods are called from several goroutines.
type Tokenizer interface {
	// Tokenize returns the tokens of text. alpaca never asks for addSpecial: it places BOS and the end tokens itself.
	// With parseSpecial, the text of a control token becomes that token.
	Tokenize(ctx context.Context, text string, addSpecial, parseSpecial bool) ([]int32, error)
	BOS() int32             // -1 where there is none
	EOS() int32             // -1 where there is none
	AddBOS() bool           // whether the vocabulary wants BOS before every text
	IsEOG(token int32) bool // whether generation ends at the token
	// a chat template of the model, "" where it has none of that name; the name of the first is ""
	ChatTemplate(name string) string
	ChatTemplates() []string // their names
	// Controls yields the tokens that stand for no text: Tokenize finds theirs only with parseSpecial.
	Controls(yield func(token int32, text string, stripBefore, stripAfter bool))
	Piece(token int32) (string, error) // what a token adds to a text, in bytes
}
