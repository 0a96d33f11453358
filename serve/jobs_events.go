package serve

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/veratune/veratune/train"
)

// Levels of what is said of a job.
const (
	levelInfo  = "info"
	levelWarn  = "warn"
	levelError = "error"
)

// saying is something that was said of a job.
type saying struct {
	At      int64  `json:"at"` // in seconds since 1970
	Level   string `json:"level"`
	Message string `json:"message"`
	From    *int   `json:"from,omitempty"` // of a process that begins: the step that it goes on after
}

// tell says something of the job.
func (t *job) tell(level, message string) {
	t.Said = append(t.Said, saying{At: time.Now().Unix(), Level: level, Message: message})
}

// begin says that a process begins to train.
func (t *job) begin() {
	step := 0
	message := "Fine-tuning job started"
	if list, err := train.Checkpoints(t.path(runFolder)); err == nil && len(list) > 0 {
		step = list[0].Step
		message = fmt.Sprintf("The job goes on after step %d", step)
	}
	t.tell(levelInfo, message)
	t.Said[len(t.Said)-1].From = &step
}

// jobEvent is what clients are told of a job.
type jobEvent struct {
	Object    string         `json:"object"`
	ID        string         `json:"id"`
	CreatedAt int64          `json:"created_at"`
	Level     string         `json:"level"`
	Message   string         `json:"message"`
	Type      string         `json:"type"` // message or metrics
	Data      map[string]any `json:"data"`
}

// events are all that was said of a job, and the metrics of its steps, newest first.
func (t *job) events() (list []jobEvent) {
	records := t.records()
	id := strings.TrimPrefix(t.ID, jobPrefix)
	add := func(at int64, level, message, number, kind string, data map[string]any) {
		list = append(list, jobEvent{"fine_tuning.job.event", "ftevent-" + id + "-" + number, at, level, message, kind,
			data})
	}
	next := 0
	for i, s := range t.Said {
		add(s.At, s.Level, s.Message, fmt.Sprint("s", i), "message", map[string]any{})
		if s.From == nil {
			continue
		}
		until := lastStep(t.Said[i+1:])
		seconds := float64(s.At)
		for ; next < len(records) && (until < 0 || records[next].Step <= until); next++ {
			r := records[next]
			seconds += r.Seconds
			switch {
			case r.Loss != nil:
				add(int64(seconds), levelInfo, fmt.Sprintf("Step %d: training loss=%.4f", r.Step, *r.Loss),
					fmt.Sprint("m", next), "metrics", map[string]any{"step": r.Step, "train_loss": *r.Loss,
						"learning_rate": r.LR})
			case r.EvalLoss != nil:
				add(int64(seconds), levelInfo, fmt.Sprintf("Step %d: validation loss=%.4f", r.Step, *r.EvalLoss),
					fmt.Sprint("m", next), "metrics", map[string]any{"step": r.Step, "full_valid_loss": *r.EvalLoss})
			}
		}
	}
	slices.Reverse(list)
	return list
}

// lastStep is the last step of a process, which the next one has gone on after; -1 where there is none.
func lastStep(later []saying) int {
	for _, s := range later {
		if s.From != nil {
			return *s.From
		}
	}
	return -1
}

// jobCheckpoint is a checkpoint as clients see it.
type jobCheckpoint struct {
	Object    string         `json:"object"`
	ID        string         `json:"id"`
	CreatedAt int64          `json:"created_at"`
	Model     string         `json:"fine_tuned_model_checkpoint"`
	Job       string         `json:"fine_tuning_job_id"`
	Step      int            `json:"step_number"`
	Metrics   map[string]any `json:"metrics"`
}

// checkpoints are those that the run has, newest first.
func (t *job) checkpoints() ([]jobCheckpoint, error) {
	found, err := train.Checkpoints(t.path(runFolder))
	if err != nil {
		return nil, err
	}
	measured := map[int]stepMetrics{}
	for _, m := range byStep(t.records()) {
		measured[m.Step] = m
	}
	var list []jobCheckpoint
	for _, c := range found {
		metrics := map[string]any{"step": c.Step}
		if m := measured[c.Step]; m.Loss != nil {
			metrics["train_loss"] = *m.Loss
		}
		if m := measured[c.Step]; m.EvalLoss != nil {
			metrics["full_valid_loss"] = *m.EvalLoss
		}
		list = append(list, jobCheckpoint{"fine_tuning.job.checkpoint",
			fmt.Sprintf("ftckpt-%s-%d", strings.TrimPrefix(t.ID, jobPrefix), c.Step), c.Made.Unix(),
			t.checkpointName(c.Step), t.ID, c.Step, metrics})
	}
	return list, nil
}

// finishes estimates when a running job will be done, from its newest steps.
func (t *job) finishes() *int64 {
	var seconds float64
	var steps []train.Record
	for _, r := range t.newest() {
		if r.Loss != nil {
			steps = append(steps, r)
		}
		if len(steps) > 1 { // the first one's time is that of the epochs before it
			seconds += r.Seconds
		}
	}
	if len(steps) < 2 {
		return nil
	}
	first, last := steps[0], steps[len(steps)-1]
	if last.Epoch <= first.Epoch {
		return nil
	}
	left := seconds * max(0, float64(t.Hyperparameters.Epochs)-last.Epoch) / (last.Epoch - first.Epoch)
	at := time.Now().Add(time.Duration(left * float64(time.Second))).Unix()
	return &at
}
