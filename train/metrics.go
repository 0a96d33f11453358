package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/veratune/veratune/internal/durable"
)

// stepLine is the line of metrics.jsonl for a training step.
type stepLine struct {
	Step     int     `json:"step"`  // updates made, this one included
	Epoch    float64 `json:"epoch"` // how often the data has been seen
	Loss     float64 `json:"loss"`  // mean over the labelled tokens, before the update
	LR       float64 `json:"lr"`
	GradNorm float64 `json:"grad_norm"` // before clipping
	Tokens   int     `json:"tokens"`
	Labelled int     `json:"labelled"`
	Seconds  float64 `json:"seconds"`
	Memory   int64   `json:"memory"` // most bytes of memory that the process has held so far
}

// evalLine is the line for an evaluation.
type evalLine struct {
	Step     int     `json:"step"` // updates made before it
	EvalLoss float64 `json:"eval_loss"`
	Labelled int     `json:"labelled"`
	Seconds  float64 `json:"seconds"`
}

// point is what is read back of either.
type point struct {
	Step     int      `json:"step"`
	Loss     *float64 `json:"loss"`
	EvalLoss *float64 `json:"eval_loss"`
	Tokens   int      `json:"tokens"`
	Seconds  float64  `json:"seconds"`
	Memory   int64    `json:"memory"`
}

// metrics appends to a file of one JSON object a line.
type metrics struct{ file *os.File }

func openMetrics(path string) (*metrics, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &metrics{file}, nil
}

func (m *metrics) write(line any) error {
	data, err := json.Marshal(line)
	if err == nil {
		_, err = m.file.Write(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// readMetrics gives the points of a file with their lines. What is no such line, as the last one may be where the process was killed, is left out.
func readMetrics(data []byte) (points []point, lines [][]byte) {
	for line := range bytes.Lines(data) {
		var p point
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &p) != nil || p.Loss == nil && p.EvalLoss == nil {
			continue
		}
		points, lines = append(points, p), append(lines, line)
	}
	return points, lines
}

// cutMetrics removes what was written after the position, which the run writes again when it goes on from there.
func cutMetrics(path string, at position) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	var kept []byte
	points, lines := readMetrics(data)
	for i, p := range points {
		// A checkpoint can be older than the evaluation at its step, where that was interrupted.
		evaluated := at.Last != nil && p.Step <= at.Last.Step
		if p.EvalLoss == nil && p.Step <= at.Step || p.EvalLoss != nil && evaluated {
			kept = append(kept, lines[i]...)
		}
	}
	if err := durable.WriteFile(path, kept, 0o666); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
