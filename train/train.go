// Package train runs a finetuning from its first step to the saved adapter: learning-rate schedule, AdamW,
// accumulation, evaluation, checkpoints and logs. A run that was interrupted and resumed gives the same bits as one
// that was not.
//
// It sees the network only through an Engine and the data only through a Source, and must not know how either is made.
// Nothing in an adapter or a checkpoint depends on the time, on the order of a map, or on a generator without a seed.
// The clock is read for metrics.jsonl and the terminal, and to halt a run after a limit of time.
package train

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"
)

// Engine computes losses and gradients of the parameters being trained. A batch is its samples' tokens end to end, the
// label of each position (the token to be predicted after it, or -1 for none) and the length of each sample. The engine
// decides how many samples it computes at once. One that is a Resident also makes the updates.
type Engine interface {
	// Loss returns the sum of -log p (natural logarithm) over the labelled positions, and their number.
	Loss(tokens, targets []int32, lengths []int) (sum float64, n int, err error)
	// AddGradient adds the derivatives of that sum by the parameters to grad; seed decides what dropout leaves out.
	AddGradient(tokens, targets []int32, lengths []int, seed uint64, grad []float32) (sum float64, n int, err error)
	// Update makes the engine use the parameters' new values.
	Update() error
}

// Source is a fixed stream of micro-batches.
type Source interface {
	Batches() int // micro-batches in an epoch
	// Batch returns micro-batch i, from 0, of an epoch, from 0, in the form that Engine takes.
	Batch(epoch, i int) (tokens, targets []int32, lengths []int, err error)
	Tokens(epoch, i int) int // tokens of that micro-batch, which needs no reading
	Fingerprint() string     // the same for the same stream only
}

// Run is the request for a training. Params are trained in place.
type Run struct {
	Config Config
	Engine Engine
	Params []float32 // trained values; their content before is the start
	// Whose norms are recorded with the first step, the last, and each that an evaluation follows; nil records none.
	Parts    []Part
	Training Source
	HeldOut  Source // nil trains without evaluation and keeps no best adapter

	// Samples answers a few prompts with the parameters as they are, for the record of each evaluation. The same
	// parameters must give the same answers. Where ctx is cancelled, it may return early with any error. nil records
	// none.
	Samples func(ctx context.Context) ([]Sample, error)

	// SaveAdapter writes Params as an adapter, replacing the file at path as a whole, with facts of the training.
	SaveAdapter func(path string, facts map[string]string) error
	Facts       map[string]string // added to the facts in every adapter of the run

	// Setup, a value that encoding/json can write, holds what decides the result besides Config and data: a run is
	// resumed only where it is equal.
	Setup any
	About any // is kept in config.json beside it and never compared: versions, paths

	Options []byte // kept as config.yaml: what a person starts the like with; nil writes none

	// Limits of this process, which a resumed run may change; 0 is none. The run is halted after MaxSteps of the
	// training's steps, or after the step in which MaxTime is over. It then has an adapter and an evaluation of that
	// step, and when it is resumed, it goes on to the parameters that it would have had without the halt: the learning
	// rate is that of the whole training.
	MaxSteps int
	MaxTime  time.Duration

	NoHalt bool // goes on though the loss stays far above that before training, which else is ErrDiverged

	Folder string   // run directory
	Resume bool     // goes on with the run that the folder holds
	Force  bool     // starts anew where the folder holds a run, which is renamed FOLDER.old-1, or the next free number
	Inputs []string // files that are read; Force never renames a folder that they are in

	Group Group // nil where this process trains alone; else every process of it makes the same Run, but for Progress

	Progress io.Writer // gets a progress line where it is a terminal, else a line now and then; nil is silent
}

// Evaluation is a mean loss over the labelled positions of the held-out data after Step updates.
type Evaluation struct {
	Step int     `json:"step"`
	Loss float64 `json:"loss"`
}

// Result is how a finished training went. The evaluations are nil without held-out data.
type Result struct {
	Steps  int         `json:"steps"`
	First  float64     `json:"first"`  // training loss of the first step
	Loss   float64     `json:"loss"`   // training loss, smoothed as in the progress line
	Before *Evaluation `json:"before"` // of the parameters as they were given
	After  *Evaluation `json:"after"`
	Best   *Evaluation `json:"best"` // the lowest, Before among them
	// The option that ended or halted it before the last step: "patience", "max-steps" or "max-time".
	EndedBy string `json:"ended_by"`
	Adapter string `json:"adapter"` // path of the adapter after these steps
	// Path of the adapter of Best; "" where there is none or it is Before.
	BestAdapter string `json:"best_adapter"`
	OldRun      string `json:"old,omitempty"` // where Force moved the run that was in the folder
}

// ErrInterrupted is in the error of a run whose context was cancelled. Its state is saved, and Resume goes on from
// there.
var ErrInterrupted = errors.New("interrupted")

// ErrDiverged is in the error of a run that stopped because a loss or a gradient was NaN or infinite, or because the
// loss stayed far above that before training.
var ErrDiverged = errors.New("training diverged")

// Steps is the number of steps of the whole training.
func (r *Run) Steps() int { return newBatching(r.Config, r.Training.Batches()).total }

// Train runs the training to its end or a limit, or until ctx is cancelled: then it finishes the step, saves and
// returns ErrInterrupted. It checks the whole request before it writes or moves anything.
func (r *Run) Train(ctx context.Context) (Result, error) {
	l, err := r.open()
	if err != nil {
		return Result{}, err
	}
	defer l.close()
	result, err := l.run(ctx)
	if err != nil { // for which there is no other reason where the folder was taken away
		err = cmp.Or(l.folder.check(), err)
	}
	return result, err
}
