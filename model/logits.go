package model

import (
	"fmt"
)

// Logits computes the logits of a text's last rows positions, row after row of Vocab numbers.
func (m *Model) Logits(tokens []int32, rows int) ([]float32, error) {
	if rows < 1 || rows > len(tokens) {
		return nil, fmt.Errorf("logits of %d positions of %d tokens", rows, len(tokens))
	}
	s, err := m.NewSequence(len(tokens))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Append(tokens, rows)
}
