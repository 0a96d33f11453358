package alpaca

import _ "embed"

// StarterName is the Name of the starter set.
const StarterName = "starter set"

//go:embed starter.json
var starter []byte

// Starter encodes the instruction rows that the program carries: small, varied and correct, enough to see a model
// learn.
func Starter(tok Tokenizer, o Options) (*Dataset, error) {
	o.Columns = nil
	rows, err := inMemory(StarterName, starter, o)
	if err != nil {
		return nil, err
	}
	return newDataset(StarterName, []part{{Part: Part{StarterName, 1}, rowFile: rows}}, tok, o)
}
