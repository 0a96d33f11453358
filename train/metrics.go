package train

import (
	"bytes"
	"encoding/json"
	"fmt"
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
	Step     int      `json:"step"` // updates made before it
	EvalLoss float64  `json:"eval_loss"`
	Labelled int      `json:"labelled"`
	Seconds  float64  `json:"seconds"`
	Samples  []Sample `json:"samples,omitempty"`
}

// Sample is how the model answered a prompt at an evaluation.
type Sample struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
}

// normsLine is the line for the norms after some of the steps.
type normsLine struct {
	Step  int    `json:"step"`
	Norms *Norms `json:"norms"`
}

// Record is what is read back of a line of metrics.jsonl: of a training step, where Loss is not nil; of an evaluation,
// where EvalLoss is not nil; else of norms.
type Record struct {
	Step     int      `json:"step"` // updates made
	Epoch    float64  `json:"epoch,omitempty"`
	Loss     *float64 `json:"loss,omitempty"` // mean over the labelled tokens, before the update
	LR       float64  `json:"lr,omitempty"`
	GradNorm float64  `json:"grad_norm,omitempty"` // before clipping
	Tokens   int      `json:"tokens,omitempty"`
	Seconds  float64  `json:"seconds,omitempty"`
	Memory   int64    `json:"memory,omitempty"` // most bytes of memory that the process had held so far
	EvalLoss *float64 `json:"eval_loss,omitempty"`
	Samples  []Sample `json:"samples,omitempty"` // of an evaluation
	Norms    *Norms   `json:"norms,omitempty"`
}

// metrics appends to a file of one JSON object a line. Each checkpoint has a copy of what the file holds by then.
type metrics struct {
	file  *os.File
	kept  string // the copy in the newest checkpoint; "" where there is none
	fresh []byte // lines that are not in it
}

// openMetrics makes a file of these lines to append to.
func openMetrics(path string, lines []byte) (*metrics, error) {
	err := durable.WriteFile(path, lines, 0o666)
	var file *os.File
	if err == nil {
		file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o666)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return &metrics{file: file, fresh: lines}, nil
}

// lines are all that the file should hold.
func (m *metrics) lines() ([]byte, error) {
	kept, err := readIfThere(m.kept)
	return append(kept, m.fresh...), err
}

func (m *metrics) write(line any) error {
	if m == nil { // another process of the group writes them
		return nil
	}
	data, err := json.Marshal(line)
	if err == nil {
		data = append(data, '\n')
		_, err = m.file.Write(data)
	}
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	m.fresh = append(m.fresh, data...)
	return nil
}

// Sizes beyond which files of a run are not read.
const (
	MaxConfig  = 16 << 20
	MaxMetrics = 1 << 30
)

// ReadRecords gives the records of a metrics file, or of a part of one, with their lines. Other lines are left out.
func ReadRecords(data []byte) (records []Record, lines [][]byte) {
	for line := range bytes.Lines(data) {
		if r, ok := parseRecord(line); ok {
			records, lines = append(records, r), append(lines, line)
		}
	}
	return records, lines
}

// parseRecord gives the record of a line; false if it is none, such as a last line cut off when the process was killed.
func parseRecord(line []byte) (r Record, ok bool) {
	if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &r) != nil ||
		r.Norms != nil && !r.Norms.complete() {
		return Record{}, false
	}
	return r, r.Loss != nil || r.EvalLoss != nil || r.Norms != nil
}
